use br_types::{Classify, Code, Kind};
use thiserror::Error;

/// Why `backupmeta` or an object that it points to cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MetaError {
    /// Fewer or more bytes than were written.
    #[error("{object} is cut off: it has {found} bytes, {expected} were written")]
    Truncated {
        /// The object.
        object: String,
        /// Bytes that were written, of the plaintext.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The content is not what was written.
    #[error("{object} is damaged: its SHA-256 is {found}, and {expected} was written")]
    Checksum {
        /// The object.
        object: String,
        /// The sum in the index.
        expected: String,
        /// The sum of the content.
        found: String,
    },
    /// The content has no sense.
    #[error("{object} is damaged: {reason}")]
    Malformed {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is as random as only encrypted content is.
    #[error("{object} is encrypted, and no key was given")]
    NoKey {
        /// The object.
        object: String,
    },
    /// The content has no sense after decryption.
    #[error("{object} cannot be decrypted with this key and method")]
    WrongKey {
        /// The object.
        object: String,
    },
    /// Parts that every backup has are not there.
    #[error("{object} is incomplete: it has no {missing}")]
    Incomplete {
        /// The object.
        object: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// The number of its format is too high.
    #[error("{object} has {field} {found}, and this version reads up to {supported}")]
    NewerVersion {
        /// The object.
        object: String,
        /// `version` (the layout) or `backup_schema_version`.
        field: &'static str,
        /// The number in it.
        found: i64,
        /// The greatest that is known.
        supported: i64,
    },
    /// A field that the published protocol did not have when this version was made.
    #[error("{object} holds field {number} of {message}, which this version does not know")]
    UnknownField {
        /// The object.
        object: String,
        /// The full name of the protobuf message.
        message: String,
        /// The number of the field.
        number: u32,
    },
    /// A kind of backup that is read by other tools only.
    #[error("{object} is of a kind that is not supported: {feature}")]
    Unsupported {
        /// The object.
        object: String,
        /// What it uses.
        feature: &'static str,
    },
    /// More than any tool writes.
    #[error("{object} has {found} bytes, more than the {max} that are read")]
    TooLarge {
        /// The object.
        object: String,
        /// Bytes that it has.
        found: u64,
        /// [`crate::backupmeta::METAFILE_READ_SIZE_BYTES_MAX`].
        max: u64,
    },
    /// An index within an index within an index, and so on.
    #[error("{object} lies more than {max} indexes deep")]
    TooDeep {
        /// The object.
        object: String,
        /// [`crate::backupmeta::INDEX_DEPTH_MAX`].
        max: usize,
    },
}

impl MetaError {
    pub(crate) fn malformed(object: &str, reason: impl Into<String>) -> MetaError {
        MetaError::Malformed {
            object: object.to_owned(),
            reason: reason.into(),
        }
    }
}

impl Classify for MetaError {
    fn kind(&self) -> Kind {
        match self {
            MetaError::Truncated { .. }
            | MetaError::Checksum { .. }
            | MetaError::Malformed { .. }
            | MetaError::Incomplete { .. }
            | MetaError::TooLarge { .. }
            | MetaError::TooDeep { .. } => Kind::Data,
            MetaError::NoKey { .. }
            | MetaError::WrongKey { .. }
            | MetaError::NewerVersion { .. }
            | MetaError::UnknownField { .. }
            | MetaError::Unsupported { .. } => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            MetaError::Truncated { .. }
            | MetaError::Checksum { .. }
            | MetaError::Malformed { .. }
            | MetaError::Incomplete { .. }
            | MetaError::TooLarge { .. }
            | MetaError::TooDeep { .. } => Code::INVALID_META_FILE,
            MetaError::NoKey { .. } | MetaError::WrongKey { .. } => Code::INVALID_ARGUMENT,
            MetaError::NewerVersion { .. } | MetaError::UnknownField { .. } => {
                Code::VERSION_MISMATCH
            }
            MetaError::Unsupported { .. } => Code::UNSUPPORTED_OPERATION,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            MetaError::Malformed { .. } => {
                "If the backup is encrypted, give --crypter.method and its key; otherwise take \
                 another copy of it."
            }
            MetaError::Truncated { .. }
            | MetaError::Checksum { .. }
            | MetaError::Incomplete { .. }
            | MetaError::TooLarge { .. }
            | MetaError::TooDeep { .. } => "Take another copy of this backup, or another backup.",
            MetaError::NoKey { .. } => {
                "Give --crypter.method and the key that the backup was made with."
            }
            MetaError::WrongKey { .. } => {
                "Give the method and the key that the backup was made with."
            }
            MetaError::NewerVersion { .. } | MetaError::UnknownField { .. } => {
                "Use a newer version of this tool, or --check-requirements=false to ignore what \
                 it does not know."
            }
            MetaError::Unsupported { .. } => "Restore it with the tool that made it.",
        };
        Some(step.to_owned())
    }
}
