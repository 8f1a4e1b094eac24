use br_codec::{Crc64, RawValue, key};
use br_proto::kvrpcpb::{
    KvPair, RawBatchScanRequest, RawBatchScanResponse, RawChecksumRequest, RawChecksumResponse,
    RawScanRequest, RawScanResponse,
};
use br_types::{EncodedKey, KeyRange};

use super::{RawError, keys::Place, read::failed_pair};
use crate::{
    engine::{Cursor, Snapshot},
    storage::Storage,
};

/// Steps over older versions of a key before a seek is cheaper.
const STEPS_BEFORE_SEEK: usize = 8;

impl Storage {
    /// The raw pairs of a range within `region`, at most as many as asked for.
    pub fn raw_scan(
        &self,
        request: &RawScanRequest,
        region: &KeyRange<EncodedKey>,
    ) -> RawScanResponse {
        let bounds = Bounds::new(&request.start_key, &request.end_key, request.reverse);
        let limit = request.limit as usize;
        let kvs = self.raw_pairs(&bounds, &request.cf, region, limit, request.key_only);
        match kvs {
            Ok(kvs) => RawScanResponse {
                kvs,
                ..Default::default()
            },
            Err(error) => RawScanResponse {
                region_error: error.region_error(),
                kvs: vec![failed_pair(Vec::new(), &error)],
            },
        }
    }

    /// The raw pairs of several ranges; an end that is missing is the next range's start.
    pub fn raw_batch_scan(
        &self,
        request: &RawBatchScanRequest,
        region: &KeyRange<EncodedKey>,
    ) -> RawBatchScanResponse {
        let limit = request.each_limit as usize;
        let mut answer = RawBatchScanResponse::default();
        for (index, range) in request.ranges.iter().enumerate() {
            let next = request.ranges.get(index + 1);
            let end = match &range.end_key {
                end if end.is_empty() => next.map_or(&[][..], |next| &next.start_key),
                end => end,
            };
            let bounds = Bounds::new(&range.start_key, end, request.reverse);
            match self.raw_pairs(&bounds, &request.cf, region, limit, request.key_only) {
                Ok(pairs) => answer.kvs.extend(pairs),
                Err(error) => {
                    return RawBatchScanResponse {
                        region_error: error.region_error(),
                        kvs: vec![failed_pair(Vec::new(), &error)],
                    };
                }
            }
        }
        answer
    }

    /// XOR of the CRC-64 of all pairs of ranges, and how many there are.
    pub fn raw_checksum(
        &self,
        request: &RawChecksumRequest,
        region: &KeyRange<EncodedKey>,
    ) -> RawChecksumResponse {
        match self.try_raw_checksum(request, region) {
            Ok(answer) => answer,
            Err(error) => RawChecksumResponse {
                region_error: error.region_error(),
                error: error.to_string(),
                ..Default::default()
            },
        }
    }

    fn try_raw_checksum(
        &self,
        request: &RawChecksumRequest,
        region: &KeyRange<EncodedKey>,
    ) -> Result<RawChecksumResponse, RawError> {
        let place = self.raw_place("")?;
        let mut answer = RawChecksumResponse::default();
        let snapshot = self.0.engine.snapshot();
        for range in &request.ranges {
            let wanted = place.encode_range(&range.start_key, &range.end_key)?;
            let Some(wanted) = wanted.intersect(region) else {
                continue;
            };
            let mut walk = Walk::new(&*snapshot, place, &wanted, false, self.now_seconds())?;
            while let Some((raw_key, value)) = walk.next()? {
                let mut crc = Crc64::new();
                crc.update(&raw_key);
                crc.update(&value);
                answer.checksum ^= crc.value();
                answer.total_kvs += 1;
                answer.total_bytes += (raw_key.len() + value.len()) as u64;
            }
        }
        Ok(answer)
    }

    fn raw_pairs(
        &self,
        bounds: &Bounds<'_>,
        cf: &str,
        region: &KeyRange<EncodedKey>,
        limit: usize,
        is_key_only: bool,
    ) -> Result<Vec<KvPair>, RawError> {
        let place = self.raw_place(cf)?;
        let wanted = place.encode_range(bounds.lower, bounds.upper)?;
        let Some(range) = wanted.intersect(region) else {
            return Ok(Vec::new());
        };
        let snapshot = self.0.engine.snapshot();
        let mut walk = Walk::new(
            &*snapshot,
            place,
            &range,
            bounds.is_reverse,
            self.now_seconds(),
        )?;
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let Some((key, value)) = walk.next()? else {
                break;
            };
            let value = if is_key_only { Vec::new() } else { value };
            pairs.push(KvPair {
                key,
                value,
                ..Default::default()
            });
        }
        Ok(pairs)
    }
}

/// The range of a scan; backwards, a request names the upper bound first.
struct Bounds<'r> {
    lower: &'r [u8],
    upper: &'r [u8],
    is_reverse: bool,
}

impl<'r> Bounds<'r> {
    fn new(start: &'r [u8], end: &'r [u8], is_reverse: bool) -> Self {
        let (lower, upper) = if is_reverse {
            (end, start)
        } else {
            (start, end)
        };
        Self {
            lower,
            upper,
            is_reverse,
        }
    }
}

/// The pairs of a range that a reader sees, one at a time.
struct Walk<'s> {
    snapshot: &'s dyn Snapshot,
    place: Place,
    is_reverse: bool,
    now_seconds: u64,
    cursor: Box<dyn Cursor + 's>,
    is_valid: bool,
}

impl<'s> Walk<'s> {
    fn new(
        snapshot: &'s dyn Snapshot,
        place: Place,
        range: &KeyRange<EncodedKey>,
        is_reverse: bool,
        now_seconds: u64,
    ) -> Result<Self, RawError> {
        let mut cursor = snapshot.iter(place.cf, key::data_range(range));
        let is_valid = if is_reverse {
            cursor.seek_to_last()?
        } else {
            cursor.seek_to_first()?
        };
        Ok(Self {
            snapshot,
            place,
            is_reverse,
            now_seconds,
            cursor,
            is_valid,
        })
    }

    fn next(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, RawError> {
        while self.is_valid {
            let user_part = self.place.user_part(self.cursor.key())?.to_vec();
            let raw_key = self.place.raw_key(&user_part)?;
            let stored = if self.is_reverse && self.has_versions() {
                // Backwards the oldest version comes first.
                self.place
                    .stored(self.snapshot, &self.place.encode(&raw_key)?)?
            } else {
                Some(self.cursor.value().to_vec())
            };
            self.leave(&user_part)?;
            let Some(stored) = stored else { continue };
            let value = RawValue::decode(self.place.version, &stored)?;
            if value.is_visible_at(self.now_seconds) {
                return Ok(Some((raw_key, value.user_value.to_vec())));
            }
        }
        Ok(None)
    }

    fn has_versions(&self) -> bool {
        self.place.version == br_codec::ApiVersion::V2
    }

    /// Moves on to the next key, past all versions of this one.
    fn leave(&mut self, user_part: &[u8]) -> Result<(), RawError> {
        if self.is_reverse {
            self.is_valid = if self.has_versions() {
                self.cursor.seek_for_prev(user_part)?
            } else {
                self.cursor.prev()?
            };
            return Ok(());
        }
        self.is_valid = self.cursor.next()?;
        if !self.has_versions() {
            return Ok(());
        }
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_valid || self.place.user_part(self.cursor.key())? != user_part {
                return Ok(());
            }
            self.is_valid = self.cursor.next()?;
        }
        let mut oldest = user_part.to_vec();
        key::append_ts(&mut oldest, br_types::TimeStamp::ZERO);
        self.is_valid = self.cursor.seek(&oldest)?;
        if self.is_valid && self.cursor.key() == oldest {
            self.is_valid = self.cursor.next()?;
        }
        Ok(())
    }
}
