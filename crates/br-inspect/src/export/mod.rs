//! Rows of tables out of a backup, into files of a local folder.
//!
//! # What it does
//! Reads the schemas of a full backup, of incremental backups on top of it, and of a log on top of
//! those, decodes the rows of the tables that a filter takes, and writes one file a table.
//!
//! # Objects it reads and writes
//! `backupmeta`, its meta files, and the SST files that hold rows (not those of indexes); the log's
//! metadata and what the window from the last backup to the asked for timestamp needs of it. Writes
//! `{database}.{table}.jsonl` or `.csv` into the folder; in names every byte but ASCII letters,
//! digits, `_` and `-` is `%XX`. What the log has of rows is sorted, beyond
//! [`LogLayer::memory_bytes`] in a folder below [`LogLayer::temp_dir`] that is removed at the end.
//!
//! # Ordering and invariants
//! A table's file appears under its name when it is complete and synced; until then it is a hidden
//! file that ends in `.part`. Each SST file is checked against its SHA-256 before a row of it is
//! written. Memory: [`TABLES_IN_FLIGHT_MAX`] tables, of each one region's two SST files a backup.
//!
//! # Cancellation
//! Checked between rows; the file under way is removed.
//!
//! # After a crash
//! Complete files stay, a `.part` may; run it again.

mod error;
mod mvcc;
mod plan;
mod sst;
mod table;
mod write;

use std::{path::PathBuf, sync::Arc};

use br_format::{backupmeta::Compatibility, crypter::Crypter, kv_stats::KvStats};
use br_log::read::LogStorage;
use br_rt::{CancellationToken, Phase, Progress, Rt, Unit};
use br_storage::Storage;
use br_tidb::filter::TableFilter;
use br_types::TimeStamp;
use futures::{StreamExt, TryStreamExt, stream};

pub use error::ExportError;

/// Tables that are exported at once: with more, memory grows by SST files, and two keep decoding
/// busy while the other waits for storage.
pub const TABLES_IN_FLIGHT_MAX: usize = 2;

/// One backup of a chain.
#[derive(Clone)]
pub struct Layer {
    /// Where it is.
    pub storage: Storage,
    /// How it is encrypted.
    pub crypter: Crypter,
    /// What to do about fields of newer tools.
    pub compatibility: Compatibility,
}

/// A log on top of the backups.
#[derive(Clone)]
pub struct LogLayer {
    /// Where it is.
    pub log: LogStorage,
    /// How it is encrypted.
    pub crypter: Crypter,
    /// Where rows are sorted that do not fit into memory.
    pub temp_dir: PathBuf,
    /// Memory for sorting.
    pub memory_bytes: usize,
}

/// Memory for sorting what a log has of rows, if nobody says otherwise.
pub const SORT_MEMORY_BYTES_DEFAULT: usize = 256 << 20;

/// The form of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line with an object: database, table, columns, types, and which columns are in
    /// hexadecimal; then a line with an array of texts for each row.
    #[default]
    Jsonl,
    /// RFC 4180 with a header; `\N` for NULL.
    Csv,
}

/// What to export.
#[derive(Clone)]
pub struct ExportOptions {
    /// Which tables. System databases go by the names that users know.
    pub filter: TableFilter,
    /// As of when: the timestamp of one of the backups, or any that the log covers. `None`: the
    /// last one's, or the end of the log.
    pub at: Option<TimeStamp>,
    /// A log on top of the backups.
    pub log: Option<LogLayer>,
    /// The form of the files.
    pub format: Format,
    /// The folder; made if it is missing.
    pub output: PathBuf,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// The timestamp as of which rows are shown.
    pub at: TimeStamp,
    /// The tables, in the order of the backup.
    pub tables: Vec<ExportedTable>,
}

/// A table that was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedTable {
    /// Its database.
    pub db: String,
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Its file.
    pub path: PathBuf,
}

/// Sums over the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSums {
    /// Its database.
    pub db: String,
    /// Its name.
    pub table: String,
    /// Over the rows, with the ids that they have in the backup and the log; no index entries.
    pub sums: KvStats,
}

/// Sums the rows that [`export`] would write, without decoding them.
///
/// # Errors
/// See [`ExportError`].
pub async fn row_sums(
    rt: &Rt,
    layers: &[Layer],
    filter: &TableFilter,
    at: TimeStamp,
    log: Option<LogLayer>,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Vec<TableSums>, ExportError> {
    let options = ExportOptions {
        filter: filter.clone(),
        at: Some(at),
        log,
        format: Format::default(),
        output: PathBuf::new(),
    };
    let plan = plan::plan(&plan::Reads {
        rt,
        layers,
        options: &options,
        progress,
        cancel,
    })
    .await?;
    let phase = Phase::start(progress, "Sum Rows", Unit::Tables, plan.tables.len() as u64);
    let log = plan.log;
    let sources = table::Sources {
        rt,
        layers,
        log: log.as_ref(),
    };
    stream::iter(plan.tables)
        .map(|table| table::sum_table(sources, table, cancel))
        .buffered(TABLES_IN_FLIGHT_MAX)
        .inspect_ok(|_| phase.advance(1, 0))
        .try_collect()
        .await
}

/// Exports tables of a full backup, with the incremental backups on top of it in their order and
/// the log on top of those.
///
/// # Errors
/// See [`ExportError`]. Tables that were completed before stay.
pub async fn export(
    rt: &Rt,
    layers: &[Layer],
    options: &ExportOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<ExportReport, ExportError> {
    let plan = plan::plan(&plan::Reads {
        rt,
        layers,
        options,
        progress,
        cancel,
    })
    .await?;
    write::make_folder(&options.output)?;
    let phase = Phase::start(progress, "Export", Unit::Tables, plan.tables.len() as u64);
    let jobs = plan.tables.into_iter().map(|table| {
        let layers = layers.to_vec();
        let (rt, options, cancel) = (rt.clone(), options.clone(), cancel.clone());
        let log = plan.log.clone();
        let task = async move {
            let sources = table::Sources {
                rt: &rt,
                layers: &layers,
                log: log.as_ref(),
            };
            table::export_table(sources, table, &options, &cancel).await
        };
        Box::pin(task)
    });
    // Spawned as their turn comes: all at once they would run all at once.
    let tables = stream::iter(jobs)
        .map(|job| async move { rt.spawn(job).await })
        .buffered(TABLES_IN_FLIGHT_MAX)
        .inspect_ok(|_| phase.advance(1, 0))
        .try_collect()
        .await?;
    Ok(ExportReport {
        at: plan.at,
        tables,
    })
}
