//! PD's gRPC service over what it knows.

use std::{pin::Pin, sync::Arc};

use br_proto::{
    metapb,
    pdpb::{self as pb, ErrorType},
};
use br_types::{Classify, RegionId, StoreId, TimeStamp};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{CLUSTER_VERSION, Pd, global_config};

mod gc;
mod health;
mod keyspace;
mod regions;

pub(crate) use health::HealthService;
pub(crate) use keyspace::KeyspaceService;

type StreamOf<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// Times that `GetMembers` repeats what PD is.
const GIT_HASH: &str = "None";

/// The service `pdpb.PD`.
#[derive(Clone)]
pub(crate) struct PdService(pub(crate) Arc<Pd>);

/// A header without an error.
pub(crate) fn header(pd: &Pd) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: pd.cluster_id.0,
        error: None,
    })
}

/// A header with one; gRPC itself reports success.
pub(crate) fn error_header(
    pd: &Pd,
    kind: ErrorType,
    message: impl Into<String>,
) -> Option<pb::ResponseHeader> {
    let error = pb::Error {
        r#type: kind.into(),
        message: message.into(),
    };
    Some(pb::ResponseHeader {
        cluster_id: pd.cluster_id.0,
        error: Some(error),
    })
}

/// Refuses requests meant for another cluster.
pub(crate) fn check_cluster(pd: &Pd, header: Option<&pb::RequestHeader>) -> Result<(), Status> {
    let got = header.map_or(0, |header| header.cluster_id);
    if got == pd.cluster_id.0 {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "mismatch cluster id, need {} but got {got}",
        pd.cluster_id
    )))
}

/// An error that is nobody's fault but the server's.
fn internal(error: &impl Classify) -> Status {
    tracing::error!(%error, "a request to PD failed");
    Status::internal(error.to_string())
}

impl PdService {
    fn header(&self) -> Option<pb::ResponseHeader> {
        header(&self.0)
    }

    fn error_header(
        &self,
        kind: ErrorType,
        message: impl Into<String>,
    ) -> Option<pb::ResponseHeader> {
        error_header(&self.0, kind, message)
    }

    fn check(&self, header: Option<&pb::RequestHeader>) -> Result<(), Status> {
        check_cluster(&self.0, header)
    }

    fn member(&self) -> pb::Member {
        pb::Member {
            name: self.0.name().to_owned(),
            member_id: self.0.member_id,
            peer_urls: vec![self.0.client_url()],
            client_urls: vec![self.0.client_url()],
            binary_version: format!("v{CLUSTER_VERSION}"),
            git_hash: GIT_HASH.to_owned(),
            ..pb::Member::default()
        }
    }

    async fn timestamps(&self, request: pb::TsoRequest) -> Result<pb::TsoResponse, Status> {
        self.check(request.header.as_ref())?;
        let last = self
            .0
            .tso
            .get(request.count)
            .await
            .map_err(|error| match error {
                super::tso::TsoError::Count(_) => Status::unknown(error.to_string()),
                error => internal(&error),
            })?;
        Ok(pb::TsoResponse {
            header: self.header(),
            count: request.count,
            timestamp: Some(to_pb(last)),
        })
    }

    fn store_stats(&self, id: StoreId) -> pb::StoreStats {
        let (capacity, available) = self.0.sizes.disk_space();
        let regions = self
            .0
            .regions
            .store_counts()
            .get(&id)
            .map_or(0, |count| count.1);
        let started = self
            .0
            .stores
            .get(id)
            .map_or(0, |store| store.started.0 / 1000);
        pb::StoreStats {
            store_id: id.0,
            capacity,
            available,
            used_size: capacity.saturating_sub(available),
            region_count: u32::try_from(regions).unwrap_or(u32::MAX),
            start_time: u32::try_from(started).unwrap_or(u32::MAX),
            ..pb::StoreStats::default()
        }
    }
}

fn to_pb(ts: TimeStamp) -> pb::Timestamp {
    pb::Timestamp {
        physical: i64::try_from(ts.physical_ms()).unwrap_or(i64::MAX),
        logical: i64::try_from(ts.logical()).unwrap_or(i64::MAX),
        suffix_bits: 0,
    }
}

#[tonic::async_trait]
impl pb::pd_server::Pd for PdService {
    async fn get_cluster_info(
        &self,
        _: Request<pb::GetClusterInfoRequest>,
    ) -> Answer<pb::GetClusterInfoResponse> {
        Ok(Response::new(pb::GetClusterInfoResponse {
            header: self.header(),
            service_modes: vec![pb::ServiceMode::PdSvcMode.into()],
            tso_urls: Vec::new(),
        }))
    }

    async fn get_members(
        &self,
        _: Request<pb::GetMembersRequest>,
    ) -> Answer<pb::GetMembersResponse> {
        Ok(Response::new(pb::GetMembersResponse {
            header: self.header(),
            members: vec![self.member()],
            leader: Some(self.member()),
            etcd_leader: Some(self.member()),
            ..pb::GetMembersResponse::default()
        }))
    }

    async fn tso(
        &self,
        request: Request<Streaming<pb::TsoRequest>>,
    ) -> Answer<StreamOf<pb::TsoResponse>> {
        let service = self.clone();
        // One after the other: answers come in the order of the requests.
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move { service.timestamps(request?).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn bootstrap(
        &self,
        request: Request<pb::BootstrapRequest>,
    ) -> Answer<pb::BootstrapResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let header = self.error_header(
            ErrorType::AlreadyBootstrapped,
            "the cluster is already bootstrapped",
        );
        Ok(Response::new(pb::BootstrapResponse {
            header,
            ..Default::default()
        }))
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pb::IsBootstrappedRequest>,
    ) -> Answer<pb::IsBootstrappedResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let bootstrapped = self.0.is_bootstrapped();
        Ok(Response::new(pb::IsBootstrappedResponse {
            header: self.header(),
            bootstrapped,
        }))
    }

    async fn alloc_id(&self, request: Request<pb::AllocIdRequest>) -> Answer<pb::AllocIdResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let count = request.count.max(1);
        let id = self.0.ids.alloc(count).map_err(|error| internal(&error))?;
        Ok(Response::new(pb::AllocIdResponse {
            header: self.header(),
            id,
            count,
        }))
    }

    async fn is_snapshot_recovering(
        &self,
        _: Request<pb::IsSnapshotRecoveringRequest>,
    ) -> Answer<pb::IsSnapshotRecoveringResponse> {
        let marked = self
            .0
            .is_snapshot_recovering()
            .map_err(|error| internal(&error))?;
        Ok(Response::new(pb::IsSnapshotRecoveringResponse {
            header: self.header(),
            marked,
        }))
    }

    async fn get_store(
        &self,
        request: Request<pb::GetStoreRequest>,
    ) -> Answer<pb::GetStoreResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let id = StoreId(request.store_id);
        Ok(Response::new(match self.0.stores.get(id) {
            Some(store) => pb::GetStoreResponse {
                header: self.header(),
                store: Some(store.to_pb(CLUSTER_VERSION)),
                stats: Some(self.store_stats(id)),
            },
            None => pb::GetStoreResponse {
                header: self.error_header(
                    ErrorType::Unknown,
                    format!("invalid store ID {id}, not found"),
                ),
                ..Default::default()
            },
        }))
    }

    async fn put_store(
        &self,
        request: Request<pb::PutStoreRequest>,
    ) -> Answer<pb::PutStoreResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let id = request.store.as_ref().map_or(0, |store| store.id);
        let header = if self.0.stores.get(StoreId(id)).is_some() {
            self.header()
        } else {
            self.error_header(
                ErrorType::Unknown,
                format!("store {id} cannot join: this cluster carries its own stores only"),
            )
        };
        Ok(Response::new(pb::PutStoreResponse {
            header,
            ..Default::default()
        }))
    }

    async fn get_all_stores(
        &self,
        request: Request<pb::GetAllStoresRequest>,
    ) -> Answer<pb::GetAllStoresResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let stores = self.0.stores.all();
        Ok(Response::new(pb::GetAllStoresResponse {
            header: self.header(),
            stores: stores
                .iter()
                .map(|store| store.to_pb(CLUSTER_VERSION))
                .collect(),
        }))
    }

    async fn store_heartbeat(
        &self,
        request: Request<pb::StoreHeartbeatRequest>,
    ) -> Answer<pb::StoreHeartbeatResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let id = request.stats.as_ref().map_or(0, |stats| stats.store_id);
        let header = match self.0.stores.get(StoreId(id)) {
            Some(_) => self.header(),
            None => self.error_header(
                ErrorType::Unknown,
                format!("invalid store ID {id}, not found"),
            ),
        };
        Ok(Response::new(pb::StoreHeartbeatResponse {
            header,
            cluster_version: CLUSTER_VERSION.to_owned(),
            state: metapb::NodeState::Serving.into(),
            ..Default::default()
        }))
    }

    async fn region_heartbeat(
        &self,
        _: Request<Streaming<pb::RegionHeartbeatRequest>>,
    ) -> Answer<StreamOf<pb::RegionHeartbeatResponse>> {
        Err(Status::unimplemented(
            "the stores of this cluster share one table of regions with PD",
        ))
    }

    async fn get_region(
        &self,
        request: Request<pb::GetRegionRequest>,
    ) -> Answer<pb::GetRegionResponse> {
        self.region_by_key(request.get_ref(), false)
    }

    async fn get_prev_region(
        &self,
        request: Request<pb::GetRegionRequest>,
    ) -> Answer<pb::GetRegionResponse> {
        self.region_by_key(request.get_ref(), true)
    }

    async fn get_region_by_id(
        &self,
        request: Request<pb::GetRegionByIdRequest>,
    ) -> Answer<pb::GetRegionResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let found = self.0.regions.get(RegionId(request.region_id));
        Ok(Response::new(self.region_response(found)))
    }

    async fn scan_regions(
        &self,
        request: Request<pb::ScanRegionsRequest>,
    ) -> Answer<pb::ScanRegionsResponse> {
        self.scan(request.get_ref())
    }

    async fn batch_scan_regions(
        &self,
        request: Request<pb::BatchScanRegionsRequest>,
    ) -> Answer<pb::BatchScanRegionsResponse> {
        self.batch_scan(request.get_ref())
    }

    async fn ask_batch_split(
        &self,
        request: Request<pb::AskBatchSplitRequest>,
    ) -> Answer<pb::AskBatchSplitResponse> {
        self.split_ids(request.get_ref())
    }

    async fn report_batch_split(
        &self,
        request: Request<pb::ReportBatchSplitRequest>,
    ) -> Answer<pb::ReportBatchSplitResponse> {
        self.check(request.get_ref().header.as_ref())?;
        // Splits are in the table already.
        Ok(Response::new(pb::ReportBatchSplitResponse {
            header: self.header(),
        }))
    }

    async fn get_cluster_config(
        &self,
        request: Request<pb::GetClusterConfigRequest>,
    ) -> Answer<pb::GetClusterConfigResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let max_peer_count = self.0.config.number("replication.max-replicas");
        let cluster = metapb::Cluster {
            id: self.0.cluster_id.0,
            max_peer_count: u32::try_from(max_peer_count).unwrap_or(u32::MAX),
        };
        Ok(Response::new(pb::GetClusterConfigResponse {
            header: self.header(),
            cluster: Some(cluster),
        }))
    }

    async fn scatter_region(
        &self,
        request: Request<pb::ScatterRegionRequest>,
    ) -> Answer<pb::ScatterRegionResponse> {
        self.scatter(request.get_ref())
    }

    async fn get_operator(
        &self,
        request: Request<pb::GetOperatorRequest>,
    ) -> Answer<pb::GetOperatorResponse> {
        self.operator(request.get_ref())
    }

    async fn split_regions(
        &self,
        request: Request<pb::SplitRegionsRequest>,
    ) -> Answer<pb::SplitRegionsResponse> {
        let request = request.into_inner();
        self.check(request.header.as_ref())?;
        let (finished_percentage, regions_id) = self.split_at(request.split_keys);
        let header = self.header();
        Ok(Response::new(pb::SplitRegionsResponse {
            header,
            finished_percentage,
            regions_id,
        }))
    }

    async fn split_and_scatter_regions(
        &self,
        request: Request<pb::SplitAndScatterRegionsRequest>,
    ) -> Answer<pb::SplitAndScatterRegionsResponse> {
        let request = request.into_inner();
        self.check(request.header.as_ref())?;
        let (split_finished_percentage, regions_id) = self.split_at(request.split_keys);
        let (scatter_finished_percentage, _) = self.scatter_all(&request.group, &regions_id);
        Ok(Response::new(pb::SplitAndScatterRegionsResponse {
            header: self.header(),
            split_finished_percentage,
            scatter_finished_percentage,
            regions_id,
        }))
    }

    async fn get_gc_safe_point(
        &self,
        request: Request<pb::GetGcSafePointRequest>,
    ) -> Answer<pb::GetGcSafePointResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let safe_point = self.0.gc.gc_safe_point().0;
        Ok(Response::new(pb::GetGcSafePointResponse {
            header: self.header(),
            safe_point,
        }))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pb::UpdateGcSafePointRequest>,
    ) -> Answer<pb::UpdateGcSafePointResponse> {
        self.gc_update(request.get_ref())
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pb::UpdateServiceGcSafePointRequest>,
    ) -> Answer<pb::UpdateServiceGcSafePointResponse> {
        self.gc_update_service(request.get_ref())
    }

    async fn advance_gc_safe_point(
        &self,
        request: Request<pb::AdvanceGcSafePointRequest>,
    ) -> Answer<pb::AdvanceGcSafePointResponse> {
        self.gc_advance(request.get_ref())
    }

    async fn advance_txn_safe_point(
        &self,
        request: Request<pb::AdvanceTxnSafePointRequest>,
    ) -> Answer<pb::AdvanceTxnSafePointResponse> {
        self.gc_advance_txn(request.get_ref())
    }

    async fn set_gc_barrier(
        &self,
        request: Request<pb::SetGcBarrierRequest>,
    ) -> Answer<pb::SetGcBarrierResponse> {
        self.gc_set_barrier(request.get_ref())
    }

    async fn delete_gc_barrier(
        &self,
        request: Request<pb::DeleteGcBarrierRequest>,
    ) -> Answer<pb::DeleteGcBarrierResponse> {
        self.gc_delete_barrier(request.get_ref())
    }

    async fn set_global_gc_barrier(
        &self,
        request: Request<pb::SetGlobalGcBarrierRequest>,
    ) -> Answer<pb::SetGlobalGcBarrierResponse> {
        self.gc_set_global_barrier(request.get_ref())
    }

    async fn delete_global_gc_barrier(
        &self,
        request: Request<pb::DeleteGlobalGcBarrierRequest>,
    ) -> Answer<pb::DeleteGlobalGcBarrierResponse> {
        self.gc_delete_global_barrier(request.get_ref())
    }

    async fn get_gc_state(
        &self,
        request: Request<pb::GetGcStateRequest>,
    ) -> Answer<pb::GetGcStateResponse> {
        self.gc_state(request.get_ref())
    }

    async fn get_all_keyspaces_gc_states(
        &self,
        request: Request<pb::GetAllKeyspacesGcStatesRequest>,
    ) -> Answer<pb::GetAllKeyspacesGcStatesResponse> {
        self.gc_states(request.get_ref())
    }

    async fn store_global_config(
        &self,
        request: Request<pb::StoreGlobalConfigRequest>,
    ) -> Answer<pb::StoreGlobalConfigResponse> {
        let request = request.into_inner();
        global_config::store(&self.0.etcd, &request.config_path, request.changes)?;
        Ok(Response::new(pb::StoreGlobalConfigResponse { error: None }))
    }

    async fn load_global_config(
        &self,
        request: Request<pb::LoadGlobalConfigRequest>,
    ) -> Answer<pb::LoadGlobalConfigResponse> {
        let request = request.get_ref();
        let (items, revision) =
            global_config::load(&self.0.etcd, &request.config_path, &request.names)?;
        Ok(Response::new(pb::LoadGlobalConfigResponse {
            items,
            revision,
        }))
    }

    async fn watch_global_config(
        &self,
        request: Request<pb::WatchGlobalConfigRequest>,
    ) -> Answer<StreamOf<pb::WatchGlobalConfigResponse>> {
        let request = request.get_ref();
        let watching = global_config::watch(&self.0.etcd, &request.config_path, request.revision)?;
        let service = self.clone();
        let answers = ReceiverStream::new(watching.updates).map(move |update| {
            Ok(pb::WatchGlobalConfigResponse {
                revision: update.revision,
                changes: global_config::changes(update),
                header: service.header(),
            })
        });
        let slow = Status::resource_exhausted("the watcher is too slow");
        let answers = answers.chain(futures::stream::iter([Err(slow)]));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn report_min_resolved_ts(
        &self,
        request: Request<pb::ReportMinResolvedTsRequest>,
    ) -> Answer<pb::ReportMinResolvedTsResponse> {
        self.check(request.get_ref().header.as_ref())?;
        Ok(Response::new(pb::ReportMinResolvedTsResponse {
            header: self.header(),
        }))
    }

    async fn set_external_timestamp(
        &self,
        request: Request<pb::SetExternalTimestampRequest>,
    ) -> Answer<pb::SetExternalTimestampResponse> {
        let request = request.get_ref();
        self.check(request.header.as_ref())?;
        let to = TimeStamp(request.timestamp);
        let set = self
            .0
            .set_external_timestamp(to)
            .map_err(|error| internal(&error))?;
        let header = if set {
            self.header()
        } else {
            self.error_header(
                ErrorType::InvalidValue,
                format!(
                    "the external timestamp cannot become {to}: it goes only forward, up to now"
                ),
            )
        };
        Ok(Response::new(pb::SetExternalTimestampResponse { header }))
    }

    async fn get_external_timestamp(
        &self,
        request: Request<pb::GetExternalTimestampRequest>,
    ) -> Answer<pb::GetExternalTimestampResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let timestamp = self
            .0
            .external_timestamp()
            .map_err(|error| internal(&error))?
            .0;
        Ok(Response::new(pb::GetExternalTimestampResponse {
            header: self.header(),
            timestamp,
        }))
    }

    async fn get_min_ts(
        &self,
        request: Request<pb::GetMinTsRequest>,
    ) -> Answer<pb::GetMinTsResponse> {
        self.check(request.get_ref().header.as_ref())?;
        let now = self.0.tso.get(1).await.map_err(|error| internal(&error))?;
        Ok(Response::new(pb::GetMinTsResponse {
            header: self.header(),
            timestamp: Some(to_pb(now)),
        }))
    }
}
