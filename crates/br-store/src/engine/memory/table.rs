//! SST files of the engine in memory.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use br_sst::{Compression, EntryKind, SstError, Table, TableBuilder};
use bytes::Bytes;

use crate::engine::{EngineError, SstCompression, SstOptions, SstWriter};

/// Bytes of a table that are written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Writes one SST file; it is complete only after [`SstWriter::finish`].
pub(super) struct TableWriter {
    table: TableBuilder,
    file: File,
    path: PathBuf,
}

impl TableWriter {
    pub(super) fn create(path: &Path, options: SstOptions) -> Result<Self, EngineError> {
        let compression = match options.compression {
            SstCompression::None => Compression::None,
            SstCompression::Snappy => Compression::Snappy,
            SstCompression::Lz4 => Compression::Lz4,
            SstCompression::Zstd => Compression::Zstd {
                level: options.level,
            },
        };
        Ok(Self {
            table: TableBuilder::new(compression).map_err(|error| sst_error(path, &error))?,
            file: File::create_new(path).map_err(|error| sst_error(path, &error))?,
            path: path.to_owned(),
        })
    }
}

impl SstWriter for TableWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let put = self.table.put(key, value);
        put.map_err(|error| sst_error(&self.path, &error))?;
        let ready = self.table.output();
        if ready.len() >= CHUNK_BYTES {
            let written = self.file.write_all(ready);
            written.map_err(|error| sst_error(&self.path, &error))?;
            ready.clear();
        }
        Ok(())
    }

    fn file_size(&mut self) -> u64 {
        self.table.size_bytes()
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        let rest = self.table.finish();
        let rest = rest.map_err(|error| sst_error(&self.path, &error))?;
        let written = self.file.write_all(&rest);
        written.map_err(|error| sst_error(&self.path, &error))
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

pub(super) fn sst_error(path: &Path, error: &dyn std::error::Error) -> EngineError {
    EngineError::Sst {
        path: path.to_owned(),
        message: error.to_string(),
    }
}
