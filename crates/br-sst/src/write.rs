//! Writing SST files is RocksDB's, which is linked far above: whoever needs new files takes a
//! [`SstFiles`] from there.

use std::path::{Path, PathBuf};

use br_types::{Classify, Kind};

/// Makes SST files that a store takes in.
pub trait SstFiles: Send + Sync {
    /// Starts a file at `path`, which must not exist.
    ///
    /// # Errors
    /// [`WriteError`] if it cannot be made.
    fn create(&self, path: &Path) -> Result<Box<dyn SstFileWriter>, WriteError>;
}

/// One SST file that is being written, keys strictly ascending.
pub trait SstFileWriter: Send {
    /// Adds a key.
    ///
    /// # Errors
    /// [`WriteError`] if it is not greater than the one before, or on I/O.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError>;

    /// Completes the file. At least one key must have been added.
    ///
    /// # Errors
    /// [`WriteError`].
    fn finish(self: Box<Self>) -> Result<(), WriteError>;
}

/// A file that could not be written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot write {}: {message}", .path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub message: String,
    /// Whether the disk is full.
    pub is_disk_full: bool,
}

impl Classify for WriteError {
    fn kind(&self) -> Kind {
        match self.is_disk_full {
            true => Kind::Retry,
            false => Kind::Internal,
        }
    }

    fn next_step(&self) -> Option<String> {
        self.is_disk_full
            .then(|| "Free space on the disk, or name a larger one".to_owned())
    }
}
