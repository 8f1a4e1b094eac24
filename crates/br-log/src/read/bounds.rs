use br_format::log::checkpoint::{CheckpointCopy, ReplicationState, decode_truncate_safe_point};
use br_format::log::marker::{LogMarker, Marker};
use br_format::log::names;
use br_format::log::seal::FlushMark;
use br_format::names::BACKUPMETA;
use br_storage::read_again;
use br_types::{ClusterId, TimeStamp};

use super::{LogReadError, LogStorage};

/// A copy of the global checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Its object.
    pub name: String,
    /// What it says.
    pub ts: TimeStamp,
    /// The last flush of who wrote it, if it has a seal.
    pub last_flush: Option<FlushMark>,
}

/// Whose log it is, where it begins, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Whose log it is.
    pub marker: LogMarker,
    /// Cut off before this; zero if it never was.
    pub truncated_to: TimeStamp,
    /// Commits after this are in it.
    pub min_ts: TimeStamp,
    /// Commits up to this are in it.
    pub max_ts: TimeStamp,
    /// What each store has copied, and the coordinator. A store that is gone may lag behind.
    pub checkpoints: Vec<StoredCheckpoint>,
    /// The coordinator's copy, if it lies unsealed in a sealed log: a tool wrote it that has no keys, such
    /// as a TiDB server, or anybody else. What it says is not believed; the stores' own copies count.
    pub unsealed: Option<String>,
    /// For a copy in another region: how far it has come, which counts then.
    pub replicated: Option<TimeStamp>,
}

impl LogBounds {
    /// Whether a restore on top of a full backup finds everything between the two.
    ///
    /// # Errors
    /// [`LogReadError::OtherCluster`], [`LogReadError::BeforeStart`], [`LogReadError::Gap`],
    /// [`LogReadError::AfterEnd`].
    pub fn check(
        &self,
        (full_cluster, start_ts): (ClusterId, TimeStamp),
        restored_ts: TimeStamp,
    ) -> Result<(), LogReadError> {
        if full_cluster != self.marker.cluster_id {
            return Err(LogReadError::OtherCluster {
                full: full_cluster,
                log: self.marker.cluster_id,
            });
        }
        if restored_ts < start_ts {
            return Err(LogReadError::BeforeStart {
                restored_ts,
                start_ts,
            });
        }
        if start_ts < self.min_ts {
            return Err(LogReadError::Gap {
                min_ts: self.min_ts,
                start_ts,
            });
        }
        if restored_ts > self.max_ts {
            return Err(LogReadError::AfterEnd {
                restored_ts,
                max_ts: self.max_ts,
            });
        }
        Ok(())
    }
}

impl LogStorage {
    /// Whether a log is there at all.
    ///
    /// # Errors
    /// The storage did not help, or the index is damaged.
    pub async fn exists(&self) -> Result<bool, LogReadError> {
        match self.read_if_there(BACKUPMETA).await? {
            Some(bytes) => Ok(matches!(Marker::decode(&bytes)?, Marker::Log(_))),
            None => Ok(false),
        }
    }

    /// Reads the marks of the log.
    ///
    /// # Errors
    /// There is no log, or a mark is damaged.
    pub async fn bounds(&self) -> Result<LogBounds, LogReadError> {
        read_again(async || self.bounds_once().await).await
    }

    async fn bounds_once(&self) -> Result<LogBounds, LogReadError> {
        let place = || self.storage().to_string();
        let Some(found) = self.read_if_there(BACKUPMETA).await? else {
            return Err(LogReadError::NoLog { place: place() });
        };
        let marker = match Marker::decode(&found)? {
            Marker::Log(marker) => marker,
            Marker::Backup(backup_ts) => {
                return Err(LogReadError::IsBackup {
                    place: place(),
                    backup_ts,
                });
            }
        };
        let mut checkpoints = Vec::new();
        let mut unsealed = None;
        for name in self.names_in(names::GLOBAL_CHECKPOINT_FOLDER).await? {
            if !names::is_global_checkpoint(&name) {
                continue;
            }
            let bytes = match self.storage().read(&name).await {
                Err(error) if error.damage().is_some() && self.is_of_others(&name).await? => {
                    tracing::warn!(object = name, "it is not sealed, and passed over");
                    unsealed = Some(name);
                    continue;
                }
                bytes => bytes?,
            };
            let copy = CheckpointCopy::decode(&name, &bytes)?;
            checkpoints.push(StoredCheckpoint {
                name,
                ts: copy.ts,
                last_flush: copy.last_flush,
            });
        }
        let state = self.read_if_there(names::REPLICATION_STATE).await?;
        let replicated = match state {
            Some(bytes) => Some(ReplicationState::decode(&bytes)?.last_checkpoint),
            None => None,
        };
        // A truncation may have left its mark in either place.
        let truncated_to = self.migrations().await?.merged().truncated_to;
        let min_ts = marker.start_ts.max(truncated_to);
        let copied = checkpoints.iter().map(|checkpoint| checkpoint.ts).max();
        let max_ts = replicated.or(copied).unwrap_or_default().max(min_ts);
        Ok(LogBounds {
            marker,
            truncated_to,
            min_ts,
            max_ts,
            checkpoints,
            unsealed,
            replicated,
        })
    }

    /// Whether it is the coordinator's copy of the checkpoint as tools without keys write it. Anything
    /// else that is not sealed, or not whole, is damage.
    async fn is_of_others(&self, name: &str) -> Result<bool, LogReadError> {
        let size_bytes = CheckpointCopy::bare(TimeStamp::ZERO).encode().len() as u64;
        Ok(name == names::CENTRAL_CHECKPOINT
            && self.storage().foreign_size(name).await? == Some(size_bytes))
    }

    /// What [`names::TRUNCATE_SAFE_POINT`] says; zero if it is not there.
    ///
    /// # Errors
    /// The storage did not help, or it is no number.
    pub async fn truncate_safe_point(&self) -> Result<TimeStamp, LogReadError> {
        match self.read_if_there(names::TRUNCATE_SAFE_POINT).await? {
            Some(bytes) => Ok(decode_truncate_safe_point(&bytes)?),
            None => Ok(TimeStamp::ZERO),
        }
    }
}
