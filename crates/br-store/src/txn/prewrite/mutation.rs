use br_codec::{Lock, LockKind, Write, WriteKind};
use br_proto::kvrpcpb::{
    Assertion, AssertionLevel, Mutation, Op, prewrite_request::PessimisticAction,
    write_conflict::Reason,
};
use br_types::{EncodedKey, TimeStamp};

use super::{CommitMode, Prewrite};
use crate::{
    concurrency::MemoryLock,
    mvcc::{MvccError, WriteTxn, lock_info},
    txn::{check_not_exist, is_rollback_of},
};

/// A key that is about to get its lock.
pub(super) struct Prewritten {
    pub(super) key: EncodedKey,
    pub(super) lock: Lock,
    /// Whether the lock takes the place of a pessimistic one in the engine.
    pub(super) had_pessimistic_lock: bool,
}

/// One mutation on its way.
struct Step<'p> {
    prewrite: &'p Prewrite,
    key: &'p EncodedKey,
    raw_key: Vec<u8>,
    action: PessimisticAction,
    should_not_exist: bool,
    assertion: Assertion,
}

/// Checks one mutation and adds its lock to `pending`. Gives the least commit timestamp, if the
/// transaction has one; zero if the key is locked already, for two phases.
///
/// On [`MvccError::CommitTsTooLarge`] the lock is in `pending` too, as one of two phases.
pub(super) fn prewrite_mutation(
    prewrite: &Prewrite,
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    mutation: Mutation,
    action: PessimisticAction,
    expected_for_update_ts: Option<TimeStamp>,
    pending: &mut Vec<Prewritten>,
) -> Result<TimeStamp, MvccError> {
    let op = mutation.op();
    let assertion = mutation.assertion();
    let kind = match op {
        Op::Put | Op::Insert => Some(LockKind::Put),
        Op::Del => Some(LockKind::Delete),
        Op::Lock => Some(LockKind::Lock),
        Op::CheckNotExists => None,
        _ => {
            return Err(MvccError::Invalid(
                "a prewrite cannot have an operation of that kind",
            ));
        }
    };
    if kind.is_none() && prewrite.for_update_ts.is_some() {
        return Err(MvccError::Invalid(
            "a pessimistic prewrite cannot check for absence",
        ));
    }
    let should_not_exist = matches!(op, Op::Insert | Op::CheckNotExists);
    if should_not_exist {
        // It reads: nobody may put the key in below it later on.
        txn.update_max_ts(prewrite.start_ts);
    }
    let raw_key = mutation.key;
    let step = Step {
        prewrite,
        key,
        raw_key,
        action,
        should_not_exist,
        assertion,
    };

    let found = txn.reader.load_lock(key)?;
    let mut is_amended = false;
    let pessimistic_lock = match found {
        Some(lock) => match step.check_lock(lock, expected_for_update_ts)? {
            Own::Prewritten(min_commit_ts) => return Ok(min_commit_ts),
            Own::Pessimistic(lock) => Some(lock),
        },
        None => {
            if action == PessimisticAction::DoPessimisticCheck {
                step.amend(txn)?;
                is_amended = true;
            }
            None
        }
    };

    let mut newest = None;
    let is_loaded = !step.skips_constraint_check();
    if is_loaded {
        newest = step.check_newer(txn)?;
    }
    if !is_amended {
        step.check_assertion(txn, newest.as_ref(), is_loaded)?;
    }
    let Some(kind) = kind else {
        let is_two_phase = prewrite.mode == CommitMode::TwoPhase;
        let least = prewrite.min_commit_ts.max(prewrite.start_ts.next());
        return Ok(if is_two_phase { TimeStamp::ZERO } else { least });
    };
    step.write(txn, kind, mutation.value, pessimistic_lock, pending)
}

/// A lock of the transaction itself.
enum Own {
    /// Prewritten before; the least commit timestamp of an async commit, else zero.
    Prewritten(TimeStamp),
    /// To be replaced.
    Pessimistic(Box<Lock>),
}

impl Step<'_> {
    fn lock_not_found(&self, why: &'static str) -> MvccError {
        let (start_ts, key) = (self.prewrite.start_ts, self.raw_key.clone());
        MvccError::PessimisticLockNotFound { start_ts, key, why }
    }

    fn conflict(&self, write: &Write, commit_ts: TimeStamp, reason: Reason) -> MvccError {
        MvccError::WriteConflict {
            start_ts: self.prewrite.start_ts,
            conflict_start_ts: write.start_ts,
            conflict_commit_ts: commit_ts,
            key: self.raw_key.clone(),
            primary: self.prewrite.primary.clone(),
            reason,
        }
    }

    fn check_lock(&self, lock: Lock, expected: Option<TimeStamp>) -> Result<Own, MvccError> {
        let prewrite = self.prewrite;
        if lock.start_ts != prewrite.start_ts {
            if self.action == PessimisticAction::DoPessimisticCheck {
                return Err(self.lock_not_found("another transaction has locked the key"));
            }
            let mut info = lock_info(self.raw_key.clone(), &lock);
            if prewrite.for_update_ts.is_some() {
                // Keys that a pessimistic transaction did not lock are covered by those that it
                // did: whoever is in the way can be resolved at once.
                info.lock_ttl = 0;
            }
            return Err(MvccError::KeyIsLocked(Box::new(info)));
        }
        if lock.kind != LockKind::Pessimistic {
            let is_async = lock.async_commit.is_some();
            let min_commit_ts = if is_async {
                lock.min_commit_ts
            } else {
                TimeStamp::ZERO
            };
            return Ok(Own::Prewritten(min_commit_ts));
        }
        if prewrite.for_update_ts.is_none() {
            return Err(MvccError::LockTypeNotMatch {
                start_ts: prewrite.start_ts,
                key: self.raw_key.clone(),
                is_pessimistic: true,
            });
        }
        // A lock taken anew by a late repetition of its request is not the one that the client
        // relies on.
        if expected.is_some_and(|expected| expected != lock.for_update_ts) {
            return Err(self.lock_not_found("it was taken at another timestamp"));
        }
        Ok(Own::Pessimistic(Box::new(lock)))
    }

    /// A pessimistic lock that got lost does no harm if nobody has changed the key since the
    /// transaction began.
    fn amend(&self, txn: &mut WriteTxn<'_>) -> Result<(), MvccError> {
        let newest = txn.reader.seek_write(self.key, TimeStamp::MAX)?;
        if newest
            .as_ref()
            .is_some_and(|(commit_ts, _)| *commit_ts >= self.prewrite.start_ts)
        {
            return Err(self.lock_not_found("the key has changed since"));
        }
        self.check_assertion(txn, newest.as_ref(), true)
    }

    fn skips_constraint_check(&self) -> bool {
        if self.prewrite.for_update_ts.is_none() {
            return self.prewrite.skips_constraint_check;
        }
        match self.action {
            PessimisticAction::DoPessimisticCheck => true,
            // A repetition must not lock again what was committed or rolled back meanwhile.
            PessimisticAction::SkipPessimisticCheck => !self.prewrite.is_retry,
            PessimisticAction::DoConstraintCheck => false,
        }
    }

    /// That nobody has written the key since the transaction read it; gives the newest record
    /// that counts.
    fn check_newer(&self, txn: &mut WriteTxn<'_>) -> Result<Option<(TimeStamp, Write)>, MvccError> {
        let start_ts = self.prewrite.start_ts;
        let mut next = txn.reader.seek_write(self.key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = next {
            if is_rollback_of(&write, commit_ts, start_ts) {
                return Err(self.conflict(&write, commit_ts, Reason::SelfRolledBack));
            }
            match self.prewrite.for_update_ts {
                None if commit_ts > start_ts => {
                    return Err(self.conflict(&write, commit_ts, Reason::Optimistic));
                }
                None => {}
                Some(for_update_ts) => {
                    let is_lazy = self.action == PessimisticAction::DoConstraintCheck;
                    if is_lazy && commit_ts > start_ts {
                        return Err(self.conflict(&write, commit_ts, Reason::LazyUniquenessCheck));
                    }
                    if commit_ts > for_update_ts {
                        if write.kind == WriteKind::Rollback {
                            // No change of the key; what lies below may be one.
                            next = txn.reader.next_write(self.key)?;
                            continue;
                        }
                        return Err(self.lock_not_found("another transaction has written the key"));
                    }
                }
            }
            if self.should_not_exist {
                check_not_exist(txn, self.key, commit_ts, &write)?;
            }
            return Ok(Some((commit_ts, write)));
        }
        Ok(None)
    }

    fn check_assertion(
        &self,
        txn: &mut WriteTxn<'_>,
        newest: Option<&(TimeStamp, Write)>,
        is_loaded: bool,
    ) -> Result<(), MvccError> {
        let level = self.prewrite.assertion_level;
        if self.assertion == Assertion::None
            || level == AssertionLevel::Off
            || (level != AssertionLevel::Strict && !is_loaded)
        {
            return Ok(());
        }
        // What has a fence was taken by garbage collection.
        let newest = newest.filter(|(_, write)| write.gc_fence.is_none_or(|ts| ts.is_zero()));
        let is_data = |write: &Write| matches!(write.kind, WriteKind::Put | WriteKind::Delete);
        let reloaded = match newest {
            Some((_, write)) if is_data(write) => None,
            None if is_loaded => None,
            Some((commit_ts, _)) => txn.reader.get_write(self.key, *commit_ts)?,
            None => txn.reader.get_write(self.key, TimeStamp::MAX)?,
        };
        let version = match newest {
            Some((_, write)) if is_data(write) => newest,
            _ => reloaded.as_ref(),
        };
        let (start_ts, commit_ts) = match (self.assertion, version) {
            (Assertion::Exist, None) => (TimeStamp::ZERO, TimeStamp::ZERO),
            (Assertion::Exist, Some((ts, write))) if write.kind == WriteKind::Delete => {
                (write.start_ts, *ts)
            }
            (Assertion::NotExist, Some((ts, write))) if write.kind == WriteKind::Put => {
                (write.start_ts, *ts)
            }
            _ => return Ok(()),
        };
        // A conflict explains it better, if there is one and nobody has looked yet.
        if self.skips_constraint_check() {
            self.check_newer(txn)?;
        }
        Err(MvccError::AssertionFailed {
            start_ts: self.prewrite.start_ts,
            key: self.raw_key.clone(),
            assertion: self.assertion,
            existing_start_ts: start_ts,
            existing_commit_ts: commit_ts,
        })
    }

    fn write(
        self,
        txn: &mut WriteTxn<'_>,
        kind: LockKind,
        value: Vec<u8>,
        replaced: Option<Box<Lock>>,
        pending: &mut Vec<Prewritten>,
    ) -> Result<TimeStamp, MvccError> {
        let prewrite = self.prewrite;
        let mut lock = prewrite.new_lock(kind);
        lock.for_update_ts = prewrite.for_update_ts.unwrap_or_default();
        let had_pessimistic_lock = replaced.is_some();
        if let Some(replaced) = replaced {
            // Heartbeats and readers may have raised them.
            lock.ttl_ms = lock.ttl_ms.max(replaced.ttl_ms);
            lock.min_commit_ts = lock.min_commit_ts.max(replaced.min_commit_ts);
            lock.for_update_ts = lock.for_update_ts.max(replaced.for_update_ts);
            if kind == LockKind::Lock {
                lock.last_change = replaced.last_change;
            }
        }
        if kind == LockKind::Put {
            if WriteTxn::is_short(&value) {
                lock.short_value = Some(value);
            } else {
                txn.put_value(self.key, prewrite.start_ts, value);
            }
        }
        let mut chosen = Ok(TimeStamp::ZERO);
        if prewrite.mode != CommitMode::TwoPhase {
            let mut promised = lock.clone();
            promised.async_commit = prewrite.secondaries_in_lock(&self.raw_key);
            match choose_commit_ts(txn, self.key, promised, prewrite) {
                Ok(promised) => {
                    chosen = Ok(promised.min_commit_ts);
                    lock = promised;
                }
                Err(error) => chosen = Err(error),
            }
        }
        pending.push(Prewritten {
            key: self.key.clone(),
            lock,
            had_pessimistic_lock,
        });
        chosen
    }
}

/// The lock with a commit timestamp above everything read so far, in memory from now on.
fn choose_commit_ts(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    mut lock: Lock,
    prewrite: &Prewrite,
) -> Result<Lock, MvccError> {
    let mut chosen = None;
    txn.lock_in_memory(key, |max_ts| {
        let least = max_ts.max(prewrite.start_ts).max(lock.for_update_ts).next();
        let min_commit_ts = lock.min_commit_ts.max(least);
        if !prewrite.max_commit_ts.is_zero() && min_commit_ts > prewrite.max_commit_ts {
            return Err(MvccError::CommitTsTooLarge { min_commit_ts });
        }
        lock.min_commit_ts = min_commit_ts;
        let is_one_pc = prewrite.mode == CommitMode::OnePhase;
        chosen = Some(lock.clone());
        Ok(MemoryLock { lock, is_one_pc })
    })?;
    chosen.ok_or(MvccError::Invalid("no commit timestamp was chosen"))
}
