use std::path::PathBuf;

use br_catalog::CatalogError;
use br_cluster::{HttpError, KvError, PdError};
use br_codec::DecodeError;
use br_format::log::LogFormatError;
use br_snapshot::restore::RestoreError;
use br_sst::{SstError, WriteError};
use br_storage::StorageError;
use br_types::{Classify, Code, Kind, RawKey, StoreId, TimeStamp};

use super::sort::RunError;
use crate::{read::LogReadError, storage_lock::LockError};

/// Why a restore to a point in time ended without success.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// The backup that it begins with could not be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The log cannot be read, or does not reach far enough.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// Somebody changes the log.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An object of the log makes no sense.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// The storage did not help.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A store did not help.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A store does not say or change what it does about garbage.
    #[error("the garbage collection of a store cannot be turned off: {0}")]
    GcSetting(#[source] HttpError),
    /// The schemas of the cluster make no sense.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The sorted data on the local disk.
    #[error("{0}")]
    Sorted(Box<dyn Classify + Send + Sync>),
    /// An SST file could not be written on the local disk.
    #[error(transparent)]
    Sst(#[from] WriteError),
    /// An SST file of a compaction is damaged.
    #[error("{file}: {source}")]
    Compacted {
        /// The file.
        file: String,
        /// Why.
        source: SstError,
    },
    /// A local file cannot be used.
    #[error("{}: {source}", .path.display())]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key of the log is none.
    #[error("a key of the log makes no sense: {source}")]
    Key {
        /// Why.
        source: DecodeError,
    },
    /// A record of the log is none.
    #[error("the record of key {key} makes no sense: {source}")]
    Record {
        /// The key.
        key: RawKey,
        /// Why.
        source: DecodeError,
    },
    /// A record whose value is in no file of the log.
    #[error(
        "the log has no value for key {key} of the transaction that began at {start_ts}, only its \
         commit"
    )]
    MissingValue {
        /// The key.
        key: RawKey,
        /// When the transaction began.
        start_ts: TimeStamp,
    },
    /// A store could not apply files of the log.
    #[error("store {store} could not apply the log: {message}")]
    Apply {
        /// The store.
        store: StoreId,
        /// In its words.
        message: String,
        /// What to do about it.
        kind: Kind,
    },
    /// Schemas that cannot be restored.
    #[error("schema of {name}: {problem}")]
    Schema {
        /// The table or database.
        name: String,
        /// Why.
        problem: String,
    },
    /// A table of the point that was there before the backup, which does not have it.
    #[error(
        "{table} was there before, but it is not in what this restore begins with: the log has only \
         its last changes"
    )]
    NotInBackup {
        /// Database and table.
        table: String,
    },
    /// No or a wrong restore before this one.
    #[error("{0}")]
    NoBase(String),
    /// The command line asks for what does not go together.
    #[error("{0}")]
    Options(String),
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl From<RunError> for PointError {
    fn from(error: RunError) -> PointError {
        PointError::Sorted(Box::new(error))
    }
}

impl From<CatalogError> for PointError {
    fn from(error: CatalogError) -> PointError {
        match error {
            CatalogError::Kv(error) => PointError::Kv(error),
            CatalogError::Pd(error) => PointError::Pd(error),
            error => PointError::Catalog(error),
        }
    }
}

impl PointError {
    /// What knows more about it.
    fn inner(&self) -> Option<&dyn Classify> {
        Some(match self {
            PointError::Restore(error) => error,
            PointError::Log(error) => error,
            PointError::Lock(error) => error,
            PointError::Format(error) => error,
            PointError::Storage(error) => error,
            PointError::Pd(error) => error,
            PointError::Kv(error) => error,
            PointError::Catalog(error) => error,
            PointError::Sorted(error) => &**error,
            PointError::Sst(error) => error,
            PointError::Compacted { source, .. } => source,
            _ => return None,
        })
    }
}

impl Classify for PointError {
    fn kind(&self) -> Kind {
        if let Some(inner) = self.inner() {
            return inner.kind();
        }
        match self {
            PointError::LocalFile { .. } => Kind::Retry,
            PointError::GcSetting(error) => error.kind(),
            PointError::Apply { kind, .. } => *kind,
            PointError::NotInBackup { .. } | PointError::NoBase(_) | PointError::Options(_) => {
                Kind::Invalid
            }
            PointError::Cancelled => Kind::Cancelled,
            _ => Kind::Data,
        }
    }

    fn code(&self) -> Code {
        if let Some(inner) = self.inner() {
            return inner.code();
        }
        match self {
            PointError::NoBase(_) => Code::RESTORE_SCHEMA_NOT_EXISTS,
            PointError::Schema { .. } => Code::INVALID_META_FILE,
            PointError::MissingValue { .. } => Code::POSSIBLE_INCONSISTENCY,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(inner) = self.inner() {
            return inner.next_step();
        }
        let step = match self {
            PointError::LocalFile { .. } => {
                "Free space, or name another folder with --pitr-temp-dir"
            }
            PointError::MissingValue { .. } => {
                "Restore to a point before that commit, or from a newer full backup"
            }
            PointError::NoBase(_) => {
                "Restore with --full-backup-storage, or with the --start-ts that the last restore \
                 ended at"
            }
            PointError::NotInBackup { .. } => {
                "Leave the table out with --filter, or give a full backup that has it"
            }
            PointError::Apply { .. } => {
                "Check that every store reaches the storage of the log, then run it again"
            }
            PointError::Schema { .. } => "Leave the table out with --filter, and report it",
            _ => return None,
        };
        Some(step.to_owned())
    }
}
