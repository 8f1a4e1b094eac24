//! A store's status server: `/config`, `/status`, `/metrics`.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::get};
use br_codec::ApiVersion;
use br_types::StoreId;
use serde_json::{Value, json};

use super::splitter::SplitLimits;
use crate::pd::{CLUSTER_VERSION, Pd};

/// What the server tells.
pub(super) struct StoreStatus {
    pub(super) store: StoreId,
    pub(super) pd: Arc<Pd>,
    pub(super) limits: SplitLimits,
    pub(super) api_version: ApiVersion,
}

/// The routes.
pub(super) fn router(status: StoreStatus) -> Router {
    Router::new()
        .route("/config", get(config).post(set_config))
        .route("/status", get(about))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(status))
}

/// The settings that backup and restore look at, under TiKV's names.
fn settings(status: &StoreStatus) -> Value {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (api, ttl) = match status.api_version {
        ApiVersion::V1 => (1, false),
        ApiVersion::V1Ttl => (1, true),
        ApiVersion::V2 => (2, true),
    };
    json!({
        "storage": { "api-version": api, "enable-ttl": ttl },
        "coprocessor": {
            "region-split-size": format!("{}B", status.limits.size_bytes),
            "region-max-size": format!("{}B", status.limits.size_bytes / 2 * 3),
            "region-split-keys": status.limits.keys,
            "region-max-keys": status.limits.keys / 2 * 3,
        },
        "raftstore": { "right-derive-when-split": true },
        "import": { "num-threads": threads.max(4) },
        "backup": { "num-threads": threads },
        "log-backup": { "enable": false },
        "gc": { "ratio-threshold": 1.1 },
        "security": { "encryption": { "data-encryption-method": "plaintext" } },
    })
}

async fn config(State(status): State<Arc<StoreStatus>>) -> axum::Json<Value> {
    axum::Json(settings(&status))
}

/// Changes are taken and have no effect: nothing that a restore changes (GC of the engine's own,
/// encryption) exists here.
async fn set_config(body: Bytes) -> StatusCode {
    match serde_json::from_slice::<serde_json::Map<String, Value>>(&body) {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn about(State(status): State<Arc<StoreStatus>>) -> axum::Json<Value> {
    axum::Json(json!({
        "store_id": status.store.0,
        "cluster_id": status.pd.cluster_id.0,
        "version": CLUSTER_VERSION,
        "up": status.pd.stores.is_up(status.store),
    }))
}

/// Numbers of regions, in Prometheus's text form.
async fn metrics(State(status): State<Arc<StoreStatus>>) -> String {
    let counts = status.pd.regions.store_counts();
    let (leaders, regions) = counts.get(&status.store).copied().unwrap_or_default();
    format!(
        "# TYPE tikv_raftstore_region_count gauge\n\
         tikv_raftstore_region_count{{type=\"leader\"}} {leaders}\n\
         tikv_raftstore_region_count{{type=\"region\"}} {regions}\n"
    )
}
