//! The small numbers of a log backup, each in another form.
//!
//! | where | form |
//! |---|---|
//! | `v1/global_checkpoint/*.ts` | 8 bytes, little-endian; then a seal, see [`super::seal`] |
//! | checkpoints in etcd | 8 bytes, big-endian |
//! | `v1_stream_trancate_safepoint.txt` | decimal text |
//! | `crr-checkpoint/resume-state.json` | JSON |

use std::collections::BTreeMap;

use br_types::{StoreId, TimeStamp};
use serde::{Deserialize, Serialize};

use super::LogFormatError;
use super::names::{REPLICATION_STATE, TRUNCATE_SAFE_POINT};
use super::seal::FlushMark;

/// What `v1/global_checkpoint/*.ts` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointCopy {
    /// The log is complete up to it.
    pub ts: TimeStamp,
    /// The last flush of who wrote it; other tools do not say it.
    pub last_flush: Option<FlushMark>,
}

impl CheckpointCopy {
    /// One without a seal, as other tools write it.
    pub fn bare(ts: TimeStamp) -> CheckpointCopy {
        CheckpointCopy {
            ts,
            last_flush: None,
        }
    }

    /// The bytes of `v1/global_checkpoint/*.ts`.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.ts.0.to_le_bytes().to_vec();
        if let Some(last) = self.last_flush {
            bytes.extend(last.flush_ts.0.to_le_bytes());
            bytes.extend(last.number.to_le_bytes());
            bytes.extend(last.min_ts.0.to_le_bytes());
            bytes.extend(last.max_ts.0.to_le_bytes());
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend(checksum.to_le_bytes());
        }
        bytes
    }

    /// Reads `v1/global_checkpoint/*.ts`.
    ///
    /// # Errors
    /// It is neither a bare number nor one with the right checksum.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<CheckpointCopy, LogFormatError> {
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().ok();
            bytes.map(|bytes| TimeStamp(u64::from_le_bytes(bytes)))
        };
        if let Some(ts) = number(bytes) {
            return Ok(CheckpointCopy::bare(ts));
        }
        let sealed = || {
            Some(CheckpointCopy {
                ts: number(bytes.get(..8)?)?,
                last_flush: Some(FlushMark {
                    flush_ts: number(bytes.get(8..16)?)?,
                    number: number(bytes.get(16..24)?)?.0,
                    min_ts: number(bytes.get(24..32)?)?,
                    max_ts: number(bytes.get(32..40)?)?,
                }),
            })
        };
        match sealed() {
            Some(copy) if copy.encode() == bytes => Ok(copy),
            _ => Err(LogFormatError::malformed(
                object,
                "it is not a checkpoint, or its checksum is wrong",
            )),
        }
    }
}

/// The value of a checkpoint in etcd.
pub fn encode_etcd_checkpoint(ts: TimeStamp) -> [u8; 8] {
    ts.0.to_be_bytes()
}

/// Reads a checkpoint in etcd.
///
/// # Errors
/// It does not have 8 bytes.
pub fn decode_etcd_checkpoint(key: &str, bytes: &[u8]) -> Result<TimeStamp, LogFormatError> {
    eight(key, bytes).map(|bytes| TimeStamp(u64::from_be_bytes(bytes)))
}

fn eight(object: &str, bytes: &[u8]) -> Result<[u8; 8], LogFormatError> {
    bytes.try_into().map_err(|_| {
        let reason = format!("a checkpoint has 8 bytes, this one has {}", bytes.len());
        LogFormatError::malformed(object, reason)
    })
}

/// The text of [`TRUNCATE_SAFE_POINT`].
pub fn encode_truncate_safe_point(ts: TimeStamp) -> String {
    ts.to_string()
}

/// Reads the text of [`TRUNCATE_SAFE_POINT`]; blanks around it are taken.
///
/// # Errors
/// It is no number.
pub fn decode_truncate_safe_point(bytes: &[u8]) -> Result<TimeStamp, LogFormatError> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map(TimeStamp)
        .ok_or_else(|| LogFormatError::malformed(TRUNCATE_SAFE_POINT, "it is no number"))
}

/// How far a copy of the log in another region has come: what it says counts, even if it is less
/// than the copied checkpoints say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationState {
    /// Everything up to this is in the copy.
    pub last_checkpoint: TimeStamp,
    /// All metadata flushed up to this has been looked at.
    pub synced_ts: TimeStamp,
    /// The same for each store.
    pub synced_by_store: BTreeMap<StoreId, TimeStamp>,
}

#[derive(Deserialize, Serialize)]
struct ReplicationJson {
    last_checkpoint: u64,
    #[serde(default)]
    synced_ts: u64,
    #[serde(default)]
    synced_by_store: Option<BTreeMap<u64, u64>>,
}

impl ReplicationState {
    /// Reads [`REPLICATION_STATE`].
    ///
    /// # Errors
    /// It is not JSON of the right form.
    pub fn decode(bytes: &[u8]) -> Result<ReplicationState, LogFormatError> {
        let json: ReplicationJson = serde_json::from_slice(bytes)
            .map_err(|error| LogFormatError::malformed(REPLICATION_STATE, error.to_string()))?;
        let by_store = json.synced_by_store.unwrap_or_default().into_iter();
        Ok(ReplicationState {
            last_checkpoint: TimeStamp(json.last_checkpoint),
            synced_ts: TimeStamp(json.synced_ts),
            synced_by_store: by_store
                .map(|(store, ts)| (StoreId(store), TimeStamp(ts)))
                .collect(),
        })
    }

    /// The bytes of [`REPLICATION_STATE`].
    pub fn encode(&self) -> Vec<u8> {
        let by_store = self.synced_by_store.iter();
        serde_json::to_vec(&ReplicationJson {
            last_checkpoint: self.last_checkpoint.0,
            synced_ts: self.synced_ts.0,
            synced_by_store: Some(by_store.map(|(store, ts)| (store.0, ts.0)).collect()),
        })
        .expect("numbers have a JSON form")
    }
}
