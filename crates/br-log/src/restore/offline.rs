//! The log on top of a full backup without a cluster: schemas and rows as of one timestamp.
//!
//! # What it does
//! What a restore to that point would bring in, handed out instead: [`OfflineLog::schemas`] turns
//! the tables of the backup into those of the point, [`OfflineLog::sort_rows`] sorts what the log
//! has of chosen tables, so that [`LogRows`] go along with the rows of the backup.
//!
//! # Objects it reads and writes
//! The log, read only. Sorted rows that do not fit into memory lie in a folder below
//! [`OfflineOptions::temp_dir`] as long as somebody uses them.
//!
//! # Cancellation
//! Between files.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use br_codec::{WriteKind, WriteRef, key};
use br_format::backupmeta::DataFile;
use br_format::crypter::Crypter;
use br_format::schema::SchemaEntry;
use br_rt::{CancellationToken, Phase, Progress, Rt, Unit};
use br_tidb::table_key::record_range;
use br_types::{Classify, ClusterId, Code, Kind, TableId, TimeStamp};
use bytes::Bytes;

use super::covered::Coverage;
use super::error::PointError;
use super::load::{KeyChoice, Loader};
use super::rewrite::{KeyRewrite, WantedTable};
use super::schema_changes::SchemaChanges;
use super::schema_state::SchemaState;
use super::sort::{Sorted, Sorter};
use super::versions::{KeyVersions, VersionReader, Window};
use crate::read::{LogFiles, LogPart, LogReadError, LogStorage};
use crate::scratch::ScratchDir;

/// Memory for the events of schemas; more goes to disk.
const SCHEMA_MEMORY_BYTES: usize = 64 << 20;
/// Buffers that share the memory for sorting: those being filled, and those that are kept.
const BUFFERS: usize = 8;
/// Rows of one batch, and bytes of their values: enough to make a switch of threads cheap.
const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

/// Why a log cannot be laid over a backup.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The log does not reach, or an object of it is damaged.
    #[error(transparent)]
    Read(#[from] LogReadError),
    /// Its events make no sense.
    #[error(transparent)]
    Point(#[from] PointError),
    /// It is not in the log.
    #[error(
        "another restore brought files into the cluster at {as_if_ts}, and the log does not hold \
         their rows"
    )]
    Ingested {
        /// When that was.
        as_if_ts: TimeStamp,
    },
}

impl Classify for OfflineError {
    fn kind(&self) -> Kind {
        match self {
            OfflineError::Read(error) => error.kind(),
            OfflineError::Point(error) => error.kind(),
            OfflineError::Ingested { .. } => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        match self {
            OfflineError::Read(error) => error.code(),
            OfflineError::Point(error) => error.code(),
            OfflineError::Ingested { .. } => Code::UNSUPPORTED_OPERATION,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            OfflineError::Read(error) => error.next_step(),
            OfflineError::Point(error) => error.next_step(),
            OfflineError::Ingested { as_if_ts } => Some(format!(
                "Choose a timestamp before {as_if_ts}, or a full backup that was made after it."
            )),
        }
    }
}

/// Which log is read, and how.
#[derive(Clone)]
pub struct OfflineOptions {
    /// Time, randomness and threads.
    pub rt: Rt,
    /// Stops it.
    pub cancel: CancellationToken,
    /// Where progress is shown.
    pub progress: Arc<dyn Progress>,
    /// The log.
    pub log: LogStorage,
    /// Its key.
    pub crypter: Crypter,
    /// The cluster that the full backup is of.
    pub cluster_id: ClusterId,
    /// The timestamp of the full backup.
    pub start_ts: TimeStamp,
    /// The point.
    pub at: TimeStamp,
    /// Where rows go that do not fit into memory.
    pub temp_dir: PathBuf,
    /// Memory for sorting.
    pub memory_bytes: usize,
}

/// The log as a layer over a full backup.
pub struct OfflineLog {
    options: OfflineOptions,
    window: Window,
    files: LogFiles,
    changes: SchemaChanges,
}

impl OfflineLog {
    /// Checks that the log covers the point, chooses what is needed of it, and reads what it says
    /// of schemas.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub async fn open(options: OfflineOptions) -> Result<OfflineLog, OfflineError> {
        let bounds = options.log.bounds().await?;
        let full = (options.cluster_id, options.start_ts);
        bounds.check(full, options.at)?;
        let files = options.log.select(&bounds, options.start_ts, options.at);
        let files = files.await?;
        if let Some(group) = files.ingested.first() {
            return Err(OfflineError::Ingested {
                as_if_ts: group.as_if_ts,
            });
        }
        let mut log = OfflineLog {
            window: Window {
                start: options.start_ts,
                end: options.at,
            },
            options,
            files,
            changes: SchemaChanges::default(),
        };
        let load = Load {
            title: "Read Schemas",
            choice: KeyChoice::Schemas,
            part: LogPart::Schemas,
            compacted: Vec::new(),
            bytes: log.files.schemas.bytes,
            memory_bytes: SCHEMA_MEMORY_BYTES,
        };
        let sorted = log.sort(load).await?;
        let rt = log.options.rt.clone();
        let changes = rt.blocking(move || SchemaChanges::read(&sorted)).await;
        log.changes = changes?;
        Ok(log)
    }

    /// What becomes of the tables of the backup.
    pub fn schemas(&self) -> OfflineSchemas<'_> {
        OfflineSchemas {
            state: SchemaState::new(&self.changes),
            coverage: Coverage::new(&self.changes),
        }
    }

    /// Sorts what the log has of the rows of these tables and partitions.
    ///
    /// # Errors
    /// An object is missing or damaged, or the local disk is full.
    pub async fn sort_rows(
        &self,
        tables: impl IntoIterator<Item = TableId>,
    ) -> Result<LogRows, OfflineError> {
        // No index is wanted.
        let indexes = Arc::new(HashSet::new());
        let wanted = tables.into_iter().map(|id| {
            let wanted = WantedTable {
                new_id: id,
                indexes: indexes.clone(),
            };
            (id, wanted)
        });
        let wanted: HashMap<_, _> = wanted.collect();
        let load = Load {
            title: "Read Log",
            choice: KeyChoice::Tables(KeyRewrite::new(wanted)),
            part: LogPart::Rows,
            compacted: self.files.compacted.clone(),
            bytes: self.files.data_bytes(),
            memory_bytes: self.options.memory_bytes,
        };
        Ok(LogRows(self.sort(load).await?))
    }

    async fn sort(&self, load: Load) -> Result<Sorted, PointError> {
        let options = &self.options;
        let scratch = ScratchDir::create(&options.rt, &options.temp_dir);
        let scratch = scratch.map_err(|source| PointError::LocalFile {
            path: options.temp_dir.clone(),
            source,
        })?;
        let sorter = Arc::new(Sorter::new(Arc::new(scratch), load.memory_bytes / 2));
        let phase = Phase::start(&options.progress, load.title, Unit::Bytes, load.bytes);
        let loader = Loader {
            rt: options.rt.clone(),
            cancel: options.cancel.clone(),
            storage: options.log.storage().clone(),
            crypter: options.crypter.clone(),
            choice: Arc::new(load.choice),
            done: None,
            window: self.window,
            sorter: sorter.clone(),
            buffer_bytes: load.memory_bytes / BUFFERS,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
        };
        let objects = self.files.objects(load.part);
        loader.run(objects, load.compacted, &phase).await?;
        drop((phase, loader));
        let sorter = Arc::into_inner(sorter).ok_or(PointError::Cancelled)?;
        Ok(sorter.finish())
    }
}

struct Load {
    title: &'static str,
    choice: KeyChoice,
    part: LogPart,
    compacted: Vec<DataFile>,
    bytes: u64,
    memory_bytes: usize,
}

/// Turns the tables of the backup into those of the point.
pub struct OfflineSchemas<'a> {
    state: SchemaState<'a>,
    coverage: Coverage,
}

/// A table that the backup does not have, or a database without tables.
#[derive(Clone, Debug)]
pub struct NewSchema {
    /// As a backup has it.
    pub entry: SchemaEntry,
    /// Whether all of its rows are in the log. If not, the table was there before the backup,
    /// which left it out.
    pub is_covered: bool,
}

impl OfflineSchemas<'_> {
    /// A table of the backup as it is at the point; `None` if it is gone by then.
    ///
    /// # Errors
    /// A schema makes no sense.
    pub fn of_backup(&mut self, entry: SchemaEntry) -> Result<Option<SchemaEntry>, OfflineError> {
        self.coverage.add_backup(&entry);
        Ok(self.state.entry_of_backup(entry)?.map(|table| table.entry))
    }

    /// What the backup does not have; after all of the backup. Databases without tables come last.
    ///
    /// # Errors
    /// A schema makes no sense.
    pub fn rest(mut self) -> Result<Vec<NewSchema>, OfflineError> {
        let mut more = Vec::new();
        let databases = self.state.rest(|table| {
            more.push(table.entry);
            Ok(())
        })?;
        more.extend(databases);
        let coverage = self.coverage;
        let more = more.into_iter().map(|entry| NewSchema {
            is_covered: coverage.covers(&entry),
            entry,
        });
        Ok(more.collect())
    }
}

/// What the log has of the rows of tables, sorted. Cheap to clone.
#[derive(Clone)]
pub struct LogRows(Sorted);

/// A row that was written in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// The memcomparable key.
    pub key: Vec<u8>,
    /// Its value at the point; `None`: it was removed.
    pub value: Option<Bytes>,
}

impl LogRows {
    /// The rows of a table or partition, from the first one on.
    ///
    /// # Errors
    /// A local file cannot be read.
    pub fn of_table(&self, table: TableId) -> Result<LogRowReader, OfflineError> {
        let range = key::encode_range(&record_range(table));
        Ok(LogRowReader {
            reader: VersionReader::new(&self.0, range.start.as_bytes(), true)?,
            end: range.end.into_bytes(),
            versions: KeyVersions::default(),
        })
    }
}

/// Reads the rows of one table in the order of their keys.
pub struct LogRowReader {
    reader: VersionReader,
    end: Vec<u8>,
    versions: KeyVersions,
}

impl LogRowReader {
    /// The next rows; none at the end. Blocks: reads local files.
    ///
    /// # Errors
    /// A value is missing in the log, or a local file cannot be read.
    pub fn batch(&mut self) -> Result<Vec<LogRow>, OfflineError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            if !self.reader.next(&self.end, &mut self.versions)? {
                break;
            }
            let value = newest(&self.versions)?;
            bytes += self.versions.key.len() + value.as_ref().map_or(0, Bytes::len);
            rows.push(LogRow {
                key: self.versions.key.clone(),
                value,
            });
        }
        Ok(rows)
    }
}

fn newest(versions: &KeyVersions) -> Result<Option<Bytes>, PointError> {
    let raw = || key::decode(&versions.key).unwrap_or_default();
    let Some((_, record)) = versions.records().next() else {
        return Ok(None);
    };
    let record =
        WriteRef::parse(record).map_err(|source| PointError::Record { key: raw(), source })?;
    match (record.kind, record.short_value) {
        (WriteKind::Put, Some(short)) => Ok(Some(Bytes::copy_from_slice(short))),
        (WriteKind::Put, None) => {
            let mut values = versions.values();
            let value = values.find(|(ts, _)| *ts == record.start_ts);
            let (_, value) = value.ok_or_else(|| PointError::MissingValue {
                key: raw(),
                start_ts: record.start_ts,
            })?;
            Ok(Some(Bytes::copy_from_slice(value)))
        }
        _ => Ok(None),
    }
}
