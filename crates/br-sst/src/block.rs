use bytes::Bytes;

use crate::compression::{BLOCK_SIZE_BYTES_MAX, Decompressor};
use crate::footer::{BlockHandle, ChecksumKind, TRAILER_SIZE_BYTES};
use crate::{RandomAccess, SstError};

/// Restart points are counted in the low 28 bits of a block's last number.
const RESTARTS_MASK: u32 = (1 << 28) - 1;
/// Set if a hash index stands before that number.
const HASH_INDEX: u32 = 1 << 31;

/// A block whose checksum was verified, uncompressed.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// Where entries end and restart points begin.
    pub(crate) entries_end: usize,
    pub(crate) restarts: usize,
}

/// Reads a block and verifies it.
pub(crate) fn read(
    source: &impl RandomAccess,
    checksum: ChecksumKind,
    handle: BlockHandle,
    decompressor: &mut Decompressor,
) -> Result<Block, SstError> {
    let offset = handle.offset;
    let outside = || SstError::corrupt(offset, "it lies outside the file");
    let end = handle.end().ok_or_else(outside)?;
    if end > source.size_bytes() {
        return Err(outside());
    }
    if handle.size > BLOCK_SIZE_BYTES_MAX as u64 {
        return Err(SstError::corrupt(
            offset,
            "it is larger than any block may be",
        ));
    }
    let size = handle.size as usize;
    let len = size + TRAILER_SIZE_BYTES;
    let stored = source
        .read_at(offset, len)
        .map_err(|source| SstError::Read {
            offset,
            len,
            source,
        })?;
    let short = || SstError::corrupt(offset, "it is cut off");
    let (with_type, expected) = stored.split_at_checked(size + 1).ok_or_else(short)?;
    let expected = u32::from_le_bytes(expected.try_into().map_err(|_| short())?);
    let (&kind, contents) = with_type.split_last().ok_or_else(short)?;
    if let Some(found) = checksum.sum(contents, with_type)
        && found != expected
    {
        return Err(SstError::Checksum {
            offset,
            expected,
            found,
        });
    }
    Block::new(
        offset,
        decompressor.open(offset, kind, stored.slice(..size))?,
    )
}

impl Block {
    pub(crate) fn new(offset: u64, bytes: Bytes) -> Result<Block, SstError> {
        let corrupt = || SstError::corrupt(offset, "its restart points are cut off");
        let (rest, last) = bytes.split_last_chunk::<4>().ok_or_else(corrupt)?;
        let packed = u32::from_le_bytes(*last);
        let mut restarts_end = rest.len();
        if packed & HASH_INDEX != 0 {
            // One byte a bucket, then how many.
            let (rest, buckets) = rest.split_last_chunk::<2>().ok_or_else(corrupt)?;
            let buckets = usize::from(u16::from_le_bytes(*buckets));
            restarts_end = rest.len().checked_sub(buckets).ok_or_else(corrupt)?;
        }
        let restarts = (packed & RESTARTS_MASK) as usize;
        let entries_end = restarts
            .checked_mul(4)
            .and_then(|size| restarts_end.checked_sub(size))
            .ok_or_else(corrupt)?;
        Ok(Block {
            offset,
            entries_end,
            restarts,
            bytes,
        })
    }

    /// The entries, encoded.
    pub(crate) fn entries(&self) -> &[u8] {
        self.bytes.get(..self.entries_end).unwrap_or_default()
    }

    /// Where the entry of that restart point begins: one with its whole key.
    pub(crate) fn restart(&self, index: usize) -> Result<usize, SstError> {
        let at = self.entries_end + index * 4;
        self.bytes
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
            .filter(|&start| start <= self.entries_end)
            .ok_or_else(|| SstError::corrupt(self.offset, "a restart point lies outside"))
    }
}
