use std::path::PathBuf;

use br_catalog::CatalogError;
use br_cluster::{KvError, PdError};
use br_embed::ClusterError;
use br_inspect::{export::ExportError, verify::VerifyError};
use br_log::{read::LogReadError, restore::PointError};
use br_snapshot::{backup::BackupError, checksum::ChecksumError, restore::RestoreError};
use br_storage::StorageError;
use br_tidb::filter::FilterError;
use br_tidb::row::RowError;
use br_types::{Classify, Code, Kind, TimeStamp};

/// A rehearsal that did not come to its end. Tables that came out different are no error, but part
/// of its result.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Backup or log cannot be looked at.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// The cluster of the rehearsal.
    #[error("the cluster of the rehearsal: {0}")]
    Cluster(#[from] ClusterError),
    /// Its PD.
    #[error("the cluster of the rehearsal: {0}")]
    Pd(#[from] PdError),
    /// What was restored, as it was read.
    #[error("what was restored could not be read back: {0}")]
    Read(#[from] KvError),
    /// Its schemas.
    #[error("what was restored could not be read back: {0}")]
    Schemas(#[from] CatalogError),
    /// One of its rows.
    #[error("what was restored could not be read back: {0}")]
    Row(#[from] RowError),
    /// The restore of the backup.
    #[error("the rehearsed restore failed: {0}")]
    Restore(#[from] RestoreError),
    /// The restore to a point in time.
    #[error("the rehearsed restore failed: {0}")]
    Point(#[from] PointError),
    /// The sums of what was restored.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
    /// Backing up what was restored, to sum it.
    #[error("what was restored could not be read back: {0}")]
    ReadBack(#[from] BackupError),
    /// The sums without the cluster.
    #[error(transparent)]
    Offline(#[from] ExportError),
    /// The tables of a sample.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A backup that cannot be restored alone.
    #[error("the backup has only what changed since {last_backup_ts}")]
    Incremental {
        /// The timestamp of the backup that it goes on top of.
        last_backup_ts: TimeStamp,
    },
    /// A full backup that is to go on from another.
    #[error("the backup is a full one and goes on from no other")]
    NotIncremental,
    /// A log without a backup.
    #[error("there is a log and no backup: a restore begins with a backup")]
    NoBackup,
    /// A point that the objects do not prove.
    #[error("{at} cannot be restored: the objects prove {from_ts} to {until_ts}")]
    NotProven {
        /// What was asked for.
        at: TimeStamp,
        /// The first point.
        from_ts: TimeStamp,
        /// The last one.
        until_ts: TimeStamp,
    },
    /// A log that does not go on from the backup.
    #[error("backup and log do not go together: {reason}")]
    Apart {
        /// Why.
        reason: String,
    },
    /// A local folder.
    #[error("{}: {source}", .path.display())]
    Local {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl DrillError {
    /// The error of the operation that failed, if there is one.
    fn inner(&self) -> Option<&dyn Classify> {
        Some(match self {
            DrillError::Verify(error) => error,
            DrillError::Storage(error) => error,
            DrillError::Log(error) => error,
            DrillError::Cluster(error) => error,
            DrillError::Pd(error) => error,
            DrillError::Read(error) => error,
            DrillError::Schemas(error) => error,
            DrillError::Row(error) => error,
            DrillError::Restore(error) => error,
            DrillError::Point(error) => error,
            DrillError::Checksum(error) => error,
            DrillError::ReadBack(error) => error,
            DrillError::Offline(error) => error,
            DrillError::Filter(error) => error,
            _ => return None,
        })
    }
}

impl Classify for DrillError {
    fn kind(&self) -> Kind {
        self.inner().map_or(Kind::Invalid, Classify::kind)
    }

    fn code(&self) -> Code {
        match self.inner() {
            Some(error) => error.code(),
            None => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(error) = self.inner() {
            return error.next_step();
        }
        let step = match self {
            DrillError::Incremental { .. } => {
                "Give what it goes on from with --base: the full backup, and those between in their order."
            }
            DrillError::NotIncremental => "Leave --base out.",
            DrillError::NoBackup => "Give the full backup with -s and the log with --log-storage.",
            DrillError::NotProven { .. } => "Choose a point within that window.",
            DrillError::Apart { .. } => {
                "Give a full backup that was made while the log was written."
            }
            DrillError::Local { .. } => "Free space, or name another folder with --temp-dir.",
            _ => return None,
        };
        Some(step.to_owned())
    }
}
