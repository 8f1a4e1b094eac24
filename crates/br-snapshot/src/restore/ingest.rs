use br_cluster::{KvError, RegionFault, RegionRoute, Router};
use br_proto::import_sstpb::{MultiIngestRequest, SstMeta};
use br_types::{Classify, Kind};

use super::error::RestoreError;

/// Moves of a leader that one ingest follows before the files are made anew.
const LEADER_MOVES_MAX: usize = 3;

/// Lets the leader of a region take in files that every peer has, all or none; follows the leader
/// when it moves within the same epoch.
///
/// # Errors
/// [`RestoreError::Ingest`] with what to do about it, or the leader is out of reach. The files may
/// have been taken in nevertheless.
pub async fn ingest(
    router: &Router,
    mut route: RegionRoute,
    ssts: Vec<SstMeta>,
) -> Result<(), RestoreError> {
    for _ in 0..LEADER_MOVES_MAX {
        let store = route.leader_store();
        let request = MultiIngestRequest {
            context: Some(route.context()),
            ssts: ssts.clone(),
        };
        let client = router.stores().client(store).await?;
        let answer = client.multi_ingest(request).await.map_err(KvError::Rpc)?;
        let Some(error) = answer.error else {
            return Ok(());
        };
        let message = error.message.clone();
        let fault = RegionFault::from(error);
        if let RegionFault::NotLeader {
            leader: Some(leader),
        } = &fault
            && route.region.peers.iter().any(|peer| peer.id == leader.id)
        {
            route.leader = *leader;
            continue;
        }
        let kind = match fault.kind() {
            // TiKV says a passing conflict of latches in words only.
            Kind::Retry | Kind::Reroute => fault.kind(),
            other => other,
        };
        let message = if message.is_empty() {
            fault.to_string()
        } else {
            message
        };
        return Err(RestoreError::Ingest {
            region: route.id(),
            store,
            message,
            kind,
        });
    }
    let message = "its leader moves all the time".to_owned();
    let (region, store) = (route.id(), route.leader_store());
    Err(RestoreError::Ingest {
        region,
        store,
        message,
        kind: Kind::Reroute,
    })
}
