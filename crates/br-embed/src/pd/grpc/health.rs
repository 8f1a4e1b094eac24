//! gRPC's health check: a server that answers serves.

use br_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};
use futures::StreamExt;
use tonic::{Request, Response};

use super::{Answer, StreamOf};

/// The service `grpc.health.v1.Health`, for PD and for stores.
#[derive(Clone, Copy)]
pub(crate) struct HealthService;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        Ok(Response::new(serving()))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Answer<StreamOf<HealthCheckResponse>> {
        let answers = futures::stream::iter([Ok(serving())]).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(answers)))
    }
}
