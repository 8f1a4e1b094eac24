use std::sync::Arc;

use br_codec::ApiVersion;
use br_rt::Rt;
use br_types::{ClusterId, StoreId};

use crate::{
    engine::Engine,
    import::Importer,
    log_backup::{LogBackup, LogBackupConfig},
    storage::Storage,
    topology::Topology,
};

/// How one store behaves; the same for all stores of an embedded cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Region pieces that one backup request scans at the same time, and files that it uploads.
    pub backup_threads: usize,
    /// A backup file is closed once it holds this many bytes of keys and values.
    pub backup_sst_bytes_max: u64,
    /// Commands of one `BatchCommands` stream that are worked on at the same time.
    pub batch_commands_max: usize,
    /// Bytes of log files that are held at the same time while they are applied.
    pub import_memory_bytes_max: u64,
    /// How it backs up its log.
    pub log_backup: LogBackupConfig,
}

impl Default for StoreConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        StoreConfig {
            // TiKV takes half of the cores, at most 8. On a machine of two cores that would scan
            // with one thread while the other idles, so the embedded store starts at two.
            backup_threads: (cores / 2).clamp(2, 8),
            // TiKV's default: one and a half times the region size of 256 MiB.
            backup_sst_bytes_max: 384 << 20,
            // client-go sends up to 128 commands in one message.
            batch_commands_max: 256,
            // A few files of the size at which stores flush, as they are stored and opened.
            import_memory_bytes_max: 1 << 30,
            log_backup: LogBackupConfig::default(),
        }
    }
}

/// All that the services of one store work with. Cheap to clone.
#[derive(Clone)]
pub struct StoreContext {
    /// The cluster; requests that name another one are refused.
    pub cluster_id: ClusterId,
    /// This store.
    pub store_id: StoreId,
    /// Transactions and raw key-value over the engine, shared by all stores of the process.
    pub storage: Storage,
    /// The regions of the cluster.
    pub topology: Arc<dyn Topology>,
    /// SST files on their way in, shared by all stores of the process.
    pub importer: Arc<Importer>,
    /// Time, randomness and tasks.
    pub rt: Rt,
    /// Its log backup; `None`: it takes no part, and says so to whoever asks.
    pub log_backup: Option<LogBackup>,
    /// How the store behaves.
    pub config: Arc<StoreConfig>,
}

impl StoreContext {
    /// The engine below.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        self.storage.engine()
    }

    /// How raw data is laid out.
    pub fn api_version(&self) -> ApiVersion {
        self.storage.api_version()
    }
}
