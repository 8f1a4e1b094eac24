//! SST files of the engine in memory: real block-based tables, so that every reader of such files
//! reads them, but without compression and filters, which the format leaves to the writer.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use br_codec::number::write_var_u64;
use br_sst::{EntryKind, SstError, Table};
use bytes::Bytes;

use crate::engine::{EngineError, SstOptions, SstWriter};

/// Contents of a data block, about; as in TiKV.
const BLOCK_BYTES: usize = 32 << 10;
const FORMAT_VERSION: u32 = 2;
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const CHECKSUM_CRC32C: u8 = 1;
const NO_COMPRESSION: u8 = 0;
/// Bytes of the two handles in the footer, with their padding.
const HANDLES_BYTES: usize = 40;
/// Sequence number 0, type "value".
const PUT_SUFFIX: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// Writes one SST file; it is complete only after [`SstWriter::finish`].
pub(super) struct TableWriter {
    file: File,
    path: PathBuf,
    written: u64,
    block: Block,
    index: Block,
    /// Internal key added last.
    last: Vec<u8>,
    entries: u64,
    raw_key_bytes: u64,
    raw_value_bytes: u64,
}

/// A block under construction: each entry with its whole key, and a restart point of its own.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
}

impl Block {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        // Blocks are closed long before their length needs more than 32 bits.
        self.restarts.push(self.bytes.len() as u32);
        write_var_u64(&mut self.bytes, 0);
        write_var_u64(&mut self.bytes, key.len() as u64);
        write_var_u64(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut restarts = std::mem::take(&mut self.restarts);
        if restarts.is_empty() {
            restarts.push(0);
        }
        restarts
            .iter()
            .for_each(|offset| bytes.extend_from_slice(&offset.to_le_bytes()));
        bytes.extend_from_slice(&(restarts.len() as u32).to_le_bytes());
        bytes
    }
}

impl TableWriter {
    pub(super) fn create(path: &Path, _: SstOptions) -> Result<Self, EngineError> {
        let file = File::create_new(path).map_err(|error| sst_error(path, &error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            written: 0,
            block: Block::default(),
            index: Block::default(),
            last: Vec::new(),
            entries: 0,
            raw_key_bytes: 0,
            raw_value_bytes: 0,
        })
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        if self.block.restarts.is_empty() {
            return Ok(());
        }
        let contents = self.block.finish();
        let handle = self.write_block(contents)?;
        self.index.add(&self.last, &handle);
        Ok(())
    }

    /// Writes a block with its trailer and gives its handle.
    fn write_block(&mut self, mut contents: Vec<u8>) -> Result<Vec<u8>, EngineError> {
        let mut handle = Vec::new();
        write_var_u64(&mut handle, self.written);
        write_var_u64(&mut handle, contents.len() as u64);
        contents.push(NO_COMPRESSION);
        let checksum = crc32c::crc32c(&contents)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8);
        contents.extend_from_slice(&checksum.to_le_bytes());
        self.write(&contents)?;
        Ok(handle)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.file
            .write_all(bytes)
            .map_err(|error| sst_error(&self.path, &error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn refuse(&self, message: &str) -> EngineError {
        EngineError::Sst {
            path: self.path.clone(),
            message: message.to_owned(),
        }
    }

    fn properties(&self) -> Vec<u8> {
        let number = |value| {
            let mut bytes = Vec::new();
            write_var_u64(&mut bytes, value);
            bytes
        };
        let mut block = Block::default();
        // In the order of their names.
        block.add(
            b"rocksdb.external_sst_file.global_seqno",
            &0_u64.to_le_bytes(),
        );
        block.add(b"rocksdb.external_sst_file.version", &2_u32.to_le_bytes());
        block.add(b"rocksdb.num.entries", &number(self.entries));
        block.add(b"rocksdb.raw.key.size", &number(self.raw_key_bytes));
        block.add(b"rocksdb.raw.value.size", &number(self.raw_value_bytes));
        block.finish()
    }
}

impl SstWriter for TableWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let previous = self.last.len().checked_sub(PUT_SUFFIX.len());
        if previous
            .and_then(|len| self.last.get(..len))
            .is_some_and(|last| last >= key)
        {
            return Err(self.refuse("keys must be added in ascending order"));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.last.extend_from_slice(&PUT_SUFFIX);
        self.block.add(&self.last, value);
        self.entries += 1;
        self.raw_key_bytes += self.last.len() as u64;
        self.raw_value_bytes += value.len() as u64;
        if self.block.bytes.len() >= BLOCK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn file_size(&mut self) -> u64 {
        self.written
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        if self.entries == 0 {
            return Err(self.refuse("a file without entries cannot be written"));
        }
        self.flush()?;
        let properties = self.properties();
        let properties = self.write_block(properties)?;
        let mut meta = Block::default();
        meta.add(b"rocksdb.properties", &properties);
        let meta = self.write_block(meta.finish())?;
        let index = self.index.finish();
        let index = self.write_block(index)?;
        let mut footer = vec![CHECKSUM_CRC32C];
        footer.extend_from_slice(&meta);
        footer.extend_from_slice(&index);
        footer.resize(1 + HANDLES_BYTES, 0);
        footer.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        footer.extend_from_slice(&MAGIC.to_le_bytes());
        self.write(&footer)
    }
}

/// Calls `visit` with each key and value of a file.
pub(super) fn read(path: &Path, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), EngineError> {
    let refuse = |error: SstError| EngineError::Sst {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let bytes = Bytes::from(fs::read(path).map_err(|error| sst_error(path, &error))?);
    let table = Table::open(bytes).map_err(refuse)?;
    let mut entries = table.iter();
    while let Some(entry) = entries.next().map_err(refuse)? {
        if entry.kind != EntryKind::Put {
            let message = "it has entries that are not values".to_owned();
            return Err(EngineError::Sst {
                path: path.to_owned(),
                message,
            });
        }
        visit(entry.user_key, entry.value);
    }
    Ok(())
}

pub(super) fn sst_error(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Sst {
        path: path.to_owned(),
        message: error.to_string(),
    }
}
