use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use br_store::engine::{
    Batch, Change, Engine, EngineError, RangeSize, Snapshot, SstOptions, SstWriter,
};
use br_types::{Cf, DataKey, KeyRange};
use rust_rocksdb::{
    ColumnFamily, DB, IngestExternalFileOptions, Range, SizeApproximationFlags, WriteBatch,
    WriteOptions,
    properties::{
        AGGREGATED_TABLE_PROPERTIES, CUR_SIZE_ACTIVE_MEM_TABLE, NUM_ENTRIES_ACTIVE_MEM_TABLE,
    },
};
use tempfile::TempDir;

use crate::{
    MetaStore, RocksOptions, disk,
    error::{engine_error, io_error, open_error, sst_error},
    iterate::RocksSnapshot,
    options,
    sst::RocksSstWriter,
};

/// Folder for files on their way in and out, beside the database's own.
const SCRATCH: &str = "scratch";
/// Folder of the database.
const DATABASE: &str = "db";
/// Bytes of an entry when nothing is known of the entries.
const ENTRY_BYTES_GUESS: u64 = 128;

/// An engine over RocksDB.
///
/// # Ordering and invariants
/// - One process has a folder open at a time.
/// - An ingest that spans column families takes them in one after the other, `write` last: RocksDB
///   cannot do it at once. Until the write records are there nobody sees the long values, and
///   taking the same files in again gives the same data.
///
/// # After a crash
/// Files left in the scratch folder are removed at the next start.
pub struct RocksEngine {
    db: Arc<DB>,
    options: RocksOptions,
    scratch: PathBuf,
    /// Removed after the database has closed.
    _temporary: Option<TempDir>,
}

impl RocksEngine {
    /// Opens the engine in a folder, which is made if it is missing.
    ///
    /// # Errors
    /// [`EngineError::InUse`] if another process has it open; [`EngineError::Corrupted`].
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, EngineError> {
        Self::open_in(path, options, None)
    }

    /// Opens an empty engine in a folder that goes when the engine is dropped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn temporary() -> Result<Self, EngineError> {
        let folder = tempfile::Builder::new()
            .prefix("holdfast-")
            .tempdir()
            .map_err(|error| io_error(&std::env::temp_dir(), &error))?;
        let path = folder.path().to_owned();
        Self::open_in(&path, RocksOptions::default(), Some(folder))
    }

    fn open_in(
        path: &Path,
        options: RocksOptions,
        temporary: Option<TempDir>,
    ) -> Result<Self, EngineError> {
        let database = path.join(DATABASE);
        fs::create_dir_all(&database).map_err(|error| io_error(&database, &error))?;
        let db = DB::open_cf_descriptors(&options::database(), &database, options::families())
            .map_err(|error| open_error(path, error))?;
        // Only now that nobody else can be at work here.
        let scratch = path.join(SCRATCH);
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error(&scratch, &error));
            }
            _ => {}
        }
        fs::create_dir_all(&scratch).map_err(|error| io_error(&scratch, &error))?;
        Ok(Self {
            db: Arc::new(db),
            options,
            scratch,
            _temporary: temporary,
        })
    }

    /// The small store for PD, etcd and regions in the same database.
    pub fn meta(&self) -> MetaStore {
        MetaStore::new(self.db.clone(), self.options.syncs_writes)
    }

    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.options.syncs_writes);
        options
    }

    fn ingest_family(&self, cf: Cf, paths: &[&PathBuf]) -> Result<(), EngineError> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options.set_snapshot_consistency(true);
        // The keys hide what was there before, which needs a sequence number of their own.
        options.set_allow_global_seqno(true);
        // A damaged block must not be found only when somebody reads it.
        options.set_verify_checksums_before_ingest(true);
        let result =
            self.db
                .ingest_external_file_cf_opts(family(&self.db, cf), &options, paths.to_vec());
        let Err(error) = result else { return Ok(()) };
        // RocksDB names the file in its message, if it is about one.
        let message = error.as_ref().to_owned();
        let blamed = paths.iter().find(|path| {
            path.file_name()
                .is_some_and(|name| message.contains(&*name.to_string_lossy()))
        });
        let path = blamed
            .or(paths.first())
            .map(|path| path.as_path())
            .unwrap_or(Path::new(""));
        Err(sst_error(path, error))
    }

    fn family_size(&self, cf: Cf, range: &KeyRange<DataKey>) -> RangeSize {
        let family = family(&self.db, cf);
        let end = match range.end.as_bytes() {
            // Beyond every data key.
            [] => &[data_end()][..],
            end => end,
        };
        let ranges = [Range::new(range.start.as_bytes(), end)];
        let part = |flags| {
            let sizes = self
                .db
                .get_approximate_sizes_cf_with_flags(family, flags, &ranges);
            sizes
                .ok()
                .and_then(|sizes| sizes.first().copied())
                .unwrap_or(0)
        };
        let in_files = part(SizeApproximationFlags::INCLUDE_FILES);
        let in_memory = part(SizeApproximationFlags::INCLUDE_MEMTABLE);
        let mut size = RangeSize::default();
        if in_files > 0 {
            let text = self
                .db
                .property_value_cf(family, AGGREGATED_TABLE_PROPERTIES);
            let tables = TableSums::parse(&text.ok().flatten().unwrap_or_default());
            size.bytes += tables.raw_bytes(in_files);
            size.keys += tables.entries(in_files);
        }
        if in_memory > 0 {
            let number = |name| {
                self.db
                    .property_int_value_cf(family, name)
                    .ok()
                    .flatten()
                    .unwrap_or_default()
            };
            let entries = number(NUM_ENTRIES_ACTIVE_MEM_TABLE);
            let bytes = number(CUR_SIZE_ACTIVE_MEM_TABLE);
            let entry_bytes = bytes
                .checked_div(entries)
                .unwrap_or(ENTRY_BYTES_GUESS)
                .max(1);
            size.bytes += in_memory;
            size.keys += in_memory / entry_bytes;
        }
        size
    }
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(RocksSnapshot::take(self.db.clone()))
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        let mut changes = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put(cf, key, value) => changes.put_cf(family(&self.db, *cf), key, value),
                Change::Delete(cf, key) => changes.delete_cf(family(&self.db, *cf), key),
            }
        }
        self.db
            .write_opt(&changes, &self.write_options())
            .map_err(engine_error)
    }

    fn sst_writer(
        &self,
        path: &Path,
        options: SstOptions,
    ) -> Result<Box<dyn SstWriter>, EngineError> {
        Ok(Box::new(RocksSstWriter::create(path, options)?))
    }

    fn ingest(&self, files: &[(Cf, PathBuf)]) -> Result<(), EngineError> {
        // `Cf::ALL` has write last.
        for cf in Cf::ALL {
            let paths: Vec<_> = files
                .iter()
                .filter(|(of, _)| *of == cf)
                .map(|(_, path)| path)
                .collect();
            if !paths.is_empty() {
                self.ingest_family(cf, &paths)?;
            }
        }
        for (_, path) in files {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error(path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn delete_range(&self, cf: Cf, range: &KeyRange<DataKey>) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let end = match range.end.as_bytes() {
            [] => vec![data_end()],
            end => end.to_vec(),
        };
        self.db
            .delete_range_cf_opt(
                family(&self.db, cf),
                range.start.as_bytes(),
                &end,
                &self.write_options(),
            )
            .map_err(engine_error)
    }

    fn approximate_size(&self, range: &KeyRange<DataKey>) -> RangeSize {
        if range.is_empty() {
            return RangeSize::default();
        }
        let (default, write) = (
            self.family_size(Cf::Default, range),
            self.family_size(Cf::Write, range),
        );
        RangeSize {
            bytes: default.bytes + write.bytes,
            keys: write.keys,
        }
    }

    fn scratch_dir(&self) -> &Path {
        &self.scratch
    }

    fn disk_space(&self) -> (u64, u64) {
        disk::space(&self.scratch)
    }
}

/// The first byte beyond all data keys.
const fn data_end() -> u8 {
    b'z' + 1
}

pub(crate) fn family(db: &DB, cf: Cf) -> &ColumnFamily {
    family_named(db, cf.name())
}

pub(crate) fn family_named<'db>(db: &'db DB, name: &str) -> &'db ColumnFamily {
    db.cf_handle(name)
        .expect("the database was opened with all column families")
}

/// Sums over the files of a column family.
#[derive(Debug, Default, PartialEq, Eq)]
struct TableSums {
    entries: u64,
    raw_bytes: u64,
    file_bytes: u64,
}

impl TableSums {
    /// Reads RocksDB's text: `# entries=3; raw key size=20; … data block size=…`.
    fn parse(text: &str) -> Self {
        let mut sums = Self::default();
        for field in text.split(';') {
            let Some((name, value)) = field.split_once('=') else {
                continue;
            };
            let value = value.trim().parse().unwrap_or(0);
            match name.trim() {
                "# entries" => sums.entries = value,
                "raw key size" | "raw value size" => sums.raw_bytes += value,
                "data block size" => sums.file_bytes = value,
                _ => {}
            }
        }
        sums
    }

    fn raw_bytes(&self, file_bytes: u64) -> u64 {
        scale(file_bytes, self.raw_bytes, self.file_bytes).unwrap_or(file_bytes)
    }

    fn entries(&self, file_bytes: u64) -> u64 {
        scale(file_bytes, self.entries, self.file_bytes).unwrap_or(file_bytes / ENTRY_BYTES_GUESS)
    }
}

/// `part` of `whole`, in another unit of which `total` is the whole.
fn scale(part: u64, total: u64, whole: u64) -> Option<u64> {
    if whole == 0 {
        return None;
    }
    u64::try_from(u128::from(part) * u128::from(total) / u128::from(whole)).ok()
}

#[cfg(test)]
mod tests;
