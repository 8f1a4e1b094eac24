use br_codec::{Lock, Write, WriteKind, WriteRef, key};
use br_types::{Cf, DataKey, EncodedKey, KeyRange, TimeStamp};

use super::{LockEffect, MvccError, ReadContext, check_lock, is_visible_to_rc_check};
use crate::engine::{Cursor, Snapshot};

/// Reads locks, versions and values of single keys from one snapshot.
///
/// One cursor serves all keys of a command: making one costs more than moving it.
pub(crate) struct Reader<'s> {
    snapshot: &'s dyn Snapshot,
    writes: Option<Box<dyn Cursor + 's>>,
    /// The data key last sought, reused.
    sought: Vec<u8>,
}

/// What a key's records say of a transaction.
#[derive(Debug)]
pub(crate) enum CommitRecord {
    /// A record of its own: a commit or a rollback.
    Found { commit_ts: TimeStamp, write: Write },
    /// It was rolled back; the mark is on another transaction's commit at its `start_ts`.
    OverlappedRollback,
    /// Nothing. Another transaction may have committed at its `start_ts`.
    None { overlapped: Option<OverlappedWrite> },
}

/// A commit of another transaction at the `start_ts` of one that is to be rolled back.
#[derive(Debug)]
pub(crate) struct OverlappedWrite {
    pub(crate) write: Write,
    /// The next newer put or delete; zero if there is none.
    pub(crate) gc_fence: TimeStamp,
}

/// A value that a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) value: Vec<u8>,
    /// Zero if the value was read from the lock of a transaction known to be committed.
    pub(crate) commit_ts: TimeStamp,
}

impl<'s> Reader<'s> {
    pub(crate) fn new(snapshot: &'s dyn Snapshot) -> Self {
        Self {
            snapshot,
            writes: None,
            sought: Vec::new(),
        }
    }

    /// The lock of a key.
    pub(crate) fn load_lock(&self, key: &EncodedKey) -> Result<Option<Lock>, MvccError> {
        let data_key = key::data_key(key.as_bytes());
        let bytes = self.snapshot.get(Cf::Lock, data_key.as_bytes())?;
        Ok(bytes.map(|bytes| Lock::parse(&bytes)).transpose()?)
    }

    /// The newest record of a key committed at or below `ts`, and its commit timestamp.
    pub(crate) fn seek_write(
        &mut self,
        key: &EncodedKey,
        ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, MvccError> {
        self.sought.clear();
        self.sought.push(key::DATA_PREFIX);
        self.sought.extend_from_slice(key.as_bytes());
        key::append_ts(&mut self.sought, ts);
        let snapshot = self.snapshot;
        let cursor = self
            .writes
            .get_or_insert_with(|| snapshot.iter(Cf::Write, all_data()));
        let is_found = cursor.seek(&self.sought)?;
        record_of(key, is_found.then_some(&**cursor))
    }

    /// The record of a key below the one that [`seek_write`](Self::seek_write) or this call gave.
    pub(crate) fn next_write(
        &mut self,
        key: &EncodedKey,
    ) -> Result<Option<(TimeStamp, Write)>, MvccError> {
        let Some(cursor) = &mut self.writes else {
            return Ok(None);
        };
        let is_found = cursor.next()?;
        record_of(key, is_found.then_some(&**cursor))
    }

    /// The newest put at or below `ts`, unless a delete is newer or garbage collection has taken
    /// what was newer; of locks and rollbacks no notice is taken.
    pub(crate) fn get_write(
        &mut self,
        key: &EncodedKey,
        ts: TimeStamp,
    ) -> Result<Option<(TimeStamp, Write)>, MvccError> {
        let mut record = self.seek_write(key, ts)?;
        while let Some((commit_ts, write)) = record {
            if !write.is_valid_as_newest(ts) {
                return Ok(None);
            }
            match write.kind {
                WriteKind::Put => return Ok(Some((commit_ts, write))),
                WriteKind::Delete => return Ok(None),
                WriteKind::Lock | WriteKind::Rollback => record = self.next_write(key)?,
            }
        }
        Ok(None)
    }

    /// The value of a put.
    pub(crate) fn load_value(&self, key: &EncodedKey, write: Write) -> Result<Vec<u8>, MvccError> {
        match write.short_value {
            Some(value) => Ok(value),
            None => self.load_long_value(key, write.start_ts),
        }
    }

    fn load_long_value(&self, key: &EncodedKey, start_ts: TimeStamp) -> Result<Vec<u8>, MvccError> {
        let data_key = key::data_key_at(key.as_bytes(), start_ts);
        let value = self.snapshot.get(Cf::Default, data_key.as_bytes())?;
        value.ok_or(MvccError::ValueMissing { start_ts })
    }

    /// The value of a key for a read: the lock rules first, then the versions.
    pub(crate) fn get(
        &mut self,
        key: &EncodedKey,
        context: &ReadContext,
    ) -> Result<Option<Found>, MvccError> {
        if let Some(lock) = self.load_lock(key)?
            && check_lock(key.as_bytes(), &lock, false, context)? == LockEffect::ReadValue
        {
            let value = self.value_of_lock(key, lock)?;
            return Ok(value.map(|value| Found {
                value,
                commit_ts: TimeStamp::ZERO,
            }));
        }
        self.get_committed(key, context)
    }

    /// The value of a key for a read that no lock concerns.
    pub(crate) fn get_committed(
        &mut self,
        key: &EncodedKey,
        context: &ReadContext,
    ) -> Result<Option<Found>, MvccError> {
        use br_proto::kvrpcpb::IsolationLevel;
        if context.isolation == IsolationLevel::RcCheckTs
            && let Some((commit_ts, write)) = self.seek_write(key, TimeStamp::MAX)?
        {
            is_visible_to_rc_check(key.as_bytes(), commit_ts, write.start_ts, context)?;
        }
        match self.get_write(key, context.ts)? {
            Some((commit_ts, write)) => Ok(Some(Found {
                value: self.load_value(key, write)?,
                commit_ts,
            })),
            None => Ok(None),
        }
    }

    /// The value that a lock's transaction gives the key.
    pub(crate) fn value_of_lock(
        &self,
        key: &EncodedKey,
        lock: Lock,
    ) -> Result<Option<Vec<u8>>, MvccError> {
        if lock.kind != br_codec::LockKind::Put {
            return Ok(None);
        }
        match lock.short_value {
            Some(value) => Ok(Some(value)),
            None => self.load_long_value(key, lock.start_ts).map(Some),
        }
    }

    /// What the records of a key say of the transaction that began at `start_ts`.
    ///
    /// All records down to that timestamp are read: a pessimistic transaction may commit above
    /// others that began later.
    pub(crate) fn commit_record(
        &mut self,
        key: &EncodedKey,
        start_ts: TimeStamp,
    ) -> Result<CommitRecord, MvccError> {
        let mut gc_fence = TimeStamp::ZERO;
        let mut record = self.seek_write(key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = record {
            if write.start_ts == start_ts {
                return Ok(CommitRecord::Found { commit_ts, write });
            }
            if commit_ts == start_ts {
                if write.has_overlapped_rollback {
                    return Ok(CommitRecord::OverlappedRollback);
                }
                return Ok(CommitRecord::None {
                    overlapped: Some(OverlappedWrite { write, gc_fence }),
                });
            }
            if commit_ts < start_ts {
                break;
            }
            if matches!(write.kind, WriteKind::Put | WriteKind::Delete) {
                gc_fence = commit_ts;
            }
            record = self.next_write(key)?;
        }
        Ok(CommitRecord::None { overlapped: None })
    }
}

/// The record under the cursor if it is one of `key`.
fn record_of(
    key: &EncodedKey,
    cursor: Option<&(dyn Cursor + '_)>,
) -> Result<Option<(TimeStamp, Write)>, MvccError> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let (found, commit_ts) = key::split_data_key(cursor.key())?;
    if found != key.as_bytes() {
        return Ok(None);
    }
    Ok(Some((
        commit_ts,
        WriteRef::parse(cursor.value())?.to_write(),
    )))
}

/// Every data key.
pub(super) fn all_data() -> KeyRange<DataKey> {
    key::data_range(&KeyRange::default())
}
