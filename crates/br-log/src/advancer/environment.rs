use std::{future::Future, time::Duration};

use br_rt::Rt;
use br_types::{EncodedKey, KeyRange, RegionId, StoreId, TimeStamp};
use futures::stream::BoxStream;

use super::AdvanceError;
use crate::task::Task;

/// A store that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreAt {
    /// Its id.
    pub id: StoreId,
    /// When its process started, seconds since 1970: another value is another process.
    pub started_at: i64,
}

/// A region as PD knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionAt {
    /// Its id.
    pub id: RegionId,
    /// The version of its epoch, which counts its shapes.
    pub version: u64,
    /// Its keys.
    pub range: KeyRange<EncodedKey>,
    /// The store that leads it.
    pub leader: StoreId,
}

/// What a store says of a region of that shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionFlushed {
    /// The region.
    pub id: RegionId,
    /// Everything of it that was committed up to here is on storage; or why the store does not
    /// know.
    pub checkpoint: Result<TimeStamp, String>,
}

/// A part of a flush: everything of these keys that was committed up to there is on storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The keys.
    pub range: KeyRange<EncodedKey>,
    /// Up to where.
    pub checkpoint: TimeStamp,
}

/// What became of an attempt to raise the global checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It is raised.
    Done,
    /// The task is another one by now, or somebody else raised it: look again.
    Changed,
}

/// What a scan for old locks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocksResolved {
    /// Locks that were found.
    pub found: u64,
    /// Those of transactions that are still alive and have to be waited for.
    pub alive: u64,
}

/// The cluster as the coordinator sees it. Behind it are the published protocols; in tests, a
/// model of a cluster in virtual time.
pub trait Environment: Send + Sync + 'static {
    /// Clock, tasks, randomness.
    fn rt(&self) -> &Rt;

    /// All tasks, at one moment, with their pauses and checkpoints.
    fn tasks(&self) -> impl Future<Output = Result<Vec<Task>, AdvanceError>> + Send;

    /// Waits until a task was added, removed, paused or resumed, as far as can be seen; a hint.
    fn tasks_changed(&self) -> impl Future<Output = ()> + Send;

    /// PD's time.
    fn now(&self) -> impl Future<Output = Result<TimeStamp, AdvanceError>> + Send;

    /// The stores that hold data.
    fn stores(&self) -> impl Future<Output = Result<Vec<StoreAt>, AdvanceError>> + Send;

    /// The longest flush interval of all stores; `None` if none of them says.
    fn flush_interval(&self)
    -> impl Future<Output = Result<Option<Duration>, AdvanceError>> + Send;

    /// The flushes of a store from now on, what it has flushed so far first.
    fn subscribe(
        &self,
        store: StoreId,
    ) -> impl Future<
        Output = Result<BoxStream<'static, Result<Vec<Flushed>, AdvanceError>>, AdvanceError>,
    > + Send;

    /// One page of the regions that cover `range`, without holes, from its start.
    fn regions(
        &self,
        range: &KeyRange<EncodedKey>,
    ) -> impl Future<Output = Result<Vec<RegionAt>, AdvanceError>> + Send;

    /// What a store has flushed of the regions that it leads.
    fn last_flush(
        &self,
        store: StoreId,
        regions: &[RegionAt],
    ) -> impl Future<Output = Result<Vec<RegionFlushed>, AdvanceError>> + Send;

    /// Raises the global checkpoint of the task, if the task and its checkpoint are still those.
    fn raise(
        &self,
        task: &Task,
        checkpoint: TimeStamp,
    ) -> impl Future<Output = Result<Raised, AdvanceError>> + Send;

    /// Pauses the task with an error that says why, unless it is paused or gone.
    fn pause(
        &self,
        task: &Task,
        reason: &str,
    ) -> impl Future<Output = Result<(), AdvanceError>> + Send;

    /// Keeps versions at and after `ts` from garbage collection, for a day from now on.
    fn protect(&self, ts: TimeStamp) -> impl Future<Output = Result<(), AdvanceError>> + Send;

    /// Takes that back.
    fn unprotect(&self) -> impl Future<Output = Result<(), AdvanceError>> + Send;

    /// Resolves the locks in `range` of transactions that began at `max_version` or before and
    /// have ended.
    fn resolve_locks(
        &self,
        range: &KeyRange<EncodedKey>,
        max_version: TimeStamp,
    ) -> impl Future<Output = Result<LocksResolved, AdvanceError>> + Send;

    /// Writes the global checkpoint to the task's storage.
    fn store_checkpoint(
        &self,
        task: &Task,
        checkpoint: TimeStamp,
    ) -> impl Future<Output = Result<(), AdvanceError>> + Send;
}
