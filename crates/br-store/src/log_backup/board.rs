//! Where tasks are announced and progress is told: PD, as a store sees it.

mod pd;

use std::{collections::BTreeSet, time::Duration};

use br_format::log::task::{TaskKey, TaskName};
use br_types::{KeyRange, RawKey, TimeStamp};

use super::error::BoardError;

pub use pd::PdBoard;

/// All tasks at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    /// Values of [`TaskKey::Info`], by name.
    pub infos: Vec<(TaskName, Vec<u8>)>,
    /// Tasks that are paused.
    pub paused: BTreeSet<TaskName>,
    /// As of which revision.
    pub revision: i64,
}

/// What a store wants of PD. A trait, so that a simulation can lose it, delay it and lie to it.
#[tonic::async_trait]
pub trait TaskBoard: Send + Sync + 'static {
    /// A fresh timestamp.
    async fn tso(&self) -> Result<TimeStamp, BoardError>;

    /// All tasks and pauses.
    async fn tasks(&self) -> Result<Tasks, BoardError>;

    /// Changes of tasks and pauses after a revision.
    async fn watch(&self, after_revision: i64) -> Result<Box<dyn TaskWatch>, BoardError>;

    /// The ranges of a task, raw keys in key order.
    async fn ranges(&self, task: &TaskName) -> Result<Vec<KeyRange<RawKey>>, BoardError>;

    /// The global checkpoint; `None`: the coordinator has not written one yet.
    async fn global_checkpoint(&self, task: &TaskName) -> Result<Option<TimeStamp>, BoardError>;

    /// Sets a key of a task, unless the task is gone: what is told late must not outlive it, nor
    /// meet the next task of that name.
    async fn put(&self, task: &TaskName, key: &TaskKey, value: &[u8]) -> Result<(), BoardError>;

    /// Keeps versions from `ts` on from being collected for `ttl`, under a name.
    async fn guard(&self, id: &str, ts: TimeStamp, ttl: Duration) -> Result<(), BoardError>;

    /// Takes a guard back.
    async fn unguard(&self, id: &str) -> Result<(), BoardError>;
}

/// A watch of [`TaskBoard::watch`].
#[tonic::async_trait]
pub trait TaskWatch: Send {
    /// Waits until a task or a pause has changed. What has changed is to be read anew: state
    /// counts, not the single event.
    ///
    /// # Errors
    /// The watch is over, or has missed something; everything is to be read anew then, too.
    async fn changed(&mut self) -> Result<(), BoardError>;
}
