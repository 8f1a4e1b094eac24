use br_codec::{ApiVersion, RawValue};
use br_proto::kvrpcpb::{
    RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchPutRequest, RawBatchPutResponse,
    RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest, RawDeleteResponse,
    RawPutRequest, RawPutResponse,
};
use br_types::{Cf, EncodedKey, KeyRange, TimeStamp};

use super::{RawError, keys::Place};
use crate::{engine::Batch, storage::Storage};

/// One raw key and what becomes of it; `None`: it is removed.
type RawChange = (EncodedKey, Option<(Vec<u8>, Option<u64>)>);

macro_rules! answer {
    ($response:ident, $done:expr) => {
        match $done {
            Ok(()) => $response::default(),
            Err(error) => $response {
                region_error: error.region_error(),
                error: error.to_string(),
            },
        }
    };
}

impl Storage {
    /// Sets a raw key.
    pub async fn raw_put(&self, request: RawPutRequest) -> RawPutResponse {
        let pairs = vec![(request.key, request.value)];
        let done = self
            .raw_put_all(pairs, &[request.ttl], &request.cf, request.for_cas)
            .await;
        answer!(RawPutResponse, done)
    }

    /// Sets raw keys, all or none.
    pub async fn raw_batch_put(&self, request: RawBatchPutRequest) -> RawBatchPutResponse {
        #[allow(deprecated, reason = "old clients send one time to live for all")]
        let one = request.ttl;
        let ttls = if request.ttls.is_empty() {
            vec![one]
        } else {
            request.ttls
        };
        let pairs = request
            .pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        let done = self
            .raw_put_all(pairs, &ttls, &request.cf, request.for_cas)
            .await;
        answer!(RawBatchPutResponse, done)
    }

    /// Removes a raw key.
    pub async fn raw_delete(&self, request: RawDeleteRequest) -> RawDeleteResponse {
        let done = self
            .raw_delete_all(vec![request.key], &request.cf, request.for_cas)
            .await;
        answer!(RawDeleteResponse, done)
    }

    /// Removes raw keys, all or none.
    pub async fn raw_batch_delete(&self, request: RawBatchDeleteRequest) -> RawBatchDeleteResponse {
        let done = self
            .raw_delete_all(request.keys, &request.cf, request.for_cas)
            .await;
        answer!(RawBatchDeleteResponse, done)
    }

    /// Removes the raw keys of a range within `region`, physically.
    pub async fn raw_delete_range(
        &self,
        request: RawDeleteRangeRequest,
        region: KeyRange<EncodedKey>,
    ) -> RawDeleteRangeResponse {
        answer!(
            RawDeleteRangeResponse,
            self.try_raw_delete_range(request, region).await
        )
    }

    async fn try_raw_delete_range(
        &self,
        request: RawDeleteRangeRequest,
        region: KeyRange<EncodedKey>,
    ) -> Result<(), RawError> {
        let place = self.raw_place(&request.cf)?;
        let wanted = place.encode_range(&request.start_key, &request.end_key)?;
        let Some(range) = wanted.intersect(&region) else {
            return Ok(());
        };
        let family: &'static [Cf] = match place.cf {
            Cf::Default => &[Cf::Default],
            Cf::Lock => &[Cf::Lock],
            Cf::Write => &[Cf::Write],
        };
        Ok(self.remove_range(range, family).await?)
    }

    async fn raw_put_all(
        &self,
        pairs: Vec<(Vec<u8>, Vec<u8>)>,
        ttls_seconds: &[u64],
        cf: &str,
        for_cas: bool,
    ) -> Result<(), RawError> {
        let place = self.raw_place(cf)?;
        if ttls_seconds.len() != 1 && ttls_seconds.len() != pairs.len() {
            return Err(RawError::Invalid(
                "there must be one time to live, or one for each pair",
            ));
        }
        let ttls = ttls_seconds.iter().cycle();
        let changes = pairs.into_iter().zip(ttls).map(|((key, value), &ttl)| {
            Ok((place.encode(&key)?, Some((value, self.expiry(ttl)?))))
        });
        let changes = changes.collect::<Result<Vec<_>, RawError>>()?;
        self.raw_write(place, changes, for_cas).await
    }

    async fn raw_delete_all(
        &self,
        keys: Vec<Vec<u8>>,
        cf: &str,
        for_cas: bool,
    ) -> Result<(), RawError> {
        let place = self.raw_place(cf)?;
        let changes = keys.iter().map(|key| Ok((place.encode(key)?, None)));
        let changes = changes.collect::<Result<Vec<_>, RawError>>()?;
        self.raw_write(place, changes, for_cas).await
    }

    async fn raw_write(
        &self,
        place: Place,
        changes: Vec<RawChange>,
        for_cas: bool,
    ) -> Result<(), RawError> {
        let latched: Vec<_> = match for_cas {
            true => changes.iter().map(|(key, _)| key.clone()).collect(),
            false => Vec::new(),
        };
        let latch = self.0.latches.acquire(&latched).await;
        let storage = self.clone();
        self.0
            .rt
            .blocking(move || {
                let _latch = latch;
                storage.raw_apply(place, changes)
            })
            .await
    }

    /// Writes raw changes in one batch.
    pub(super) fn raw_apply(&self, place: Place, changes: Vec<RawChange>) -> Result<(), RawError> {
        let mut batch = Batch::default();
        for (key, change) in changes {
            let ts = self.raw_ts(place);
            let data_key = place.write_key(&key, ts).into_bytes();
            match change {
                Some((value, expires_at_seconds)) => {
                    let value = RawValue {
                        expires_at_seconds,
                        ..RawValue::lasting(&value)
                    };
                    batch.put(place.cf, data_key, value.encode(place.version));
                }
                None if place.version == ApiVersion::V2 => {
                    let removed = RawValue {
                        is_deleted: true,
                        ..RawValue::lasting(&[])
                    };
                    batch.put(place.cf, data_key, removed.encode(place.version));
                }
                None => batch.delete(place.cf, data_key),
            }
        }
        // Not for the observers of transactions: raw keys have no versions.
        Ok(self.0.engine.write(&batch)?)
    }

    /// The version of a raw write: a fresh timestamp in V2, nothing elsewhere.
    fn raw_ts(&self, place: Place) -> TimeStamp {
        match place.version {
            ApiVersion::V1 | ApiVersion::V1Ttl => TimeStamp::ZERO,
            ApiVersion::V2 => self.0.topology.tso(),
        }
    }
}
