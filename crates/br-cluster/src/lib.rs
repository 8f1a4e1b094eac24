//! Clients of PD and of the stores: timestamps, regions, transactions, retries.
//!
//! Works the same against the embedded cluster and against TiKV and PD: it knows only the
//! published protocols. [`Cluster::connect`] is the way in.
//!
//! | what | where |
//! |---|---|
//! | timestamps, regions, stores, GC, scatter | [`PdClient`] |
//! | schedulers, labels, placement, statistics | [`PdHttp`] |
//! | keys in etcd | [`Etcd`] |
//! | calls to one store | [`StorePool`], [`StoreClient`] |
//! | a request to the leader of a region | [`Router`] |
//! | reads at a timestamp, transactions | [`Snapshot`], [`Transaction`] |
//! | locks in the way | [`LockResolver`] |
//! | raw key-value data | [`RawClient`] |

mod cluster;
pub mod etcd;
mod http;
mod kv_error;
mod pd;
mod raw;
mod region;
mod rpc;
mod security;
mod store;
#[cfg(test)]
mod test_cluster;
mod txn;

pub use cluster::{Cluster, ClusterConfig};
pub use etcd::Etcd;
pub use http::{
    HttpError, LabelRange, LabelRule, PdHttp, PlacementRule, RegionLabel, RegionStats, StoreConfig,
    StoreSpace, StoreStatus, TidbStatus,
};
pub use kv_error::KvError;
pub use pd::{
    GcKeeper, GcProtection, GcScope, GcState, OperatorState, PD_RETRY, PdClient, PdError,
    ScatterOutcome,
};
pub use raw::{RawChecksum, RawClient, RawLayout};
pub use region::{
    KEY_ERROR_RETRY, REGION_RETRY, RegionCache, RegionFault, RegionResponse, RegionRoute, Router,
};
pub use rpc::{MESSAGE_BYTES_MAX, RpcError};
pub use security::{ClientIdentity, Security, SecurityError};
pub use store::{BackupStream, StoreClient, StorePool};
pub use txn::{KeyPrefix, LockResolver, Resolution, Scanner, Snapshot, Transaction};
