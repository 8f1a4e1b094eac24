//! Rows of tables out of a backup, into files of a local folder.
//!
//! # What it does
//! Reads the schemas of a full backup and of incremental backups on top of it, decodes the rows of
//! the tables that a filter takes, and writes one file a table.
//!
//! # Objects it reads and writes
//! `backupmeta`, its meta files, and the SST files that hold rows (not those of indexes). Writes
//! `{database}.{table}.jsonl` or `.csv` into the folder; in names every byte but ASCII letters,
//! digits, `_` and `-` is `%XX`.
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

use br_format::{backupmeta::Compatibility, crypter::Crypter};
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
    /// As of when: the timestamp of one of the backups. `None`: the last one's.
    pub at: Option<TimeStamp>,
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

/// Exports tables of a full backup, with the incremental backups on top of it in their order.
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
    let plan = plan::plan(layers, options).await?;
    write::make_folder(&options.output)?;
    let phase = Phase::start(progress, "Export", Unit::Tables, plan.tables.len() as u64);
    let jobs = plan.tables.into_iter().map(|table| {
        let layers = layers.to_vec();
        let (rt, options, cancel) = (rt.clone(), options.clone(), cancel.clone());
        let task = async move { table::export_table(&rt, &layers, table, &options, &cancel).await };
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
