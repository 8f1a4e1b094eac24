use br_codec::{Lock, LockKind, SHORT_VALUE_LEN_MAX, Write, WriteKind, key};
use br_types::{Cf, EncodedKey, TimeStamp};

use super::{MvccError, Reader};
use crate::{
    concurrency::{LockGuard, LockTable, MaxTs, MemoryLock},
    engine::{Batch, Snapshot},
};

/// What a write command reads from and what it is going to change.
pub(crate) struct WriteTxn<'a> {
    pub(crate) reader: Reader<'a>,
    batch: Batch,
    max_ts: &'a MaxTs,
    locks: &'a LockTable,
    guards: Vec<LockGuard<'a>>,
}

impl<'a> WriteTxn<'a> {
    pub(crate) fn new(snapshot: &'a dyn Snapshot, max_ts: &'a MaxTs, locks: &'a LockTable) -> Self {
        Self {
            reader: Reader::new(snapshot),
            batch: Batch::default(),
            max_ts,
            locks,
            guards: Vec::new(),
        }
    }

    /// The changes, and the locks that stay in memory until the changes are in the engine.
    pub(crate) fn finish(self) -> (Batch, Vec<LockGuard<'a>>) {
        (self.batch, self.guards)
    }

    /// Forgets all changes.
    pub(crate) fn clear(&mut self) {
        self.batch.changes.clear();
        self.guards.clear();
    }

    /// Takes the locks out of memory: the transaction commits in two phases after all.
    pub(crate) fn clear_memory_locks(&mut self) {
        self.guards.clear();
    }

    pub(crate) fn update_max_ts(&self, ts: TimeStamp) {
        self.max_ts.update(ts);
    }

    /// Puts a lock in memory; see [`LockTable::lock`].
    pub(crate) fn lock_in_memory(
        &mut self,
        key: &EncodedKey,
        choose: impl FnOnce(TimeStamp) -> Result<MemoryLock, MvccError>,
    ) -> Result<(), MvccError> {
        let guard = self.locks.lock(key, self.max_ts, choose)?;
        self.guards.push(guard);
        Ok(())
    }

    pub(crate) fn put_lock(&mut self, key: &EncodedKey, lock: &Lock) {
        let data_key = key::data_key(key.as_bytes()).into_bytes();
        self.batch.put(Cf::Lock, data_key, lock.to_bytes());
    }

    pub(crate) fn unlock(&mut self, key: &EncodedKey) {
        self.batch
            .delete(Cf::Lock, key::data_key(key.as_bytes()).into_bytes());
    }

    pub(crate) fn put_write(&mut self, key: &EncodedKey, commit_ts: TimeStamp, write: &Write) {
        let data_key = key::data_key_at(key.as_bytes(), commit_ts).into_bytes();
        self.batch.put(Cf::Write, data_key, write.to_bytes());
    }

    pub(crate) fn delete_write(&mut self, key: &EncodedKey, commit_ts: TimeStamp) {
        self.batch.delete(
            Cf::Write,
            key::data_key_at(key.as_bytes(), commit_ts).into_bytes(),
        );
    }

    pub(crate) fn put_value(&mut self, key: &EncodedKey, start_ts: TimeStamp, value: Vec<u8>) {
        let data_key = key::data_key_at(key.as_bytes(), start_ts).into_bytes();
        self.batch.put(Cf::Default, data_key, value);
    }

    pub(crate) fn delete_value(&mut self, key: &EncodedKey, start_ts: TimeStamp) {
        self.batch.delete(
            Cf::Default,
            key::data_key_at(key.as_bytes(), start_ts).into_bytes(),
        );
    }

    /// Whether a value lies in the record itself.
    pub(crate) fn is_short(value: &[u8]) -> bool {
        value.len() <= SHORT_VALUE_LEN_MAX
    }

    /// The commit of a prewritten lock at `commit_ts`; removes the lock if it is in the engine.
    pub(crate) fn commit_lock(
        &mut self,
        key: &EncodedKey,
        lock: Lock,
        commit_ts: TimeStamp,
        is_stored: bool,
    ) {
        let kind = match lock.kind {
            LockKind::Put => WriteKind::Put,
            LockKind::Delete => WriteKind::Delete,
            LockKind::Lock | LockKind::Pessimistic => WriteKind::Lock,
        };
        let mut write = Write::new(kind, lock.start_ts, lock.short_value);
        write.last_change = lock.last_change;
        write.txn_source = lock.txn_source;
        write.has_overlapped_rollback = lock.rollback_ts.contains(&commit_ts);
        self.put_write(key, commit_ts, &write);
        if is_stored {
            self.unlock(key);
        }
    }
}
