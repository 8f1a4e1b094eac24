use br_codec::{Lock, LockKind, WriteKind};
use br_proto::kvrpcpb::{CheckSecondaryLocksRequest, CheckSecondaryLocksResponse, LockInfo};
use br_types::{EncodedKey, TimeStamp};

use super::{
    raw_key,
    rollback::{collapse, mark_on_other_lock, write_rollback},
    unique_keys,
};
use crate::{
    mvcc::{CommitRecord, MvccError, WriteTxn, lock_info},
    storage::{Answer, Storage},
};

impl Storage {
    /// Whether the secondary keys of an async-commit transaction are all locked; if one is not,
    /// makes sure that it never will be.
    pub async fn check_secondary_locks(
        &self,
        request: CheckSecondaryLocksRequest,
    ) -> CheckSecondaryLocksResponse {
        let keys = unique_keys(&request.keys);
        let start_ts = TimeStamp(request.start_version);
        let done = self
            .run_write(keys.clone(), move |txn| {
                txn.update_max_ts(start_ts);
                check_keys(txn, &keys, start_ts)
            })
            .await;
        done.unwrap_or_else(|error| CheckSecondaryLocksResponse::failed(&error))
    }
}

/// What one secondary key says.
enum Secondary {
    Locked(LockInfo),
    Committed(TimeStamp),
    RolledBack,
}

fn check_keys(
    txn: &mut WriteTxn<'_>,
    keys: &[EncodedKey],
    start_ts: TimeStamp,
) -> Result<CheckSecondaryLocksResponse, MvccError> {
    let mut answer = CheckSecondaryLocksResponse::default();
    for key in keys {
        match check_key(txn, key, start_ts)? {
            Secondary::Locked(info) => answer.locks.push(info),
            Secondary::Committed(commit_ts) => {
                answer.locks.clear();
                answer.commit_ts = commit_ts.0;
                break;
            }
            Secondary::RolledBack => {
                answer.locks.clear();
                break;
            }
        }
    }
    Ok(answer)
}

fn check_key(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
) -> Result<Secondary, MvccError> {
    let mut other: Option<Lock> = None;
    match txn.reader.load_lock(key)? {
        Some(lock) if lock.start_ts == start_ts => {
            if lock.kind != LockKind::Pessimistic {
                return Ok(Secondary::Locked(lock_info(raw_key(key)?, &lock)));
            }
            // Not prewritten: the transaction cannot have committed.
            txn.unlock(key);
        }
        lock => other = lock,
    }
    let overlapped = match txn.reader.commit_record(key, start_ts)? {
        CommitRecord::Found { write, .. } if write.kind == WriteKind::Rollback => {
            return Ok(Secondary::RolledBack);
        }
        CommitRecord::Found { commit_ts, .. } => return Ok(Secondary::Committed(commit_ts)),
        CommitRecord::OverlappedRollback => return Ok(Secondary::RolledBack),
        CommitRecord::None { overlapped } => overlapped,
    };
    mark_on_other_lock(txn, key, start_ts, other);
    write_rollback(txn, key, start_ts, true, overlapped);
    collapse(txn, key, start_ts)?;
    Ok(Secondary::RolledBack)
}
