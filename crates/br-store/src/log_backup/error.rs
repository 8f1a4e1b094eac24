use std::{io, time::Duration};

use br_storage::{MasterKeysError, StorageError};
use br_types::{Classify, Kind, RegionId, TimeStamp};

/// What ends a task on a store: it is paused, its data guarded from garbage collection, and
/// somebody has to look.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A temporary file could not be written: what was observed is not complete.
    #[error("cannot write a temporary file of the log backup: {0}")]
    TempFile(io::Error),
    /// Stored bytes make no sense.
    #[error("data in the store is damaged: {0}")]
    Damaged(String),
    /// The storage has refused what is to be flushed, again and again.
    #[error("cannot write to the storage; gave up after {attempts} attempts: {last}")]
    Flush {
        /// How often.
        attempts: u32,
        /// What it said last.
        last: String,
    },
    /// A region could not be observed, again and again.
    #[error("cannot observe region {region}; gave up after {attempts} attempts: {last}")]
    Observe {
        /// The region.
        region: RegionId,
        /// How often.
        attempts: u32,
        /// What went wrong last.
        last: String,
    },
    /// Versions that the log needs may have been collected.
    #[error(
        "garbage collection has passed {safe_point}, and the log backup has come to {checkpoint} \
         only: versions between them may be lost"
    )]
    Collected {
        /// Where the task stands.
        checkpoint: TimeStamp,
        /// Where garbage collection stands.
        safe_point: TimeStamp,
    },
    /// The task wants what this store cannot do, or its description makes no sense.
    #[error("cannot carry out the task: {0}")]
    Task(String),
}

impl Fault {
    /// The code that other tools know.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Fault::TempFile(_) => "KV:LogBackup:IO",
            Fault::Damaged(_) => "KV:LogBackup:Txn",
            Fault::Flush { .. } => "KV:LogBackup:IO",
            Fault::Observe { .. } => "KV:LogBackup:RaftReq",
            Fault::Collected { .. } => "KV:LogBackup:Other",
            Fault::Task(_) => "KV:LogBackup:MalformedMetadata",
        }
    }

    /// What to do about it, for whoever reads it.
    pub(crate) fn next_step(&self) -> &'static str {
        match self {
            Fault::TempFile(_) => "Make room on the disk of the store, then run `br log resume`.",
            Fault::Damaged(_) => "Check the store's disk; restore the data from a backup.",
            Fault::Flush { .. } => {
                "Check that the storage is reachable and writable, then run `br log resume`."
            }
            Fault::Observe { .. } => "Check the store's log, then run `br log resume`.",
            Fault::Collected { .. } => {
                "Stop the task, take a new full backup and start a new log backup with it."
            }
            Fault::Task(_) => "Stop the task and start it again with other options.",
        }
    }
}

/// A flush that did not succeed; it is tried again with the same payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A data key cannot be put under a master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeysError),
    /// A temporary file could not be read back.
    #[error("cannot read a temporary file of the log backup: {0}")]
    TempFile(#[from] io::Error),
    /// PD gave no timestamp, and nothing has been flushed yet that a name could be derived from.
    #[error("PD gives no timestamp: {0}")]
    NoTimestamp(BoardError),
    /// The names for metadata that could be used are taken.
    #[error("{0} names for metadata in a row are in use")]
    NamesTaken(u32),
}

/// Why PD did not answer or not as asked.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// PD is out of reach or refuses.
    #[error(transparent)]
    Pd(#[from] br_cluster::PdError),
    /// No answer in time.
    #[error("PD does not answer within {0:?}")]
    Timeout(Duration),
    /// A value that makes no sense.
    #[error("{0}")]
    Malformed(String),
}

impl Classify for BoardError {
    fn kind(&self) -> Kind {
        match self {
            BoardError::Pd(error) => error.kind(),
            BoardError::Timeout(_) => Kind::Retry,
            BoardError::Malformed(_) => Kind::Data,
        }
    }
}
