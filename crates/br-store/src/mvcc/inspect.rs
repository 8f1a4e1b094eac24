use br_codec::{LastChange, Lock, LockKind, WriteKind, key};
use br_proto::kvrpcpb::{
    MvccGetByKeyRequest, MvccGetByKeyResponse, MvccInfo, MvccLock, MvccValue, MvccWrite, Op,
};
use br_types::{Cf, EncodedKey, KeyRange, TimeStamp};

use super::{MvccError, Reader};
use crate::storage::Storage;

/// Versions of one key that are shown; one with more is shown up to here.
const VERSIONS_MAX: usize = 1024;

impl Storage {
    /// Everything that is stored under a key, for operators.
    pub fn mvcc_get_by_key(&self, request: &MvccGetByKeyRequest) -> MvccGetByKeyResponse {
        match self.mvcc_info(&key::encode(&request.key)) {
            Ok(info) => MvccGetByKeyResponse {
                info: Some(info),
                ..Default::default()
            },
            Err(error) => MvccGetByKeyResponse {
                error: error.to_string(),
                ..Default::default()
            },
        }
    }

    fn mvcc_info(&self, key: &EncodedKey) -> Result<MvccInfo, MvccError> {
        let snapshot = self.engine().snapshot();
        let mut reader = Reader::new(&*snapshot);
        let lock = reader.load_lock(key)?.map(shown_lock);
        let mut writes = Vec::new();
        let mut next = reader.seek_write(key, TimeStamp::MAX)?;
        while let Some((commit_ts, write)) = next.filter(|_| writes.len() < VERSIONS_MAX) {
            let (last_change_ts, versions_to_last_change) = shown_last_change(write.last_change);
            writes.push(MvccWrite {
                r#type: shown_kind(write.kind).into(),
                start_ts: write.start_ts.0,
                commit_ts: commit_ts.0,
                short_value: write.short_value.unwrap_or_default(),
                has_overlapped_rollback: write.has_overlapped_rollback,
                has_gc_fence: write.gc_fence.is_some(),
                gc_fence: write.gc_fence.unwrap_or_default().0,
                last_change_ts,
                versions_to_last_change,
            });
            next = reader.next_write(key)?;
        }
        let mut values = Vec::new();
        let start = key::data_key_at(key.as_bytes(), TimeStamp::MAX);
        let end = key::data_key_at(key.as_bytes(), TimeStamp::ZERO);
        let mut cursor = snapshot.iter(Cf::Default, KeyRange { start, end });
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid && values.len() < VERSIONS_MAX {
            let (_, start_ts) = key::split_ts(cursor.key())?;
            values.push(MvccValue {
                start_ts: start_ts.0,
                value: cursor.value().to_vec(),
            });
            is_valid = cursor.next()?;
        }
        Ok(MvccInfo {
            lock,
            writes,
            values,
        })
    }
}

fn shown_lock(lock: Lock) -> MvccLock {
    let (last_change_ts, versions_to_last_change) = shown_last_change(lock.last_change);
    let kind = match lock.kind {
        LockKind::Put => Op::Put,
        LockKind::Delete => Op::Del,
        LockKind::Lock => Op::Lock,
        LockKind::Pessimistic => Op::PessimisticLock,
    };
    MvccLock {
        r#type: kind.into(),
        start_ts: lock.start_ts.0,
        primary: lock.primary,
        short_value: lock.short_value.unwrap_or_default(),
        ttl: lock.ttl_ms,
        for_update_ts: lock.for_update_ts.0,
        txn_size: lock.txn_size,
        use_async_commit: lock.async_commit.is_some(),
        secondaries: lock.async_commit.unwrap_or_default(),
        rollback_ts: lock.rollback_ts.iter().map(|ts| ts.0).collect(),
        last_change_ts,
        versions_to_last_change,
    }
}

fn shown_kind(kind: WriteKind) -> Op {
    match kind {
        WriteKind::Put => Op::Put,
        WriteKind::Delete => Op::Del,
        WriteKind::Lock => Op::Lock,
        WriteKind::Rollback => Op::Rollback,
    }
}

fn shown_last_change(change: LastChange) -> (u64, u64) {
    match change {
        LastChange::Unknown => (0, 0),
        LastChange::NotExist => (0, 1),
        LastChange::At {
            commit_ts,
            versions,
        } => (commit_ts.0, versions),
    }
}
