//! Rolling back: of prewritten keys, of pessimistic locks, and of transactions that never came.
//!
//! # Ordering and invariants
//! A rollback leaves a record at the transaction's `start_ts`, so that a prewrite that arrives
//! late fails. If another transaction has committed at that very timestamp, its record gets a
//! mark instead, and a fence that names the next newer version: should garbage collection take
//! that version in between, the rewritten record must not come to light again. Records of
//! unprotected rollbacks are collapsed: a new one takes the place of the one before.

use br_codec::{Lock, LockKind, Write, WriteKind, key};
use br_proto::kvrpcpb::{
    BatchRollbackRequest, BatchRollbackResponse, CleanupRequest, CleanupResponse,
    PessimisticRollbackRequest, PessimisticRollbackResponse,
};
use br_types::{EncodedKey, KeyRange, TimeStamp};

use super::{is_expired, raw_key, resolve_lock::BATCH_LOCKS_MAX, unique_keys};
use crate::{
    mvcc::{CommitRecord, MvccError, OverlappedWrite, WriteTxn, lock_info},
    storage::{Answer, Storage},
};

impl Storage {
    /// Rolls keys of a transaction back, whether they are prewritten or not.
    pub async fn batch_rollback(&self, request: BatchRollbackRequest) -> BatchRollbackResponse {
        let keys = unique_keys(&request.keys);
        let start_ts = TimeStamp(request.start_version);
        let done = self
            .run_write(keys.clone(), move |txn| {
                keys.iter()
                    .try_for_each(|key| cleanup_key(txn, key, start_ts, TimeStamp::ZERO, false))
            })
            .await;
        match done {
            Ok(()) => BatchRollbackResponse::default(),
            Err(error) => BatchRollbackResponse::failed(&error),
        }
    }

    /// Rolls one key back if its lock has expired; tells when it is committed.
    pub async fn cleanup(&self, request: CleanupRequest) -> CleanupResponse {
        let key = key::encode(&request.key);
        let start_ts = TimeStamp(request.start_version);
        let current_ts = TimeStamp(request.current_ts);
        let done = self
            .run_write(vec![key.clone()], move |txn| {
                txn.update_max_ts(start_ts);
                cleanup_key(txn, &key, start_ts, current_ts, true)
            })
            .await;
        match done {
            Ok(()) => CleanupResponse::default(),
            Err(MvccError::Committed { commit_ts, .. }) => CleanupResponse {
                commit_version: commit_ts.0,
                ..Default::default()
            },
            Err(error) => CleanupResponse::failed(&error),
        }
    }

    /// Removes pessimistic locks of a transaction that were taken at or before `for_update_ts`;
    /// without keys, all of them in `region`.
    pub async fn pessimistic_rollback(
        &self,
        request: PessimisticRollbackRequest,
        region: KeyRange<EncodedKey>,
    ) -> PessimisticRollbackResponse {
        let done = if request.keys.is_empty() {
            self.pessimistic_rollback_range(&request, region).await
        } else {
            self.pessimistic_rollback_keys(&request, unique_keys(&request.keys))
                .await
        };
        match done {
            Ok(()) => PessimisticRollbackResponse::default(),
            Err(error) => PessimisticRollbackResponse::failed(&error),
        }
    }

    async fn pessimistic_rollback_range(
        &self,
        request: &PessimisticRollbackRequest,
        mut range: KeyRange<EncodedKey>,
    ) -> Result<(), MvccError> {
        let start_ts = TimeStamp(request.start_version);
        loop {
            let is_wanted =
                move |lock: &Lock| lock.start_ts == start_ts && lock.kind == LockKind::Pessimistic;
            let (storage, here) = (self.clone(), range.clone());
            let found = self
                .0
                .rt
                .blocking(move || storage.locks_in(&here, BATCH_LOCKS_MAX, is_wanted))
                .await?;
            let Some((last, _)) = found.last() else {
                return Ok(());
            };
            range.start = after(last);
            let keys = found.into_iter().map(|(key, _)| key).collect();
            self.pessimistic_rollback_keys(request, keys).await?;
        }
    }

    async fn pessimistic_rollback_keys(
        &self,
        request: &PessimisticRollbackRequest,
        keys: Vec<EncodedKey>,
    ) -> Result<(), MvccError> {
        let start_ts = TimeStamp(request.start_version);
        let for_update_ts = TimeStamp(request.for_update_ts);
        self.run_write(keys.clone(), move |txn| {
            for key in &keys {
                let is_ours = |lock: &Lock| {
                    lock.kind == LockKind::Pessimistic
                        && lock.start_ts == start_ts
                        && lock.for_update_ts <= for_update_ts
                };
                if txn
                    .reader
                    .load_lock(key)?
                    .is_some_and(|lock| is_ours(&lock))
                {
                    txn.unlock(key);
                }
            }
            Ok(())
        })
        .await
    }
}

/// The least key behind `key`.
pub(super) fn after(key: &EncodedKey) -> EncodedKey {
    let mut bytes = key.as_bytes().to_vec();
    bytes.push(0);
    EncodedKey::from(bytes)
}

/// Rolls back one key: its lock if it has one, else the prewrite that may still come. With
/// `current_ts`, only a lock that has expired by then.
pub(super) fn cleanup_key(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    current_ts: TimeStamp,
    is_protected: bool,
) -> Result<(), MvccError> {
    let lock = txn.reader.load_lock(key)?;
    if let Some(lock) = lock.as_ref().filter(|lock| lock.start_ts == start_ts) {
        let is_alive = !current_ts.is_zero()
            && lock.start_ts.physical_ms().saturating_add(lock.ttl_ms) >= current_ts.physical_ms();
        if is_alive {
            return Err(MvccError::KeyIsLocked(Box::new(lock_info(
                raw_key(key)?,
                lock,
            ))));
        }
        return rollback_lock(txn, key, lock, !is_protected);
    }
    let missing = if is_protected {
        Missing::RollBackProtected
    } else {
        Missing::RollBack
    };
    match missing_lock(txn, key, start_ts, lock, missing, false)? {
        Fate::Committed(commit_ts) => Err(MvccError::Committed {
            start_ts,
            commit_ts,
            key: raw_key(key)?,
        }),
        Fate::RolledBack | Fate::NowRolledBack | Fate::LeftAlone => Ok(()),
    }
}

/// What to do about a transaction of which a key knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Leave a rollback record, which may be collapsed.
    RollBack,
    /// Leave one that stays.
    RollBackProtected,
    /// Fail.
    Fail,
}

/// What became of a transaction that has no lock on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is committed.
    Committed(TimeStamp),
    /// It was rolled back before.
    RolledBack,
    /// It was not known and is rolled back now.
    NowRolledBack,
    /// It was not known; only a pessimistic lock is in question, so nothing was written.
    LeftAlone,
}

/// Finds out about a transaction that has no lock on a key; `other` is the lock of another one.
pub(super) fn missing_lock(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    other: Option<Lock>,
    missing: Missing,
    is_about_pessimistic_lock: bool,
) -> Result<Fate, MvccError> {
    let overlapped = match txn.reader.commit_record(key, start_ts)? {
        CommitRecord::Found { write, .. } if write.kind == WriteKind::Rollback => {
            return Ok(Fate::RolledBack);
        }
        CommitRecord::Found { commit_ts, .. } => return Ok(Fate::Committed(commit_ts)),
        CommitRecord::OverlappedRollback => return Ok(Fate::RolledBack),
        CommitRecord::None { overlapped } => overlapped,
    };
    if missing == Missing::Fail {
        return Err(MvccError::TxnNotFound {
            start_ts,
            key: raw_key(key)?,
        });
    }
    if is_about_pessimistic_lock {
        return Ok(Fate::LeftAlone);
    }
    let is_protected = missing == Missing::RollBackProtected;
    if !is_protected {
        collapse(txn, key, start_ts)?;
    }
    if overlapped.is_none() && is_protected {
        mark_on_other_lock(txn, key, start_ts, other);
    }
    write_rollback(txn, key, start_ts, is_protected, overlapped);
    Ok(Fate::NowRolledBack)
}

/// Removes a lock and leaves a rollback record.
pub(super) fn rollback_lock(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    lock: &Lock,
    collapses: bool,
) -> Result<(), MvccError> {
    let overlapped = match txn.reader.commit_record(key, lock.start_ts)? {
        CommitRecord::None { overlapped } => overlapped,
        CommitRecord::Found { write, commit_ts } if write.kind != WriteKind::Rollback => {
            // Only damage gets here: a commit takes the lock away in the same batch.
            let (start_ts, key) = (lock.start_ts, raw_key(key)?);
            return Err(MvccError::Committed {
                start_ts,
                commit_ts,
                key,
            });
        }
        _ => {
            txn.unlock(key);
            return Ok(());
        }
    };
    if lock.kind == LockKind::Put && lock.short_value.is_none() {
        txn.delete_value(key, lock.start_ts);
    }
    let is_primary = raw_key(key)? == lock.primary;
    let is_protected = is_primary || lock.generation > 0;
    write_rollback(txn, key, lock.start_ts, is_protected, overlapped);
    if collapses {
        collapse(txn, key, lock.start_ts)?;
    }
    txn.unlock(key);
    Ok(())
}

/// Leaves the mark of a rollback: a record of its own, or a flag on the commit that is in its
/// place. An unprotected rollback does without in the second case.
pub(super) fn write_rollback(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    is_protected: bool,
    overlapped: Option<OverlappedWrite>,
) {
    match overlapped {
        None => txn.put_write(key, start_ts, &Write::rollback(start_ts, is_protected)),
        Some(OverlappedWrite {
            mut write,
            gc_fence,
        }) if is_protected => {
            write.has_overlapped_rollback = true;
            write.gc_fence = Some(gc_fence);
            txn.put_write(key, start_ts, &write);
        }
        Some(_) => {}
    }
}

/// Removes the rollback record right below, if it is not protected.
pub(super) fn collapse(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
) -> Result<(), MvccError> {
    if let Some((commit_ts, write)) = txn.reader.seek_write(key, start_ts)?
        && write.kind == WriteKind::Rollback
        && !write.is_protected_rollback()
    {
        txn.delete_write(key, commit_ts);
    }
    Ok(())
}

/// An async-commit transaction that holds the key may come to commit at this very timestamp: its
/// lock remembers the rollback then.
pub(super) fn mark_on_other_lock(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    other: Option<Lock>,
) {
    let Some(mut lock) = other else { return };
    if lock.async_commit.is_some() && start_ts >= lock.min_commit_ts {
        lock.rollback_ts.push(start_ts);
        txn.put_lock(key, &lock);
    }
}

/// Whether a lock has run out by `now`.
pub(super) fn lock_is_expired(lock: &Lock, now: TimeStamp) -> bool {
    is_expired(lock.start_ts, lock.ttl_ms, now)
}
