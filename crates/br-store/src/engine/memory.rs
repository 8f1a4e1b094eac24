//! An engine in memory, for tests and simulation.
//!
//! # What it does
//! Keeps each key's values with the number of the batch that set them; a snapshot is a number.
//! SST files are read and written as real ones, so that what it holds can be backed up and
//! restored like the data of any engine.
//!
//! # After a crash
//! Everything is gone.

mod table;

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use br_types::{Cf, DataKey, KeyRange};

use super::{
    Batch, Change, Cursor, Engine, EngineError, RangeSize, Snapshot, SstOptions, SstWriter,
};

/// What the file system under it pretends to have: more than any test writes.
const DISK_BYTES: u64 = 1 << 40;

/// Removed keys that may be kept for snapshots that are gone; then they are swept.
const TOMBSTONES_MAX: usize = 1024;

/// An engine in memory.
pub struct MemoryEngine {
    data: Arc<RwLock<Data>>,
    is_disk_full: AtomicBool,
    scratch: PathBuf,
}

/// The values of one key, oldest first, each with the batch that set it; `None`: removed.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

#[derive(Default)]
struct Data {
    /// Number of the last batch.
    batch: u64,
    families: [BTreeMap<Vec<u8>, Versions>; 3],
    /// Snapshots alive, by batch number.
    snapshots: BTreeMap<u64, usize>,
    tombstones: usize,
}

impl MemoryEngine {
    /// An empty engine. SST files on their way go to `scratch`, which must exist.
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            data: Arc::default(),
            is_disk_full: AtomicBool::new(false),
            scratch: scratch.into(),
        }
    }

    /// From now on nothing can be written, as if the disk were full; or it can again.
    pub fn set_disk_full(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    fn check_disk(&self) -> Result<(), EngineError> {
        match self.is_disk_full.load(Ordering::Relaxed) {
            true => Err(EngineError::DiskFull("no space left on device".to_owned())),
            false => Ok(()),
        }
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Data> {
        self.data.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_lock(data: &RwLock<Data>) -> RwLockReadGuard<'_, Data> {
    data.read().unwrap_or_else(PoisonError::into_inner)
}

const fn index(cf: Cf) -> usize {
    match cf {
        Cf::Default => 0,
        Cf::Lock => 1,
        Cf::Write => 2,
    }
}

impl Data {
    fn family(&self, cf: Cf) -> &BTreeMap<Vec<u8>, Versions> {
        &self.families[index(cf)]
    }

    /// Sets a key in the batch that is being written.
    fn set(&mut self, cf: Cf, key: Vec<u8>, value: Option<Vec<u8>>) {
        let batch = self.batch;
        let oldest = self.snapshots.keys().next().copied().unwrap_or(batch);
        let is_removal = value.is_none();
        let versions = self.families[index(cf)].entry(key).or_default();
        versions.push((batch, value));
        // What is below the newest version that the oldest snapshot sees is seen by nobody.
        let seen = versions
            .iter()
            .rposition(|(number, _)| *number <= oldest)
            .unwrap_or(0);
        versions.drain(..seen);
        if is_removal {
            self.tombstones += 1;
        }
    }

    fn sweep(&mut self) {
        if self.tombstones < TOMBSTONES_MAX || !self.snapshots.is_empty() {
            return;
        }
        for family in &mut self.families {
            family.retain(|_, versions| matches!(versions.last(), Some((_, Some(_)))));
        }
        self.tombstones = 0;
    }
}

fn seen_at(versions: &Versions, batch: u64) -> Option<&Vec<u8>> {
    let newest = versions.iter().rev().find(|(number, _)| *number <= batch)?;
    newest.1.as_ref()
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Box<dyn Snapshot> {
        let mut data = self.write_lock();
        let batch = data.batch;
        *data.snapshots.entry(batch).or_default() += 1;
        Box::new(MemorySnapshot {
            data: self.data.clone(),
            batch,
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        self.check_disk()?;
        let mut data = self.write_lock();
        data.batch += 1;
        for change in &batch.changes {
            match change {
                Change::Put(cf, key, value) => data.set(*cf, key.clone(), Some(value.clone())),
                Change::Delete(cf, key) => data.set(*cf, key.clone(), None),
            }
        }
        data.sweep();
        Ok(())
    }

    fn sst_writer(
        &self,
        path: &Path,
        options: SstOptions,
    ) -> Result<Box<dyn SstWriter>, EngineError> {
        Ok(Box::new(table::TableWriter::create(path, options)?))
    }

    fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<(), EngineError> {
        self.check_disk()?;
        let mut batch = Batch::default();
        for (cf, path) in files {
            table::read(path, |key, value| {
                batch.put(*cf, key.to_vec(), value.to_vec())
            })?;
        }
        self.write(&batch)?;
        for (_, path) in files {
            std::fs::remove_file(path).map_err(|error| table::sst_error(path, &error))?;
        }
        Ok(())
    }

    fn delete_range(&self, cf: Cf, range: &KeyRange<DataKey>) -> Result<(), EngineError> {
        self.check_disk()?;
        let mut data = self.write_lock();
        data.batch += 1;
        let keys: Vec<_> = data
            .family(cf)
            .range(bounds(range))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            data.set(cf, key, None);
        }
        data.sweep();
        Ok(())
    }

    fn approximate_size(&self, range: &KeyRange<DataKey>) -> RangeSize {
        let data = read_lock(&self.data);
        let mut size = RangeSize::default();
        for cf in [Cf::Default, Cf::Write] {
            for (key, versions) in data.family(cf).range(bounds(range)) {
                if let Some(value) = seen_at(versions, data.batch) {
                    size.bytes += (key.len() + value.len()) as u64;
                    size.keys += u64::from(cf == Cf::Write);
                }
            }
        }
        size
    }

    fn scratch_dir(&self) -> &Path {
        &self.scratch
    }

    fn disk_space(&self) -> (u64, u64) {
        (DISK_BYTES, DISK_BYTES)
    }
}

fn bounds(range: &KeyRange<DataKey>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = range.start.as_bytes().to_vec();
    let end = match range.end.as_bytes() {
        [] => Bound::Unbounded,
        // A range that is upside down is empty; the map would refuse it.
        end => Bound::Excluded(end.to_vec().max(start.clone())),
    };
    (Bound::Included(start), end)
}

struct MemorySnapshot {
    data: Arc<RwLock<Data>>,
    batch: u64,
}

impl Drop for MemorySnapshot {
    fn drop(&mut self) {
        let mut data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = data.snapshots.get_mut(&self.batch) {
            *count -= 1;
            if *count == 0 {
                data.snapshots.remove(&self.batch);
            }
        }
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let data = read_lock(&self.data);
        let versions = data.family(cf).get(key);
        Ok(versions
            .and_then(|versions| seen_at(versions, self.batch))
            .cloned())
    }

    fn iter(&self, cf: Cf, range: KeyRange<DataKey>) -> Box<dyn Cursor + '_> {
        Box::new(MemoryCursor {
            snapshot: self,
            cf,
            range,
            here: None,
        })
    }
}

struct MemoryCursor<'s> {
    snapshot: &'s MemorySnapshot,
    cf: Cf,
    range: KeyRange<DataKey>,
    here: Option<(Vec<u8>, Vec<u8>)>,
}

impl MemoryCursor<'_> {
    /// Goes to the first entry above, or the last one below, within the range.
    fn go(&mut self, start: Bound<Vec<u8>>, end: Bound<Vec<u8>>, is_forward: bool) -> bool {
        let data = read_lock(&self.snapshot.data);
        let batch = self.snapshot.batch;
        let is_empty = match (&start, &end) {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                a > b
                    || (a == b
                        && !(matches!(start, Bound::Included(_))
                            && matches!(end, Bound::Included(_))))
            }
            _ => false,
        };
        if is_empty {
            self.here = None;
            return false;
        }
        let entries = data.family(self.cf).range((start, end));
        let seen = |(key, versions): (&Vec<u8>, &Versions)| {
            seen_at(versions, batch).map(|value| (key.clone(), value.clone()))
        };
        self.here = if is_forward {
            entries.into_iter().find_map(seen)
        } else {
            entries.rev().find_map(seen)
        };
        self.here.is_some()
    }

    fn forward_from(&mut self, start: Bound<Vec<u8>>) -> bool {
        let (_, end) = bounds(&self.range);
        self.go(start, end, true)
    }

    fn backward_from(&mut self, end: Bound<Vec<u8>>) -> bool {
        let (start, _) = bounds(&self.range);
        self.go(start, end, false)
    }
}

impl Cursor for MemoryCursor<'_> {
    fn seek(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        let start = key.max(self.range.start.as_bytes()).to_vec();
        Ok(self.forward_from(Bound::Included(start)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool, EngineError> {
        match self.range.end.as_bytes() {
            end if !end.is_empty() && key >= end => self.seek_to_last(),
            _ => Ok(self.backward_from(Bound::Included(key.to_vec()))),
        }
    }

    fn seek_to_first(&mut self) -> Result<bool, EngineError> {
        let (start, _) = bounds(&self.range);
        Ok(self.forward_from(start))
    }

    fn seek_to_last(&mut self) -> Result<bool, EngineError> {
        let (_, end) = bounds(&self.range);
        Ok(self.backward_from(end))
    }

    fn next(&mut self) -> Result<bool, EngineError> {
        let Some((key, _)) = self.here.take() else {
            return Ok(false);
        };
        Ok(self.forward_from(Bound::Excluded(key)))
    }

    fn prev(&mut self) -> Result<bool, EngineError> {
        let Some((key, _)) = self.here.take() else {
            return Ok(false);
        };
        Ok(self.backward_from(Bound::Excluded(key)))
    }

    fn key(&self) -> &[u8] {
        self.here.as_ref().map_or(&[], |(key, _)| key)
    }

    fn value(&self) -> &[u8] {
        self.here.as_ref().map_or(&[], |(_, value)| value)
    }
}
