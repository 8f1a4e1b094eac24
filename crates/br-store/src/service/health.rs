use br_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::{context::StoreContext, region_check::check_store};

/// gRPC's standard health check: client-go takes a store that does not answer it for unreachable.
#[derive(Clone)]
pub(crate) struct HealthService {
    store: StoreContext,
}

impl HealthService {
    pub(crate) fn new(store: StoreContext) -> HealthService {
        HealthService { store }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        check_store(&self.store, 0)?;
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<BoxStream<HealthCheckResponse>>, Status> {
        Err(Status::unimplemented("ask with Check"))
    }
}
