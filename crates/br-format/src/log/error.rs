use br_types::{Classify, Code, Kind};
use thiserror::Error;

/// Why an object or a value of a log backup cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LogFormatError {
    /// The content has no sense.
    #[error("{object} is damaged: {reason}")]
    Malformed {
        /// The object or the key.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Fewer or more bytes than were written.
    #[error("{object} is cut off: it has {found} bytes, {expected} were written")]
    Length {
        /// The object, with the position of the file within it.
        object: String,
        /// Bytes that were written.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The content is not what was written.
    #[error("{object} is damaged: its {sum} is {found}, and {expected} was written")]
    Checksum {
        /// The object, with the position of the file within it.
        object: String,
        /// Which sum.
        sum: &'static str,
        /// The sum in the metadata.
        expected: String,
        /// The sum of the content.
        found: String,
    },
    /// It is encrypted and no key was given.
    #[error("{object} is encrypted with {method}, and no key was given")]
    NoKey {
        /// The object.
        object: String,
        /// The method.
        method: String,
    },
    /// It is encrypted with a key under a master key, which was not given.
    #[error("{object} is encrypted with a key under a master key, and no master key was given")]
    NoMasterKey {
        /// The object.
        object: String,
    },
    /// It is encrypted and the key is another one.
    #[error("{object} cannot be decrypted with this key and method")]
    WrongKey {
        /// The object.
        object: String,
    },
    /// A newer tool made it.
    #[error("{object} has {field} {found}, and this version reads up to {supported}")]
    NewerVersion {
        /// The object.
        object: String,
        /// The name of the field.
        field: &'static str,
        /// The number in it.
        found: i64,
        /// The greatest that is known.
        supported: i64,
    },
    /// A field that the published protocol did not have; only objects that are written anew are
    /// refused for that.
    #[error("{object} holds field {number} of {message}, which this version does not know")]
    UnknownField {
        /// The object.
        object: String,
        /// The full name of the protobuf message.
        message: String,
        /// The number of the field.
        number: u32,
    },
    /// A feature that only other tools have.
    #[error("{object} uses {feature}, which is not supported")]
    Unsupported {
        /// The object.
        object: String,
        /// What it uses.
        feature: &'static str,
    },
    /// The name of a task has other characters than letters, digits and underscores.
    #[error("{0:?} is no name of a task")]
    TaskName(String),
}

impl LogFormatError {
    pub(crate) fn malformed(object: impl Into<String>, reason: impl Into<String>) -> Self {
        LogFormatError::Malformed {
            object: object.into(),
            reason: reason.into(),
        }
    }
}

impl Classify for LogFormatError {
    fn kind(&self) -> Kind {
        match self {
            LogFormatError::Malformed { .. }
            | LogFormatError::Length { .. }
            | LogFormatError::Checksum { .. } => Kind::Data,
            LogFormatError::NoKey { .. }
            | LogFormatError::NoMasterKey { .. }
            | LogFormatError::WrongKey { .. }
            | LogFormatError::NewerVersion { .. }
            | LogFormatError::UnknownField { .. }
            | LogFormatError::Unsupported { .. }
            | LogFormatError::TaskName(_) => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            LogFormatError::Malformed { .. } => Code::MALFORMED_METADATA,
            LogFormatError::Length { .. } | LogFormatError::Checksum { .. } => {
                Code::INVALID_META_FILE
            }
            LogFormatError::NoKey { .. }
            | LogFormatError::NoMasterKey { .. }
            | LogFormatError::WrongKey { .. } => Code::INVALID_ARGUMENT,
            LogFormatError::NewerVersion { field, .. } if *field == "migration version" => {
                Code::MIGRATION_VERSION_NOT_SUPPORTED
            }
            LogFormatError::NewerVersion { .. } | LogFormatError::UnknownField { .. } => {
                Code::VERSION_MISMATCH
            }
            LogFormatError::Unsupported { .. } => Code::UNSUPPORTED_OPERATION,
            LogFormatError::TaskName(_) => Code::INVALID_TASK_INFO,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            LogFormatError::Malformed { .. }
            | LogFormatError::Length { .. }
            | LogFormatError::Checksum { .. } => {
                "Put a good copy of the object in its place, or choose a range that does not need \
                 it."
            }
            LogFormatError::NoKey { .. } | LogFormatError::WrongKey { .. } => {
                "Give --log.crypter.method and the key that the log backup was started with."
            }
            LogFormatError::NoMasterKey { .. } => {
                "Give --master-key and --master-key-crypter-method as the log backup was started \
                 with."
            }
            LogFormatError::NewerVersion { .. } | LogFormatError::UnknownField { .. } => {
                "Use a newer version of this tool."
            }
            LogFormatError::Unsupported { .. } => "Use the tool that made it.",
            LogFormatError::TaskName(_) => "Use letters, digits and underscores only.",
        };
        Some(step.to_owned())
    }
}
