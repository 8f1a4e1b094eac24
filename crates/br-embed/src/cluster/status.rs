//! A store's status server: `/config`, `/status`, `/metrics`.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::get};
use br_codec::ApiVersion;
use br_store::{Courtesy, log_backup::LogBackup};
use br_types::StoreId;
use serde_json::{Value, json};

use super::splitter::SplitLimits;
use crate::pd::{CLUSTER_VERSION, Pd};

/// Whether background work gives way to commands, under TiKV's name for that.
const AUTO_TUNE: &str = "backup.enable-auto-tune";
/// How long events wait at most.
const MAX_FLUSH_INTERVAL: &str = "log-backup.max-flush-interval";

/// What the server tells.
pub(super) struct StoreStatus {
    pub(super) store: StoreId,
    pub(super) pd: Arc<Pd>,
    pub(super) limits: SplitLimits,
    pub(super) api_version: ApiVersion,
    pub(super) log_backup: Option<LogBackup>,
    pub(super) courtesy: Courtesy,
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
        "backup": { "num-threads": threads, "enable-auto-tune": status.courtesy.is_on() },
        "log-backup": log_backup_settings(status),
        "gc": { "ratio-threshold": 1.1 },
        "security": { "encryption": { "data-encryption-method": "plaintext" } },
    })
}

fn log_backup_settings(status: &StoreStatus) -> Value {
    let Some(log_backup) = &status.log_backup else {
        return json!({ "enable": false });
    };
    let config = log_backup.config().get();
    json!({
        "enable": config.enable,
        "max-flush-interval": duration_text(config.max_flush_interval),
        "min-flush-interval": duration_text(config.min_flush_interval),
        "file-size-limit": format!("{}B", config.file_size_limit_bytes),
        "temp-file-memory-quota": format!("{}B", config.temp_memory_bytes_max),
        "initial-scan-concurrency": config.scan_concurrency,
        "initial-scan-rate-limit": format!("{}B", config.scan_bytes_per_s),
    })
}

/// `1m30s`: as TiKV writes durations.
fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

async fn config(State(status): State<Arc<StoreStatus>>) -> axum::Json<Value> {
    axum::Json(settings(&status))
}

/// `log-backup.max-flush-interval` and `backup.enable-auto-tune` are changed; other changes are taken and have no effect: nothing
/// that a restore changes (GC of the engine's own, encryption) exists here.
async fn set_config(
    State(status): State<Arc<StoreStatus>>,
    body: Bytes,
) -> Result<(), (StatusCode, String)> {
    let refused = |message: String| (StatusCode::BAD_REQUEST, message);
    let changes = serde_json::from_slice::<serde_json::Map<String, Value>>(&body)
        .map_err(|error| refused(error.to_string()))?;
    if let Some(auto_tune) = changes.get(AUTO_TUNE) {
        let is_on = auto_tune.as_bool();
        let is_on = is_on.ok_or_else(|| refused(format!("{AUTO_TUNE} is true or false")))?;
        status.courtesy.turn(is_on);
    }
    let Some(interval) = changes.get(MAX_FLUSH_INTERVAL) else {
        return Ok(());
    };
    let text = interval.as_str().unwrap_or_default();
    let interval = humantime::parse_duration(text)
        .map_err(|error| refused(format!("{MAX_FLUSH_INTERVAL}: {error}")))?;
    match &status.log_backup {
        Some(log_backup) => log_backup
            .config()
            .set_max_flush_interval(interval)
            .map_err(refused),
        None => Ok(()),
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

/// Numbers of regions and of log backup, in Prometheus's text form.
async fn metrics(State(status): State<Arc<StoreStatus>>) -> String {
    let counts = status.pd.regions.store_counts();
    let (leaders, regions) = counts.get(&status.store).copied().unwrap_or_default();
    let log_backup = status.log_backup.as_ref().map(LogBackup::metrics_text);
    let share = status.courtesy.share();
    format!(
        "# TYPE tikv_raftstore_region_count gauge\n\
         tikv_raftstore_region_count{{type=\"leader\"}} {leaders}\n\
         tikv_raftstore_region_count{{type=\"region\"}} {regions}\n\
         # TYPE br_background_share gauge\n\
         br_background_share {share:.3}\n{}",
        log_backup.unwrap_or_default()
    )
}
