use br_format::backupmeta::MetaError;
use br_log::read::LogReadError;
use br_storage::StorageError;
use br_types::{Classify, Code, Kind};

/// Why nothing can be said of a backup or a log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The index of the backup, for other reasons than damage: a wrong key, a newer tool.
    #[error(transparent)]
    Meta(MetaError),
    /// The log, for other reasons than damage: a wrong key, a newer tool.
    #[error(transparent)]
    Log(LogReadError),
    /// There is no backup.
    #[error("there is no complete backup and no log in {place}")]
    Nothing {
        /// The storage.
        place: String,
        /// Whether a backup was begun there.
        unfinished: bool,
    },
    /// A data file is whole, and makes no sense with this key.
    #[error("{object} cannot be decrypted with this key and method")]
    WrongKey {
        /// The object.
        object: String,
    },
    /// It was stopped.
    #[error("it was stopped")]
    Cancelled,
}

impl Classify for VerifyError {
    fn kind(&self) -> Kind {
        match self {
            VerifyError::Storage(error) => error.kind(),
            VerifyError::Meta(error) => error.kind(),
            VerifyError::Log(error) => error.kind(),
            VerifyError::Nothing { .. } | VerifyError::WrongKey { .. } => Kind::Invalid,
            VerifyError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            VerifyError::Storage(error) => error.code(),
            VerifyError::Meta(error) => error.code(),
            VerifyError::Log(error) => error.code(),
            other => Code::of_kind(other.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            VerifyError::Storage(error) => return error.next_step(),
            VerifyError::Meta(error) => return error.next_step(),
            VerifyError::Log(error) => return error.next_step(),
            VerifyError::Nothing {
                unfinished: true, ..
            } => "A backup was begun there and did not end: run it again, or give another URL.",
            VerifyError::Nothing { .. } => "Check the URL: `br show` lists what lies below one.",
            VerifyError::WrongKey { .. } => {
                "Give the method and the key that the backup was made with."
            }
            VerifyError::Cancelled => return None,
        };
        Some(step.to_owned())
    }
}

/// Damage is found; everything else ends the look.
pub(super) enum Trouble {
    /// What is wrong with the object, as a sentence.
    Damage(String),
    /// It ends.
    End(VerifyError),
}

impl From<MetaError> for Trouble {
    fn from(error: MetaError) -> Trouble {
        match error.kind() {
            Kind::Data => Trouble::Damage(error.to_string()),
            _ => Trouble::End(VerifyError::Meta(error)),
        }
    }
}

impl From<LogReadError> for Trouble {
    fn from(error: LogReadError) -> Trouble {
        match error {
            LogReadError::Storage(error) => error.into(),
            error if error.kind() == Kind::Data => Trouble::Damage(error.to_string()),
            error => Trouble::End(VerifyError::Log(error)),
        }
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Trouble {
        match error.damage() {
            Some(problem) => Trouble::Damage(problem),
            None if error.is_not_found() => Trouble::Damage(MISSING.to_owned()),
            None => Trouble::End(error.into()),
        }
    }
}

/// What is said of an object that is not there.
pub(super) const MISSING: &str = "it is not there";
