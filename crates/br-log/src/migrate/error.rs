use br_format::log::LogFormatError;
use br_storage::StorageError;
use br_types::{Classify, Code, Kind};

use crate::{read::LogReadError, storage_lock::LockError};

/// Why migrations could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Somebody else works on the log.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An object cannot be used.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// There is no such migration.
    #[error("there is no migration {number}; the last one is {last}")]
    NotFound {
        /// What was asked for.
        number: u32,
        /// The last one; 0 if there is none.
        last: u32,
    },
    /// A folder that no migration may remove.
    #[error("a migration asks to remove the folder {0:?}, which holds more than it can mean")]
    UnsafeFolder(String),
    /// A number for a migration was taken by somebody who has no lock.
    #[error("migration {number} was written by somebody else at the same time")]
    Raced {
        /// The number.
        number: u32,
    },
    /// Ctrl-C.
    #[error("cancelled; run again to finish")]
    Cancelled,
}

impl MigrateError {
    fn cause(&self) -> Option<&dyn Classify> {
        match self {
            MigrateError::Lock(error) => Some(error),
            MigrateError::Read(error) => Some(error),
            MigrateError::Storage(error) => Some(error),
            MigrateError::Format(error) => Some(error),
            _ => None,
        }
    }
}

impl Classify for MigrateError {
    fn kind(&self) -> Kind {
        if let Some(cause) = self.cause() {
            return cause.kind();
        }
        match self {
            MigrateError::Raced { .. } => Kind::Conflict,
            MigrateError::Cancelled => Kind::Cancelled,
            MigrateError::NotFound { .. } => Kind::Invalid,
            _ => Kind::Data,
        }
    }

    fn code(&self) -> Code {
        if let Some(cause) = self.cause() {
            return cause.code();
        }
        match self {
            MigrateError::NotFound { .. } => Code::MIGRATION_NOT_FOUND,
            MigrateError::UnsafeFolder(_) => Code::MALFORMED_METADATA,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(cause) = self.cause() {
            return cause.next_step();
        }
        let step = match self {
            MigrateError::NotFound { .. } => "See `br operator list-migrations`",
            MigrateError::UnsafeFolder(_) => {
                "Look at the migrations with `br operator list-migrations`"
            }
            MigrateError::Raced { .. } => "Run again",
            _ => return None,
        };
        Some(step.to_owned())
    }
}
