use br_codec::key;
use br_proto::kvrpcpb::{
    DeleteRangeRequest, DeleteRangeResponse, UnsafeDestroyRangeRequest, UnsafeDestroyRangeResponse,
};
use br_types::{Cf, EncodedKey, KeyRange, RawKey};

use crate::{engine::EngineError, mvcc::engine_region_error, storage::Storage};

impl Storage {
    /// Removes every version and lock of a range within `region`, physically.
    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
        region: KeyRange<EncodedKey>,
    ) -> DeleteRangeResponse {
        if request.notify_only {
            return DeleteRangeResponse::default();
        }
        let Some(range) = encoded(request.start_key, request.end_key).intersect(&region) else {
            return DeleteRangeResponse::default();
        };
        match self.remove_range(range, &Cf::ALL).await {
            Ok(()) => DeleteRangeResponse::default(),
            Err(error) => match engine_region_error(&error) {
                Some(error) => DeleteRangeResponse {
                    region_error: Some(error),
                    ..Default::default()
                },
                None => DeleteRangeResponse {
                    error: error.to_string(),
                    ..Default::default()
                },
            },
        }
    }

    /// Removes a range of dropped tables, whatever regions it spans.
    pub async fn unsafe_destroy_range(
        &self,
        request: UnsafeDestroyRangeRequest,
    ) -> UnsafeDestroyRangeResponse {
        let refused = |error: String| UnsafeDestroyRangeResponse {
            error,
            ..Default::default()
        };
        if request.start_key.is_empty() || request.end_key.is_empty() {
            return refused("a range to destroy needs both bounds".into());
        }
        let range = encoded(request.start_key, request.end_key);
        match self.remove_range(range, &Cf::ALL).await {
            Ok(()) => UnsafeDestroyRangeResponse::default(),
            Err(error) => refused(error.to_string()),
        }
    }

    /// Removes every key of a range from column families.
    pub(crate) async fn remove_range(
        &self,
        range: KeyRange<EncodedKey>,
        families: &'static [Cf],
    ) -> Result<(), EngineError> {
        let storage = self.clone();
        self.0
            .rt
            .blocking(move || {
                let data_range = key::data_range(&range);
                if data_range.is_empty() {
                    return Ok(());
                }
                families
                    .iter()
                    .try_for_each(|&cf| storage.0.engine.delete_range(cf, &data_range))?;
                if families.contains(&Cf::Lock) {
                    storage.0.observers.removed(&range);
                }
                Ok(())
            })
            .await
    }
}

fn encoded(start: Vec<u8>, end: Vec<u8>) -> KeyRange<EncodedKey> {
    key::encode_range(&KeyRange::<RawKey>::new(start, end))
}
