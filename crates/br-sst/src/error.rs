use std::io;

use br_types::{Classify, Kind};
use thiserror::Error;

/// Why a file cannot be read. The caller knows, and adds, which file it is.
#[derive(Debug, Error)]
pub enum SstError {
    /// It does not end like a table: cut off, another kind of file, or encrypted.
    #[error("it is not a whole SST file: {0}")]
    NotATable(&'static str),
    /// A block is not what was written.
    #[error(
        "the block at {offset} is damaged: checksum {found:08x}, and {expected:08x} was written"
    )]
    Checksum {
        /// Where the block is.
        offset: u64,
        /// The sum behind the block.
        expected: u32,
        /// The sum of the block.
        found: u32,
    },
    /// A block makes no sense.
    #[error("the block at {offset} is damaged: {reason}")]
    Corrupt {
        /// Where the block is; 0 for the file as a whole.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A table that RocksDB can write and this cannot read.
    #[error("it uses {feature}, which is not supported")]
    Unsupported {
        /// What it uses.
        feature: String,
    },
    /// The source of the bytes failed.
    #[error("reading {len} bytes at {offset} failed: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        source: io::Error,
    },
}

impl SstError {
    pub(crate) fn corrupt(offset: u64, reason: &'static str) -> SstError {
        SstError::Corrupt { offset, reason }
    }

    pub(crate) fn unsupported(feature: impl Into<String>) -> SstError {
        SstError::Unsupported {
            feature: feature.into(),
        }
    }
}

impl Classify for SstError {
    fn kind(&self) -> Kind {
        match self {
            SstError::Unsupported { .. } => Kind::Invalid,
            SstError::Read { .. } => Kind::Retry,
            _ => Kind::Data,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            SstError::NotATable(_) => {
                "If the backup is encrypted, check its method and key; otherwise take another copy."
            }
            SstError::Checksum { .. } | SstError::Corrupt { .. } => {
                "Take another copy of the file."
            }
            SstError::Unsupported { .. } | SstError::Read { .. } => return None,
        };
        Some(step.to_owned())
    }
}
