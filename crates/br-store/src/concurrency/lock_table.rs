use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use br_codec::Lock;
use br_types::{EncodedKey, KeyRange, TimeStamp};

use super::MaxTs;
use crate::mvcc::{MvccError, ReadContext, check_lock};

/// Locks of async-commit and 1PC prewrites between the choice of their commit timestamp and the
/// moment that the engine shows what they wrote.
///
/// # Ordering and invariants
/// A prewrite counts itself, then reads the largest read timestamp; a reader raises that
/// timestamp, then reads the count. Both are sequentially consistent, so a reader that finds the
/// table empty has been seen by each prewrite that comes after.
#[derive(Default)]
pub(crate) struct LockTable {
    locks: Mutex<BTreeMap<EncodedKey, MemoryLock>>,
    count: AtomicUsize,
}

/// A lock in memory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLock {
    pub(crate) lock: Lock,
    /// Whether the transaction commits at once; reads of the newest version wait for it then, as
    /// they do for async commits.
    pub(crate) is_one_pc: bool,
}

/// Keeps a lock in memory; dropping it takes the lock out.
pub(crate) struct LockGuard<'t> {
    table: &'t LockTable,
    key: EncodedKey,
}

impl LockTable {
    /// Puts a lock in, at the least commit timestamp above all reads so far: `choose` gets the
    /// largest read timestamp and completes the lock, or refuses.
    ///
    /// The caller holds the key's latch.
    pub(crate) fn lock<'t, E>(
        &'t self,
        key: &EncodedKey,
        max_ts: &MaxTs,
        choose: impl FnOnce(TimeStamp) -> Result<MemoryLock, E>,
    ) -> Result<LockGuard<'t>, E> {
        let mut locks = self.lock_map();
        self.count.fetch_add(1, Ordering::SeqCst);
        match choose(max_ts.get()) {
            Ok(lock) => {
                // Others are kept off by the latch; a request may name a key twice.
                if locks.insert(key.clone(), lock).is_some() {
                    self.count.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(LockGuard {
                    table: self,
                    key: key.clone(),
                })
            }
            Err(error) => {
                self.count.fetch_sub(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Whether a read may pass a key.
    pub(crate) fn check_key(
        &self,
        key: &EncodedKey,
        context: &ReadContext,
    ) -> Result<(), MvccError> {
        if self.is_empty() {
            return Ok(());
        }
        match self.lock_map().get(key) {
            Some(found) => check(key, found, context),
            None => Ok(()),
        }
    }

    /// Whether a read may pass every key of a range.
    pub(crate) fn check_range(
        &self,
        range: &KeyRange<EncodedKey>,
        context: &ReadContext,
    ) -> Result<(), MvccError> {
        self.try_each(range, |key, found| check(key, found, context))
    }

    /// Calls `visit` for each lock of a range, until it fails.
    pub(crate) fn try_each(
        &self,
        range: &KeyRange<EncodedKey>,
        mut visit: impl FnMut(&EncodedKey, &MemoryLock) -> Result<(), MvccError>,
    ) -> Result<(), MvccError> {
        if self.is_empty() || range.is_empty() {
            return Ok(());
        }
        let end = if range.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&range.end)
        };
        self.lock_map()
            .range::<EncodedKey, _>((Bound::Included(&range.start), end))
            .try_for_each(|(key, found)| visit(key, found))
    }

    /// The oldest `start_ts` among all locks.
    pub(crate) fn min_start_ts(&self) -> Option<TimeStamp> {
        if self.is_empty() {
            return None;
        }
        let locks = self.lock_map();
        locks.values().map(|found| found.lock.start_ts).min()
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    fn lock_map(&self) -> MutexGuard<'_, BTreeMap<EncodedKey, MemoryLock>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(key: &EncodedKey, found: &MemoryLock, context: &ReadContext) -> Result<(), MvccError> {
    check_lock(key.as_bytes(), &found.lock, found.is_one_pc, context).map(|_| ())
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        let mut locks = self.table.lock_map();
        if locks.remove(&self.key).is_some() {
            self.table.count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
