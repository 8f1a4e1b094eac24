use bytes::Bytes;

use crate::SstError;
use crate::varint::take_len;

/// The greatest block that is read, uncompressed or not. Blocks of TiKV have 32 KiB, or as much
/// as one pair: a value has at most the size of a raft entry, some MiB.
pub const BLOCK_SIZE_BYTES_MAX: usize = 128 << 20;

/// Decompresses the contents of blocks; keeps the state that is costly to make.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    /// `kind` is the byte behind the block, `offset` where the block is.
    pub(crate) fn open(
        &mut self,
        offset: u64,
        kind: u8,
        contents: Bytes,
    ) -> Result<Bytes, SstError> {
        let corrupt = || SstError::corrupt(offset, "it cannot be decompressed");
        match kind {
            0 => Ok(contents),
            1 => {
                let size = snap::raw::decompress_len(&contents).map_err(|_| corrupt())?;
                let mut plain = buffer(offset, size)?;
                snap::raw::Decoder::new()
                    .decompress(&contents, &mut plain)
                    .map_err(|_| corrupt())
                    .and_then(|found| (found == size).then_some(plain.into()).ok_or_else(corrupt))
            }
            4 | 5 => {
                let mut rest = contents.as_ref();
                let size = take_len(&mut rest).ok_or_else(corrupt)?;
                let mut plain = buffer(offset, size)?;
                lz4_flex::block::decompress_into(rest, &mut plain)
                    .map_err(|_| corrupt())
                    .and_then(|found| (found == size).then_some(plain.into()).ok_or_else(corrupt))
            }
            7 => {
                let mut rest = contents.as_ref();
                let size = take_len(&mut rest).ok_or_else(corrupt)?;
                let mut plain = buffer(offset, size)?;
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|_| corrupt())?),
                };
                zstd.decompress_to_buffer(rest, plain.as_mut_slice())
                    .map_err(|_| corrupt())
                    .and_then(|found| (found == size).then_some(plain.into()).ok_or_else(corrupt))
            }
            2 => Err(SstError::unsupported("zlib compression")),
            3 => Err(SstError::unsupported("bzip2 compression")),
            _ => Err(SstError::unsupported(format!("compression type {kind}"))),
        }
    }
}

fn buffer(offset: u64, size: usize) -> Result<Vec<u8>, SstError> {
    if size > BLOCK_SIZE_BYTES_MAX {
        return Err(SstError::corrupt(
            offset,
            "it is larger than any block may be",
        ));
    }
    Ok(vec![0; size])
}
