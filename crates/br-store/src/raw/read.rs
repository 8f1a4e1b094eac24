use br_codec::{ApiVersion, RawValue};
use br_proto::kvrpcpb::{
    KeyError, KvPair, RawBatchGetRequest, RawBatchGetResponse, RawGetKeyTtlRequest,
    RawGetKeyTtlResponse, RawGetRequest, RawGetResponse,
};

use super::RawError;
use crate::storage::Storage;

impl Storage {
    /// The value of a raw key.
    pub fn raw_get(&self, request: &RawGetRequest) -> RawGetResponse {
        match self.raw_value(&request.key, &request.cf) {
            Ok(Some(value)) => RawGetResponse {
                value,
                ..Default::default()
            },
            Ok(None) => RawGetResponse {
                not_found: true,
                ..Default::default()
            },
            Err(error) => RawGetResponse {
                region_error: error.region_error(),
                error: error.to_string(),
                ..Default::default()
            },
        }
    }

    fn raw_value(&self, raw: &[u8], cf: &str) -> Result<Option<Vec<u8>>, RawError> {
        let place = self.raw_place(cf)?;
        let key = place.encode(raw)?;
        place.value(&*self.0.engine.snapshot(), &key, self.now_seconds())
    }

    /// The values of raw keys; those that have none are left out.
    pub fn raw_batch_get(&self, request: &RawBatchGetRequest) -> RawBatchGetResponse {
        let snapshot = self.0.engine.snapshot();
        let now_seconds = self.now_seconds();
        let mut answer = RawBatchGetResponse::default();
        for raw in &request.keys {
            let found = self
                .raw_place(&request.cf)
                .and_then(|place| place.value(&*snapshot, &place.encode(raw)?, now_seconds));
            match found {
                Ok(Some(value)) => answer.pairs.push(KvPair {
                    key: raw.clone(),
                    value,
                    ..Default::default()
                }),
                Ok(None) => {}
                Err(error) => answer.pairs.push(failed_pair(raw.clone(), &error)),
            }
        }
        answer
    }

    /// How many seconds a raw key has left; 0: it stays.
    pub fn raw_get_key_ttl(&self, request: &RawGetKeyTtlRequest) -> RawGetKeyTtlResponse {
        match self.ttl_seconds(&request.key, &request.cf) {
            Ok(Some(ttl)) => RawGetKeyTtlResponse {
                ttl,
                ..Default::default()
            },
            Ok(None) => RawGetKeyTtlResponse {
                not_found: true,
                ..Default::default()
            },
            Err(error) => RawGetKeyTtlResponse {
                error: error.to_string(),
                ..Default::default()
            },
        }
    }

    fn ttl_seconds(&self, raw: &[u8], cf: &str) -> Result<Option<u64>, RawError> {
        let place = self.raw_place(cf)?;
        if place.version == ApiVersion::V1 {
            return Err(RawError::NoExpiry);
        }
        let stored = place.stored(&*self.0.engine.snapshot(), &place.encode(raw)?)?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let value = RawValue::decode(place.version, &stored)?;
        let now = self.now_seconds();
        Ok(value.is_visible_at(now).then(|| {
            value
                .expires_at_seconds
                .map_or(0, |expiry| expiry.saturating_sub(now))
        }))
    }
}

/// A pair that says why there is none.
pub(super) fn failed_pair(key: Vec<u8>, error: &RawError) -> KvPair {
    let error = KeyError {
        abort: error.to_string(),
        ..Default::default()
    };
    KvPair {
        error: Some(error),
        key,
        ..Default::default()
    }
}
