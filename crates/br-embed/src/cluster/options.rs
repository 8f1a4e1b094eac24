use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use br_cluster::Security;
use br_codec::ApiVersion;
use br_rt::Rt;
use br_storage::Faults;
use br_store::StoreConfig;

use super::ClusterError;

/// Stores of one cluster: far more than a test needs, and each takes two ports.
pub const STORES_MAX: usize = 32;
/// The least size of a region at which splitting it is of use.
const REGION_SPLIT_SIZE_BYTES_MIN: u64 = 1 << 10;

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many stores; at least 1.
    pub stores: usize,
    /// Where PD listens; on loopback. Port 0 picks a free one.
    pub pd_addr: SocketAddr,
    /// Where the data lies; `None`: in a temporary folder that goes with the cluster.
    pub data_dir: Option<PathBuf>,
    /// Bytes of a region after a split by size; split at half as much again.
    pub region_split_size_bytes: u64,
    /// Entries of a region after a split by size; likewise.
    pub region_split_keys: u64,
    /// How raw data is laid out. A data folder keeps one version for life.
    pub api_version: ApiVersion,
    /// How each store behaves.
    pub store: StoreConfig,
    /// Certificates: what servers show, and who signs those of clients; without, plain text.
    pub security: Security,
    /// What goes wrong between log backup and its external storage; for tests.
    pub log_faults: Faults,
    /// Clock, randomness, tasks, network.
    pub rt: Rt,
}

impl Options {
    /// Three stores, free ports, a temporary folder, TiKV's region sizes.
    pub fn new(rt: Rt) -> Options {
        Options {
            stores: 3,
            pd_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            region_split_size_bytes: 256 << 20,
            region_split_keys: 2_560_000,
            api_version: ApiVersion::V1,
            store: StoreConfig::default(),
            security: Security::default(),
            log_faults: Faults::default(),
            rt,
        }
    }

    pub(super) fn check(&self) -> Result<(), ClusterError> {
        let invalid = |message: String| Err(ClusterError::Options(message));
        if self.stores == 0 || self.stores > STORES_MAX {
            return invalid(format!(
                "{} stores; 1 to {STORES_MAX} are possible",
                self.stores
            ));
        }
        if !self.pd_addr.ip().is_loopback() {
            return invalid(format!(
                "PD cannot listen on {}: there is no authentication, so only loopback addresses \
                 are possible",
                self.pd_addr
            ));
        }
        if self.region_split_size_bytes < REGION_SPLIT_SIZE_BYTES_MIN || self.region_split_keys == 0
        {
            return invalid(format!(
                "regions of {} bytes or {} keys; at least {REGION_SPLIT_SIZE_BYTES_MIN} bytes and \
                 1 key are possible",
                self.region_split_size_bytes, self.region_split_keys
            ));
        }
        Ok(())
    }
}
