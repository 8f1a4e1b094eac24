//! The flush loop of one task on one store.
//!
//! # What it does
//! Seals payloads at the pace of `pace`, brings them to the storage, publishes the progress that
//! each proves. Beside that it copies the global checkpoint to the storage, and keeps garbage
//! collection away from what a new scan would need.
//!
//! # Ordering and invariants
//! - Every round, whatever its cause, goes: timestamp from PD; largest read timestamp raised to
//!   it; oldest lock in memory; seal through the event queue. A commit at or below the timestamp
//!   is then in the queue before the seal, or its lock is tracked, or its lock was in memory.
//! - One sealed payload at a time. While it cannot be written, events gather behind it, and so
//!   does progress: what is published belongs to that payload, not to the attempt.
//! - Flush timestamps of a store only grow, over restarts too: the first one is greater than any
//!   in the names on the storage.
//! - Each flush names the one before it, and the store's copy of the checkpoint names the last one
//!   before its progress is published ([`br_format::log::seal`]): a flush that is lost is missed.
//!
//! # Retries
//! A failed flush is tried again after a pause, more than [`FAILURES_MAX`] in a row are fatal. A
//! checkpoint that could not be copied is copied at the next look.

use std::{sync::Arc, time::Duration};

use br_format::log::{
    checkpoint::{CheckpointCopy, encode_etcd_checkpoint},
    names::{META_FOLDER, MetaName, global_checkpoint},
    seal::Seal,
    task::{TaskKey, TaskName},
};
use br_rt::{Monotonic, Rt};
use br_types::{StoreId, TimeStamp};
use futures::TryStreamExt;
use tokio::sync::{mpsc, oneshot};

use super::{
    board::TaskBoard,
    collector::{Filling, SealRequest, Sealed},
    config::LiveConfig,
    error::{Fault, FlushError},
    global::GlobalCheckpoint,
    metrics::Metrics,
    pace::{Pace, RETRY_INTERVAL, Step},
    payload::MemoryUse,
    published::{Published, RunId},
    queue::EventQueue,
    upload::{Destination, Upload},
};
use crate::storage::Storage;

/// Failures in a row that are forgiven, as in TiKV.
pub(crate) const FAILURES_MAX: u32 = 30;
/// How often the pace is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How soon the copy of the global checkpoint follows while it does not cover all records yet.
const COPY_INTERVAL: Duration = Duration::from_secs(5);
/// And when there is nothing new that it could cover.
const COPY_IDLE_INTERVAL: Duration = Duration::from_secs(20);
/// How often the guard against garbage collection is renewed, and how long it holds.
const GUARD_INTERVAL: Duration = Duration::from_secs(60);
const GUARD_TTL: Duration = Duration::from_secs(2 * 3600);
/// A flush timestamp shares this many leading digits with those of the same 70 minutes.
const BUCKET_DIGITS: usize = 6;

/// Somebody waits for everything written so far to be on the storage.
pub(crate) type FlushWaiter = oneshot::Sender<Result<(), String>>;

/// See the module.
pub(crate) struct Flusher {
    pub(crate) rt: Rt,
    pub(crate) started: Monotonic,
    pub(crate) store: StoreId,
    pub(crate) task: TaskName,
    pub(crate) mvcc: Storage,
    pub(crate) board: Arc<dyn TaskBoard>,
    pub(crate) destination: Destination,
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) filling: Arc<Filling>,
    pub(crate) memory: Arc<MemoryUse>,
    pub(crate) published: Arc<Published>,
    pub(crate) run: RunId,
    pub(crate) config: Arc<LiveConfig>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) global: Arc<GlobalCheckpoint>,
    pub(crate) requests: mpsc::Receiver<FlushWaiter>,
    pub(crate) state: FlushState,
}

/// What the loop remembers.
pub(crate) struct FlushState {
    pace: Pace,
    /// Sealed and not yet on the storage.
    pending: Option<Upload>,
    failures: u32,
    retry_at: Monotonic,
    last_flush_ts: Option<TimeStamp>,
    /// What the store's copy of the checkpoint on the storage says. `None`: not read yet.
    stored: Option<CheckpointCopy>,
    /// The global checkpoint that is on the storage and in etcd.
    copied: TimeStamp,
    copied_at: Option<Monotonic>,
    /// The greatest timestamp of a record flushed.
    flushed_max_ts: TimeStamp,
    guarded_at: Option<Monotonic>,
}

impl FlushState {
    pub(crate) fn new(now: Monotonic) -> FlushState {
        FlushState {
            pace: Pace::new(now),
            pending: None,
            failures: 0,
            retry_at: now,
            last_flush_ts: None,
            stored: None,
            copied: TimeStamp::ZERO,
            copied_at: None,
            flushed_max_ts: TimeStamp::ZERO,
            guarded_at: None,
        }
    }
}

/// The name under which a store guards what a new scan of its regions would need.
pub(crate) fn guard_id(task: &TaskName, store: StoreId) -> String {
    format!("backup-stream-{task}-{store}")
}

impl Flusher {
    /// Works until something fatal happens.
    pub(crate) async fn work(mut self) -> Fault {
        loop {
            let mut waiters = Vec::new();
            tokio::select! {
                biased;
                waiter = self.requests.recv() => waiters.extend(waiter),
                () = self.rt.sleep(LOOK_INTERVAL) => {}
            }
            // All who wait now are served by one flush.
            while let Ok(waiter) = self.requests.try_recv() {
                waiters.push(waiter);
            }
            let result = self.round(!waiters.is_empty()).await;
            for waiter in waiters {
                // Whoever has gone away does not need the answer.
                let _ = waiter.send(result.as_ref().copied().map_err(ToString::to_string));
            }
            if let Err(error) = result
                && let Some(fault) = self.failed(&error)
            {
                return fault;
            }
            self.metrics.memory_bytes.set(self.memory.bytes() as u64);
            self.copy_checkpoint().await;
            self.renew_guard().await;
        }
    }

    fn failed(&mut self, error: &FlushError) -> Option<Fault> {
        self.state.retry_at = self.rt.now().plus(RETRY_INTERVAL);
        if let FlushError::NoTimestamp(error) = error {
            // PD will be back; until then nobody could be told of a fault anyway.
            tracing::warn!(task = %self.task, %error, "cannot flush yet");
            return None;
        }
        self.state.failures += 1;
        self.metrics.flush_failures.add(1);
        let failures = self.state.failures;
        tracing::warn!(task = %self.task, failures, %error, "a flush failed");
        (failures > FAILURES_MAX).then(|| Fault::Flush {
            attempts: failures,
            last: error.to_string(),
        })
    }

    async fn round(&mut self, is_asked: bool) -> Result<(), FlushError> {
        let now = self.rt.now();
        if !is_asked && now < self.state.retry_at {
            return Ok(());
        }
        if !is_asked && self.state.pending.is_some() {
            return self.flush(false).await;
        }
        let since_start = now.since(self.started);
        let millis = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        let waiting = self.filling.waiting(millis);
        let regions = usize::try_from(self.metrics.regions.get()).unwrap_or(usize::MAX);
        let step = self
            .state
            .pace
            .step(now, self.config.pace(), waiting, regions);
        match step {
            _ if is_asked => self.flush(true).await,
            Step::Flush => self.flush(false).await,
            Step::Advance => self.advance().await,
            Step::Wait => Ok(()),
        }
    }

    /// Brings the payload of an earlier attempt to the storage, then, unless that was all that is
    /// wanted, what there is now.
    async fn flush(&mut self, is_asked: bool) -> Result<(), FlushError> {
        if self.state.pending.is_some() {
            self.upload().await?;
            if !is_asked {
                return Ok(());
            }
        }
        let Some((sealed, now)) = self.seal().await? else {
            return Ok(());
        };
        if is_asked && sealed.files.is_empty() {
            self.publish_without_objects(sealed);
            return Ok(());
        }
        self.plan(sealed, now);
        self.upload().await
    }

    /// Publishes progress; writes objects only if there are records after all.
    async fn advance(&mut self) -> Result<(), FlushError> {
        self.state.pace.advanced(self.rt.now());
        let (min_ts, now) = match self.resolve_ts().await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "no timestamp to advance with");
                return Ok(());
            }
        };
        let request = SealRequest {
            min_ts: Some(min_ts),
        };
        let Some(sealed) = self.queue.seal(request).await else {
            return Ok(());
        };
        if sealed.files.is_empty() {
            self.publish_without_objects(sealed);
            return Ok(());
        }
        self.plan(sealed, Some(now));
        self.upload().await
    }

    fn publish_without_objects(&mut self, sealed: Sealed) {
        if sealed.store_resolved_ts.is_some() {
            self.published.publish(self.run, sealed.progress);
        }
        self.state.pace.advanced(self.rt.now());
    }

    /// A timestamp, and the least of it and the oldest lock in memory.
    async fn resolve_ts(&self) -> Result<(TimeStamp, TimeStamp), super::error::BoardError> {
        let now = self.board.tso().await?;
        // From here on nobody chooses a commit timestamp at or below it, but for those whose
        // locks are in memory already.
        self.mvcc.update_max_ts(now);
        let oldest = self.mvcc.min_memory_lock_ts();
        Ok((oldest.map_or(now, |oldest| oldest.min(now)), now))
    }

    /// Seals the payload behind everything that has been written. `None`: the task is ending.
    async fn seal(&self) -> Result<Option<(Sealed, Option<TimeStamp>)>, FlushError> {
        let (min_ts, now) = match self.resolve_ts().await {
            Ok((min_ts, now)) => (Some(min_ts), Some(now)),
            Err(error) if self.state.last_flush_ts.is_none() => {
                return Err(FlushError::NoTimestamp(error));
            }
            // Data is brought to safety without progress.
            Err(error) => {
                tracing::warn!(%error, "flushing without a timestamp from PD");
                (None, None)
            }
        };
        let sealed = self.queue.seal(SealRequest { min_ts }).await;
        Ok(sealed.map(|sealed| (sealed, now)))
    }

    /// A flush timestamp above all that the store has used.
    async fn next_flush_ts(&mut self, now: Option<TimeStamp>) -> Result<TimeStamp, FlushError> {
        let last = match (self.state.last_flush_ts, now) {
            (Some(last), _) => last,
            (None, now) => self.last_in_names(now.unwrap_or_default()).await?,
        };
        let next = now.unwrap_or_default().max(last.next());
        self.state.last_flush_ts = Some(next);
        Ok(next)
    }

    /// The greatest flush timestamp of this store among names near `now` on the storage: a clock
    /// that stood still, or flushes without PD, may have used timestamps that PD gives out again.
    async fn last_in_names(&self, now: TimeStamp) -> Result<TimeStamp, FlushError> {
        let mut last = TimeStamp::ZERO;
        let bucket = 1_u64 << (4 * (16 - BUCKET_DIGITS));
        for at in [now.0, now.0.saturating_add(bucket)] {
            let digits = format!("{at:016X}");
            let prefix = digits.get(..BUCKET_DIGITS).unwrap_or_default();
            let mut names = self
                .destination
                .storage
                .list(&format!("{META_FOLDER}/{prefix}"));
            while let Some(entry) = names.try_next().await? {
                let name = MetaName::parse(&entry.name);
                let own = name.filter(|name| name.store() == Some(self.store));
                last = last.max(own.and_then(|name| name.flush_ts()).unwrap_or_default());
            }
        }
        Ok(last)
    }

    fn plan(&mut self, sealed: Sealed, now: Option<TimeStamp>) {
        self.state.pending = Some(Upload::new(
            &self.destination,
            sealed,
            now,
            self.global.known(),
            self.config.get().file_size_limit_bytes,
        ));
    }

    /// Writes the pending payload and publishes its progress.
    async fn upload(&mut self) -> Result<(), FlushError> {
        let Some(mut pending) = self.state.pending.take() else {
            return Ok(());
        };
        let bytes = self.metrics.uploaded_bytes.get();
        let result = self.try_upload(&mut pending).await;
        let bytes = self.metrics.uploaded_bytes.get() - bytes;
        let config = self.config.pace();
        self.state.pace.flushed(self.rt.now(), bytes, config);
        // The name of metadata may have been taken.
        let used = pending.flush_ts();
        self.state.last_flush_ts = self.state.last_flush_ts.map(|last| last.max(used));
        if let Err(error) = result {
            self.state.pending = Some(pending);
            return Err(error);
        }
        self.metrics.flushes.add(1);
        self.state.failures = 0;
        self.state.flushed_max_ts = self
            .state
            .flushed_max_ts
            .max(pending.max_ts().unwrap_or_default());
        tracing::debug!(task = %self.task, flush_ts = %used, bytes, "flushed");
        if let Some(progress) = pending.into_progress() {
            self.published.publish(self.run, progress);
        }
        Ok(())
    }

    async fn try_upload(&mut self, upload: &mut Upload) -> Result<(), FlushError> {
        if upload.flush_ts().is_zero() {
            let flush_ts = self.next_flush_ts(upload.now()).await?;
            let previous = self.stored().await?.last_flush.unwrap_or_default();
            upload.set_flush_ts(flush_ts, Seal { previous });
        }
        upload.run(&self.destination, &self.metrics).await?;
        // Named before its progress is published: whatever the checkpoint will promise, the flushes
        // that it rests on are known by then.
        let ts = self.stored().await?.ts;
        self.store_copy(CheckpointCopy {
            ts,
            last_flush: Some(upload.mark()),
        })
        .await
    }

    /// What the store's copy of the checkpoint says. After a restart, the flush that the next one names
    /// as the one before it is the one that this copy names.
    async fn stored(&mut self) -> Result<CheckpointCopy, FlushError> {
        if let Some(stored) = self.state.stored {
            return Ok(stored);
        }
        let name = global_checkpoint(self.store);
        let storage = &self.destination.storage;
        let none = CheckpointCopy::bare(TimeStamp::ZERO);
        let stored = match storage.read(&name).await {
            // A copy that cannot be read is none: the chain begins anew, and verify sees why.
            Ok(bytes) => CheckpointCopy::decode(&name, &bytes).unwrap_or(none),
            Err(error) if error.is_not_found() => none,
            Err(error) => return Err(error.into()),
        };
        Ok(*self.state.stored.insert(stored))
    }

    async fn store_copy(&mut self, copy: CheckpointCopy) -> Result<(), FlushError> {
        let name = global_checkpoint(self.store);
        let storage = &self.destination.storage;
        storage.write(&name, copy.encode()).await?;
        self.state.stored = Some(copy);
        Ok(())
    }

    /// Copies the global checkpoint to the storage, then tells that it is there.
    async fn copy_checkpoint(&mut self) {
        let now = self.rt.now();
        let interval = if self.state.copied < self.state.flushed_max_ts {
            COPY_INTERVAL
        } else {
            COPY_IDLE_INTERVAL
        };
        let copied_at = self.state.copied_at;
        if copied_at.is_some_and(|at| now.since(at) < interval) {
            return;
        }
        self.state.copied_at = Some(now);
        let global = match self.global.get(Duration::ZERO).await {
            Ok(global) => global,
            Err(error) => {
                tracing::debug!(%error, "cannot read the global checkpoint");
                return;
            }
        };
        if global <= self.state.copied {
            return;
        }
        let copied = match self.stored().await {
            Ok(stored) => {
                let last_flush = stored.last_flush.unwrap_or_default();
                self.store_copy(CheckpointCopy {
                    ts: global.max(stored.ts),
                    last_flush: Some(last_flush),
                })
                .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            tracing::warn!(%error, "cannot copy the global checkpoint to the storage");
            return;
        }
        let key = TaskKey::StorageCheckpoint(self.task.clone(), self.store);
        let value = encode_etcd_checkpoint(global);
        match self.board.put(&self.task, &key, &value).await {
            // Only now: both are tried again until both are done.
            Ok(()) => self.state.copied = global,
            Err(error) => tracing::warn!(%error, "cannot tell of the copied checkpoint"),
        }
    }

    /// Keeps the versions that a new scan would need.
    async fn renew_guard(&mut self) {
        let now = self.rt.now();
        let guarded_at = self.state.guarded_at;
        if guarded_at.is_some_and(|at| now.since(at) < GUARD_INTERVAL) {
            return;
        }
        let ts = self.global.known().prev();
        let id = guard_id(&self.task, self.store);
        match self.board.guard(&id, ts, GUARD_TTL).await {
            Ok(()) => self.state.guarded_at = Some(now),
            Err(error) => tracing::warn!(%error, "cannot guard the log's data from collection"),
        }
    }
}
