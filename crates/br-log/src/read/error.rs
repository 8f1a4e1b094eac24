use br_format::log::LogFormatError;
use br_sst::SstError;
use br_storage::{MasterKeysError, StorageError};
use br_types::{Classify, ClusterId, Code, Kind, TimeStamp};

use super::LostFlush;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    /// The storage did not help.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An object makes no sense.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// The master keys do not open the data keys.
    #[error(transparent)]
    MasterKey(#[from] MasterKeysError),
    /// An SST file of a compaction is damaged.
    #[error("{file} is damaged: {source}")]
    Compacted {
        /// The file.
        file: String,
        /// Why.
        source: SstError,
    },
    /// An SST file is not the one that was written.
    #[error("{file} is damaged: its SHA-256 is {found}, and {expected} was written")]
    Checksum {
        /// The file.
        file: String,
        /// Of the index.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// An object that metadata names is not there, or has another size.
    #[error("{object} is missing, and {named_by} needs it")]
    Missing {
        /// The object.
        object: String,
        /// The metadata.
        named_by: String,
    },
    /// A flush is gone with its metadata.
    #[error(
        "the flush of store {} at {} is not there, and {} names it",
        .0.store, .0.flush_ts, .0.named_by
    )]
    LostFlush(Box<LostFlush>),
    /// There is nothing.
    #[error("there is no log backup in {place}")]
    NoLog {
        /// The storage.
        place: String,
    },
    /// There is something else.
    #[error("{place} holds a full backup of {backup_ts}, not a log backup")]
    IsBackup {
        /// The storage.
        place: String,
        /// The timestamp of the backup.
        backup_ts: TimeStamp,
    },
    /// An object lies among migrations that is none.
    #[error("{object} is no migration that this version knows")]
    UnknownMigration {
        /// The object.
        object: String,
    },
    /// Log and full backup are of different clusters.
    #[error("the full backup is of cluster {full}, the log backup of cluster {log}")]
    OtherCluster {
        /// Of the full backup.
        full: ClusterId,
        /// Of the log.
        log: ClusterId,
    },
    /// The log does not go that far.
    #[error("the log backup goes up to {max_ts}, {restored_ts} is beyond that")]
    AfterEnd {
        /// What was asked for.
        restored_ts: TimeStamp,
        /// The last timestamp that the log has completely.
        max_ts: TimeStamp,
    },
    /// The asked for timestamp is before the backup that the log goes on from.
    #[error("the full backup is of {start_ts}, {restored_ts} is before that")]
    BeforeStart {
        /// What was asked for.
        restored_ts: TimeStamp,
        /// The timestamp of the full backup.
        start_ts: TimeStamp,
    },
    /// The log begins after the backup that it should go on from.
    #[error(
        "the log backup begins at {min_ts}, the full backup ends at {start_ts}: what was \
             written between them is in neither"
    )]
    Gap {
        /// Where the log begins.
        min_ts: TimeStamp,
        /// The timestamp of the full backup.
        start_ts: TimeStamp,
    },
}

impl Classify for LogReadError {
    fn kind(&self) -> Kind {
        match self {
            LogReadError::Storage(error) => error.kind(),
            LogReadError::Format(error) => error.kind(),
            LogReadError::MasterKey(error) => error.kind(),
            LogReadError::Compacted { source, .. } => source.kind(),
            LogReadError::Checksum { .. }
            | LogReadError::Missing { .. }
            | LogReadError::LostFlush(_) => Kind::Data,
            LogReadError::NoLog { .. }
            | LogReadError::IsBackup { .. }
            | LogReadError::UnknownMigration { .. }
            | LogReadError::OtherCluster { .. }
            | LogReadError::AfterEnd { .. }
            | LogReadError::BeforeStart { .. }
            | LogReadError::Gap { .. } => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            LogReadError::Storage(error) => error.code(),
            LogReadError::Format(error) => error.code(),
            LogReadError::MasterKey(error) => error.code(),
            LogReadError::UnknownMigration { .. } => Code::MIGRATION_VERSION_NOT_SUPPORTED,
            LogReadError::OtherCluster { .. } => Code::KV_CLUSTER_ID_MISMATCH,
            other => Code::of_kind(other.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            LogReadError::Storage(error) => return error.next_step(),
            LogReadError::Format(error) => return error.next_step(),
            LogReadError::MasterKey(error) => return error.next_step(),
            LogReadError::Compacted { .. }
            | LogReadError::Checksum { .. }
            | LogReadError::Missing { .. } => {
                "Put a good copy of the object in its place, or choose a range that does not need \
                 it; `br show` lists the ranges."
            }
            LogReadError::LostFlush(lost) => return Some(lost.next_step()),
            LogReadError::NoLog { .. } => {
                "Give the URL that `br log start` was given; `br show` lists what lies below a URL."
            }
            LogReadError::IsBackup { .. } => "Give the URL of the log backup.",
            LogReadError::UnknownMigration { .. } => "Use a newer version of this tool.",
            LogReadError::OtherCluster { .. } => "Give a full backup and a log of one cluster.",
            LogReadError::AfterEnd { .. } => {
                "Choose that timestamp or an earlier one, or wait until the log has gone on."
            }
            LogReadError::BeforeStart { .. } => {
                "Choose a later timestamp, or an earlier full backup."
            }
            LogReadError::Gap { .. } => "Choose a full backup that was made after the log began.",
        };
        Some(step.to_owned())
    }
}
