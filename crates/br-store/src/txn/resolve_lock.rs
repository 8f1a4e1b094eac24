use std::collections::BTreeMap;

use br_codec::{Lock, LockKind};
use br_proto::kvrpcpb::{ResolveLockRequest, ResolveLockResponse};
use br_types::{EncodedKey, KeyRange, TimeStamp};

use super::{
    commit::commit_key,
    rollback::{after, cleanup_key},
    unique_keys,
};
use crate::{
    mvcc::{MvccError, WriteTxn},
    storage::{Answer, Storage},
};

/// Locks that are resolved in one batch: few enough not to keep other commands waiting.
pub(super) const BATCH_LOCKS_MAX: usize = 256;

impl Storage {
    /// Commits or rolls back what transactions have left: the given keys, or every lock of theirs
    /// in `region`.
    pub async fn resolve_lock(
        &self,
        request: ResolveLockRequest,
        region: KeyRange<EncodedKey>,
    ) -> ResolveLockResponse {
        match self.try_resolve_lock(&request, region).await {
            Ok(()) => ResolveLockResponse::default(),
            Err(error) => ResolveLockResponse::failed(&error),
        }
    }

    async fn try_resolve_lock(
        &self,
        request: &ResolveLockRequest,
        mut range: KeyRange<EncodedKey>,
    ) -> Result<(), MvccError> {
        if !request.keys.is_empty() {
            let (start_ts, commit_ts) = (
                TimeStamp(request.start_version),
                TimeStamp(request.commit_version),
            );
            check_order(start_ts, commit_ts)?;
            let keys = unique_keys(&request.keys);
            return self
                .run_write(keys.clone(), move |txn| {
                    keys.iter()
                        .try_for_each(|key| resolve_key(txn, key, start_ts, commit_ts))
                })
                .await;
        }
        let fates = fates(request)?;
        loop {
            let (storage, here, wanted) = (self.clone(), range.clone(), fates.clone());
            let is_wanted = move |lock: &Lock| wanted.contains_key(&lock.start_ts);
            let found = self
                .0
                .rt
                .blocking(move || storage.locks_in(&here, BATCH_LOCKS_MAX, is_wanted))
                .await?;
            let Some((last, _)) = found.last() else {
                return Ok(());
            };
            range.start = after(last);
            let keys = found.iter().map(|(key, _)| key.clone()).collect();
            let fates = fates.clone();
            self.run_write(keys, move |txn| resolve_found(txn, &found, &fates))
                .await?;
        }
    }
}

/// Commit timestamps by `start_ts`; zero: rolled back.
fn fates(request: &ResolveLockRequest) -> Result<BTreeMap<TimeStamp, TimeStamp>, MvccError> {
    let mut fates = BTreeMap::new();
    if request.txn_infos.is_empty() {
        fates.insert(
            TimeStamp(request.start_version),
            TimeStamp(request.commit_version),
        );
    }
    for info in &request.txn_infos {
        fates.insert(TimeStamp(info.txn), TimeStamp(info.status));
    }
    fates
        .iter()
        .try_for_each(|(&start_ts, &commit_ts)| check_order(start_ts, commit_ts))?;
    Ok(fates)
}

fn check_order(start_ts: TimeStamp, commit_ts: TimeStamp) -> Result<(), MvccError> {
    if commit_ts.is_zero() || commit_ts > start_ts {
        Ok(())
    } else {
        Err(MvccError::InvalidTxnTso {
            start_ts,
            commit_ts,
        })
    }
}

fn resolve_key(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
    commit_ts: TimeStamp,
) -> Result<(), MvccError> {
    if commit_ts.is_zero() {
        cleanup_key(txn, key, start_ts, TimeStamp::ZERO, false)
    } else {
        commit_key(txn, key, start_ts, commit_ts)
    }
}

/// Resolves locks as they were found; what changed since is looked at again.
fn resolve_found(
    txn: &mut WriteTxn<'_>,
    found: &[(EncodedKey, Lock)],
    fates: &BTreeMap<TimeStamp, TimeStamp>,
) -> Result<(), MvccError> {
    for (key, lock) in found {
        let Some(&commit_ts) = fates.get(&lock.start_ts) else {
            continue;
        };
        match resolve_key(txn, key, lock.start_ts, commit_ts) {
            // Rolled back in the meantime by its own transaction.
            Err(MvccError::TxnLockNotFound { .. }) if lock.kind == LockKind::Pessimistic => {}
            result => result?,
        }
    }
    Ok(())
}
