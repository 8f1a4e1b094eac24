//! What a backup came to, for the line at its end.

use std::time::Duration;

use br_types::TimeStamp;

/// The figures of a finished backup. The names that the official tool prints stand in quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupSummary {
    /// The name of the command: `"<title> success summary"`.
    pub title: &'static str,
    /// `"BackupTS"`; `None` for raw backups.
    pub backup_ts: Option<TimeStamp>,
    /// `"total-ranges"` and `"ranges-succeed"`: files of both column families; `"ranges-failed"`
    /// is always 0, as one that fails makes the backup fail.
    pub files: u64,
    /// `"write-CF-files"`.
    pub write_cf_files: u64,
    /// `"default-CF-files"`.
    pub default_cf_files: u64,
    /// `"backup-total-ranges"`: ranges of tables and indexes.
    pub total_ranges: u64,
    /// `"backup-total-regions"`: about so many regions, as PD counts them before the backup.
    pub total_regions: u64,
    /// `"backup-checksum"`: time for the checksums of the cluster; `None` without `--checksum`.
    pub checksum_took: Option<Duration>,
    /// `"total-take"`.
    pub took: Duration,
    /// `"total-kv"`.
    pub total_kvs: u64,
    /// `"total-kv-size"`, in bytes of keys and values.
    pub total_kv_bytes: u64,
    /// `"backup-data-size(after-compressed)"`, in bytes of data files.
    pub data_size_bytes: u64,
    /// `"Size"`: bytes of data and meta files.
    pub size_bytes: u64,
    /// Databases.
    pub databases: u64,
    /// Tables, views and sequences.
    pub tables: u64,
    /// Rounds over the stores.
    pub rounds: u64,
    /// Pieces that were written twice, as a leader moved or a region split in the middle. Their
    /// files stay on the storage; the backup does not name them.
    pub superseded_pieces: u64,
    /// Locks of transactions that stood in the way and were resolved or passed by.
    pub locks: u64,
    /// Pieces that an interrupted command had backed up.
    pub resumed_pieces: u64,
    /// `"skipped kv count by checkpoint"`: key-value pairs in them.
    pub resumed_kvs: u64,
    /// `"skipped bytes by checkpoint"`: bytes of those.
    pub resumed_kv_bytes: u64,
}

impl BackupSummary {
    /// `"average-speed"`: bytes of keys and values a second.
    pub fn average_speed_bytes_per_s(&self) -> u64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 {
            (self.total_kv_bytes as f64 / seconds) as u64
        } else {
            0
        }
    }
}
