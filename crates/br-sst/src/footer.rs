use bytes::Bytes;

use crate::SstError;
use crate::varint::take_u64;

/// Of a footer of `format_version` 1 to 5.
pub(crate) const FOOTER_SIZE_BYTES: usize = 53;
/// Behind the contents of each block: type of compression, checksum.
pub(crate) const TRAILER_SIZE_BYTES: usize = 5;

const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
/// Of tables before `format_version` 1.
const LEGACY_MAGIC: u64 = 0xdb47_7524_8b80_fb57;

/// Where a block is, without its trailer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockHandle {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl BlockHandle {
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<BlockHandle> {
        Some(BlockHandle {
            offset: take_u64(bytes)?,
            size: take_u64(bytes)?,
        })
    }

    /// The first byte behind the block and its trailer.
    pub(crate) fn end(self) -> Option<u64> {
        self.offset
            .checked_add(self.size)?
            .checked_add(TRAILER_SIZE_BYTES as u64)
    }
}

/// How blocks are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChecksumKind {
    None,
    Crc32c,
    XxHash32,
    XxHash64,
    Xxh3,
}

impl ChecksumKind {
    /// The sum over the contents of a block and the byte behind them; `None` if there is none.
    pub(crate) fn sum(self, contents: &[u8], with_type: &[u8]) -> Option<u32> {
        let last = with_type.last().copied().unwrap_or_default();
        match self {
            ChecksumKind::None => None,
            // Masked, since sums of data that has sums in it are weak.
            ChecksumKind::Crc32c => Some(
                crc32c::crc32c(with_type)
                    .rotate_right(15)
                    .wrapping_add(0xa282_ead8),
            ),
            ChecksumKind::XxHash32 => Some(xxhash_rust::xxh32::xxh32(with_type, 0)),
            ChecksumKind::XxHash64 => Some(xxhash_rust::xxh64::xxh64(with_type, 0) as u32),
            ChecksumKind::Xxh3 => {
                let sum = xxhash_rust::xxh3::xxh3_64(contents) as u32;
                Some(sum ^ u32::from(last).wrapping_mul(0x6b90_83d9))
            }
        }
    }
}

/// The end of a table: where to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footer {
    pub(crate) checksum: ChecksumKind,
    pub(crate) metaindex: BlockHandle,
    pub(crate) index: BlockHandle,
    pub(crate) format_version: u32,
}

impl Footer {
    /// Reads the last [`FOOTER_SIZE_BYTES`] of a file.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Footer, SstError> {
        let end = || SstError::NotATable("its end is cut off");
        let (handles, tail) = bytes
            .split_at_checked(FOOTER_SIZE_BYTES - 12)
            .ok_or_else(end)?;
        let (version, magic) = tail.split_first_chunk::<4>().ok_or_else(end)?;
        match <[u8; 8]>::try_from(magic).map(u64::from_le_bytes) {
            Ok(MAGIC) => {}
            Ok(LEGACY_MAGIC) => return Err(SstError::unsupported("format_version 0")),
            _ => {
                return Err(SstError::NotATable(
                    "its last bytes are not those of a table",
                ));
            }
        }
        let format_version = u32::from_le_bytes(*version);
        if !(2..=5).contains(&format_version) {
            return Err(SstError::unsupported(format!(
                "format_version {format_version}"
            )));
        }
        let (&checksum, mut handles) = handles.split_first().ok_or_else(end)?;
        let checksum = match checksum {
            0 => ChecksumKind::None,
            1 => ChecksumKind::Crc32c,
            2 => ChecksumKind::XxHash32,
            3 => ChecksumKind::XxHash64,
            4 => ChecksumKind::Xxh3,
            other => return Err(SstError::unsupported(format!("checksum type {other}"))),
        };
        let metaindex = BlockHandle::take(&mut handles).ok_or_else(end)?;
        let index = BlockHandle::take(&mut handles).ok_or_else(end)?;
        Ok(Footer {
            checksum,
            metaindex,
            index,
            format_version,
        })
    }
}
