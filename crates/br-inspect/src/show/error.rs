use br_log::read::LogReadError;
use br_storage::StorageError;
use br_types::{Classify, Code, Kind};

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A log that could not be looked at.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// No backup lies there or below.
    #[error("there is no backup and no log in {place} or in its folders")]
    Nothing {
        /// The storage.
        place: String,
    },
    /// It was stopped.
    #[error("it was stopped")]
    Cancelled,
}

impl Classify for ShowError {
    fn kind(&self) -> Kind {
        match self {
            ShowError::Storage(error) => error.kind(),
            ShowError::Log(error) => error.kind(),
            ShowError::Nothing { .. } => Kind::Invalid,
            ShowError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            ShowError::Storage(error) => error.code(),
            ShowError::Log(error) => error.code(),
            other => Code::of_kind(other.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            ShowError::Storage(error) => error.next_step(),
            ShowError::Log(error) => error.next_step(),
            ShowError::Nothing { .. } => {
                Some("Check the URL: a backup is complete once it has a backupmeta.".to_owned())
            }
            ShowError::Cancelled => None,
        }
    }
}
