use std::time::Duration;

use br_cluster::{Cluster, KvError, PdError};
use br_codec::key;
use br_proto::{
    backup::BackupRequest,
    kvrpcpb::{LockInfo, ScanLockRequest, ScanLockResponse},
    metapb,
};
use br_types::{Classify, Kind, StoreId, TimeStamp};
use futures::{StreamExt, stream};

use super::{
    StoreLabel,
    push::{Answers, LiveStore, Resolved, Stores},
};

/// How long one wait for an answer may be; the push gives up earlier by itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(2 * 3_600);
/// Locks that are resolved at a time behind one that was met: a transaction that died in the middle
/// of a bulk write leaves many of them side by side.
const LOCKS_BEHIND_MAX: u32 = 1_024;

/// The stores of a cluster, as a push sees them.
pub(super) struct ClusterStores {
    pub(super) cluster: Cluster,
    /// Only stores with this label are asked.
    pub(super) label: Option<StoreLabel>,
}

impl ClusterStores {
    /// The stores that are to be asked.
    pub(super) async fn live_stores(&self) -> Result<Vec<metapb::Store>, PdError> {
        let mut stores = self.cluster.pd().live_stores().await?;
        stores.retain(|store| self.has_label(store));
        Ok(stores)
    }

    fn has_label(&self, store: &metapb::Store) -> bool {
        self.label.as_ref().is_none_or(|wanted| {
            store
                .labels
                .iter()
                .any(|label| label.key == wanted.key && label.value == wanted.value)
        })
    }

    /// The locks at and after one that was met, in its region.
    async fn locks_behind(
        &self,
        met: &LockInfo,
        read_ts: TimeStamp,
    ) -> Result<Vec<LockInfo>, KvError> {
        let (answer, _): (ScanLockResponse, _) = self
            .cluster
            .router()
            .send(&key::encode(&met.key), |client, region| {
                let request = ScanLockRequest {
                    context: Some(region.context()),
                    max_version: read_ts.0,
                    start_key: met.key.clone(),
                    limit: LOCKS_BEHIND_MAX,
                    ..Default::default()
                };
                async move { client.scan_lock(request).await }
            })
            .await?;
        // An error of its own is a lock in memory, which passes: the one that was met will do.
        Ok(answer.locks)
    }
}

impl Stores for ClusterStores {
    type Error = KvError;

    async fn live(&self) -> Result<Vec<LiveStore>, KvError> {
        let stores = self.live_stores().await?;
        Ok(stores
            .iter()
            .map(|store| LiveStore {
                id: StoreId(store.id),
                started_unix_s: store.start_timestamp,
            })
            .collect())
    }

    async fn backup(
        &self,
        store: StoreId,
        request: BackupRequest,
    ) -> Result<Answers<KvError>, KvError> {
        let client = self.cluster.stores().client(store).await?;
        let answers = match client.backup(request).await {
            Ok(answers) => answers,
            Err(error) => {
                self.cluster.stores().forget(store);
                return Err(error.into());
            }
        };
        let pool = self.cluster.stores().clone();
        let answers = stream::unfold(Some(answers), move |answers| {
            let pool = pool.clone();
            async move {
                let mut answers = answers?;
                match answers.next(ANSWER_LIMIT).await {
                    Ok(Some(answer)) => Some((Ok(answer), Some(answers))),
                    Ok(None) => None,
                    Err(error) => {
                        if error.kind() == Kind::Retry {
                            pool.forget(store);
                        }
                        Some((Err(KvError::from(error)), None))
                    }
                }
            }
        });
        Ok(answers.boxed())
    }

    async fn resolve(&self, met: Vec<LockInfo>, read_ts: TimeStamp) -> Result<Resolved, KvError> {
        let mut locks = Vec::new();
        for lock in met {
            // What an earlier scan found behind its lock needs none of its own.
            let is_known = locks.iter().any(|known: &LockInfo| {
                known.key == lock.key && known.lock_version == lock.lock_version
            });
            if !is_known {
                locks.extend(self.locks_behind(&lock, read_ts).await?);
                locks.push(lock);
            }
        }
        let mut resolved = Resolved::default();
        let outcome = self
            .cluster
            .lock_resolver()
            .resolve_for_read(&locks, read_ts)
            .await?;
        resolved.passable = outcome.resolved;
        resolved.committed = outcome.committed;
        resolved.alive = outcome
            .alive
            .iter()
            .map(|lock| TimeStamp(lock.lock_version))
            .collect();
        Ok(resolved)
    }
}
