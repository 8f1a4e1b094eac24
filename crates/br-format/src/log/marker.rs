//! `backupmeta` of a log storage: whose log it is and where it begins.
//!
//! `br log start` writes it, after `backup.lock`. It is the same message as that of a full backup,
//! which is told apart by its end timestamp.

use br_proto::backup::BackupMeta;
use br_types::{ClusterId, TimeStamp};
use bytes::Bytes;
use prost::Message;

use super::LogFormatError;
use crate::names::BACKUPMETA;

/// What `backupmeta` says of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMarker {
    /// The cluster that the log is of.
    pub cluster_id: ClusterId,
    /// The version of that cluster.
    pub cluster_version: String,
    /// The log begins after this.
    pub start_ts: TimeStamp,
}

/// What lies at a place that has a `backupmeta`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A log.
    Log(LogMarker),
    /// A full or incremental backup, up to that timestamp.
    Backup(TimeStamp),
}

impl Marker {
    /// Reads a `backupmeta`, as far as it tells the two apart.
    ///
    /// # Errors
    /// [`LogFormatError::Malformed`]: it is damaged, or a backup that is encrypted.
    pub fn decode(bytes: &[u8]) -> Result<Marker, LogFormatError> {
        let meta = BackupMeta::decode(bytes)
            .map_err(|error| LogFormatError::malformed(BACKUPMETA, error.to_string()))?;
        if meta.end_version > 0 {
            return Ok(Marker::Backup(TimeStamp(meta.end_version)));
        }
        Ok(Marker::Log(LogMarker {
            cluster_id: ClusterId(meta.cluster_id),
            cluster_version: meta.cluster_version,
            start_ts: TimeStamp(meta.start_version),
        }))
    }
}

impl LogMarker {
    /// The bytes of the object.
    pub fn encode(&self) -> Bytes {
        BackupMeta {
            cluster_id: self.cluster_id.0,
            cluster_version: self.cluster_version.clone(),
            start_version: self.start_ts.0,
            // As the official tool leaves it: an empty list of DDL jobs, layout V2.
            ddls: b"[]".to_vec(),
            version: 1,
            ..BackupMeta::default()
        }
        .encode_to_vec()
        .into()
    }
}
