use std::time::Duration;

use br_cluster::{
    Cluster, ClusterConfig, Etcd, GcScope, PdClient,
    etcd::{Expect, Watch, Watched, Write},
};
use br_format::log::{
    checkpoint::decode_etcd_checkpoint,
    task::{PREFIX, TaskKey, TaskName, prefixes},
};
use br_rt::{CancellationToken, Rt};
use br_types::{KeyRange, RawKey, TimeStamp};

use super::{BoardError, TaskBoard, TaskWatch, Tasks};

/// A timestamp comes within milliseconds or PD is in trouble; no round waits longer for it.
const TSO_LIMIT: Duration = Duration::from_secs(3);
/// Other calls. They are tried again below; whoever waits for them has something else to do.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// PD over its published protocols: timestamps and safe points over gRPC, keys in its etcd.
pub struct PdBoard {
    rt: Rt,
    pd: PdClient,
    etcd: Etcd,
}

impl PdBoard {
    /// Connects to PD. All calls end when `cancel` is set.
    ///
    /// # Errors
    /// PD is out of reach.
    pub async fn connect(
        rt: Rt,
        cancel: CancellationToken,
        config: ClusterConfig,
    ) -> Result<PdBoard, BoardError> {
        br_storage::install_tls_provider();
        let cluster = Cluster::connect(rt.clone(), cancel, config).await?;
        Ok(PdBoard {
            rt,
            pd: cluster.pd().clone(),
            etcd: cluster.etcd().clone(),
        })
    }

    async fn within<T, E: Into<BoardError>>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BoardError> {
        match self.rt.timeout(limit, call).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(BoardError::Timeout(limit)),
        }
    }
}

#[tonic::async_trait]
impl TaskBoard for PdBoard {
    async fn tso(&self) -> Result<TimeStamp, BoardError> {
        self.within(TSO_LIMIT, self.pd.tso()).await
    }

    async fn tasks(&self) -> Result<Tasks, BoardError> {
        let (infos, pauses) = (prefixes::infos(), prefixes::pauses());
        let found = self
            .within(CALL_LIMIT, self.etcd.get_prefix(&infos))
            .await?;
        let paused = self
            .within(CALL_LIMIT, self.etcd.get_prefix(&pauses))
            .await?;
        let mut tasks = Tasks {
            // The earlier of both: what comes between them is seen by the watch.
            revision: found.revision,
            ..Tasks::default()
        };
        for kv in found.kvs {
            match TaskKey::parse(&kv.key) {
                Some(TaskKey::Info(name)) => tasks.infos.push((name, kv.value)),
                _ => tracing::warn!(
                    key = %String::from_utf8_lossy(&kv.key),
                    "a key among the tasks that is none"
                ),
            }
        }
        let names = paused.kvs.iter().map(|kv| TaskKey::parse(&kv.key));
        tasks.paused = names
            .filter_map(|key| match key {
                Some(TaskKey::Pause(name)) => Some(name),
                _ => None,
            })
            .collect();
        Ok(tasks)
    }

    async fn watch(&self, after_revision: i64) -> Result<Box<dyn TaskWatch>, BoardError> {
        let prefix = format!("{PREFIX}/").into_bytes();
        let from = after_revision.saturating_add(1);
        let watch = self
            .within(CALL_LIMIT, self.etcd.watch_prefix(&prefix, from))
            .await?;
        Ok(Box::new(PdWatch(watch)))
    }

    async fn ranges(&self, task: &TaskName) -> Result<Vec<KeyRange<RawKey>>, BoardError> {
        let prefix = prefixes::ranges_of(task);
        let found = self
            .within(CALL_LIMIT, self.etcd.get_prefix(&prefix))
            .await?;
        let ranges = found.kvs.into_iter().map(|kv| {
            // The start may hold any byte: it is what stands after the prefix, not after a slash.
            let start = kv.key.get(prefix.len()..).unwrap_or_default().to_vec();
            KeyRange::new(start, kv.value)
        });
        Ok(ranges.collect())
    }

    async fn global_checkpoint(&self, task: &TaskName) -> Result<Option<TimeStamp>, BoardError> {
        let key = TaskKey::GlobalCheckpoint(task.clone()).to_bytes();
        let found = self.within(CALL_LIMIT, self.etcd.get(&key)).await?;
        let decoded = found.map(|kv| decode_etcd_checkpoint("the global checkpoint", &kv.value));
        decoded
            .transpose()
            .map_err(|error| BoardError::Malformed(error.to_string()))
    }

    async fn put(&self, task: &TaskName, key: &TaskKey, value: &[u8]) -> Result<(), BoardError> {
        let is_there = Expect::Present(TaskKey::Info(task.clone()).to_bytes());
        let put = Write::Put {
            key: key.to_bytes(),
            value: value.to_vec(),
            lease: None,
        };
        let commit = self.etcd.commit(vec![is_there], vec![put]);
        self.within(CALL_LIMIT, commit).await.map(drop)
    }

    async fn guard(&self, id: &str, ts: TimeStamp, ttl: Duration) -> Result<(), BoardError> {
        let call = self.pd.protect_from_gc(GcScope::Cluster, id, ts, ttl);
        self.within(CALL_LIMIT, call).await
    }

    async fn unguard(&self, id: &str) -> Result<(), BoardError> {
        let call = self.pd.unprotect_from_gc(GcScope::Cluster, id);
        self.within(CALL_LIMIT, call).await
    }
}

struct PdWatch(Watch);

#[tonic::async_trait]
impl TaskWatch for PdWatch {
    async fn changed(&mut self) -> Result<(), BoardError> {
        loop {
            match self.0.next().await? {
                Watched::Compacted { oldest } => {
                    let message = format!("history before revision {oldest} is gone");
                    return Err(BoardError::Malformed(message));
                }
                Watched::Events { events, .. } => {
                    let is_task = |event: &br_proto::mvccpb::Event| {
                        let key = event.kv.as_ref().and_then(|kv| TaskKey::parse(&kv.key));
                        matches!(key, Some(TaskKey::Info(_) | TaskKey::Pause(_)))
                    };
                    if events.iter().any(is_task) {
                        return Ok(());
                    }
                }
            }
        }
    }
}
