use std::sync::Arc;

use br_cluster::Cluster;
use br_rt::CancellationToken;

use super::{AdvancerConfig, ClusterEnvironment, Coordinator, Election};

/// Coordinates log backup whenever it is elected, until `cancel` is set.
///
/// Nothing ends it but that: PD may be away for as long as it likes. On a clean end the place in
/// the election goes to the next candidate at once.
pub async fn run(cluster: &Cluster, config: AdvancerConfig, cancel: &CancellationToken) {
    let rt = cluster.rt().clone();
    // Calls of the election end with the process, so that the place can still be given away.
    let etcd = cluster
        .with_cancel(&CancellationToken::new())
        .etcd()
        .clone();
    let election = Election::new(etcd, rt.clone(), config.id.clone(), config.lease_ttl);
    while !cancel.is_cancelled() {
        let campaigned = tokio::select! {
            biased;
            campaigned = election.campaign(cancel) => campaigned,
            () = cancelled_and_late(&rt, cancel, &config) => return,
        };
        let leadership = match campaigned {
            Ok(Some(leadership)) => leadership,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "the election of log backup's coordinator failed");
                tokio::select! {
                    biased;
                    () = rt.sleep(config.backoff) => {}
                    () = cancel.cancelled() => {}
                }
                continue;
            }
        };
        tracing::info!(id = config.id, "coordinating log backup");
        let end = cancel.child_token();
        let env = ClusterEnvironment::new(cluster.with_cancel(&end), config.id.clone());
        let mut coordinator = Coordinator::new(Arc::new(env.watching()), config.clone());
        tokio::select! {
            biased;
            () = coordinator.run(&end) => {}
            () = leadership.lost() => {
                tracing::warn!(id = config.id, "somebody else coordinates log backup now");
            }
        }
        end.cancel();
        leadership.resign().await;
    }
}

/// Waits for `cancel` and then for as long as giving a place away may take.
async fn cancelled_and_late(rt: &br_rt::Rt, cancel: &CancellationToken, config: &AdvancerConfig) {
    cancel.cancelled().await;
    rt.sleep(config.backoff).await;
}
