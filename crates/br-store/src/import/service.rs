//! `import_sstpb.ImportSST`: the import service of one store.

use std::time::Duration;

use br_proto::import_sstpb::{
    self as pb, AddPartitionRangeRequest, AddPartitionRangeResponse, ApplyRequest, ApplyResponse,
    ClearRequest, ClearResponse, CompactRequest, CompactResponse, DownloadRequest,
    DownloadResponse, DuplicateDetectRequest, DuplicateDetectResponse, GetModeRequest,
    GetModeResponse, IngestRequest, IngestResponse, MultiIngestRequest, RawWriteRequest,
    RawWriteResponse, RemovePartitionRangeRequest, RemovePartitionRangeResponse,
    SetDownloadSpeedLimitRequest, SetDownloadSpeedLimitResponse, SuspendImportRpcRequest,
    SuspendImportRpcResponse, SwitchModeRequest, SwitchModeResponse, UploadRequest, UploadResponse,
    WriteRequest, WriteResponse, import_sst_server::ImportSst,
};
use br_types::RegionId;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    apply::apply,
    error::ImportError,
    ingest::ingest,
    upload::upload,
    write::{raw_write, write},
};
use crate::{context::StoreContext, region_check::check_store};

/// What a full disk costs the one who asks, so that a client's retries do not spin.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(1);

/// The import service of one store.
#[derive(Clone)]
pub(crate) struct ImportService {
    store: StoreContext,
}

impl ImportService {
    pub(crate) fn new(store: StoreContext) -> ImportService {
        ImportService { store }
    }

    async fn try_download(
        &self,
        request: &DownloadRequest,
    ) -> Result<DownloadResponse, ImportError> {
        let region = RegionId(request.sst.as_ref().map_or(0, |meta| meta.region_id));
        let state = self.store.topology.region(region);
        let ours = self.store.store_id.0;
        if !state.is_some_and(|state| state.region.peers.iter().any(|peer| peer.store_id == ours)) {
            return Err(ImportError::RegionNotFound(region));
        }
        let file = self.store.importer.download(request).await?;
        Ok(DownloadResponse {
            is_empty: file.range.is_none(),
            range: file.range,
            ..Default::default()
        })
    }
}

fn cluster_of(context: Option<&br_proto::kvrpcpb::Context>) -> u64 {
    context.map_or(0, |context| context.cluster_id)
}

#[tonic::async_trait]
impl ImportSst for ImportService {
    async fn switch_mode(
        &self,
        request: Request<SwitchModeRequest>,
    ) -> Result<Response<SwitchModeResponse>, Status> {
        check_store(&self.store, 0)?;
        self.store.importer.mode.switch(request.into_inner().mode());
        Ok(Response::new(SwitchModeResponse::default()))
    }

    async fn get_mode(
        &self,
        _request: Request<GetModeRequest>,
    ) -> Result<Response<GetModeResponse>, Status> {
        check_store(&self.store, 0)?;
        let mode = self.store.importer.mode.current().into();
        Ok(Response::new(GetModeResponse { mode }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        check_store(&self.store, 0)?;
        upload(&self.store.importer, request.into_inner()).await?;
        Ok(Response::new(UploadResponse::default()))
    }

    async fn ingest(
        &self,
        request: Request<IngestRequest>,
    ) -> Result<Response<IngestResponse>, Status> {
        let request = request.into_inner();
        check_store(&self.store, cluster_of(request.context.as_ref()))?;
        let metas = request.sst.into_iter().collect();
        Ok(Response::new(
            ingest(&self.store, request.context, metas).await?,
        ))
    }

    async fn multi_ingest(
        &self,
        request: Request<MultiIngestRequest>,
    ) -> Result<Response<IngestResponse>, Status> {
        let request = request.into_inner();
        check_store(&self.store, cluster_of(request.context.as_ref()))?;
        Ok(Response::new(
            ingest(&self.store, request.context, request.ssts).await?,
        ))
    }

    async fn compact(
        &self,
        _request: Request<CompactRequest>,
    ) -> Result<Response<CompactResponse>, Status> {
        // The engine compacts by itself; a client that asks wants only its data in good order.
        check_store(&self.store, 0)?;
        Ok(Response::new(CompactResponse::default()))
    }

    async fn set_download_speed_limit(
        &self,
        request: Request<SetDownloadSpeedLimitRequest>,
    ) -> Result<Response<SetDownloadSpeedLimitResponse>, Status> {
        check_store(&self.store, 0)?;
        let limits = &self.store.importer.limits;
        limits
            .set(&request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(SetDownloadSpeedLimitResponse::default()))
    }

    async fn download(
        &self,
        request: Request<DownloadRequest>,
    ) -> Result<Response<DownloadResponse>, Status> {
        let request = request.into_inner();
        check_store(&self.store, cluster_of(request.context.as_ref()))?;
        let answer = match self.try_download(&request).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(file = request.name, %error, "cannot download");
                if matches!(error, ImportError::DiskFull) {
                    self.store.rt.sleep(DISK_FULL_PAUSE).await;
                }
                DownloadResponse {
                    error: Some(error.to_proto()),
                    ..Default::default()
                }
            }
        };
        Ok(Response::new(answer))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        check_store(&self.store, 0)?;
        Ok(Response::new(
            write(&self.store, request.into_inner()).await?,
        ))
    }

    async fn raw_write(
        &self,
        request: Request<Streaming<RawWriteRequest>>,
    ) -> Result<Response<RawWriteResponse>, Status> {
        check_store(&self.store, 0)?;
        Ok(Response::new(
            raw_write(&self.store, request.into_inner()).await?,
        ))
    }

    async fn duplicate_detect(
        &self,
        _request: Request<DuplicateDetectRequest>,
    ) -> Result<Response<BoxStream<DuplicateDetectResponse>>, Status> {
        Err(Status::unimplemented("duplicates are not looked for"))
    }

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        check_store(&self.store, cluster_of(request.context.as_ref()))?;
        // Boxed: it holds a file and a batch between its waits.
        let answer = Box::pin(apply(&self.store, request)).await?;
        Ok(Response::new(answer))
    }

    async fn clear_files(
        &self,
        request: Request<ClearRequest>,
    ) -> Result<Response<ClearResponse>, Status> {
        check_store(&self.store, 0)?;
        let (importer, prefix) = (self.store.importer.clone(), request.into_inner().prefix);
        self.store
            .rt
            .blocking(move || importer.staged.clear(&prefix))
            .await;
        Ok(Response::new(ClearResponse::default()))
    }

    async fn suspend_import_rpc(
        &self,
        request: Request<SuspendImportRpcRequest>,
    ) -> Result<Response<SuspendImportRpcResponse>, Status> {
        check_store(&self.store, 0)?;
        let request = request.into_inner();
        tracing::info!(
            caller = request.caller,
            suspend = request.should_suspend_imports,
            "imports"
        );
        let duration = request
            .should_suspend_imports
            .then(|| Duration::from_secs(request.duration_in_secs));
        let already_suspended = self.store.importer.suspension.set(duration);
        Ok(Response::new(SuspendImportRpcResponse {
            already_suspended,
        }))
    }

    async fn add_force_partition_range(
        &self,
        request: Request<AddPartitionRangeRequest>,
    ) -> Result<Response<AddPartitionRangeResponse>, Status> {
        check_store(&self.store, 0)?;
        let request = request.into_inner();
        let range = checked_range(request.range)?;
        self.store
            .importer
            .partition_ranges
            .add(range, request.ttl_seconds);
        Ok(Response::new(AddPartitionRangeResponse::default()))
    }

    async fn remove_force_partition_range(
        &self,
        request: Request<RemovePartitionRangeRequest>,
    ) -> Result<Response<RemovePartitionRangeResponse>, Status> {
        check_store(&self.store, 0)?;
        let range = checked_range(request.into_inner().range)?;
        self.store.importer.partition_ranges.remove(range);
        Ok(Response::new(RemovePartitionRangeResponse::default()))
    }
}

fn checked_range(range: Option<pb::Range>) -> Result<pb::Range, Status> {
    let range = range.unwrap_or_default();
    if range.start.is_empty() || range.start >= range.end {
        return Err(Status::invalid_argument(
            "the range to partition at is empty or open",
        ));
    }
    Ok(range)
}
