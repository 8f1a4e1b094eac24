use br_codec::{Lock, key};
use br_proto::kvrpcpb::{LockInfo, ScanLockRequest, ScanLockResponse};
use br_types::{Cf, EncodedKey, KeyRange, RawKey, TimeStamp};

use super::raw_key;
use crate::{
    mvcc::{MvccError, lock_info},
    storage::{Answer, Storage},
};

impl Storage {
    /// The locks of a range within `region` whose transactions began at or before a timestamp.
    pub fn scan_lock(
        &self,
        request: &ScanLockRequest,
        region: &KeyRange<EncodedKey>,
    ) -> ScanLockResponse {
        match self.try_scan_lock(request, region) {
            Ok(locks) => ScanLockResponse {
                locks,
                ..Default::default()
            },
            Err(error) => ScanLockResponse::failed(&error),
        }
    }

    fn try_scan_lock(
        &self,
        request: &ScanLockRequest,
        region: &KeyRange<EncodedKey>,
    ) -> Result<Vec<LockInfo>, MvccError> {
        let ts = TimeStamp(request.max_version);
        let wanted = KeyRange::<RawKey>::new(request.start_key.clone(), request.end_key.clone());
        let Some(range) = key::encode_range(&wanted).intersect(region) else {
            return Ok(Vec::new());
        };
        self.0.max_ts.update(ts);
        // A lock in memory is about to be in the engine: it must not be missed.
        self.0.locks.try_each(&range, |key, found| {
            if found.lock.start_ts > ts {
                return Ok(());
            }
            Err(MvccError::KeyIsLocked(Box::new(lock_info(
                raw_key(key)?,
                &found.lock,
            ))))
        })?;
        let limit = if request.limit == 0 {
            usize::MAX
        } else {
            request.limit as usize
        };
        let found = self.locks_in(&range, limit, |lock| lock.start_ts <= ts)?;
        found
            .iter()
            .map(|(key, lock)| Ok(lock_info(raw_key(key)?, lock)))
            .collect()
    }

    /// The first locks of a range that `wanted` takes, at most `limit`.
    pub(super) fn locks_in(
        &self,
        range: &KeyRange<EncodedKey>,
        limit: usize,
        wanted: impl Fn(&Lock) -> bool,
    ) -> Result<Vec<(EncodedKey, Lock)>, MvccError> {
        let snapshot = self.0.engine.snapshot();
        let mut cursor = snapshot.iter(Cf::Lock, key::data_range(range));
        let mut found = Vec::new();
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid && found.len() < limit {
            let lock = Lock::parse(cursor.value())?;
            if wanted(&lock) {
                let key = EncodedKey::from(key::strip_data_prefix(cursor.key())?);
                found.push((key, lock));
            }
            is_valid = cursor.next()?;
        }
        Ok(found)
    }
}
