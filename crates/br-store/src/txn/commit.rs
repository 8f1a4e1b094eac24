use br_codec::{LockKind, WriteKind};
use br_proto::kvrpcpb::{CommitRequest, CommitResponse};
use br_types::{EncodedKey, TimeStamp};

use super::{raw_key, unique_keys};
use crate::{
    mvcc::{CommitRecord, MvccError, WriteTxn},
    storage::{Answer, Storage},
};

impl Storage {
    /// Commits prewritten keys.
    pub async fn commit(&self, request: CommitRequest) -> CommitResponse {
        let (start_ts, commit_ts) = (
            TimeStamp(request.start_version),
            TimeStamp(request.commit_version),
        );
        if commit_ts <= start_ts {
            return CommitResponse::failed(&MvccError::InvalidTxnTso {
                start_ts,
                commit_ts,
            });
        }
        let keys = unique_keys(&request.keys);
        let done = self
            .run_write(keys.clone(), move |txn| {
                keys.iter()
                    .try_for_each(|key| commit_key(txn, key, start_ts, commit_ts))
            })
            .await;
        match done {
            Ok(()) => CommitResponse {
                commit_version: commit_ts.0,
                ..Default::default()
            },
            Err(error) => CommitResponse::failed(&error),
        }
    }
}

/// Commits one key; nothing to do if that has been done.
pub(super) fn commit_key(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    commit_ts: TimeStamp,
) -> Result<(), MvccError> {
    let lock = txn
        .reader
        .load_lock(key)?
        .filter(|lock| lock.start_ts == start_ts);
    let Some(lock) = lock else {
        return match txn.reader.commit_record(key, start_ts)? {
            CommitRecord::Found { write, .. } if write.kind != WriteKind::Rollback => Ok(()),
            _ => Err(MvccError::TxnLockNotFound {
                start_ts,
                key: raw_key(key)?,
            }),
        };
    };
    if commit_ts < lock.min_commit_ts {
        return Err(MvccError::CommitTsExpired {
            start_ts,
            commit_ts,
            key: raw_key(key)?,
            min_commit_ts: lock.min_commit_ts,
        });
    }
    if lock.kind == LockKind::Pessimistic {
        // Never prewritten, so there is nothing to commit.
        txn.unlock(key);
    } else {
        txn.commit_lock(key, lock, commit_ts, true);
    }
    Ok(())
}
