use br_codec::key;
use br_proto::kvrpcpb::{TxnHeartBeatRequest, TxnHeartBeatResponse};
use br_types::TimeStamp;

use crate::{
    mvcc::MvccError,
    storage::{Answer, Storage},
};

impl Storage {
    /// Keeps a transaction alive: raises its primary lock's time to live.
    pub async fn txn_heart_beat(&self, request: TxnHeartBeatRequest) -> TxnHeartBeatResponse {
        let key = key::encode(&request.primary_lock);
        let ttl = self
            .run_write(vec![key.clone()], move |txn| {
                let start_ts = TimeStamp(request.start_version);
                let lock = txn
                    .reader
                    .load_lock(&key)?
                    .filter(|lock| lock.start_ts == start_ts);
                let Some(mut lock) = lock else {
                    return Err(MvccError::TxnNotFound {
                        start_ts,
                        key: request.primary_lock,
                    });
                };
                let promised = TimeStamp(request.min_commit_ts);
                let raises_promise = lock.async_commit.is_none()
                    && lock.generation > 0
                    && lock.min_commit_ts < promised;
                if lock.ttl_ms < request.advise_lock_ttl || raises_promise {
                    lock.ttl_ms = lock.ttl_ms.max(request.advise_lock_ttl);
                    if raises_promise {
                        lock.min_commit_ts = promised;
                    }
                    txn.put_lock(&key, &lock);
                }
                Ok(lock.ttl_ms)
            })
            .await;
        match ttl {
            Ok(lock_ttl) => TxnHeartBeatResponse {
                lock_ttl,
                ..Default::default()
            },
            Err(error) => TxnHeartBeatResponse::failed(&error),
        }
    }
}
