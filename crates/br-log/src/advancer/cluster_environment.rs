//! # What it does
//! The coordinator's [`Environment`] on a real cluster, through the published protocols.

use std::{sync::Arc, time::Duration};

use br_cluster::{Cluster, GcScope, RegionRoute, RpcError};
use br_format::log::{
    checkpoint::CheckpointCopy, names::CENTRAL_CHECKPOINT, seal::FlushMark, task::prefixes,
};
use br_proto::{backup::StorageBackend, logbackup as pb};
use br_rt::{Rt, Task as Running};
use br_storage::{Backend, Storage};
use br_types::{Classify, EncodedKey, KeyRange, Kind, RegionId, StoreId, TimeStamp};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::{Mutex, Notify};

use super::{
    AdvanceError, Environment,
    environment::{Flushed, LocksResolved, Raised, RegionAt, RegionFlushed, StoreAt},
    old_locks::OldLocks,
};
use crate::{
    Operator,
    task::{Task, TaskStore, error_pause},
};

/// The coordinator's safe point, named as the official one: whoever coordinates replaces it.
pub const SAFE_POINT_ID: &str = "log-backup-coordinator";
/// How long it outlives the coordinator.
pub const SAFE_POINT_TTL: Duration = Duration::from_secs(24 * 3600);

/// One question to a store; a batch of regions is answered out of memory.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How long a store may take to open the stream of its flushes.
const OPEN_LIMIT: Duration = Duration::from_secs(8);
/// Stores that are asked for their settings at once.
const CONFIGS_MAX: usize = 16;
/// The pause before a watch that broke is opened anew.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// A cluster, seen by its coordinator.
pub struct ClusterEnvironment {
    cluster: Cluster,
    tasks: TaskStore,
    id: String,
    changed: Arc<Notify>,
    watches: Vec<Running<()>>,
    /// The storage that was opened last.
    storage: Mutex<Option<(StorageBackend, Storage)>>,
}

impl ClusterEnvironment {
    /// The cluster, for somebody of that name.
    pub fn new(cluster: Cluster, id: String) -> ClusterEnvironment {
        ClusterEnvironment {
            tasks: TaskStore::new(cluster.etcd().clone()),
            cluster,
            id,
            changed: Arc::default(),
            watches: Vec::new(),
            storage: Mutex::default(),
        }
    }

    /// Begins to watch for changes of tasks; without it [`Environment::tasks_changed`] waits for
    /// ever.
    #[must_use]
    pub fn watching(mut self) -> ClusterEnvironment {
        self.watches = [prefixes::infos(), prefixes::pauses()]
            .into_iter()
            .map(|prefix| {
                let (cluster, changed) = (self.cluster.clone(), self.changed.clone());
                let rt = cluster.rt().clone();
                rt.spawn(async move { watch(&cluster, &prefix, &changed).await })
            })
            .collect();
        self
    }

    /// The connection to a store is not to be used again if this error is its fault.
    fn forget_if_broken(&self, store: StoreId, error: &RpcError) {
        if error.kind() == Kind::Retry {
            self.cluster.stores().forget(store);
        }
    }
}

/// Tells of changes below a prefix, for as long as it takes; every broken watch counts as one.
async fn watch(cluster: &Cluster, prefix: &[u8], changed: &Notify) {
    let etcd = cluster.etcd();
    while !cluster.cancel().is_cancelled() {
        let watched = async {
            let now = etcd.get_prefix(prefix).await?;
            let mut watch = etcd.watch_prefix(prefix, now.revision + 1).await?;
            loop {
                watch.next().await?;
                changed.notify_one();
            }
        };
        let error: br_cluster::PdError = match watched.await {
            Ok(never) => never,
            Err(error) => error,
        };
        tracing::debug!(%error, "the watch of tasks broke");
        cluster.rt().sleep(WATCH_PAUSE).await;
        changed.notify_one();
    }
}

impl Environment for ClusterEnvironment {
    fn rt(&self) -> &Rt {
        self.cluster.rt()
    }

    async fn tasks(&self) -> Result<Vec<Task>, AdvanceError> {
        Ok(self.tasks.load().await?.tasks)
    }

    async fn tasks_changed(&self) {
        self.changed.notified().await;
    }

    async fn now(&self) -> Result<TimeStamp, AdvanceError> {
        Ok(self.cluster.pd().tso().await?)
    }

    async fn stores(&self) -> Result<Vec<StoreAt>, AdvanceError> {
        let stores = self.cluster.pd().live_stores().await?;
        Ok(stores
            .into_iter()
            .map(|store| StoreAt {
                id: StoreId(store.id),
                started_at: store.start_timestamp,
            })
            .collect())
    }

    async fn flush_interval(&self) -> Result<Option<Duration>, AdvanceError> {
        let stores = self.cluster.pd().live_stores().await?;
        let status = self.cluster.store_status();
        let intervals: Vec<Option<Duration>> = stream::iter(stores)
            .map(|store| {
                let status = status.clone();
                async move {
                    let config = status.config(&store.status_address).await.ok()?;
                    config.log_backup_flush_interval
                }
            })
            .buffer_unordered(CONFIGS_MAX)
            .collect()
            .await;
        Ok(intervals.into_iter().flatten().max())
    }

    async fn subscribe(
        &self,
        store: StoreId,
    ) -> Result<BoxStream<'static, Result<Vec<Flushed>, AdvanceError>>, AdvanceError> {
        let client = self.cluster.stores().client(store).await?;
        let mut stub = client.log_backup();
        let request = pb::SubscribeFlushEventRequest {
            client_id: self.id.clone(),
        };
        let opened = client
            .call("SubscribeFlushEvent", OPEN_LIMIT, async move {
                stub.subscribe_flush_event(request).await
            })
            .await;
        let events = match opened {
            Ok(events) => events,
            Err(error) if error.is_unimplemented() => {
                return Err(AdvanceError::Unsupported(store));
            }
            Err(error) => {
                self.forget_if_broken(store, &error);
                return Err(error.into());
            }
        };
        let flushes = events.map(move |message| match message {
            Ok(message) => Ok(message.events.into_iter().map(flushed).collect()),
            Err(status) => Err(AdvanceError::Stream {
                store,
                cause: status.to_string(),
            }),
        });
        Ok(flushes.boxed())
    }

    async fn regions(&self, range: &KeyRange<EncodedKey>) -> Result<Vec<RegionAt>, AdvanceError> {
        let page = self.cluster.pd().region_page(range).await?;
        Ok(page.iter().map(region_at).collect())
    }

    async fn last_flush(
        &self,
        store: StoreId,
        regions: &[RegionAt],
    ) -> Result<Vec<RegionFlushed>, AdvanceError> {
        let client = self.cluster.stores().client(store).await?;
        let mut stub = client.log_backup();
        let request = pb::GetLastFlushTsOfRegionRequest {
            regions: regions
                .iter()
                .map(|region| pb::RegionIdentity {
                    id: region.id.0,
                    epoch_version: region.version,
                })
                .collect(),
        };
        let answer = client
            .call("GetLastFlushTSOfRegion", ASK_LIMIT, async move {
                stub.get_last_flush_ts_of_region(request).await
            })
            .await;
        match answer {
            Ok(answer) => Ok(answer
                .checkpoints
                .into_iter()
                .filter_map(region_flushed)
                .collect()),
            Err(error) if error.is_unimplemented() => Err(AdvanceError::Unsupported(store)),
            Err(error) => {
                self.forget_if_broken(store, &error);
                Err(error.into())
            }
        }
    }

    async fn raise(&self, task: &Task, checkpoint: TimeStamp) -> Result<Raised, AdvanceError> {
        match self.tasks.raise_checkpoint(task, checkpoint).await? {
            true => Ok(Raised::Done),
            false => Ok(Raised::Changed),
        }
    }

    async fn pause(&self, task: &Task, reason: &str) -> Result<(), AdvanceError> {
        let pause = error_pause(self.rt(), &Operator::this(), reason);
        // Somebody else's pause serves as well.
        self.tasks.pause(task, &pause).await?;
        Ok(())
    }

    async fn protect(&self, ts: TimeStamp) -> Result<(), AdvanceError> {
        let pd = self.cluster.pd();
        pd.protect_from_gc(GcScope::Cluster, SAFE_POINT_ID, ts, SAFE_POINT_TTL)
            .await?;
        Ok(())
    }

    async fn unprotect(&self) -> Result<(), AdvanceError> {
        let pd = self.cluster.pd();
        pd.unprotect_from_gc(GcScope::Cluster, SAFE_POINT_ID)
            .await?;
        Ok(())
    }

    async fn resolve_locks(
        &self,
        range: &KeyRange<EncodedKey>,
        max_version: TimeStamp,
    ) -> Result<LocksResolved, AdvanceError> {
        let mut locks = OldLocks::new(&self.cluster, range.clone(), max_version);
        let mut done = LocksResolved::default();
        while let Some(page) = locks.next().await? {
            if page.is_empty() {
                continue;
            }
            let resolution = self
                .cluster
                .lock_resolver()
                .resolve_for_write(&page)
                .await?;
            done.found += page.len() as u64;
            done.alive += resolution.alive.len() as u64;
        }
        Ok(done)
    }

    async fn store_checkpoint(
        &self,
        task: &Task,
        checkpoint: TimeStamp,
    ) -> Result<(), AdvanceError> {
        let wanted = task.info.storage.clone();
        let mut open = self.storage.lock().await;
        let storage = match open.as_ref() {
            Some((backend, storage)) if *backend == wanted => storage.clone(),
            _ => {
                let backend = Backend::from_proto(&wanted)?;
                let storage = Storage::open(self.rt(), &backend).await?;
                *open = Some((wanted, storage.clone()));
                storage
            }
        };
        drop(open);
        let copy = CheckpointCopy {
            ts: checkpoint,
            // The coordinator flushes nothing; the seal guards the number.
            last_flush: Some(FlushMark::default()),
        };
        let bytes = copy.encode();
        Ok(storage.write(CENTRAL_CHECKPOINT, bytes).await?)
    }
}

fn flushed(event: pb::FlushEvent) -> Flushed {
    Flushed {
        range: KeyRange::new(event.start_key, event.end_key),
        checkpoint: TimeStamp(event.checkpoint),
    }
}

fn region_at(route: &RegionRoute) -> RegionAt {
    RegionAt {
        id: route.id(),
        version: route.epoch().version,
        range: route.range(),
        leader: route.leader_store(),
    }
}

fn region_flushed(answer: pb::RegionCheckpoint) -> Option<RegionFlushed> {
    let id = RegionId(answer.region.map_or(0, |region| region.id));
    let Some(error) = answer.err else {
        let checkpoint = Ok(TimeStamp(answer.checkpoint));
        return Some(RegionFlushed { id, checkpoint });
    };
    let (id, why) = match error {
        // Of a store that does not lead the region, or leads it and has not flushed it yet.
        error if error.not_leader.is_some() => (
            RegionId(
                error
                    .not_leader
                    .map_or(0, |not_leader| not_leader.region_id),
            ),
            "the store has flushed nothing of it as its leader yet".to_owned(),
        ),
        error if error.epoch_not_match.is_some() => {
            (id, "the region has just changed its shape".to_owned())
        }
        error => (id, error.message),
    };
    Some(RegionFlushed {
        id,
        checkpoint: Err(why),
    })
}
