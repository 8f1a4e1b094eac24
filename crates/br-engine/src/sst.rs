use std::path::{Path, PathBuf};

use br_sst::{SstFileWriter as NewSst, SstFiles, WriteError};
use br_store::engine::{EngineError, SstOptions, SstWriter};
use rust_rocksdb::{Options, SstFileWriter};
use self_cell::self_cell;

use crate::{
    error::{io_error, sst_error},
    options,
};

self_cell!(
    /// A writer with the options that it points to.
    struct OwnedWriter {
        owner: Options,
        #[covariant]
        dependent: SstFileWriter,
    }
);

pub(crate) struct RocksSstWriter {
    writer: OwnedWriter,
    path: PathBuf,
}

impl RocksSstWriter {
    pub(crate) fn create(path: &Path, options: SstOptions) -> Result<Self, EngineError> {
        // RocksDB would take the place of a file that is there.
        if path.try_exists().map_err(|error| io_error(path, &error))? {
            let message = "it exists already".to_owned();
            return Err(EngineError::Sst {
                path: path.to_owned(),
                message,
            });
        }
        let options = options::sst(options.compression, options.level);
        let mut writer = OwnedWriter::new(options, |options| SstFileWriter::create(options));
        writer
            .with_dependent_mut(|_, writer| writer.open(path))
            .map_err(|error| sst_error(path, error))?;
        Ok(Self {
            writer,
            path: path.to_owned(),
        })
    }
}

impl SstWriter for RocksSstWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.writer
            .with_dependent_mut(|_, writer| writer.put(key, value))
            .map_err(|error| sst_error(&self.path, error))
    }

    fn file_size(&mut self) -> u64 {
        self.writer.borrow_dependent().file_size()
    }

    fn finish(mut self: Box<Self>) -> Result<(), EngineError> {
        self.writer
            .with_dependent_mut(|_, writer| writer.finish())
            .map_err(|error| sst_error(&self.path, error))
    }
}

/// Makes SST files apart from any database: for tools that send files to stores.
#[derive(Clone, Copy, Debug)]
pub struct RocksSstFiles {
    options: SstOptions,
}

impl RocksSstFiles {
    /// Files that are written in that way.
    pub fn new(options: SstOptions) -> RocksSstFiles {
        RocksSstFiles { options }
    }
}

impl SstFiles for RocksSstFiles {
    fn create(&self, path: &Path) -> Result<Box<dyn NewSst>, WriteError> {
        let writer = RocksSstWriter::create(path, self.options);
        let writer = writer.map_err(|error| write_error(path, error))?;
        Ok(Box::new(writer))
    }
}

impl NewSst for RocksSstWriter {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        SstWriter::put(self, key, value).map_err(|error| write_error(&self.path, error))
    }

    fn finish(self: Box<Self>) -> Result<(), WriteError> {
        let path = self.path.clone();
        SstWriter::finish(self).map_err(|error| write_error(&path, error))
    }
}

fn write_error(path: &Path, error: EngineError) -> WriteError {
    WriteError {
        path: path.to_owned(),
        is_disk_full: matches!(error, EngineError::DiskFull(_)),
        message: match error {
            EngineError::Sst { message, .. } => message,
            error => error.to_string(),
        },
    }
}
