//! # What it does
//! Serves `backup.Backup`: scans the regions that this store leads at a timestamp and writes what
//! it finds as SST files to external storage.
//!
//! # Objects it reads and writes
//! Reads the write, default and lock column families; writes `{stem}_default.sst` and
//! `{stem}_write.sst`, by way of local files in the engine's scratch folder.
//!
//! # Ordering and invariants
//! The pieces of a region come from one view of the engine, are disjoint, follow each other, and
//! cover the region's part of the wanted range. An answer for a range is sent after its files are
//! on external storage. A scan that fails is answered without a range, an upload that fails with
//! the range and no files; the client asks again for what is missing.
//!
//! # Retries
//! Only those of external storage; all else is the client's business.
//!
//! # Cancellation
//! A client that drops the stream stops scans within a thousand entries and uploads at once.
//!
//! # After a crash
//! Files on external storage that no answer named; local files, removed at the next start.

mod error;
mod form;
mod job;
mod name;
mod parts;
mod pieces;
mod plan;
mod scan;
mod upload;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use br_proto::backup::{
    BackupRequest, BackupResponse, CheckAdminRequest, CheckAdminResponse,
    PrepareSnapshotBackupRequest, PrepareSnapshotBackupResponse, backup_server::Backup,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{context::StoreContext, engine::Engine, region_check::check_store};

/// Answers that wait for the client to read them.
const ANSWERS_WAITING_MAX: usize = 64;

/// Where files lie until they are uploaded.
pub(crate) fn scratch_dir(engine: &dyn Engine) -> PathBuf {
    engine.scratch_dir().join("backup")
}

/// The backup service of one store.
#[derive(Clone)]
pub(crate) struct BackupService {
    store: StoreContext,
}

impl BackupService {
    pub(crate) fn new(store: StoreContext) -> BackupService {
        BackupService { store }
    }
}

#[tonic::async_trait]
impl Backup for BackupService {
    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<BoxStream<BackupResponse>>, Status> {
        // The official store does not look at the cluster of a backup request either.
        check_store(&self.store, 0)?;
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let work = job::serve(self.store.clone(), request.into_inner(), answers);
        self.store.rt.spawn(work).detach();
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn check_pending_admin_op(
        &self,
        _request: Request<CheckAdminRequest>,
    ) -> Result<Response<BoxStream<CheckAdminResponse>>, Status> {
        let regions = self
            .store
            .topology
            .regions_in(&Default::default(), usize::MAX);
        let ours = self.store.store_id;
        let answers = regions
            .into_iter()
            .filter(move |state| state.leader_store() == ours)
            .map(|state| {
                // Splits take effect at once here, so nothing is ever pending.
                Ok(CheckAdminResponse {
                    region: Some(state.region),
                    ..Default::default()
                })
            });
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn prepare_snapshot_backup(
        &self,
        _request: Request<Streaming<PrepareSnapshotBackupRequest>>,
    ) -> Result<Response<BoxStream<PrepareSnapshotBackupResponse>>, Status> {
        Err(Status::unimplemented(
            "volume snapshots need a real cluster",
        ))
    }
}
