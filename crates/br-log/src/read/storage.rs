use br_storage::Storage;
use bytes::Bytes;
use futures::TryStreamExt;

use super::{FILES_HELD_MAX, LogReadError};

/// Objects of metadata that are read at once: each is small, and the storage answers slowly.
pub const META_READS_DEFAULT: usize = 128;

/// The storage of a log. Cheap to clone.
#[derive(Clone)]
pub struct LogStorage {
    storage: Storage,
    reads: usize,
    files_held_max: usize,
}

impl LogStorage {
    /// The log in that storage; nothing is read yet.
    pub fn new(storage: Storage) -> LogStorage {
        LogStorage {
            storage,
            reads: META_READS_DEFAULT,
            files_held_max: FILES_HELD_MAX,
        }
    }

    /// Reads so many objects of metadata at once (`--metadata-download-batch-size`).
    #[must_use]
    pub fn with_reads(mut self, reads: usize) -> LogStorage {
        self.reads = reads.max(1);
        self
    }

    /// Holds so many files of each part of the log in memory, instead of [`FILES_HELD_MAX`].
    #[must_use]
    pub fn with_files_held_max(mut self, files: usize) -> LogStorage {
        self.files_held_max = files;
        self
    }

    pub(super) fn files_held_max(&self) -> usize {
        self.files_held_max
    }

    /// The storage.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(super) fn reads(&self) -> usize {
        self.reads
    }

    pub(super) async fn read_if_there(&self, name: &str) -> Result<Option<Bytes>, LogReadError> {
        match self.storage.read(name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of all objects in a folder.
    pub(super) async fn names_in(&self, folder: &str) -> Result<Vec<String>, LogReadError> {
        let folder = format!("{}/", folder.trim_end_matches('/'));
        let listed = self.storage.list(&folder).map_ok(|entry| entry.name);
        let mut names: Vec<_> = listed.try_collect().await?;
        names.sort_unstable();
        Ok(names)
    }
}
