use std::path::PathBuf;

use br_format::log::LogFormatError;
use br_sst::WriteError;
use br_storage::StorageError;
use br_types::{Classify, Code, Kind, TimeStamp};

use crate::{migrate::MigrateError, read::LogReadError, storage_lock::LockError};

/// Why a log was not compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// A file of the log makes no sense.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// The storage did not help.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Somebody else works on the log.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The migration could not be appended.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// An SST file could not be written on the local disk.
    #[error(transparent)]
    Sst(#[from] WriteError),
    /// A local file cannot be used.
    #[error("{}: {source}", .path.display())]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A range that the log does not have.
    #[error("the log goes up to {max_ts}: {from_ts} to {until_ts} cannot be compacted")]
    Range {
        /// Its start.
        from_ts: TimeStamp,
        /// Its end.
        until_ts: TimeStamp,
        /// Where the log ends.
        max_ts: TimeStamp,
    },
    /// Two records of one key and timestamp that exclude each other.
    #[error("{object} contradicts another file: two records of one key and timestamp differ")]
    Conflict {
        /// One of the files.
        object: String,
    },
    /// Files that cannot be put into SSTs.
    #[error("{object} is encrypted, and what a compaction makes would not be")]
    Encrypted {
        /// One of them.
        object: String,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl CompactError {
    fn inner(&self) -> Option<&dyn Classify> {
        Some(match self {
            CompactError::Read(error) => error,
            CompactError::Format(error) => error,
            CompactError::Storage(error) => error,
            CompactError::Lock(error) => error,
            CompactError::Migrate(error) => error,
            CompactError::Sst(error) => error,
            _ => return None,
        })
    }
}

impl Classify for CompactError {
    fn kind(&self) -> Kind {
        match self {
            CompactError::LocalFile { .. } => Kind::Retry,
            CompactError::Range { .. } | CompactError::Encrypted { .. } => Kind::Invalid,
            CompactError::Conflict { .. } => Kind::Data,
            CompactError::Cancelled => Kind::Cancelled,
            error => error.inner().map_or(Kind::Internal, Classify::kind),
        }
    }

    fn code(&self) -> Code {
        let inner = self.inner().map(Classify::code);
        inner.unwrap_or_else(|| Code::of_kind(self.kind()))
    }

    fn next_step(&self) -> Option<String> {
        match self {
            CompactError::LocalFile { .. } => {
                Some("Free space, or name another folder with --temp-dir".to_owned())
            }
            CompactError::Range { .. } => {
                Some("`br log metadata` shows what the log covers".to_owned())
            }
            CompactError::Conflict { .. } => {
                Some("Leave the log as it is, and report it".to_owned())
            }
            CompactError::Encrypted { .. } => Some("Leave an encrypted log as it is".to_owned()),
            error => error.inner().and_then(Classify::next_step),
        }
    }
}
