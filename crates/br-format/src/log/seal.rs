//! Seals: how a log shows that nothing of it has changed and that none of its flushes is missing.
//!
//! The published formats have no checksum over metadata and over copies of the checkpoint, and
//! nothing that tells a flush that was lost from a time without writes. Our stores add both where
//! other tools pass over it:
//!
//! | where | what |
//! |---|---|
//! | metadata | fields 20001 to 20004: flush timestamp of the store's flush before this one, 0 for the first, its number, counted from 1, and its least and greatest timestamp of a record; field 20005, the last bytes of the object: CRC-32C of all bytes before it |
//! | `v1/global_checkpoint/*.ts` | after the 8 bytes: the same four numbers of the last flush of who wrote it, 8 bytes each; CRC-32C of these 40 bytes; little-endian |
//!
//! So each flush names the one before it, and the copy of the checkpoint names the last. The timestamps
//! of records tell what a flush that is not there costs, and whether it was truncated away; the numbers,
//! whether it is the only one that is gone. What other tools wrote has no seals, and is taken as it
//! is; their truncation drops the seals of what it writes anew.

use br_types::TimeStamp;
use prost::encoding::{WireType, encode_key};

use super::LogFormatError;

/// The field of metadata with the checksum.
const CHECKSUM_FIELD: u32 = 20_005;
/// Its key and its value.
const CHECKSUM_BYTES: usize = 3 + 4;

/// Names a flush of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushMark {
    /// The flush timestamp in the name of its metadata; zero: there is none.
    pub flush_ts: TimeStamp,
    /// Its number among those of the store, from 1; from 1 again if the store forgot which was the last.
    pub number: u64,
    /// The least timestamp of a record in it; zero without records.
    pub min_ts: TimeStamp,
    /// The greatest one; without records, the `resolved_ts` of its metadata.
    pub max_ts: TimeStamp,
}

/// Where a flush stands among those of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The flush before it.
    pub previous: FlushMark,
}

impl Seal {
    /// Its number among the flushes of its store.
    pub fn number(self) -> u64 {
        self.previous.number.saturating_add(1)
    }
}

/// Adds the checksum to encoded metadata.
pub(super) fn add_checksum(bytes: &mut Vec<u8>) {
    let checksum = checksum_of(bytes);
    bytes.extend(checksum);
}

/// The field with the checksum of these bytes.
fn checksum_of(bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(CHECKSUM_BYTES);
    encode_key(CHECKSUM_FIELD, WireType::ThirtyTwoBit, &mut field);
    field.extend(crc32c::crc32c(bytes).to_le_bytes());
    field
}

/// Compares the checksum of metadata that has one with its bytes.
pub(super) fn check(object: &str, bytes: &[u8]) -> Result<(), LogFormatError> {
    let place = bytes.len().checked_sub(CHECKSUM_BYTES);
    let parts = place.and_then(|at| bytes.split_at_checked(at));
    let is_right = parts.is_some_and(|(body, end)| end == checksum_of(body));
    match is_right {
        true => Ok(()),
        false => Err(LogFormatError::malformed(
            object,
            "it does not have the bytes that its checksum was made of",
        )),
    }
}
