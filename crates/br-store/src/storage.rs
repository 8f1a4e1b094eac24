//! Transactional and raw key-value commands over one [`Engine`].
//!
//! # What it does
//! One `Storage` serves every store of an embedded cluster, for they share the engine: locks,
//! latches and the largest timestamp read so far are then known in one place. A command takes the
//! request of the protocol and gives its answer. It fills `error` / `errors`, and `region_error`
//! only when the disk is full. Cluster, store, region, epoch, leader and key range are the
//! caller's to check before.
//!
//! | how | commands |
//! |---|---|
//! | sync, reads: call on a blocking thread | [`get`](Storage::get), [`batch_get`](Storage::batch_get), [`scan`](Storage::scan), [`scan_lock`](Storage::scan_lock), [`mvcc_get_by_key`](Storage::mvcc_get_by_key), [`raw_get`](Storage::raw_get), [`raw_batch_get`](Storage::raw_batch_get), [`raw_scan`](Storage::raw_scan), [`raw_batch_scan`](Storage::raw_batch_scan), [`raw_get_key_ttl`](Storage::raw_get_key_ttl), [`raw_checksum`](Storage::raw_checksum) |
//! | async, may wait for latches and locks | [`prewrite`](Storage::prewrite), [`pessimistic_lock`](Storage::pessimistic_lock), [`pessimistic_rollback`](Storage::pessimistic_rollback), [`commit`](Storage::commit), [`cleanup`](Storage::cleanup), [`batch_rollback`](Storage::batch_rollback), [`check_txn_status`](Storage::check_txn_status), [`check_secondary_locks`](Storage::check_secondary_locks), [`txn_heart_beat`](Storage::txn_heart_beat), [`resolve_lock`](Storage::resolve_lock), [`delete_range`](Storage::delete_range), [`unsafe_destroy_range`](Storage::unsafe_destroy_range), [`raw_put`](Storage::raw_put), [`raw_batch_put`](Storage::raw_batch_put), [`raw_delete`](Storage::raw_delete), [`raw_batch_delete`](Storage::raw_batch_delete), [`raw_delete_range`](Storage::raw_delete_range), [`raw_compare_and_swap`](Storage::raw_compare_and_swap) |
//! | for workers | [`read_range`](Storage::read_range) (entries for backup, scans for checksums), [`gc`](Storage::gc), [`run_gc`](Storage::run_gc) |
//!
//! Commands over a stretch of keys take the range of the region that the request was checked
//! against, and stay within it.
//!
//! # Ordering and invariants
//! - A read at `ts` first raises the largest timestamp read to `ts`, then looks at the locks in
//!   memory, then takes its snapshot. An async-commit or 1PC prewrite puts its lock in memory,
//!   then takes a commit timestamp above the largest read, and removes the lock from memory once
//!   it is in the engine. So no transaction commits below a read that did not see it.
//! - A write command holds the latches of its keys from its snapshot until its batch is in the
//!   engine. Latches are taken in sorted order, so commands cannot lock each other out.
//!
//! # Cancellation
//! Dropping the future of a write while it waits for latches or locks undoes it; once it has
//! begun to work it goes on to its end on its blocking thread.
//!
//! # After a crash
//! A batch is in the engine whole or not at all. Locks in memory are of commands that nobody got
//! an answer for.

use std::sync::Arc;

use br_codec::{ApiVersion, key};
use br_proto::{errorpb, kvrpcpb};
use br_rt::Rt;
use br_types::{EncodedKey, KeyRange, TimeStamp};

use crate::{
    concurrency::{LatchGuard, Latches, LockTable, MaxTs},
    courtesy::Courtesy,
    engine::{Batch, Change, Engine, EngineError},
    log_backup::{Observers, WriteObserver},
    mvcc::{MvccError, RangeView, ReadContext, WriteTxn},
    topology::Topology,
    txn::LockWaits,
};

/// Transactional and raw key-value commands over one engine. Cheap to clone.
#[derive(Clone)]
pub struct Storage(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) rt: Rt,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) topology: Arc<dyn Topology>,
    pub(crate) api_version: ApiVersion,
    pub(crate) max_ts: MaxTs,
    pub(crate) locks: LockTable,
    pub(crate) latches: Latches,
    pub(crate) waits: LockWaits,
    pub(crate) observers: Observers,
    pub(crate) courtesy: Courtesy,
}

impl Storage {
    /// A storage over `engine` whose raw data is laid out as `api_version` says; an engine keeps
    /// one version for life. Of the topology it takes timestamps (raw writes of API version 2)
    /// and the safe point of garbage collection.
    pub fn new(
        rt: Rt,
        engine: Arc<dyn Engine>,
        topology: Arc<dyn Topology>,
        api_version: ApiVersion,
    ) -> Storage {
        Storage(Arc::new(Inner {
            courtesy: Courtesy::new(rt.clone()),
            rt,
            engine,
            topology,
            api_version,
            max_ts: MaxTs::default(),
            locks: LockTable::default(),
            latches: Latches::default(),
            waits: LockWaits::default(),
            observers: Observers::default(),
        }))
    }

    /// How background work gives way to commands.
    pub fn courtesy(&self) -> &Courtesy {
        &self.0.courtesy
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.0.engine
    }

    /// How raw data is laid out.
    pub fn api_version(&self) -> ApiVersion {
        self.0.api_version
    }

    /// Whether transactional requests are served; a V1TTL store has raw data alone.
    pub fn serves_transactions(&self) -> bool {
        self.0.api_version != ApiVersion::V1Ttl
    }

    /// The largest timestamp that was read at, or that a request told of.
    pub fn max_ts(&self) -> TimeStamp {
        self.0.max_ts.get()
    }

    /// Declares that a read at `ts` is about to happen; [`TimeStamp::MAX`] is not recorded.
    pub fn update_max_ts(&self, ts: TimeStamp) {
        self.0.max_ts.update(ts);
    }

    /// A view of a range for a read at `context.ts`, safe against commits below that timestamp:
    /// what backup and checksums read from.
    ///
    /// # Errors
    /// [`MvccError::KeyIsLocked`] by a lock in memory.
    pub fn read_range(
        &self,
        range: &KeyRange<EncodedKey>,
        context: ReadContext,
    ) -> Result<RangeView, MvccError> {
        self.0.max_ts.update(context.ts);
        self.0.locks.check_range(range, &context)?;
        Ok(RangeView::new(
            self.0.engine.snapshot(),
            key::data_range(range),
            context,
        ))
    }

    /// Waits until no write command works and keeps all out while the guard lives: for the short
    /// while in which whole files are taken into the engine.
    pub(crate) async fn lock_all(&self) -> LatchGuard {
        self.0.latches.acquire_all().await
    }

    /// Runs a write command: latches, snapshot, the command, its batch, waking of waiters.
    pub(crate) async fn run_write<T, F>(
        &self,
        keys: Vec<EncodedKey>,
        command: F,
    ) -> Result<T, MvccError>
    where
        T: Send + 'static,
        F: FnOnce(&mut WriteTxn<'_>) -> Result<T, MvccError> + Send + 'static,
    {
        let latch = self.0.latches.acquire(&keys).await;
        let storage = self.clone();
        self.0
            .rt
            .blocking(move || {
                let _latch = latch;
                storage.run_latched(command)
            })
            .await
    }

    fn run_latched<T>(
        &self,
        command: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, MvccError>,
    ) -> Result<T, MvccError> {
        let snapshot = self.0.engine.snapshot();
        let mut txn = WriteTxn::new(&*snapshot, &self.0.max_ts, &self.0.locks);
        let answer = command(&mut txn)?;
        let (batch, guards) = txn.finish();
        self.apply(batch)?;
        // Only now that readers find the locks, or the committed versions, in the engine.
        drop(guards);
        Ok(answer)
    }

    /// Writes a batch and wakes who waited for the locks that it removes.
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        if batch.is_empty() {
            return Ok(());
        }
        let released = if self.0.waits.is_empty() {
            Vec::new()
        } else {
            batch.changes.iter().filter_map(released_lock).collect()
        };
        self.0.engine.write(&batch)?;
        // Before the latches go and before the answer: events of a key come in the order of its
        // writes, and an acknowledged write is known to the observers.
        self.0.observers.applied(batch);
        self.0.waits.wake(&released);
        Ok(())
    }

    /// Tells `observer` of every write of transactions from now on, until it is taken away.
    pub(crate) fn observe(&self, observer: Arc<dyn WriteObserver>) {
        self.0.observers.add(observer);
    }

    /// Takes an observer away.
    pub(crate) fn stop_observing(&self, observer: &Arc<dyn WriteObserver>) {
        self.0.observers.remove(observer);
    }

    /// The `start_ts` of the oldest lock in memory: transactions that have chosen a commit
    /// timestamp above the largest read so far, and whose writes the engine may not show yet.
    pub(crate) fn min_memory_lock_ts(&self) -> Option<TimeStamp> {
        self.0.locks.min_start_ts()
    }
}

/// The data key whose lock a change removes.
fn released_lock(change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Delete(br_types::Cf::Lock, key) => Some(key.clone()),
        _ => None,
    }
}

/// An answer that can carry the error of a command.
pub(crate) trait Answer: Default {
    /// Sets the region error.
    fn set_region_error(&mut self, error: errorpb::Error);
    /// Sets the error of the key or keys.
    fn set_key_error(&mut self, error: kvrpcpb::KeyError);

    /// The answer that says that the command failed.
    fn failed(error: &MvccError) -> Self {
        let mut answer = Self::default();
        match error.region_error() {
            Some(region_error) => answer.set_region_error(region_error),
            None => answer.set_key_error(error.key_error()),
        }
        answer
    }
}

macro_rules! answers {
    ($($name:ident $field:ident $wrap:expr;)*) => {
        $(impl Answer for kvrpcpb::$name {
            fn set_region_error(&mut self, error: errorpb::Error) {
                self.region_error = Some(error);
            }
            fn set_key_error(&mut self, error: kvrpcpb::KeyError) {
                self.$field = $wrap(error);
            }
        })*
    };
}

answers! {
    GetResponse error Some;
    BatchGetResponse error Some;
    ScanResponse error Some;
    ScanLockResponse error Some;
    PrewriteResponse errors one;
    PessimisticLockResponse errors one;
    PessimisticRollbackResponse errors one;
    CommitResponse error Some;
    CleanupResponse error Some;
    BatchRollbackResponse error Some;
    CheckTxnStatusResponse error Some;
    CheckSecondaryLocksResponse error Some;
    TxnHeartBeatResponse error Some;
    ResolveLockResponse error Some;
}

fn one(error: kvrpcpb::KeyError) -> Vec<kvrpcpb::KeyError> {
    vec![error]
}
