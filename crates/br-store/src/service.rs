//! The gRPC services of one store.

mod batch_commands;
mod command;
mod health;
mod kv;

#[cfg(test)]
mod tests;

use br_proto::{
    backup::backup_server::BackupServer, health::health_server::HealthServer,
    import_sstpb::import_sst_server::ImportSstServer,
    logbackup::log_backup_server::LogBackupServer, tikvpb::tikv_server::TikvServer,
};
use tonic::service::Routes;

use crate::{
    backup::BackupService, context::StoreContext, import::ImportService,
    log_backup::LogBackupService,
};

/// Largest message taken and sent: clients send prewrites of many megabytes, and scans answer
/// with as many.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

macro_rules! sized {
    ($server:expr) => {
        $server
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

/// All services of a store, to be served on its one port: key-value, backup, log backup, import,
/// health.
pub fn routes(store: StoreContext) -> Routes {
    let log_backup = store
        .log_backup
        .clone()
        .map(|log_backup| LogBackupService::new(store.clone(), log_backup));
    let mut routes = Routes::new(sized!(TikvServer::new(kv::KvService::new(store.clone()))))
        .add_service(sized!(BackupServer::new(BackupService::new(store.clone()))))
        .add_service(sized!(ImportSstServer::new(ImportService::new(
            store.clone()
        ))))
        .add_service(HealthServer::new(health::HealthService::new(store)));
    if let Some(log_backup) = log_backup {
        routes = routes.add_service(sized!(LogBackupServer::new(log_backup)));
    }
    routes
}
