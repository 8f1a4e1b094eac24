//! # What it does
//! Serves `import_sstpb.ImportSST`: brings SST files from external storage, cuts and rewrites them
//! for one region, and takes them into the engine.
//!
//! # Objects it reads and writes
//! Backup files on external storage; in the engine's scratch folder `import/cache` with files as
//! they were fetched and `import/staged` with files that wait for their ingestion.
//!
//! # Ordering and invariants
//! A file goes in only at exactly the region epoch that it was made for. All files of one request
//! go in together. While they do, no write command works: what it has read stays true until it
//! has written. The largest timestamp read is not touched: files hold commits of a time at which
//! nobody reads below them any more, or the restore has taken care that nobody does.
//!
//! # Retries
//! A download can be repeated: its id names the result. An ingestion that succeeded and is repeated
//! finds no file and answers "stale command", so that the client downloads again.
//!
//! # Cancellation
//! A download whose client has gone ends at its next chunk; the next one to ask begins anew.
//!
//! # After a crash
//! Both folders are emptied at the next start; clients download again.

mod apply;
mod download;
mod error;
mod fetch;
mod file_cache;
mod ingest;
mod memory;
mod mode;
mod partition_range;
mod rewrite;
mod service;
mod speed_limit;
mod sst_file;
mod staged;
mod storages;
mod suspend;
mod upload;
mod write;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use br_rt::Rt;
use tokio::sync::Semaphore;

use self::{
    file_cache::FileCache, memory::Memory, mode::ImportMode, partition_range::PartitionRanges,
    speed_limit::SpeedLimits, staged::Staged, storages::Storages, suspend::Suspension,
};
use crate::{engine::Engine, scratch_file::empty_dir};

pub(crate) use service::ImportService;

/// Files fetched at the same time: clients ask for up to 128 on each store at once, and each
/// holds a chunk in memory.
const FETCHES_MAX: usize = 16;

/// What the import services of all stores of a process share, for their stores share an engine.
pub struct Importer {
    rt: Rt,
    engine: Arc<dyn Engine>,
    cache_dir: PathBuf,
    cache: FileCache,
    storages: Storages,
    staged: Staged,
    limits: SpeedLimits,
    mode: ImportMode,
    suspension: Suspension,
    partition_ranges: PartitionRanges,
    /// Bounds the files being fetched, and with them the memory of their chunks.
    fetches: Semaphore,
    /// Bounds the rewrites at work, and with them their cores.
    rewrites: Semaphore,
    /// Bounds the log files that are held while they are applied.
    memory: Memory,
}

impl Importer {
    /// An importer over an engine; once in a process, before its stores serve. Empties the scratch
    /// folders of import and backup, in which a process that died may have left files.
    /// `rewrites_max` files are rewritten at the same time at most; log files that are applied at the
    /// same time have `memory_bytes_max` at most, or one of them is larger.
    ///
    /// # Errors
    /// The folders cannot be emptied or made.
    pub fn open(
        rt: Rt,
        engine: Arc<dyn Engine>,
        rewrites_max: usize,
        memory_bytes_max: u64,
    ) -> io::Result<Importer> {
        let dir = engine.scratch_dir().join("import");
        let (cache_dir, staged_dir) = (dir.join("cache"), dir.join("staged"));
        empty_dir(&cache_dir)?;
        empty_dir(&staged_dir)?;
        empty_dir(&crate::backup::scratch_dir(&*engine))?;
        Ok(Importer {
            cache_dir,
            cache: FileCache::default(),
            storages: Storages::default(),
            staged: Staged::new(rt.clone(), staged_dir),
            limits: SpeedLimits::new(rt.clone()),
            mode: ImportMode::new(rt.clone()),
            suspension: Suspension::new(rt.clone()),
            partition_ranges: PartitionRanges::new(rt.clone()),
            fetches: Semaphore::new(FETCHES_MAX),
            rewrites: Semaphore::new(rewrites_max.max(1)),
            memory: Memory::new(rt.clone(), memory_bytes_max),
            rt,
            engine,
        })
    }
}
