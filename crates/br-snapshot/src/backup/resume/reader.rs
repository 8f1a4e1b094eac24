//! # What it does
//! Reads what earlier commands wrote down, and believes of it what the storage proves.
//!
//! # Ordering and invariants
//! A range counts only if each of its data files is on the storage in its size. A file that is
//! damaged is passed by: what it says is done again. One that was written with another key is an
//! error, as all would be. One of another timestamp is of a command that lost the target to this one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_format::{
    crypter::Crypter,
    kv_stats::KvStats,
    names,
    resume::{ResumeChecksums, ResumeError, ResumeRange, ResumeRanges},
};
use br_storage::{Entry, Storage, StorageError};
use br_types::{TableId, TimeStamp};
use futures::{Stream, StreamExt, TryStreamExt, stream};

/// Files read at a time; each has at most some MiB.
const READS_IN_FLIGHT: usize = 16;

/// Why what earlier commands wrote down cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ResumeFilesError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Format(#[from] ResumeError),
}

/// What earlier commands backed up, not yet read.
pub(in super::super) struct ResumeReader {
    storage: Storage,
    crypter: Crypter,
    files: Vec<Entry>,
    /// Sizes by digest of the name: 16 bytes for each data file.
    sizes: HashMap<u64, u64>,
    hasher: RandomState,
    /// The longest that a file told so far, in nanoseconds.
    elapsed_ns: Arc<AtomicU64>,
}

impl ResumeReader {
    /// Lists what is there.
    pub(super) async fn open(
        storage: &Storage,
        crypter: Crypter,
        backup_ts: TimeStamp,
        elapsed_ns: Arc<AtomicU64>,
    ) -> Result<ResumeReader, ResumeFilesError> {
        let (mut files, mut sizes) = (Vec::new(), HashMap::new());
        let hasher = RandomState::new();
        let mut entries = storage.list("");
        while let Some(entry) = entries.try_next().await? {
            if names::is_sst(&entry.name) {
                sizes.insert(hasher.hash_one(&entry.name), entry.size_bytes);
            } else if names::is_resume_file_of(&entry.name, names::RESUME_DATA_FOLDER, backup_ts) {
                files.push(entry);
            }
        }
        Ok(ResumeReader {
            storage: storage.clone(),
            crypter,
            files,
            sizes,
            hasher,
            elapsed_ns,
        })
    }

    /// The ranges that are done, in no particular order, and perhaps with some keys in common. How
    /// long they took is known once all are read.
    pub(in super::super) fn ranges(
        &self,
    ) -> impl Stream<Item = Result<Vec<ResumeRange>, ResumeFilesError>> + '_ {
        self.decoded().map_ok(|file| {
            note_elapsed(&self.elapsed_ns, file.elapsed);
            let (whole, broken): (Vec<_>, Vec<_>) = file
                .ranges
                .into_iter()
                .partition(|range| self.proves(range));
            if let Some(first) = broken.first() {
                let (count, range) = (broken.len(), &first.range);
                tracing::warn!(count, %range, "files of finished ranges are missing: done again");
            }
            whole
        })
    }

    fn decoded(&self) -> impl Stream<Item = Result<ResumeRanges, ResumeFilesError>> + '_ {
        stream::iter(&self.files)
            .map(async |entry| {
                let bytes = self.storage.read(&entry.name).await?;
                match ResumeRanges::decode(&entry.name, &bytes, &self.crypter) {
                    Ok(ranges) => Ok(ranges),
                    Err(error @ ResumeError::Malformed { .. }) => {
                        tracing::warn!(%error, "a file of finished ranges is passed by");
                        Ok(ResumeRanges::default())
                    }
                    Err(error) => Err(error.into()),
                }
            })
            .buffer_unordered(READS_IN_FLIGHT)
    }

    fn proves(&self, range: &ResumeRange) -> bool {
        range.files.iter().all(|file| {
            let size = self.sizes.get(&self.hasher.hash_one(&file.name));
            size == Some(&file.size_bytes)
        })
    }
}

/// The checksums that earlier commands had computed, and how long they were at work.
pub(super) async fn read_checksums(
    storage: &Storage,
    backup_ts: TimeStamp,
    elapsed_ns: &AtomicU64,
) -> Result<HashMap<TableId, KvStats>, ResumeFilesError> {
    let mut checksums = HashMap::new();
    let mut entries = storage.list(&format!("{}/", names::RESUME_CHECKSUM_FOLDER));
    while let Some(entry) = entries.try_next().await? {
        if !names::is_resume_file_of(&entry.name, names::RESUME_CHECKSUM_FOLDER, backup_ts) {
            continue;
        }
        let bytes = storage.read(&entry.name).await?;
        match ResumeChecksums::decode(&entry.name, &bytes) {
            Ok(file) => {
                note_elapsed(elapsed_ns, file.elapsed);
                checksums.extend(file.tables.iter().map(|table| (table.table, table.stats)));
            }
            Err(error) => tracing::warn!(%error, "a file of checksums is passed by"),
        }
    }
    Ok(checksums)
}

fn note_elapsed(longest_ns: &AtomicU64, elapsed: Duration) {
    let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    longest_ns.fetch_max(elapsed_ns, Ordering::Relaxed);
}
