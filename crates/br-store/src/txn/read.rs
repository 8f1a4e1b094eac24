use br_codec::key;
use br_proto::kvrpcpb::{
    BatchGetRequest, BatchGetResponse, GetRequest, GetResponse, KvPair, ScanRequest, ScanResponse,
};
use br_types::{EncodedKey, KeyRange, RawKey, TimeStamp};

use crate::{
    mvcc::{Direction, MvccError, ReadContext, Reader},
    storage::{Answer, Storage},
};

impl Storage {
    /// The value of a key at a timestamp.
    pub fn get(&self, request: &GetRequest) -> GetResponse {
        let context = ReadContext::new(TimeStamp(request.version), request.context.as_ref());
        let key = key::encode(&request.key);
        let found = (|| {
            self.0.max_ts.update(context.ts);
            self.0.locks.check_key(&key, &context)?;
            let snapshot = self.0.engine.snapshot();
            Reader::new(&*snapshot).get(&key, &context)
        })();
        match found {
            Ok(Some(found)) => GetResponse {
                value: found.value,
                commit_ts: if request.need_commit_ts {
                    found.commit_ts.0
                } else {
                    0
                },
                ..Default::default()
            },
            Ok(None) => GetResponse {
                not_found: true,
                ..Default::default()
            },
            Err(error) => GetResponse::failed(&error),
        }
    }

    /// The values of keys at a timestamp; keys without one are left out, a key that is locked
    /// comes with the lock.
    pub fn batch_get(&self, request: &BatchGetRequest) -> BatchGetResponse {
        let context = ReadContext::new(TimeStamp(request.version), request.context.as_ref());
        self.0.max_ts.update(context.ts);
        let keys: Vec<_> = request
            .keys
            .iter()
            .map(|raw| (raw, key::encode(raw)))
            .collect();
        let locked = keys
            .iter()
            .try_for_each(|(_, key)| self.0.locks.check_key(key, &context));
        if let Err(error) = locked {
            return BatchGetResponse::failed(&error);
        }
        let snapshot = self.0.engine.snapshot();
        let mut reader = Reader::new(&*snapshot);
        let mut answer = BatchGetResponse::default();
        for (raw, key) in keys {
            match reader.get(&key, &context) {
                Ok(Some(found)) => answer.pairs.push(KvPair {
                    key: raw.clone(),
                    value: found.value,
                    commit_ts: if request.need_commit_ts {
                        found.commit_ts.0
                    } else {
                        0
                    },
                    ..Default::default()
                }),
                Ok(None) => {}
                Err(error @ (MvccError::KeyIsLocked(_) | MvccError::WriteConflict { .. })) => {
                    let error = error.key_error();
                    answer.error.get_or_insert_with(|| error.clone());
                    answer.pairs.push(KvPair {
                        error: Some(error),
                        ..Default::default()
                    });
                }
                Err(error) => return BatchGetResponse::failed(&error),
            }
        }
        answer
    }

    /// The pairs of a range within `region`, at most as many as asked for; a locked key comes with
    /// the lock in its place.
    pub fn scan(&self, request: &ScanRequest, region: &KeyRange<EncodedKey>) -> ScanResponse {
        match self.try_scan(request, region) {
            Ok(pairs) => ScanResponse {
                pairs,
                ..Default::default()
            },
            Err(error) => ScanResponse::failed(&error),
        }
    }

    fn try_scan(
        &self,
        request: &ScanRequest,
        region: &KeyRange<EncodedKey>,
    ) -> Result<Vec<KvPair>, MvccError> {
        let (direction, start, end) = if request.reverse {
            (Direction::Backward, &request.end_key, &request.start_key)
        } else {
            (Direction::Forward, &request.start_key, &request.end_key)
        };
        let wanted = key::encode_range(&KeyRange::<RawKey>::new(start.clone(), end.clone()));
        if goes_beyond(&wanted, region) {
            return Err(MvccError::Invalid("the range goes beyond the region"));
        }
        let Some(range) = wanted.intersect(region) else {
            return Ok(Vec::new());
        };
        let context = ReadContext::new(TimeStamp(request.version), request.context.as_ref());
        let view = self.read_range(&range, context)?;
        let mut scanner = view.scan(direction, request.key_only)?;
        // One pair of each so many is given.
        let step = request.sample_step.max(1);
        let mut pairs = Vec::new();
        let mut seen = 0_u32;
        while pairs.len() < request.limit as usize {
            let pair = match scanner.next() {
                Ok(Some(pair)) => KvPair {
                    key: pair.key.to_vec(),
                    value: pair.value.to_vec(),
                    ..Default::default()
                },
                Ok(None) => break,
                Err(error @ MvccError::KeyIsLocked(_)) => KvPair {
                    error: Some(error.key_error()),
                    ..Default::default()
                },
                Err(error) => return Err(error),
            };
            if seen.is_multiple_of(step) {
                pairs.push(pair);
            }
            seen = seen.wrapping_add(1);
        }
        Ok(pairs)
    }
}

/// Whether a range has a bound outside of its region, which TiKV refuses; a bound that it does not
/// have is the region's.
fn goes_beyond(range: &KeyRange<EncodedKey>, region: &KeyRange<EncodedKey>) -> bool {
    let is_bound = |key: &EncodedKey| !key.is_empty();
    let below = is_bound(&range.start) && range.start < region.start;
    let above = is_bound(&range.end) && is_bound(&region.end) && range.end > region.end;
    below || above
}
