//! # What it does
//! Makes a table: takes keys in order and gives the bytes of the file as they come to be, so that
//! they can be hashed, encrypted and sent on while the rest is being made. Does no I/O.
//!
//! # Ordering and invariants
//! Keys strictly ascending; each becomes a put with sequence number 0, as `SstFileWriter` of
//! RocksDB writes it, and with the properties that make it a file for ingestion.
//! `format_version` 2 and crc32c, which every RocksDB from 2.8 on reads, and what TiKV writes. No
//! filter: stores write such files anew or compact them.

mod block;
mod compress;

#[cfg(test)]
mod tests;

use block::BlockBuilder;
pub use compress::Compression;
use compress::Compressor;

use crate::{
    footer::{FOOTER_SIZE_BYTES, TRAILER_SIZE_BYTES},
    varint::push_u64,
};

/// Bytes from which on a data block is complete; as in TiKV.
const BLOCK_BYTES: usize = 32 << 10;
/// Entries of a data block from one whole key to the next.
const DATA_RESTART_INTERVAL: usize = 16;
const FORMAT_VERSION: u32 = 2;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const CHECKSUM_CRC32C: u8 = 1;
/// Behind each key: sequence number 0, type "value".
const PUT_SUFFIX: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// Why a table cannot be made.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BuildError {
    /// The key is not greater than the one before.
    #[error("keys do not ascend")]
    NotAscending,
    /// A key or a value is too long for the format.
    #[error("a pair of {0} bytes is too large for a table")]
    TooLarge(usize),
    /// A table needs at least one key.
    #[error("a table without keys is none")]
    Empty,
    /// The library of the compression refused.
    #[error("a block cannot be compressed")]
    Compression,
}

/// A table under construction.
pub struct TableBuilder {
    compressor: Compressor,
    output: Vec<u8>,
    /// Bytes of the table so far, those that were taken among them.
    size_bytes: u64,
    data: BlockBuilder,
    index: BlockBuilder,
    /// Internal key added last; empty before the first.
    last: Vec<u8>,
    handle: Vec<u8>,
    counts: Counts,
}

/// What the properties say of the table.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    entries: u64,
    key_bytes: u64,
    value_bytes: u64,
    data_blocks: u64,
}

impl TableBuilder {
    /// A table without entries.
    ///
    /// # Errors
    /// [`BuildError::Compression`] if the library has no memory.
    pub fn new(compression: Compression) -> Result<TableBuilder, BuildError> {
        Ok(TableBuilder {
            compressor: Compressor::new(compression)?,
            output: Vec::new(),
            size_bytes: 0,
            data: BlockBuilder::new(DATA_RESTART_INTERVAL),
            index: BlockBuilder::new(1),
            last: Vec::new(),
            handle: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`BuildError::NotAscending`], [`BuildError::TooLarge`], [`BuildError::Compression`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), BuildError> {
        let last = self.last.len().checked_sub(PUT_SUFFIX.len());
        if last.is_some_and(|last| self.last.get(..last).is_some_and(|last| last >= key)) {
            return Err(BuildError::NotAscending);
        }
        let pair = key.len().saturating_add(value.len());
        if pair > crate::BLOCK_SIZE_BYTES_MAX / 2 {
            return Err(BuildError::TooLarge(pair));
        }
        self.data.add(&self.last, key, &PUT_SUFFIX, value);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.last.extend_from_slice(&PUT_SUFFIX);
        self.counts.entries += 1;
        self.counts.key_bytes += self.last.len() as u64;
        self.counts.value_bytes += value.len() as u64;
        if self.data.size_bytes() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.counts.entries
    }

    /// Bytes of the table that are made, those that were taken among them.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes that are made and not taken yet: the caller takes them by emptying the buffer, at any
    /// time.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Completes the table: the rest of its bytes, behind those taken before.
    ///
    /// # Errors
    /// [`BuildError::Empty`], [`BuildError::Compression`].
    pub fn finish(mut self) -> Result<Vec<u8>, BuildError> {
        if self.counts.entries == 0 {
            return Err(BuildError::Empty);
        }
        self.end_block()?;
        let data_bytes = self.size_bytes;
        let index = self.index.finish();
        let index = self.write_block(&index, true)?;
        let index_bytes = self.size_bytes - data_bytes;
        let properties = self.properties(data_bytes, index_bytes);
        let properties = self.write_block(&properties, false)?;
        let mut metaindex = BlockBuilder::new(1);
        metaindex.add(&[], b"rocksdb.properties", &[], &properties);
        let metaindex = metaindex.finish();
        let metaindex = self.write_block(&metaindex, false)?;

        let footer = self.output.len();
        self.output.push(CHECKSUM_CRC32C);
        self.output.extend_from_slice(&metaindex);
        self.output.extend_from_slice(&index);
        self.output.resize(footer + FOOTER_SIZE_BYTES - 12, 0);
        self.output.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        self.output.extend_from_slice(&MAGIC.to_le_bytes());
        Ok(self.output)
    }

    fn end_block(&mut self) -> Result<(), BuildError> {
        if self.data.is_empty() {
            return Ok(());
        }
        let block = self.data.finish();
        self.handle = self.write_block(&block, true)?;
        self.data.reuse(block);
        self.counts.data_blocks += 1;
        self.index.add(&[], &self.last, &[], &self.handle);
        Ok(())
    }

    /// Writes a block with its trailer; its handle.
    fn write_block(&mut self, block: &[u8], is_compressed: bool) -> Result<Vec<u8>, BuildError> {
        let start = self.output.len();
        let kind = match is_compressed {
            true => self.compressor.append(block, &mut self.output)?,
            false => {
                self.output.extend_from_slice(block);
                compress::NONE
            }
        };
        let contents = self.output.len() - start;
        let mut handle = Vec::with_capacity(12);
        push_u64(&mut handle, self.size_bytes);
        push_u64(&mut handle, contents as u64);
        self.output.push(kind);
        let with_kind = self.output.get(start..).unwrap_or_default();
        // Masked, since sums of data that has sums in it are weak.
        let sum = crc32c::crc32c(with_kind)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8);
        self.output.extend_from_slice(&sum.to_le_bytes());
        self.size_bytes += (contents + TRAILER_SIZE_BYTES) as u64;
        Ok(handle)
    }

    /// The properties block: names ascending.
    fn properties(&self, data_bytes: u64, index_bytes: u64) -> Vec<u8> {
        let counts = &self.counts;
        let number = |value: u64| {
            let mut bytes = Vec::new();
            push_u64(&mut bytes, value);
            bytes
        };
        let text = |text: &str| text.as_bytes().to_vec();
        let unknown_family = number(u64::from(i32::MAX.unsigned_abs()));
        let properties: [(&str, Vec<u8>); 24] = [
            ("rocksdb.block.based.table.index.type", vec![0; 4]),
            ("rocksdb.block.based.table.prefix.filtering", text("0")),
            ("rocksdb.block.based.table.whole.key.filtering", text("1")),
            ("rocksdb.column.family.id", unknown_family),
            ("rocksdb.comparator", text("leveldb.BytewiseComparator")),
            ("rocksdb.compression", text(self.compressor.name())),
            ("rocksdb.creation.time", number(0)),
            ("rocksdb.data.size", number(data_bytes)),
            ("rocksdb.deleted.keys", number(0)),
            ("rocksdb.external_sst_file.global_seqno", vec![0; 8]),
            (
                "rocksdb.external_sst_file.version",
                2_u32.to_le_bytes().to_vec(),
            ),
            ("rocksdb.filter.size", number(0)),
            ("rocksdb.fixed.key.length", number(0)),
            ("rocksdb.format.version", number(0)),
            ("rocksdb.index.key.is.user.key", number(0)),
            ("rocksdb.index.size", number(index_bytes)),
            ("rocksdb.index.value.is.delta.encoded", number(0)),
            ("rocksdb.merge.operands", number(0)),
            ("rocksdb.merge.operator", text("nullptr")),
            ("rocksdb.num.data.blocks", number(counts.data_blocks)),
            ("rocksdb.num.entries", number(counts.entries)),
            ("rocksdb.num.range-deletions", number(0)),
            ("rocksdb.raw.key.size", number(counts.key_bytes)),
            ("rocksdb.raw.value.size", number(counts.value_bytes)),
        ];
        let mut block = BlockBuilder::new(1);
        for (name, value) in &properties {
            block.add(&[], name.as_bytes(), &[], value);
        }
        block.finish()
    }
}
