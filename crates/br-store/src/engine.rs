//! What a store needs of its storage engine: ordered keys in three column families, atomic
//! batches, consistent snapshots, SST files out and in.
//!
//! Keys are data keys (`z` + engine key) as bytes; the layers above give them meaning.

pub mod memory;

use std::path::{Path, PathBuf};

use br_types::{Cf, Classify, DataKey, KeyRange, Kind};

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No room on the disk.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// Another process, or another engine in this one, has the folder open.
    #[error("the data folder {} is in use", .0.display())]
    InUse(PathBuf),
    /// Stored bytes are wrong.
    #[error("the engine found damaged data: {0}")]
    Corrupted(String),
    /// An SST file that cannot be taken in, or cannot be written.
    #[error("SST file {path}: {message}")]
    Sst {
        /// The file.
        path: PathBuf,
        /// What the engine says of it.
        message: String,
    },
    /// Anything else that the engine reports.
    #[error("the engine failed: {0}")]
    Other(String),
}

impl Classify for EngineError {
    fn kind(&self) -> Kind {
        match self {
            EngineError::DiskFull(_) => Kind::Retry,
            EngineError::InUse(_) => Kind::Conflict,
            EngineError::Corrupted(_) | EngineError::Sst { .. } => Kind::Data,
            EngineError::Other(_) => Kind::Internal,
        }
    }
}

/// Changes that become visible together, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change of a [`Batch`]. Keys are data keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Cf, Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Cf, Vec<u8>),
}

impl Batch {
    /// Adds a write.
    pub fn put(&mut self, cf: Cf, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(Change::Put(cf, key, value));
    }

    /// Adds a removal.
    pub fn delete(&mut self, cf: Cf, key: Vec<u8>) {
        self.changes.push(Change::Delete(cf, key));
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// How an SST file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SstOptions {
    /// Compression of its blocks.
    pub compression: SstCompression,
    /// Level of the compression; 0 is the library's default.
    pub level: i32,
}

/// Compression of the blocks of an SST file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SstCompression {
    /// None.
    None,
    /// Snappy.
    Snappy,
    /// LZ4 block format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Numbers about a key range; estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSize {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Committed versions: entries of the write column family. Raw keys are not counted, as in TiKV.
    pub keys: u64,
}

/// The engine. One may carry several stores of an embedded cluster.
pub trait Engine: Send + Sync + 'static {
    /// A view of all column families as they are now.
    fn snapshot(&self) -> Box<dyn Snapshot>;

    /// Applies a batch; durable against the death of the process when it returns.
    ///
    /// # Errors
    /// [`EngineError`]; nothing of the batch is visible then.
    fn write(&self, batch: &Batch) -> Result<(), EngineError>;

    /// Starts an SST file at `path`, which must not exist.
    ///
    /// # Errors
    /// [`EngineError::Sst`] if the file cannot be made.
    fn sst_writer(
        &self,
        path: &Path,
        options: SstOptions,
    ) -> Result<Box<dyn SstWriter>, EngineError>;

    /// Takes SST files in, all or nothing; the files are moved away. Their keys hide what was
    /// there before.
    ///
    /// # Errors
    /// [`EngineError::Sst`] if a file is damaged; nothing was taken in then.
    fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<(), EngineError>;

    /// Removes every key of a range from a column family, physically.
    ///
    /// # Errors
    /// [`EngineError`].
    fn delete_range(&self, cf: Cf, range: &KeyRange<DataKey>) -> Result<(), EngineError>;

    /// About how much lies in a range.
    fn approximate_size(&self, range: &KeyRange<DataKey>) -> RangeSize;

    /// A folder on the engine's file system for files on their way in and out.
    fn scratch_dir(&self) -> &Path;

    /// Bytes of the file system under the engine: all of it, and what is free.
    fn disk_space(&self) -> (u64, u64);
}

/// A view of the engine at one moment. Cheap to make; holds back compaction while it lives.
pub trait Snapshot: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// An iterator over `range`, not yet positioned.
    fn iter(&self, cf: Cf, range: KeyRange<DataKey>) -> Box<dyn Cursor + '_>;
}

/// A position among the keys of one column family within the range it was made for.
pub trait Cursor: Send {
    /// Goes to the first key at or after `key`. `false`: there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError>;
    /// Goes to the last key at or before `key`. `false`: there is none.
    ///
    /// # Errors
    /// [`EngineError`].
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError>;
    /// Goes to the first key.
    ///
    /// # Errors
    /// [`EngineError`].
    fn seek_to_first(&mut self) -> Result<bool, EngineError>;
    /// Goes to the last key.
    ///
    /// # Errors
    /// [`EngineError`].
    fn seek_to_last(&mut self) -> Result<bool, EngineError>;
    /// Goes to the next key. Only when positioned.
    ///
    /// # Errors
    /// [`EngineError`].
    fn next(&mut self) -> Result<bool, EngineError>;
    /// Goes to the key before. Only when positioned.
    ///
    /// # Errors
    /// [`EngineError`].
    fn prev(&mut self) -> Result<bool, EngineError>;
    /// The data key here; empty when not positioned.
    fn key(&self) -> &[u8];
    /// The value here; empty when not positioned.
    fn value(&self) -> &[u8];
}

/// Writes one SST file, keys strictly ascending.
pub trait SstWriter: Send {
    /// Adds a key.
    ///
    /// # Errors
    /// [`EngineError::Sst`] if the key is not greater than the one before, or on I/O.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), EngineError>;
    /// Bytes written to the file so far (compressed).
    fn file_size(&mut self) -> u64;
    /// Completes the file. At least one key must have been added.
    ///
    /// # Errors
    /// [`EngineError::Sst`].
    fn finish(self: Box<Self>) -> Result<(), EngineError>;
}
