//! Log backup on a store: what its regions change, brought to external storage within seconds.
//!
//! # What it does
//! | part | what |
//! |---|---|
//! | `tasks` | follows the tasks in PD, begins and ends them here, tells of faults |
//! | `task` | puts the parts of one task together |
//! | `observers`, `observer`, `queue` | from an applied write to the queue |
//! | `regions`, `scan` | which regions are observed, and what they had before |
//! | `collector`, `subscription`, `locks` | takes the queue in order; resolved timestamps |
//! | `payload`, `spill` | logical files in memory and in temporary files |
//! | `pace`, `flush`, `upload`, `pack` | when to flush; sealed payloads to objects |
//! | `published`, `service` | checkpoints of regions, and who asks for them |
//! | `board` | PD, as far as log backup needs it |
//!
//! # Objects it reads and writes
//! On the task's storage `v1/{day}/{hour}/{store}/…log`, `v1/backupmeta/…meta`,
//! `v1/global_checkpoint/{store}.ts`. In PD the keys below `/tidb/br-stream` and safe points named
//! `backup-stream-{task}-{store}` and `{task}-{store}-pause-guard`. Temporary files in
//! `log-backup-temp` of the scratch folder.
//!
//! # Ordering and invariants
//! A checkpoint `C` of a region says: every write with `commit_ts <= C` in the task's ranges is on
//! the storage and named by metadata there, and so are the long values that such writes need. It
//! rests on the queue being in the order in which writes became visible (`queue`, `observers`), on
//! the timestamp being fetched before the seal (`flush`), and on progress being bound to the
//! payload that was sealed with it (`upload`).
//!
//! # After a crash
//! Nothing local counts. Whoever leads the regions scans them from the global checkpoint.

mod board;
mod collector;
mod config;
mod error;
mod flush;
mod global;
mod locks;
mod metrics;
mod observer;
mod observers;
mod pace;
mod pack;
mod payload;
mod published;
mod queue;
mod regions;
mod scan;
mod service;
mod spill;
mod subscription;
mod task;
mod tasks;
mod upload;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use br_format::log::task::TaskName;
use br_rt::Rt;
use br_storage::Faults;
use br_types::StoreId;
use tokio::sync::oneshot;

use crate::{storage::Storage, topology::Topology};

pub use board::{PdBoard, TaskBoard, TaskWatch, Tasks};
pub use config::{LiveConfig, LogBackupConfig};
pub use error::BoardError;
pub(crate) use observers::{Observers, WriteObserver};
pub(crate) use service::LogBackupService;

use self::{
    metrics::Metrics,
    published::Published,
    task::{CurrentTask, Store},
    tasks::TaskTracker,
};

/// What log backup on a store works with.
pub struct LogBackupParts {
    /// Time, randomness, tasks.
    pub rt: Rt,
    /// The store.
    pub store: StoreId,
    /// Its transactions.
    pub storage: Storage,
    /// The regions of the cluster.
    pub topology: Arc<dyn Topology>,
    /// How it goes about it.
    pub config: LogBackupConfig,
    /// A folder of its own for temporary files; what is in it may be removed.
    pub temp_dir: PathBuf,
    /// What a simulation lets the storage suffer.
    pub faults: Faults,
}

/// Log backup on one store. Cheap to clone.
#[derive(Clone)]
pub struct LogBackup(Arc<Store>);

impl LogBackup {
    /// Nothing is done before [`LogBackup::run`].
    pub fn new(parts: LogBackupParts) -> LogBackup {
        LogBackup(Arc::new(Store {
            rt: parts.rt,
            id: parts.store,
            mvcc: parts.storage,
            topology: parts.topology,
            config: Arc::new(LiveConfig::new(parts.config)),
            temp_dir: parts.temp_dir,
            faults: parts.faults,
            metrics: Arc::new(Metrics::default()),
            published: Arc::new(Published::default()),
            at_work: Mutex::default(),
        }))
    }

    /// Carries out the tasks that `board` announces, for ever. Dropped, it ends as the death of the
    /// process would end it.
    pub async fn run(self, board: Arc<dyn TaskBoard>) {
        TaskTracker::new(self.0.clone(), board).run().await;
    }

    /// The settings, some of which can be changed.
    pub fn config(&self) -> &LiveConfig {
        &self.0.config
    }

    /// Numbers of this store's log backup in Prometheus's text form.
    pub fn metrics_text(&self) -> String {
        self.0.metrics.render()
    }

    /// Brings everything written before the call to the storage, and publishes the progress.
    /// `None`: no task is at work here.
    pub async fn flush_now(&self) -> Option<(TaskName, Result<(), String>)> {
        let CurrentTask { name, flushes, .. } = self.0.current().clone()?;
        let (waiter, done) = oneshot::channel();
        let ended = || "the task has ended on this store".to_owned();
        if flushes.send(waiter).await.is_err() {
            return Some((name, Err(ended())));
        }
        let result = done.await.unwrap_or_else(|_| Err(ended()));
        Some((name, result))
    }

    pub(crate) fn published(&self) -> &Published {
        &self.0.published
    }
}

#[cfg(test)]
mod tests;
