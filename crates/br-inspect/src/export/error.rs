use std::path::PathBuf;

use br_codec::DecodeError;
use br_format::backupmeta::MetaError;
use br_log::{
    read::LogReadError,
    restore::{PointError, offline::OfflineError},
};
use br_sst::SstError;
use br_storage::StorageError;
use br_tidb::{row::RowError, schema::SchemaError};
use br_types::{Classify, Code, Kind, TimeStamp};

/// An export that failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The index of a backup.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The log on top of the backups.
    #[error(transparent)]
    Log(OfflineError),
    /// A table of which the log has only what was written last.
    #[error("table {table} was there before the backup, and the backup does not have it")]
    NotInBackup {
        /// Database and table.
        table: String,
    },
    /// A schema of a backup.
    #[error("{object}: {source}")]
    Schema {
        /// The object that it stands in.
        object: String,
        /// What is wrong.
        source: SchemaError,
    },
    /// A backup of something else than tables.
    #[error("the backup has keys without schemas, so there are no tables to export")]
    NotTables,
    /// Backups that do not go on top of each other.
    #[error("backup {position} of the chain does not go on top of the one before it: {problem}")]
    Chain {
        /// Its place, counted from 1.
        position: usize,
        /// What is wrong.
        problem: String,
    },
    /// A timestamp that the backups cannot answer.
    #[error("the backups cannot show {at}; they can show {}", list(.answerable))]
    NotAnswerable {
        /// The timestamp.
        at: TimeStamp,
        /// Those that they can.
        answerable: Vec<TimeStamp>,
    },
    /// An SST file whose bytes are not those that were backed up.
    #[error("data file {file:?} has SHA-256 {found}, the index of the backup says {expected}")]
    Checksum {
        /// The file.
        file: String,
        /// Of the index.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// An SST file that cannot be read.
    #[error("data file {file:?}: {source}")]
    Sst {
        /// The file.
        file: String,
        /// What is wrong.
        source: SstError,
    },
    /// Data files of one table whose keys overlap.
    #[error("data file {file:?} has keys that a file before it has too")]
    Overlap {
        /// The file.
        file: String,
    },
    /// A key or record in an SST file.
    #[error("data file {file:?}: {source}")]
    Entry {
        /// The file.
        file: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// A table whose rows cannot be decoded at all.
    #[error("table {table}: {source}")]
    Table {
        /// Database and table.
        table: String,
        /// What is wrong.
        source: RowError,
    },
    /// A row.
    #[error("table {table}, row with key {key}: {source}")]
    Row {
        /// Database and table.
        table: String,
        /// The raw key in hexadecimal.
        key: String,
        /// What is wrong.
        source: RowError,
    },
    /// The output.
    #[error("{}: {source}", .path.display())]
    Output {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It was stopped.
    #[error("the export was stopped")]
    Cancelled,
}

impl From<OfflineError> for ExportError {
    fn from(error: OfflineError) -> ExportError {
        match error {
            OfflineError::Point(PointError::Cancelled) => ExportError::Cancelled,
            error => ExportError::Log(error),
        }
    }
}

impl From<LogReadError> for ExportError {
    fn from(error: LogReadError) -> ExportError {
        ExportError::Log(error.into())
    }
}

fn list(answerable: &[TimeStamp]) -> String {
    answerable
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Classify for ExportError {
    fn kind(&self) -> Kind {
        match self {
            ExportError::Storage(error) => error.kind(),
            ExportError::Meta(error) => error.kind(),
            ExportError::Log(error) => error.kind(),
            ExportError::Schema { source, .. } => source.kind(),
            ExportError::NotTables
            | ExportError::Chain { .. }
            | ExportError::NotInBackup { .. }
            | ExportError::NotAnswerable { .. }
            | ExportError::Output { .. } => Kind::Invalid,
            ExportError::Checksum { .. }
            | ExportError::Sst { .. }
            | ExportError::Overlap { .. }
            | ExportError::Entry { .. } => Kind::Data,
            ExportError::Table { source, .. } | ExportError::Row { source, .. } => source.kind(),
            ExportError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            ExportError::Storage(error) => error.code(),
            ExportError::Meta(error) => error.code(),
            ExportError::Log(error) => error.code(),
            ExportError::Schema { source, .. } => source.code(),
            other => Code::of_kind(other.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            ExportError::Storage(error) => return error.next_step(),
            ExportError::Meta(error) => return error.next_step(),
            ExportError::Log(OfflineError::Point(PointError::LocalFile { .. })) => {
                "Free space, or name another folder with --temp-dir."
            }
            ExportError::Log(error) => return error.next_step(),
            ExportError::Schema { source, .. } => return source.next_step(),
            ExportError::NotAnswerable { .. } => {
                "Ask for one of those timestamps, or give the log backup with --log-storage."
            }
            ExportError::Chain { .. } => {
                "Give the full backup first, then its incremental backups in the order in which \
                 they were made."
            }
            ExportError::NotInBackup { .. } => {
                "Leave the table out with --filter, or give a backup of the whole cluster."
            }
            ExportError::Table { .. } | ExportError::Row { .. } => {
                "Leave the table out with --filter to export the others."
            }
            _ => return None,
        };
        Some(step.to_owned())
    }
}
