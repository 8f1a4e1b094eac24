use std::time::Duration;

use br_rt::CancellationToken;
use reqwest::Method;
use serde_json::{Value, json};

use super::{HttpClient, HttpError, client::Request};

/// What the configuration of a store says that matters here; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreConfig {
    /// `coprocessor.region-split-size`.
    pub region_split_size_bytes: Option<u64>,
    /// `coprocessor.region-split-keys`.
    pub region_split_keys: Option<u64>,
    /// `import.num-threads`.
    pub import_threads: Option<u64>,
    /// `log-backup.enable`.
    pub log_backup_enabled: Option<bool>,
    /// How often progress of a log backup is to be expected: `log-backup.min-flush-interval`, which
    /// stores have that flush as soon as there is something to protect, or `max-flush-interval`.
    pub log_backup_flush_interval: Option<Duration>,
    /// `storage.api-version`, 1 or 2.
    pub api_version: Option<u64>,
    /// `storage.enable-ttl`: with API version 1, raw values carry an expiry.
    pub ttl_enabled: Option<bool>,
    /// `gc.ratio-threshold`: below zero, compactions leave garbage alone.
    pub gc_ratio_threshold: Option<f64>,
}

impl StoreConfig {
    fn from_json(config: &Value) -> StoreConfig {
        let at = |pointer: &str| config.pointer(pointer);
        StoreConfig {
            region_split_size_bytes: at("/coprocessor/region-split-size").and_then(size),
            region_split_keys: at("/coprocessor/region-split-keys").and_then(Value::as_u64),
            import_threads: at("/import/num-threads").and_then(Value::as_u64),
            log_backup_enabled: at("/log-backup/enable").and_then(Value::as_bool),
            log_backup_flush_interval: ["min", "max"]
                .iter()
                .filter_map(|which| at(&format!("/log-backup/{which}-flush-interval")))
                .filter_map(|text| duration(text.as_str()?))
                .min(),
            api_version: at("/storage/api-version").and_then(Value::as_u64),
            ttl_enabled: at("/storage/enable-ttl").and_then(Value::as_bool),
            gc_ratio_threshold: at("/gc/ratio-threshold").and_then(Value::as_f64),
        }
    }
}

/// Asks the status ports of stores.
#[derive(Clone)]
pub struct StoreStatus {
    http: HttpClient,
    cancel: CancellationToken,
}

impl StoreStatus {
    pub(crate) fn new(http: HttpClient, cancel: CancellationToken) -> Self {
        Self { http, cancel }
    }

    /// The configuration of the store with this status address. Nothing is tried again: every use
    /// of it has a default.
    ///
    /// # Errors
    /// The port is out of reach or answers something else than a configuration.
    pub async fn config(&self, status_address: &str) -> Result<StoreConfig, HttpError> {
        let config: Value = self
            .http
            .json(&self.cancel, status_address, &Request::get("/config"))
            .await?;
        Ok(StoreConfig::from_json(&config))
    }

    /// Sets `gc.ratio-threshold` of the store with this status address. Nothing is tried again.
    ///
    /// # Errors
    /// The port is out of reach or refuses.
    pub async fn set_gc_ratio_threshold(
        &self,
        status_address: &str,
        ratio: f64,
    ) -> Result<(), HttpError> {
        let settings = json!({ "gc.ratio-threshold": ratio.to_string() });
        let request = Request::with_json(Method::POST, "/config", &settings);
        let sent = self.http.send(&self.cancel, status_address, &request);
        sent.await.map(drop)
    }

    /// The metrics of the store with this status address, as text. Nothing is tried again.
    ///
    /// # Errors
    /// The port is out of reach or refuses.
    pub async fn metrics(&self, status_address: &str) -> Result<String, HttpError> {
        let body = self
            .http
            .send(&self.cancel, status_address, &Request::get("/metrics"))
            .await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// A duration as TiKV writes it: numbers with units from days down, such as `1h30m` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let unit_seconds = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let seconds: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(seconds * unit_seconds).ok()?)?;
        rest = after;
    }
    Some(total)
}

/// A size as TiKV writes it: a number of bytes, or text such as `256MiB`. Its units are powers of
/// 1024 with and without the `i`.
pub(super) fn size(value: &Value) -> Option<u64> {
    if let Some(bytes) = value.as_u64() {
        return Some(bytes);
    }
    let text = value.as_str()?.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" | "KB" | "K" => 10,
        "MiB" | "MB" | "M" => 20,
        "GiB" | "GB" | "G" => 30,
        "TiB" | "TB" | "T" => 40,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // A float cast saturates; sizes of this kind are far below 2^53.
    Some((number * (1_u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_with_units() {
        assert_eq!(size(&json!("256MiB")), Some(256 << 20));
        assert_eq!(size(&json!("1.5GB")), Some(3 << 29));
        assert_eq!(size(&json!(77)), Some(77));
        assert_eq!(size(&json!("many")), None);
        assert_eq!(size(&json!("1 parsec")), None);
    }

    #[test]
    fn durations_with_units() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("3m"), Some(180.0));
        assert_eq!(seconds("1h30m"), Some(5_400.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!(seconds("2d0h1.5s"), Some(172_801.5));
        for text in ["", "5", "m", "3 parsecs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn missing_settings_stay_unknown() {
        let config = StoreConfig::from_json(&json!({
            "coprocessor": {"region-split-size": "96MiB", "region-split-keys": 960_000},
            "storage": {"api-version": 2, "enable-ttl": true},
            "log-backup": {"max-flush-interval": "3m"},
        }));
        assert_eq!(
            config.log_backup_flush_interval,
            Some(Duration::from_secs(180))
        );
        let both = json!({"max-flush-interval": "3m", "min-flush-interval": "1s500ms"});
        let both = StoreConfig::from_json(&json!({ "log-backup": both }));
        assert_eq!(
            both.log_backup_flush_interval,
            Some(Duration::from_millis(1500))
        );
        assert_eq!(config.region_split_size_bytes, Some(96 << 20));
        assert_eq!(config.region_split_keys, Some(960_000));
        assert_eq!(config.api_version, Some(2));
        assert_eq!(config.import_threads, None);
    }
}
