//! The files from which an interrupted backup goes on, below `checkpoints/backup/`.
//!
//! # What it does
//! Encodes and decodes them as the official tool does, so that either tool can go on where the
//! other stopped.
//!
//! # Objects it reads and writes
//! `checkpoint.meta` ([`ResumeMeta`]), `checkpoint.lock` ([`ResumeLock`]), and files that only ever
//! become more: `data/*.cpt` ([`ResumeRanges`]), `checksum/*.cpt` ([`ResumeChecksums`]). All are
//! removed when the backup is complete.
//!
//! # After a crash
//! A file that cannot be read may be left out: what it says is done again.

mod checksums;
mod config_hash;
mod json;
mod lock;
mod ranges;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use br_types::{Classify, Kind, TimeStamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use checksums::{ResumeChecksums, TableChecksum};
pub use config_hash::{AzureOptions, ConfigHash, GcsOptions, ResumeConfig, S3Options};
pub use lock::{LOCK_RECHECK, LOCK_REFRESH, LOCK_TTL, LockState, ResumeHolder, ResumeLock};
pub use ranges::{ResumeRange, ResumeRanges};

/// Why a resume file cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResumeError {
    /// It is not JSON of the right form.
    #[error("{object} is damaged: {reason}")]
    Malformed {
        /// The object.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A part of it is not what was written, or was encrypted with another key.
    #[error("{object} is damaged or was written with another key: its SHA-256 does not match")]
    Checksum {
        /// The object.
        object: String,
    },
}

impl ResumeError {
    fn malformed(object: &str, reason: impl ToString) -> ResumeError {
        ResumeError::Malformed {
            object: object.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl Classify for ResumeError {
    fn kind(&self) -> Kind {
        Kind::Data
    }

    fn next_step(&self) -> Option<String> {
        Some("Remove the folder of the unfinished backup and start it anew.".to_owned())
    }
}

/// `checkpoint.meta`: what the interrupted backup was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeMeta {
    /// The name under which it keeps the safe point from moving on.
    pub gc_service_id: String,
    /// Of its options: with other ones it must not go on.
    pub config_hash: ConfigHash,
    /// Its timestamp.
    pub backup_ts: TimeStamp,
    /// The same options one by one, by name, with short digests where they are secret: so that a run
    /// with other ones can say which. The official tool does not write this and passes it by; it is
    /// empty then.
    pub parameters: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
struct MetaJson {
    #[serde(rename = "gc-service-id")]
    gc_service_id: String,
    #[serde(rename = "config-hash", with = "json::base64")]
    config_hash: Vec<u8>,
    #[serde(rename = "backup-ts")]
    backup_ts: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, String>,
}

impl ResumeMeta {
    /// Reads it.
    ///
    /// # Errors
    /// [`ResumeError::Malformed`].
    pub fn decode(object: &str, bytes: &[u8]) -> Result<ResumeMeta, ResumeError> {
        let meta: MetaJson =
            serde_json::from_slice(bytes).map_err(|e| ResumeError::malformed(object, e))?;
        let config_hash = meta.config_hash.try_into().map_err(|_| {
            ResumeError::malformed(object, "the hash of the options does not have 32 bytes")
        })?;
        Ok(ResumeMeta {
            gc_service_id: meta.gc_service_id,
            config_hash: ConfigHash(config_hash),
            backup_ts: TimeStamp(meta.backup_ts),
            parameters: meta.parameters,
        })
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Bytes {
        json::encode(&MetaJson {
            gc_service_id: self.gc_service_id.clone(),
            config_hash: self.config_hash.0.to_vec(),
            backup_ts: self.backup_ts.0,
            parameters: self.parameters.clone(),
        })
    }
}
