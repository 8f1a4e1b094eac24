use br_codec::{Lock, LockKind, WriteKind, key};
use br_proto::kvrpcpb::{Action, CheckTxnStatusRequest, CheckTxnStatusResponse};
use br_types::{EncodedKey, TimeStamp};

use super::rollback::{Fate, Missing, lock_is_expired, missing_lock, rollback_lock};
use crate::{
    mvcc::{CommitRecord, MvccError, WriteTxn, lock_info},
    storage::{Answer, Storage},
};

impl Storage {
    /// What became of a transaction, by its primary key; rolls it back if it has expired.
    pub async fn check_txn_status(&self, request: CheckTxnStatusRequest) -> CheckTxnStatusResponse {
        let key = key::encode(&request.primary_key);
        let done = self
            .run_write(vec![key.clone()], move |txn| {
                check_status(txn, &key, &request)
            })
            .await;
        done.unwrap_or_else(|error| CheckTxnStatusResponse::failed(&error))
    }
}

fn check_status(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    request: &CheckTxnStatusRequest,
) -> Result<CheckTxnStatusResponse, MvccError> {
    // The answer must hold for readers at these timestamps.
    txn.update_max_ts(TimeStamp(request.lock_ts));
    txn.update_max_ts(TimeStamp(request.current_ts));
    txn.update_max_ts(TimeStamp(request.caller_start_ts));
    let start_ts = TimeStamp(request.lock_ts);
    match txn.reader.load_lock(key)? {
        Some(lock) if lock.start_ts == start_ts => status_of_lock(txn, key, lock, request),
        other => {
            let is_about_pessimistic_lock = request.resolving_pessimistic_lock;
            let fate = missing_lock(
                txn,
                key,
                start_ts,
                other,
                missing_action(request),
                is_about_pessimistic_lock,
            )?;
            Ok(answer_of_fate(fate))
        }
    }
}

fn missing_action(request: &CheckTxnStatusRequest) -> Missing {
    if request.rollback_if_not_exist {
        Missing::RollBackProtected
    } else {
        Missing::Fail
    }
}

fn answer_of_fate(fate: Fate) -> CheckTxnStatusResponse {
    match fate {
        Fate::Committed(commit_ts) => CheckTxnStatusResponse {
            commit_version: commit_ts.0,
            ..Default::default()
        },
        Fate::RolledBack => CheckTxnStatusResponse::default(),
        Fate::NowRolledBack => answer_of_action(Action::LockNotExistRollback),
        Fate::LeftAlone => answer_of_action(Action::LockNotExistDoNothing),
    }
}

fn answer_of_action(action: Action) -> CheckTxnStatusResponse {
    CheckTxnStatusResponse {
        action: action.into(),
        ..Default::default()
    }
}

fn answer_of_lock(
    request: &CheckTxnStatusRequest,
    lock: &Lock,
    is_pushed: bool,
) -> CheckTxnStatusResponse {
    let action = if is_pushed {
        Action::MinCommitTsPushed
    } else {
        Action::NoAction
    };
    CheckTxnStatusResponse {
        lock_ttl: lock.ttl_ms,
        action: action.into(),
        lock_info: Some(lock_info(request.primary_key.clone(), lock)),
        ..Default::default()
    }
}

fn status_of_lock(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    mut lock: Lock,
    request: &CheckTxnStatusRequest,
) -> Result<CheckTxnStatusResponse, MvccError> {
    let is_pessimistic_lock = lock.kind == LockKind::Pessimistic;
    if request.verify_is_primary && request.primary_key != lock.primary {
        if request.resolving_pessimistic_lock || !is_pessimistic_lock {
            let info = lock_info(request.primary_key.clone(), &lock);
            return Err(MvccError::PrimaryMismatch(Box::new(info)));
        }
        // Left over from a request that the transaction repeated with another primary.
        let fate = missing_lock(
            txn,
            key,
            lock.start_ts,
            None,
            missing_action(request),
            request.resolving_pessimistic_lock,
        )?;
        txn.unlock(key);
        return Ok(answer_of_fate(fate));
    }
    if lock.async_commit.is_some() && !request.force_sync_commit {
        // It may be committed already; the secondaries decide.
        return Ok(answer_of_lock(request, &lock, false));
    }
    if is_pessimistic_lock
        && lock.is_locked_with_conflict
        && let Some(answer) = determined(txn, key, lock.start_ts)?
    {
        // A late repetition of its request has taken the lock again.
        txn.unlock(key);
        return Ok(answer);
    }
    if lock_is_expired(&lock, TimeStamp(request.current_ts)) {
        if is_pessimistic_lock && request.resolving_pessimistic_lock {
            txn.unlock(key);
            return Ok(answer_of_action(Action::TtlExpirePessimisticRollback));
        }
        rollback_lock(txn, key, &lock, true)?;
        return Ok(answer_of_action(Action::TtlExpireRollback));
    }
    let caller = TimeStamp(request.caller_start_ts);
    if !lock.min_commit_ts.is_zero() && !caller.is_max() && caller >= lock.min_commit_ts {
        // From now on it commits above the caller, who need not wait for it.
        lock.min_commit_ts = caller.next().max(TimeStamp(request.current_ts));
        txn.put_lock(key, &lock);
    }
    let is_pushed = (!caller.is_zero() && lock.min_commit_ts > caller) || caller.is_max();
    Ok(answer_of_lock(request, &lock, is_pushed))
}

/// What the records of a key say of a transaction, if they say anything.
fn determined(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
) -> Result<Option<CheckTxnStatusResponse>, MvccError> {
    Ok(match txn.reader.commit_record(key, start_ts)? {
        CommitRecord::Found { write, .. } if write.kind == WriteKind::Rollback => {
            Some(answer_of_fate(Fate::RolledBack))
        }
        CommitRecord::Found { commit_ts, .. } => Some(answer_of_fate(Fate::Committed(commit_ts))),
        CommitRecord::OverlappedRollback => Some(answer_of_fate(Fate::RolledBack)),
        CommitRecord::None { .. } => None,
    })
}
