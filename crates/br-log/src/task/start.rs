//! # What it does
//! Checks that a cluster can be logged from a timestamp on, claims the place, and creates the task.
//!
//! # Objects it reads and writes
//! On the storage `backup.lock` and `backupmeta`; in PD the safe point `br-<uuid>`; in etcd the
//! task. Live imports below `/tidb/brie/import/` are looked for.
//!
//! # Ordering and invariants
//! Versions are protected before the place is claimed, and both before the task exists. A log that
//! goes on at its old place begins where the storage says that it ends: from there on everything is
//! read again, so that there is no gap, or the start is refused.
//!
//! # After a crash
//! Before the task exists, what was written is overwritten by the next start; the safe point lapses.

use std::time::Duration;

use br_cluster::{Cluster, GcScope, PdError};
use br_format::{
    backup_lock,
    log::{
        file::LogCompression,
        marker::LogMarker,
        task::{TaskEncryption, TaskInfo, TaskName},
    },
    names::{BACKUP_LOCK, BACKUPMETA},
};
use br_proto::backup::StorageBackend;
use br_storage::{SEALED_FORM, Storage};
use br_types::{KeyRange, RawKey, StoreId, TimeStamp};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    TaskError, TaskStore,
    place::{Place, check_end, look},
};
use crate::read::LogBounds;

/// Who writes without a trace in the log: restores and physical imports.
const IMPORT_PREFIX: &[u8] = b"/tidb/brie/import";

/// Stores that are asked for their settings at once.
const CONFIGS_MAX: usize = 16;

/// What a log is started with.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The name of the task.
    pub name: TaskName,
    /// Where stores write.
    pub backend: StorageBackend,
    /// Where the log begins; `None` is now. A log that goes on begins where it ended, whatever this
    /// says.
    pub start_ts: Option<TimeStamp>,
    /// For the record; nobody heeds it.
    pub end_ts: TimeStamp,
    /// How long versions are kept for the coordinator to take over.
    pub gc_ttl: Duration,
    /// Which tables: all of them.
    pub table_filter: Vec<String>,
    /// How events are encrypted.
    pub encryption: TaskEncryption,
}

/// A log that was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The task.
    pub info: TaskInfo,
    /// How many ranges of keys it has.
    pub ranges: usize,
    /// The log that goes on; `None` if it is new.
    pub continued: Option<LogBounds>,
}

/// The keys of a log: schemas and rows.
fn whole_cluster() -> Vec<KeyRange<RawKey>> {
    vec![
        KeyRange::new(&b"m"[..], &b"n"[..]),
        KeyRange::new(&b"t"[..], &b"u"[..]),
    ]
}

/// Starts a log.
///
/// # Errors
/// [`TaskError`]; there is no task then.
pub async fn start(
    cluster: &Cluster,
    storage: &Storage,
    request: StartRequest,
) -> Result<Started, TaskError> {
    if let Some(other) = request.table_filter.iter().find(|rule| *rule != "*.*") {
        return Err(TaskError::Filter(other.clone()));
    }
    check_stores(cluster).await?;
    if storage.is_sealed() {
        cluster.pd().check_sealing(SEALED_FORM).await?;
    }
    let now = cluster.pd().tso().await?;
    let start_ts = request.start_ts.unwrap_or(now);
    if start_ts > now {
        return Err(TaskError::StartInFuture {
            start: start_ts,
            now,
        });
    }
    if request.end_ts <= now {
        return Err(TaskError::EndInPast {
            end: request.end_ts,
            now,
        });
    }
    check_imports(cluster).await?;
    let tasks = TaskStore::new(cluster.etcd().clone());
    if let Some(task) = tasks.load().await?.tasks.into_iter().next() {
        let name = task.info.name;
        return Err(TaskError::Exists { name });
    }
    let continued = match look(storage).await? {
        Place::Free => None,
        Place::Log(bounds) => {
            let bounds = check_continuation(cluster, storage, bounds, now)?;
            check_end(storage, &bounds).await?;
            Some(bounds)
        }
    };
    let start_ts = continued.as_ref().map_or(start_ts, |bounds| bounds.max_ts);
    let safe_point_id = format!("br-{}", cluster.rt().uuid());
    protect(
        cluster,
        &safe_point_id,
        start_ts,
        &request,
        continued.is_some(),
    )
    .await?;
    let info = TaskInfo {
        name: request.name,
        storage: request.backend,
        start_ts,
        end_ts: request.end_ts,
        table_filter: request.table_filter,
        compression: LogCompression::Zstd,
        encryption: request.encryption,
    };
    let created = create(cluster, storage, &tasks, &info, continued.is_none()).await;
    if let Err(error) = created {
        let pd = cluster.pd();
        if let Err(late) = pd.unprotect_from_gc(GcScope::Cluster, &safe_point_id).await {
            tracing::warn!(%late, safe_point_id, "the safe point stays until it lapses");
        }
        return Err(error);
    }
    Ok(Started {
        info,
        ranges: whole_cluster().len(),
        continued,
    })
}

/// Claims a new place, and creates the task.
async fn create(
    cluster: &Cluster,
    storage: &Storage,
    tasks: &TaskStore,
    info: &TaskInfo,
    is_new: bool,
) -> Result<(), TaskError> {
    if is_new {
        let version = cluster.http().cluster_version().await?;
        let marker = LogMarker {
            cluster_id: cluster.id(),
            cluster_version: version,
            start_ts: info.start_ts,
        };
        storage.write(BACKUP_LOCK, backup_lock::CONTENT).await?;
        storage.write(BACKUPMETA, marker.encode()).await?;
        // An unfinished backup that was given up at the same moment takes the keys with it only where
        // nothing else was yet.
        storage.check_keyring().await?;
    }
    tasks.create(info, &whole_cluster()).await
}

/// Every store has log backup switched on.
async fn check_stores(cluster: &Cluster) -> Result<(), TaskError> {
    let stores = cluster.pd().kv_stores().await?;
    let status = cluster.store_status();
    stream::iter(stores)
        .map(|store| {
            let status = status.clone();
            async move {
                let id = StoreId(store.id);
                let config = status.config(&store.status_address).await;
                match config {
                    Ok(config) if config.log_backup_enabled == Some(true) => Ok(()),
                    Ok(_) => Err(TaskError::Disabled { store: id }),
                    Err(source) => Err(TaskError::StoreConfig { store: id, source }),
                }
            }
        })
        .buffer_unordered(CONFIGS_MAX)
        .try_collect()
        .await
}

/// Nobody writes past the log. The registrations live on leases, so those that are there live.
async fn check_imports(cluster: &Cluster) -> Result<(), TaskError> {
    let found = cluster.etcd().get_prefix(IMPORT_PREFIX).await?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    Err(TaskError::ImportRunning {
        tasks: found.kvs.iter().map(|kv| name(&kv.key)).collect(),
    })
}

/// Whether a log that is there can go on.
fn check_continuation(
    cluster: &Cluster,
    storage: &Storage,
    bounds: LogBounds,
    now: TimeStamp,
) -> Result<LogBounds, TaskError> {
    let place = storage.to_string();
    let found = bounds.marker.cluster_id;
    // The first versions did not write whose log it is.
    if found.0 != 0 && found != cluster.id() {
        return Err(TaskError::OtherCluster {
            place,
            found,
            expected: cluster.id(),
        });
    }
    // A cluster that was set back in time is another one, whatever its id.
    if bounds.max_ts > now {
        return Err(TaskError::LogAhead {
            place,
            checkpoint: bounds.max_ts,
            now,
        });
    }
    Ok(bounds)
}

async fn protect(
    cluster: &Cluster,
    id: &str,
    start_ts: TimeStamp,
    request: &StartRequest,
    is_restart: bool,
) -> Result<(), TaskError> {
    let pd = cluster.pd();
    let protected = pd
        .protect_from_gc(GcScope::Cluster, id, start_ts.prev(), request.gc_ttl)
        .await;
    match protected {
        Err(PdError::SafePointExceeded { safe_point, .. }) => Err(TaskError::Collected {
            wanted: start_ts,
            safe_point,
            is_restart,
        }),
        result => Ok(result?),
    }
}
