use crate::{build::BuildError, varint::push_u64};

/// The level of zstd when none is asked for: its own default.
const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// Types of compression, as the byte behind a block names them.
pub(super) const NONE: u8 = 0;
const SNAPPY: u8 = 1;
const LZ4: u8 = 4;
const ZSTD: u8 = 7;

/// How blocks are compressed. A block that would hardly become smaller stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd {
        /// 0 is the library's default.
        level: i32,
    },
}

/// Compresses blocks; keeps the state that is costly to make.
pub(super) enum Compressor {
    None,
    Snappy(Box<snap::raw::Encoder>),
    Lz4,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Result<Compressor, BuildError> {
        Ok(match compression {
            Compression::None => Compressor::None,
            Compression::Snappy => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Lz4 => Compressor::Lz4,
            Compression::Zstd { level } => {
                let level = if level == 0 {
                    ZSTD_LEVEL_DEFAULT
                } else {
                    level
                };
                let made = zstd::bulk::Compressor::new(level);
                Compressor::Zstd(Box::new(made.map_err(|_| BuildError::Compression)?))
            }
        })
    }

    /// As the properties of a table name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Compressor::None => "NoCompression",
            Compressor::Snappy(_) => "Snappy",
            Compressor::Lz4 => "LZ4",
            Compressor::Zstd(_) => "ZSTD",
        }
    }

    /// Appends the block, compressed if that saves an eighth; its type.
    pub(super) fn append(&mut self, block: &[u8], output: &mut Vec<u8>) -> Result<u8, BuildError> {
        let start = output.len();
        let failed = |_| BuildError::Compression;
        let room = |output: &mut Vec<u8>, bytes: usize| {
            let from = output.len();
            output.resize(from + bytes, 0);
            from
        };
        let kind = match self {
            Compressor::None => NONE,
            Compressor::Snappy(encoder) => {
                let from = room(output, snap::raw::max_compress_len(block.len()));
                let target = output.get_mut(from..).unwrap_or_default();
                let len = encoder
                    .compress(block, target)
                    .map_err(|_| BuildError::Compression)?;
                output.truncate(from + len);
                SNAPPY
            }
            Compressor::Lz4 => {
                push_u64(output, block.len() as u64);
                let most = lz4_flex::block::get_maximum_output_size(block.len());
                let from = room(output, most);
                let target = output.get_mut(from..).unwrap_or_default();
                let len = lz4_flex::block::compress_into(block, target)
                    .map_err(|_| BuildError::Compression)?;
                output.truncate(from + len);
                LZ4
            }
            Compressor::Zstd(compressor) => {
                push_u64(output, block.len() as u64);
                let from = room(output, zstd::zstd_safe::compress_bound(block.len()));
                let target = output.get_mut(from..).unwrap_or_default();
                let len = compressor
                    .compress_to_buffer(block, target)
                    .map_err(failed)?;
                output.truncate(from + len);
                ZSTD
            }
        };
        if kind == NONE || output.len() - start > block.len() - block.len() / 8 {
            output.truncate(start);
            output.extend_from_slice(block);
            return Ok(NONE);
        }
        Ok(kind)
    }
}
