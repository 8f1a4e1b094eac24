//! Calls over HTTP: PD's API and the status ports of stores and of TiDB servers.

mod client;
mod pd;
mod simulated;
mod store_config;
mod tidb_status;

pub(crate) use client::HttpClient;
pub use client::HttpError;
pub use pd::{LabelRange, LabelRule, PdHttp, PlacementRule, RegionLabel, RegionStats, StoreSpace};
pub use store_config::{StoreConfig, StoreStatus};
pub use tidb_status::TidbStatus;
