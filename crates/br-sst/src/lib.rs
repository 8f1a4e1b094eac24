//! Reads and builds RocksDB block-based tables (SST files), without RocksDB.
//!
//! Reads `format_version` 2 to 5, as `SstFileWriter` of RocksDB 6 to 11 and TiKV write them.
//! Every block's checksum is verified. Any bytes give an error or entries, never a panic, and
//! memory stays within [`BLOCK_SIZE_BYTES_MAX`] for each block in use.
//! `docs/formats/sst.md` describes the layout.
//!
//! ```
//! # fn read(file: bytes::Bytes) -> Result<(), br_sst::SstError> {
//! let table = br_sst::Table::open(file)?;
//! let mut iter = table.iter();
//! iter.seek(b"zt")?;
//! while let Some(entry) = iter.next()? {
//!     println!("{:?} {}", entry.user_key, entry.value.len());
//! }
//! # Ok(())
//! # }
//! ```

mod block;
mod build;
mod compression;
mod cursor;
mod error;
mod footer;
mod iter;
mod properties;
mod source;
mod table;
mod varint;
mod write;

#[cfg(test)]
mod tests;

pub use build::{BuildError, Compression, TableBuilder};
pub use compression::BLOCK_SIZE_BYTES_MAX;
pub use error::SstError;
pub use iter::{Entry, EntryKind, TableIter};
pub use properties::Properties;
pub use source::RandomAccess;
pub use table::Table;
pub use write::{SstFileWriter, SstFiles, WriteError};
