//! Blocks of a run: many versions, compressed together.
//!
//! ```text
//! run      block*
//! block    stored_len u32, raw_len u32, crc32c u32 of the stored bytes    all little-endian
//!          LZ4 of: entry*
//! entry    key_len u32, value_len u32, rank u8, ts u64, key, value
//! ```

use br_types::TimeStamp;

use super::version::{Version, of_rank, rank};

/// Bytes of a block before compression: large enough that reads are few, small enough that
/// dozens of runs are open at a time.
pub(super) const BLOCK_BYTES: usize = 512 << 10;
/// Bytes before the compressed ones.
pub(super) const HEAD_BYTES: usize = 12;
/// Bytes before the key of an entry.
const ENTRY_HEAD_BYTES: usize = 17;

/// Appends an entry to a block.
pub(super) fn push(block: &mut Vec<u8>, version: &Version<'_>) {
    block.extend_from_slice(&(version.key.len() as u32).to_le_bytes());
    block.extend_from_slice(&(version.value.len() as u32).to_le_bytes());
    block.push(rank(version.cf));
    block.extend_from_slice(&version.ts.0.to_le_bytes());
    block.extend_from_slice(version.key);
    block.extend_from_slice(version.value);
}

/// The entry at a place of a block, and the place of the next; `None` at the end or in a damaged
/// block.
pub(super) fn entry(block: &[u8], at: usize) -> Option<(Version<'_>, usize)> {
    let head: &[u8; ENTRY_HEAD_BYTES] = block.get(at..)?.first_chunk()?;
    let [k0, k1, k2, k3, v0, v1, v2, v3, rank, ts @ ..] = head;
    let key_len = u32::from_le_bytes([*k0, *k1, *k2, *k3]) as usize;
    let value_len = u32::from_le_bytes([*v0, *v1, *v2, *v3]) as usize;
    let key_at = at + ENTRY_HEAD_BYTES;
    let value_at = key_at.checked_add(key_len)?;
    let next = value_at.checked_add(value_len)?;
    let version = Version {
        key: block.get(key_at..value_at)?,
        cf: of_rank(*rank)?,
        ts: TimeStamp(u64::from_le_bytes(*ts)),
        value: block.get(value_at..next)?,
    };
    Some((version, next))
}

/// The stored form of a block.
pub(super) fn pack(raw: &[u8]) -> Vec<u8> {
    let compressed = lz4_flex::block::compress(raw);
    let mut stored = Vec::with_capacity(HEAD_BYTES + compressed.len());
    stored.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
    stored.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    stored.extend_from_slice(&crc32c::crc32c(&compressed).to_le_bytes());
    stored.extend_from_slice(&compressed);
    stored
}

/// What the head of a stored block says.
#[derive(Clone, Copy)]
pub(super) struct BlockHead {
    pub(super) stored_len: usize,
    pub(super) raw_len: usize,
    crc32c: u32,
}

impl BlockHead {
    pub(super) fn parse(head: [u8; HEAD_BYTES]) -> BlockHead {
        let [s0, s1, s2, s3, r0, r1, r2, r3, c0, c1, c2, c3] = head;
        BlockHead {
            stored_len: u32::from_le_bytes([s0, s1, s2, s3]) as usize,
            raw_len: u32::from_le_bytes([r0, r1, r2, r3]) as usize,
            crc32c: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// The entries of a stored block; `None`: it is damaged.
    pub(super) fn unpack(self, compressed: &[u8]) -> Option<Vec<u8>> {
        if crc32c::crc32c(compressed) != self.crc32c {
            return None;
        }
        lz4_flex::block::decompress(compressed, self.raw_len).ok()
    }
}
