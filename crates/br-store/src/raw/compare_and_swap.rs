use br_proto::kvrpcpb::{RawCasRequest, RawCasResponse};

use super::RawError;
use crate::storage::Storage;

impl Storage {
    /// Sets or removes a raw key if it has the value that the request expects.
    pub async fn raw_compare_and_swap(&self, request: RawCasRequest) -> RawCasResponse {
        match self.try_compare_and_swap(request).await {
            Ok(answer) => answer,
            Err(error) => RawCasResponse {
                region_error: error.region_error(),
                error: error.to_string(),
                ..Default::default()
            },
        }
    }

    async fn try_compare_and_swap(
        &self,
        request: RawCasRequest,
    ) -> Result<RawCasResponse, RawError> {
        let place = self.raw_place(&request.cf)?;
        let key = place.encode(&request.key)?;
        let expiry = self.expiry(request.ttl)?;
        let latch = self.0.latches.acquire(std::slice::from_ref(&key)).await;
        let storage = self.clone();
        self.0
            .rt
            .blocking(move || {
                let _latch = latch;
                let snapshot = storage.0.engine.snapshot();
                let previous = place.value(&*snapshot, &key, storage.now_seconds())?;
                drop(snapshot);
                let expected = (!request.previous_not_exist).then_some(request.previous_value);
                let succeed = previous == expected;
                if succeed {
                    let change = (!request.delete).then_some((request.value, expiry));
                    storage.raw_apply(place, vec![(key, change)])?;
                }
                Ok(RawCasResponse {
                    succeed,
                    previous_not_exist: previous.is_none(),
                    previous_value: previous.unwrap_or_default(),
                    ..Default::default()
                })
            })
            .await
    }
}
