//! What the user asked for, typed. The command fills it; nothing here knows flags.

use std::{path::PathBuf, sync::Arc};

use br_cluster::Cluster;
use br_format::crypter::Crypter;
use br_rt::Progress;
use br_snapshot::restore::{RestoreOptions, RestoreTarget};
use br_sst::SstFiles;
use br_storage::{Backend, SendCredentials, Storage};
use br_types::TimeStamp;

use crate::read::{FILES_HELD_MAX, META_READS_DEFAULT};

/// `--pitr-sort-memory` when the user gives none: half of what the tool may use.
pub const SORT_MEMORY_BYTES_DEFAULT: usize = 256 << 20;

/// Where a restore to a point in time takes what, and where it puts it.
#[derive(Clone)]
pub struct PointTarget {
    /// The cluster. Its token cancels the restore.
    pub cluster: Cluster,
    /// The full backup that it begins with; `None` goes on from an earlier restore.
    pub full: Option<RestoreTarget>,
    /// The log.
    pub log: Storage,
    /// Where the log is, for stores that apply it themselves.
    pub log_backend: Backend,
    /// Makes SST files.
    pub ssts: Arc<dyn SstFiles>,
    /// Where progress is reported.
    pub progress: Arc<dyn Progress>,
}

/// One restore to a point in time.
#[derive(Clone, Debug)]
pub struct PointOptions {
    /// How tables are restored, with filter and the key of the full backup.
    pub tables: RestoreOptions,
    /// `--start-ts`: where the restore ended that this one goes on from; only without a full
    /// backup.
    pub start_ts: Option<TimeStamp>,
    /// `--restored-ts`; `None`: as far as the log goes.
    pub restored_ts: Option<TimeStamp>,
    /// `--log.crypter.*`: how the log is encrypted.
    pub log_crypter: Crypter,
    /// `--retain-latest-mvcc-version`: of what the log has of a key only the newest version.
    pub newest_only: bool,
    /// `--metadata-download-batch-size`: objects of metadata that are read at once.
    pub meta_reads: usize,
    /// Files of the log that are held in memory; of more only the metadata is known, and read again.
    pub files_held_max: usize,
    /// How the events of the log come into the cluster.
    pub method: Method,
    /// `--pitr-temp-dir`: where what is sorted (the log, schemas, indexes) and does not fit into
    /// memory lies meanwhile.
    pub temp_dir: PathBuf,
    /// `--pitr-sort-memory`: bytes of memory for sorting the log, and indexes.
    pub sort_memory_bytes: usize,
    /// Whether the log's storage stays as it is: no lock against truncation, and no ids for a
    /// restore that goes on from this one. For rehearsals.
    pub leaves_no_trace: bool,
}

/// How the events of the log come into the cluster.
#[derive(Clone, Debug)]
pub enum Method {
    /// They are sorted on this machine and ingested as files.
    Sort,
    /// The stores read the log and write it key by key.
    Apply {
        /// `--pitr-batch-count`: files of one request at most.
        batch_files: usize,
        /// `--pitr-batch-size`: bytes of the files of one request, unless one has more.
        batch_bytes: u64,
        /// `--pitr-concurrency`: requests at once.
        concurrency: usize,
        /// Whether stores get the credentials of the log's storage.
        send_credentials: SendCredentials,
    },
}

impl PointOptions {
    /// The defaults.
    pub fn new(tables: RestoreOptions) -> PointOptions {
        PointOptions {
            tables: RestoreOptions {
                to_point: true,
                ..tables
            },
            start_ts: None,
            restored_ts: None,
            log_crypter: Crypter::plaintext(),
            newest_only: false,
            meta_reads: META_READS_DEFAULT,
            files_held_max: FILES_HELD_MAX,
            method: Method::Sort,
            temp_dir: std::env::temp_dir(),
            sort_memory_bytes: SORT_MEMORY_BYTES_DEFAULT,
            leaves_no_trace: false,
        }
    }
}
