use br_codec::{Lock, LockKind, key};
use br_proto::kvrpcpb::{self, IsolationLevel, write_conflict::Reason};
use br_types::TimeStamp;

use super::{MvccError, ReadContext};

/// What a lock means for a read that it does not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockEffect {
    /// Nothing: committed versions are read.
    None,
    /// Its transaction has committed below the read: the value is the lock's.
    ReadValue,
}

/// Whether a read may pass a lock, under the rules of the read's isolation level.
///
/// Source: TiKV's conflict rule for snapshot isolation; a read passes a lock of a later
/// transaction, one that changes nothing, one that promised to commit later, and one whose
/// transaction the reader has resolved.
pub(crate) fn check_lock(
    encoded_key: &[u8],
    lock: &Lock,
    is_one_pc: bool,
    context: &ReadContext,
) -> Result<LockEffect, MvccError> {
    let changes_nothing = matches!(lock.kind, LockKind::Lock | LockKind::Pessimistic);
    match context.isolation {
        IsolationLevel::Rc => return Ok(LockEffect::None),
        IsolationLevel::RcCheckTs => {
            if changes_nothing || context.is_resolved(lock.start_ts) {
                return Ok(LockEffect::None);
            }
            return Err(MvccError::WriteConflict {
                start_ts: context.ts,
                conflict_start_ts: lock.start_ts,
                conflict_commit_ts: TimeStamp::ZERO,
                key: raw_key(encoded_key)?,
                primary: Vec::new(),
                reason: Reason::RcCheckTs,
            });
        }
        IsolationLevel::Si => {}
    }
    if lock.start_ts > context.ts || changes_nothing || lock.min_commit_ts > context.ts {
        return Ok(LockEffect::None);
    }
    if context.is_resolved(lock.start_ts) {
        return Ok(LockEffect::None);
    }
    if context.is_committed(lock.start_ts) {
        return Ok(LockEffect::ReadValue);
    }
    let raw = raw_key(encoded_key)?;
    // Whoever reads the newest version has no transaction yet. Its own primary is not committed,
    // or the commit would have taken the lock away, unless it commits without one.
    if context.ts.is_max() && raw == lock.primary && lock.async_commit.is_none() && !is_one_pc {
        return Ok(LockEffect::None);
    }
    Err(MvccError::KeyIsLocked(Box::new(lock_info(raw, lock))))
}

/// Under `RCCheckTS`, a version newer than the read is an error, for the reader has promised that
/// there is none.
pub(crate) fn is_visible_to_rc_check(
    encoded_key: &[u8],
    commit_ts: TimeStamp,
    start_ts: TimeStamp,
    context: &ReadContext,
) -> Result<(), MvccError> {
    if context.isolation != IsolationLevel::RcCheckTs || commit_ts <= context.ts {
        return Ok(());
    }
    Err(MvccError::WriteConflict {
        start_ts: context.ts,
        conflict_start_ts: start_ts,
        conflict_commit_ts: commit_ts,
        key: raw_key(encoded_key)?,
        primary: Vec::new(),
        reason: Reason::RcCheckTs,
    })
}

fn raw_key(encoded_key: &[u8]) -> Result<Vec<u8>, MvccError> {
    Ok(key::decode(encoded_key)?.into_bytes())
}

/// A lock as clients see it.
pub(crate) fn lock_info(raw_key: Vec<u8>, lock: &Lock) -> kvrpcpb::LockInfo {
    let kind = match lock.kind {
        LockKind::Put => kvrpcpb::Op::Put,
        LockKind::Delete => kvrpcpb::Op::Del,
        LockKind::Lock => kvrpcpb::Op::Lock,
        LockKind::Pessimistic => kvrpcpb::Op::PessimisticLock,
    };
    kvrpcpb::LockInfo {
        primary_lock: lock.primary.clone(),
        lock_version: lock.start_ts.0,
        key: raw_key,
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: kind.into(),
        lock_for_update_ts: lock.for_update_ts.0,
        use_async_commit: lock.async_commit.is_some(),
        min_commit_ts: lock.min_commit_ts.0,
        secondaries: lock.async_commit.clone().unwrap_or_default(),
        ..Default::default()
    }
}
