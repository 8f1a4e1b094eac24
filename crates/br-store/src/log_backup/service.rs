//! `logbackup.LogBackup`: checkpoints of regions, news of flushes, flush now.

use br_proto::logbackup::{
    FlushNowRequest, FlushNowResponse, FlushResult, GetLastFlushTsOfRegionRequest,
    GetLastFlushTsOfRegionResponse, SubscribeFlushEventRequest, SubscribeFlushEventResponse,
    log_backup_server::LogBackup as LogBackupProtocol,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::LogBackup;
use crate::{context::StoreContext, region_check::check_store};

/// The service of one store.
#[derive(Clone)]
pub(crate) struct LogBackupService {
    store: StoreContext,
    log_backup: LogBackup,
}

impl LogBackupService {
    pub(crate) fn new(store: StoreContext, log_backup: LogBackup) -> LogBackupService {
        LogBackupService { store, log_backup }
    }
}

#[tonic::async_trait]
impl LogBackupProtocol for LogBackupService {
    async fn get_last_flush_ts_of_region(
        &self,
        request: Request<GetLastFlushTsOfRegionRequest>,
    ) -> Result<Response<GetLastFlushTsOfRegionResponse>, Status> {
        check_store(&self.store, 0)?;
        let published = self.log_backup.published();
        let asked = request.into_inner().regions.into_iter();
        Ok(Response::new(GetLastFlushTsOfRegionResponse {
            checkpoints: asked.map(|region| published.answer(region)).collect(),
        }))
    }

    async fn subscribe_flush_event(
        &self,
        request: Request<SubscribeFlushEventRequest>,
    ) -> Result<Response<BoxStream<SubscribeFlushEventResponse>>, Status> {
        check_store(&self.store, 0)?;
        tracing::info!(
            client = request.get_ref().client_id,
            "somebody wants news of flushes"
        );
        let events = self.log_backup.published().subscribe();
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn flush_now(
        &self,
        _request: Request<FlushNowRequest>,
    ) -> Result<Response<FlushNowResponse>, Status> {
        check_store(&self.store, 0)?;
        let result = self.log_backup.flush_now().await;
        let results = result.map(|(task, result)| FlushResult {
            task_name: task.to_string(),
            success: result.is_ok(),
            error_message: result.err().unwrap_or_default(),
        });
        Ok(Response::new(FlushNowResponse {
            results: results.into_iter().collect(),
        }))
    }
}
