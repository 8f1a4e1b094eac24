//! PD's one port: its own gRPC services, etcd's, and the HTTP API.

use std::sync::Arc;

use br_proto::{
    etcdserverpb::{
        cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
        maintenance_server::MaintenanceServer, watch_server::WatchServer,
    },
    health::health_server::HealthServer,
    keyspacepb::keyspace_server::KeyspaceServer,
    meta_storagepb::meta_storage_server::MetaStorageServer,
    pdpb::pd_server::PdServer,
};
use tonic::service::Routes;

use super::{
    Pd,
    etcd::grpc::EtcdService,
    grpc::{HealthService, KeyspaceService, PdService},
    http,
    meta_storage::MetaStorageService,
};
use crate::server::Services;

/// Bytes of one message: room for the split keys of a large restore, and for its regions.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// All that PD serves.
pub(crate) fn services(pd: &Arc<Pd>) -> Services {
    let etcd = EtcdService(pd.clone());
    let service = PdServer::new(PdService(pd.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let kv = KvServer::new(etcd.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let grpc = Routes::new(service)
        .add_service(KeyspaceServer::new(KeyspaceService(pd.clone())))
        .add_service(MetaStorageServer::new(MetaStorageService(pd.clone())))
        .add_service(kv)
        .add_service(WatchServer::new(etcd.clone()))
        .add_service(LeaseServer::new(etcd.clone()))
        .add_service(ClusterServer::new(etcd.clone()))
        .add_service(MaintenanceServer::new(etcd))
        .add_service(HealthServer::new(HealthService));
    Services {
        grpc: grpc.prepare().into_axum_router(),
        http: http::router(pd.clone()),
    }
}
