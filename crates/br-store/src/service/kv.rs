//! `tikvpb.Tikv`: the key-value service of one store.

use br_proto::{
    coprocessor, kvrpcpb,
    tikvpb::{BatchCommandsRequest, BatchCommandsResponse, tikv_server::Tikv},
};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{batch_commands, command::handle};
use crate::{
    context::StoreContext, coprocessor::coprocess, region_check::check_store, split::split_region,
};

/// The key-value service of one store.
#[derive(Clone)]
pub(crate) struct KvService {
    store: StoreContext,
}

impl KvService {
    pub(crate) fn new(store: StoreContext) -> KvService {
        KvService { store }
    }
}

/// The calls that are commands on one region, and those written out after them.
macro_rules! service {
    ($($method:ident($request:ident) -> $answer:ident;)* { $($rest:item)* }) => {
        #[tonic::async_trait]
        impl Tikv for KvService {
            $(async fn $method(
                &self,
                request: Request<kvrpcpb::$request>,
            ) -> Result<Response<kvrpcpb::$answer>, Status> {
                Ok(Response::new(handle(&self.store, request.into_inner()).await?))
            })*
            $($rest)*
        }
    };
}

service! {
    kv_get(GetRequest) -> GetResponse;
    kv_scan(ScanRequest) -> ScanResponse;
    kv_prewrite(PrewriteRequest) -> PrewriteResponse;
    kv_pessimistic_lock(PessimisticLockRequest) -> PessimisticLockResponse;
    kv_pessimistic_rollback(PessimisticRollbackRequest) -> PessimisticRollbackResponse;
    kv_txn_heart_beat(TxnHeartBeatRequest) -> TxnHeartBeatResponse;
    kv_check_txn_status(CheckTxnStatusRequest) -> CheckTxnStatusResponse;
    kv_check_secondary_locks(CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse;
    kv_commit(CommitRequest) -> CommitResponse;
    kv_cleanup(CleanupRequest) -> CleanupResponse;
    kv_batch_get(BatchGetRequest) -> BatchGetResponse;
    kv_batch_rollback(BatchRollbackRequest) -> BatchRollbackResponse;
    kv_scan_lock(ScanLockRequest) -> ScanLockResponse;
    kv_resolve_lock(ResolveLockRequest) -> ResolveLockResponse;
    kv_delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
    raw_get(RawGetRequest) -> RawGetResponse;
    raw_batch_get(RawBatchGetRequest) -> RawBatchGetResponse;
    raw_put(RawPutRequest) -> RawPutResponse;
    raw_batch_put(RawBatchPutRequest) -> RawBatchPutResponse;
    raw_delete(RawDeleteRequest) -> RawDeleteResponse;
    raw_batch_delete(RawBatchDeleteRequest) -> RawBatchDeleteResponse;
    raw_scan(RawScanRequest) -> RawScanResponse;
    raw_delete_range(RawDeleteRangeRequest) -> RawDeleteRangeResponse;
    raw_batch_scan(RawBatchScanRequest) -> RawBatchScanResponse;
    raw_get_key_ttl(RawGetKeyTtlRequest) -> RawGetKeyTtlResponse;
    raw_compare_and_swap(RawCasRequest) -> RawCasResponse;
    raw_checksum(RawChecksumRequest) -> RawChecksumResponse;
    mvcc_get_by_key(MvccGetByKeyRequest) -> MvccGetByKeyResponse;
    {
        async fn unsafe_destroy_range(
            &self,
            request: Request<kvrpcpb::UnsafeDestroyRangeRequest>,
        ) -> Result<Response<kvrpcpb::UnsafeDestroyRangeResponse>, Status> {
            let request = request.into_inner();
            let cluster_id = request.context.as_ref().map_or(0, |context| context.cluster_id);
            check_store(&self.store, cluster_id)?;
            Ok(Response::new(self.store.storage.unsafe_destroy_range(request).await))
        }

        async fn coprocessor(
            &self,
            request: Request<coprocessor::Request>,
        ) -> Result<Response<coprocessor::Response>, Status> {
            Ok(Response::new(coprocess(&self.store, request.into_inner()).await?))
        }

        async fn split_region(
            &self,
            request: Request<kvrpcpb::SplitRegionRequest>,
        ) -> Result<Response<kvrpcpb::SplitRegionResponse>, Status> {
            let (store, request) = (self.store.clone(), request.into_inner());
            // The split is made durable before it returns.
            let answer = self.store.rt.blocking(move || split_region(&store, request)).await?;
            Ok(Response::new(answer))
        }

        async fn batch_commands(
            &self,
            request: Request<Streaming<BatchCommandsRequest>>,
        ) -> Result<Response<BoxStream<BatchCommandsResponse>>, Status> {
            check_store(&self.store, 0)?;
            let answers = batch_commands::serve(self.store.clone(), request.into_inner());
            Ok(Response::new(Box::pin(answers)))
        }

        async fn get_health_feedback(
            &self,
            _request: Request<kvrpcpb::GetHealthFeedbackRequest>,
        ) -> Result<Response<kvrpcpb::GetHealthFeedbackResponse>, Status> {
            check_store(&self.store, 0)?;
            Ok(Response::new(batch_commands::health_feedback(&self.store)))
        }

        async fn broadcast_txn_status(
            &self,
            _request: Request<kvrpcpb::BroadcastTxnStatusRequest>,
        ) -> Result<Response<kvrpcpb::BroadcastTxnStatusResponse>, Status> {
            // A hint for caches; there is none here.
            Ok(Response::new(kvrpcpb::BroadcastTxnStatusResponse::default()))
        }

        async fn get_lock_wait_info(
            &self,
            _request: Request<kvrpcpb::GetLockWaitInfoRequest>,
        ) -> Result<Response<kvrpcpb::GetLockWaitInfoResponse>, Status> {
            check_store(&self.store, 0)?;
            let entries = self.store.storage.lock_waits();
            Ok(Response::new(kvrpcpb::GetLockWaitInfoResponse { entries, ..Default::default() }))
        }
    }
}
