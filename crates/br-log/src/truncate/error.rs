use br_format::log::LogFormatError;
use br_storage::StorageError;
use br_types::{Classify, Code, Kind, TimeStamp};

use crate::{migrate::MigrateError, read::LogReadError, storage_lock::LockError};

/// Why a log could not be cut off.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// Somebody else works on the log.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Migrations cannot be read or carried out.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An object cannot be used.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// Nothing could be restored afterwards.
    #[error("the log goes up to {max_ts} only, and would be cut off at {until}")]
    BeyondEnd {
        /// What was asked for.
        until: TimeStamp,
        /// Where the log ends.
        max_ts: TimeStamp,
    },
    /// Ctrl-C.
    #[error("cancelled; run again to finish")]
    Cancelled,
}

impl TruncateError {
    fn cause(&self) -> Option<&dyn Classify> {
        match self {
            TruncateError::Log(error) => Some(error),
            TruncateError::Lock(error) => Some(error),
            TruncateError::Migrate(error) => Some(error),
            TruncateError::Storage(error) => Some(error),
            TruncateError::Format(error) => Some(error),
            _ => None,
        }
    }
}

impl Classify for TruncateError {
    fn kind(&self) -> Kind {
        if let Some(cause) = self.cause() {
            return cause.kind();
        }
        match self {
            TruncateError::Cancelled => Kind::Cancelled,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self.cause() {
            Some(cause) => cause.code(),
            None => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(cause) = self.cause() {
            return cause.next_step();
        }
        let step = match self {
            TruncateError::BeyondEnd { .. } => {
                "Pass an earlier --until; `br log metadata` shows where the log ends"
            }
            _ => return None,
        };
        Some(step.to_owned())
    }
}
