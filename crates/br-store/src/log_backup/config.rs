use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::pace::PaceConfig;

/// TiKV's bounds of the interval, which its users know.
const FLUSH_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// How a store backs up its log; TiKV's names with `log-backup.` before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBackupConfig {
    /// `enable`: whether the store takes part at all.
    pub enable: bool,
    /// `max-flush-interval`: nothing waits longer. At least ten seconds.
    pub max_flush_interval: Duration,
    /// `min-flush-interval` (Holdfast's own): the steady pace under writes. Equal to the longest
    /// interval it gives the pace of TiKV.
    pub min_flush_interval: Duration,
    /// `file-size-limit`: records of this size are flushed at once, and are about one object.
    pub file_size_limit_bytes: u64,
    /// `temp-file-memory-quota`: records beyond it go to temporary files.
    pub temp_memory_bytes_max: usize,
    /// `initial-scan-concurrency`: regions that are scanned at a time.
    pub scan_concurrency: usize,
    /// `initial-scan-rate-limit`: bytes that scans look at in a second.
    pub scan_bytes_per_s: u64,
}

impl Default for LogBackupConfig {
    fn default() -> Self {
        LogBackupConfig {
            enable: true,
            max_flush_interval: Duration::from_secs(180),
            min_flush_interval: Duration::from_secs(10),
            file_size_limit_bytes: 256 << 20,
            // A quarter of TiKV's: several stores share one process here, and records lie in
            // memory as they are, not compressed.
            temp_memory_bytes_max: 128 << 20,
            scan_concurrency: 6,
            scan_bytes_per_s: 60 << 20,
        }
    }
}

/// The settings as they are now: some can be changed while the store runs.
#[derive(Debug)]
pub struct LiveConfig {
    fixed: LogBackupConfig,
    max_flush_interval: Mutex<Duration>,
}

impl LiveConfig {
    pub(crate) fn new(config: LogBackupConfig) -> LiveConfig {
        LiveConfig {
            max_flush_interval: Mutex::new(config.max_flush_interval.max(FLUSH_INTERVAL_MIN)),
            fixed: config,
        }
    }

    /// All of them.
    pub fn get(&self) -> LogBackupConfig {
        LogBackupConfig {
            max_flush_interval: *self.interval(),
            ..self.fixed.clone()
        }
    }

    /// Changes `max-flush-interval`.
    ///
    /// # Errors
    /// It is shorter than ten seconds.
    pub fn set_max_flush_interval(&self, interval: Duration) -> Result<(), String> {
        if interval < FLUSH_INTERVAL_MIN {
            return Err(format!(
                "log-backup.max-flush-interval is at least {FLUSH_INTERVAL_MIN:?}"
            ));
        }
        *self.interval() = interval;
        Ok(())
    }

    pub(crate) fn pace(&self) -> PaceConfig {
        PaceConfig {
            interval_max: *self.interval(),
            interval_min: self.fixed.min_flush_interval,
            size_bytes: self.fixed.file_size_limit_bytes,
        }
    }

    fn interval(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.max_flush_interval
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
