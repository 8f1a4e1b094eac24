use br_cluster::{KvError, PdError};
use br_format::{kv_stats::KvStats, resume::ResumeError};
use br_proto::kvrpcpb::ApiVersion;
use br_storage::{BackendError, StorageError};
use br_tidb::schema::SchemaError;
use br_types::{Classify, Code, Kind, RawKey, StoreId, TimeStamp};

use super::{
    push::PushError,
    resume::{Difference, LockError},
    target::TargetError,
    timestamp::TimeError,
};
use crate::{checksum::ChecksumError, schema::SchemaReadError, versions::VersionError};

/// Why there is no backup. Whatever it is: no `backupmeta` was written.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The place is taken.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Another command is at work at the place.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The progress of an interrupted backup cannot be read.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The interrupted backup at the place had other options.
    #[error(
        "the interrupted backup at {place} is another one: {}",
        describe(differences)
    )]
    OtherParameters {
        /// The place.
        place: String,
        /// What is different.
        differences: Vec<Difference>,
    },
    /// The interrupted backup at the place, of the official tool, had other options.
    #[error(
        "the interrupted backup at {place} was begun by another tool with other options: the digest \
         of its options is another one"
    )]
    OtherConfig {
        /// The place.
        place: String,
    },
    /// The interrupted backup at the place cannot go on.
    #[error(
        "the interrupted backup at {place} cannot go on: data at its timestamp {backup_ts} may be \
         collected already, as the GC safe point is {safe_point}"
    )]
    ResumeTooLate {
        /// The place.
        place: String,
        /// Its timestamp.
        backup_ts: TimeStamp,
        /// The safe point of PD.
        safe_point: TimeStamp,
    },
    /// The external storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The external storage cannot be told to the stores.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The timestamp cannot be backed up.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// A store is too old or too new.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// The schemas cannot be read.
    #[error(transparent)]
    SchemaRead(#[from] SchemaReadError),
    /// The schema of a table cannot be stored in a backup.
    #[error("the schema of {name} cannot be backed up: {source}")]
    Schema {
        /// The database or table.
        name: String,
        /// Why.
        source: SchemaError,
    },
    /// The stores could not back up.
    #[error(transparent)]
    Push(#[from] PushError<KvError>),
    /// The cluster could not compute a checksum.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
    /// The files hold something else than the cluster.
    #[error(
        "the files of table {table} do not hold what the cluster has: crc64 {:016x}, {} pairs, \
         {} bytes in the files; crc64 {:016x}, {} pairs, {} bytes in the cluster",
        files.crc64_xor, files.total_kvs, files.total_bytes,
        cluster.crc64_xor, cluster.total_kvs, cluster.total_bytes
    )]
    ChecksumMismatch {
        /// The table, with its database.
        table: String,
        /// Sums over its files.
        files: KvStats,
        /// Sums that the cluster computed.
        cluster: KvStats,
    },
    /// There is no such database.
    #[error("there is no database {name} at the backup timestamp")]
    NoDatabase {
        /// The name.
        name: String,
    },
    /// There is no such table.
    #[error("there is no table {name} at the backup timestamp")]
    NoTable {
        /// The name, with its database.
        name: String,
    },
    /// The filter takes nothing.
    #[error("nothing to back up: the filter takes no database and no table")]
    NothingToBackUp,
    /// PD knows no store that lives.
    #[error("no store is alive{}", if *is_labelled { " that has the label of --replica-read-label" } else { "" })]
    NoStores {
        /// Whether only stores with a label count.
        is_labelled: bool,
    },
    /// The stores do not agree on how raw keys are laid out.
    #[error(
        "store {store} has API version {}, another one {}",
        found.as_str_name(),
        other.as_str_name()
    )]
    ApiVersionsDiffer {
        /// A store.
        store: StoreId,
        /// Its version.
        found: ApiVersion,
        /// That of another.
        other: ApiVersion,
    },
    /// A bound of a raw backup that no raw key of an API v2 cluster can have.
    #[error(
        "key {key} is no raw key of an API v2 cluster: those begin with 72 (`r`) and the keyspace"
    )]
    NotARawKey {
        /// The key.
        key: RawKey,
    },
    /// Only tables can be backed up incrementally.
    #[error("raw and transactional backups cannot be incremental")]
    NotIncremental,
    /// Statistics need a TiDB server.
    #[error("statistics cannot be backed up: only a TiDB server can dump them")]
    Statistics,
    /// A keyspace was named, but the cluster was connected without it.
    #[error("keyspace {name} was not looked up before the backup")]
    KeyspaceUnknown {
        /// Its name.
        name: String,
    },
    /// A bug.
    #[error("the backup did not keep its own rules: {what}")]
    Internal {
        /// Which.
        what: String,
    },
    /// Cancelled.
    #[error("the backup was cancelled")]
    Cancelled {
        /// Whether the same command goes on.
        is_resumable: bool,
    },
}

fn describe(differences: &[Difference]) -> String {
    let texts: Vec<String> = differences
        .iter()
        .map(|Difference { name, was, is }| format!("{name} was {was}, and is {is} now"))
        .collect();
    texts.join("; ")
}

impl BackupError {
    /// The error below, if it says what to do by itself.
    fn cause(&self) -> Option<&dyn Classify> {
        match self {
            BackupError::Target(error) => Some(error),
            BackupError::Lock(error) => Some(error),
            BackupError::Resume(error) => Some(error),
            BackupError::Storage(error) => Some(error),
            BackupError::Backend(error) => Some(error),
            BackupError::Time(error) => Some(error),
            BackupError::Version(error) => Some(error),
            BackupError::Pd(error) => Some(error),
            BackupError::SchemaRead(error) => Some(error),
            BackupError::Schema { source, .. } => Some(source),
            BackupError::Push(error) => Some(error),
            BackupError::Checksum(error) => Some(error),
            _ => None,
        }
    }
}

impl Classify for BackupError {
    fn kind(&self) -> Kind {
        if let Some(cause) = self.cause() {
            return cause.kind();
        }
        match self {
            BackupError::ChecksumMismatch { .. } => Kind::Data,
            BackupError::OtherParameters { .. } | BackupError::OtherConfig { .. } => Kind::Conflict,
            BackupError::NoStores { is_labelled: false } => Kind::Retry,
            BackupError::Cancelled { .. } => Kind::Cancelled,
            BackupError::Internal { .. } | BackupError::KeyspaceUnknown { .. } => Kind::Internal,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        if let Some(cause) = self.cause() {
            return cause.code();
        }
        match self {
            BackupError::ChecksumMismatch { .. } => Code::BACKUP_CHECKSUM_MISMATCH,
            BackupError::ResumeTooLate { .. } => Code::BACKUP_GC_SAFEPOINT_EXCEEDED,
            BackupError::OtherParameters { .. } | BackupError::OtherConfig { .. } => {
                Code::STORAGE_IN_USE
            }
            BackupError::NoDatabase { .. } | BackupError::NoTable { .. } => {
                Code::UNDEFINED_DB_OR_TABLE
            }
            BackupError::NoStores { .. } => Code::FAILED_TO_CONNECT,
            BackupError::ApiVersionsDiffer { .. }
            | BackupError::NotIncremental
            | BackupError::Statistics => Code::UNSUPPORTED_OPERATION,
            BackupError::NotARawKey { .. } => Code::BACKUP_INVALID_RANGE,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(cause) = self.cause() {
            return cause.next_step();
        }
        let step = match self {
            BackupError::Cancelled { is_resumable: true } => {
                "Run the same command again to go on, or give it up with `br abort backup`"
            }
            BackupError::OtherParameters { .. } => {
                "Run it again with the options that it had, give it up with `br abort backup`, or \
                 back up to another place"
            }
            BackupError::OtherConfig { .. } => {
                "Resume it with the same --storage, --pd, --filter, --crypter and storage flags, or \
                 with the tool that began it, or give it up with `br abort backup`"
            }
            BackupError::ResumeTooLate { .. } => {
                "Give it up with `br abort backup` and back up anew; a longer --gcttl keeps the data \
                 for longer after an interruption"
            }
            BackupError::ChecksumMismatch { .. } => {
                "Run ADMIN CHECK TABLE on it, and back up again to an empty target"
            }
            BackupError::NoDatabase { .. } | BackupError::NoTable { .. } => {
                "Check the name, and whether it existed at that time"
            }
            BackupError::NothingToBackUp => "Check --filter against SHOW DATABASES and SHOW TABLES",
            BackupError::NoStores { .. } => "Check with `pd-ctl store` that the stores are up",
            BackupError::ApiVersionsDiffer { .. } => {
                "Give all stores the same storage.api-version and storage.enable-ttl"
            }
            BackupError::NotARawKey { .. } => {
                "Put r and the three bytes of the keyspace before --start and --end, or leave them \
                 away"
            }
            BackupError::NotIncremental => "Leave --lastbackupts away",
            BackupError::Statistics => {
                "Leave --ignore-stats=false away; after a restore, ANALYZE TABLE makes them anew"
            }
            _ => return None,
        };
        Some(step.to_owned())
    }
}
