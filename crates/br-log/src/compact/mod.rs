//! # What it does
//! `br log compact`: turns the files of a range of a log into SST files, which restore faster, and
//! takes the files out of the log.
//!
//! # Objects it reads and writes
//! The log's metadata and files; below `v1/compactions/{name}_{hash}` SST files and indices of
//! them, with a lock while they are written; at last one migration, by which readers heed both.
//!
//! # Ordering and invariants
//! SSTs before indices before the migration: until that is there, nothing has changed for readers.
//! All records are kept, also those of locks and rollbacks, each once; only schemas, files of
//! deletions and what is too little for a file stay in the log. A reader's lock on migrations is
//! held, so that nobody merges them meanwhile.
//!
//! # Cancellation and failure
//! What was written is removed; no reader has seen it.
//!
//! # After a crash
//! No reader sees what was written. The next compaction removes it; of the same files it goes on with
//! what is complete.

mod collect;
mod error;
mod execute;
mod folder;
mod outcome;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use br_format::log::{
    compaction::{self, SUBCOMPACTIONS_PER_META_MAX, Subcompaction},
    migration::{Compaction, Migration},
    names,
};
use br_rt::{CancellationToken, Phase, Progress, Rt, Unit, kill_point};
use br_sst::SstFiles;
use br_storage::Storage;
use br_types::{StoreId, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

pub use self::error::CompactError;
use self::{collect::Collected, execute::Executor, folder::Folder, outcome::edits};
use crate::{Operator, migrate, read::LogStorage, scratch::ScratchDir, storage_lock::LockRequest};

/// Bytes of records of one SST, as in the official tool.
pub const SUBCOMPACTION_BYTES: u64 = 128 << 20;
/// `--minimal-compaction-size` when the user gives none: less stays in the log.
pub const MINIMAL_BYTES_DEFAULT: u64 = 16 << 20;
/// SSTs that are made at once: each holds its records in memory.
const SUBCOMPACTIONS_IN_FLIGHT_MAX: usize = 4;

/// What is needed to compact.
#[derive(Clone)]
pub struct CompactTarget {
    /// Time, randomness, tasks.
    pub rt: Rt,
    /// Ends it.
    pub cancel: CancellationToken,
    /// The log.
    pub storage: Storage,
    /// Makes SST files.
    pub ssts: Arc<dyn SstFiles>,
    /// Where progress is reported.
    pub progress: Arc<dyn Progress>,
    /// Where SST files lie before they are stored.
    pub temp_dir: std::path::PathBuf,
}

/// What to compact.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// `--from`: files with nothing from here on stay.
    pub from_ts: TimeStamp,
    /// `--until`: files with nothing up to here stay; `None`: as far as the log goes.
    pub until_ts: Option<TimeStamp>,
    /// `--name`: what the compaction's folder begins with.
    pub name: String,
    /// `--cal-shift-ts`: also take values that commits from `from_ts` on need.
    pub shifts: bool,
    /// `--shard I/T`: only files of stores that belong to part I of T, counted from 1.
    pub shard: Option<Shard>,
    /// `--minimal-compaction-size`: groups with fewer bytes stay.
    pub minimal_bytes: u64,
    /// `--concurrency`: SSTs made at once.
    pub concurrency: usize,
}

/// One of several parts of the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 1.
    pub index: u64,
    /// Of how many.
    pub total: u64,
}

impl Shard {
    /// Whether a store's files belong to it.
    pub fn has(self, store: StoreId) -> bool {
        let hash = br_codec::checksum::crc64(&store.0.to_le_bytes());
        hash.checked_rem(self.total) == self.index.checked_sub(1)
    }
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactSummary {
    /// The range.
    pub from_ts: TimeStamp,
    /// See [`CompactSummary::from_ts`].
    pub until_ts: TimeStamp,
    /// The folder; empty if there was nothing to do.
    pub folder: String,
    /// The migration; empty if there was nothing to do.
    pub migration: String,
    /// Files that were taken out of the log.
    pub input_files: u64,
    /// Bytes of their records.
    pub input_bytes: u64,
    /// SSTs that were written.
    pub output_files: u64,
    /// Bytes of them.
    pub output_bytes: u64,
    /// Records in them.
    pub records: u64,
}

/// Compacts.
///
/// # Errors
/// [`CompactError`]; nothing has changed for readers then.
pub async fn compact(
    target: &CompactTarget,
    options: &CompactOptions,
) -> Result<CompactSummary, CompactError> {
    let operator = Operator::this();
    let request = LockRequest {
        storage: &target.storage,
        rt: &target.rt,
        cancel: &target.cancel,
        operator: &operator,
        hint: "br log compact",
    };
    let lock = request.read_migrations().await?;
    kill_point("compact.locked");
    lock.with(compact_locked(target, options, &request)).await
}

async fn compact_locked(
    target: &CompactTarget,
    options: &CompactOptions,
    request: &LockRequest<'_>,
) -> Result<CompactSummary, CompactError> {
    let log = LogStorage::new(target.storage.clone());
    let bounds = log.bounds().await?;
    let until_ts = options.until_ts.unwrap_or(bounds.max_ts);
    if until_ts > bounds.max_ts || options.from_ts > until_ts {
        return Err(CompactError::Range {
            from_ts: options.from_ts,
            until_ts,
            max_ts: bounds.max_ts,
        });
    }
    // Afterwards nobody could tell it from a flush that was compacted.
    log.check_flushes(&bounds, options.from_ts, until_ts)
        .await?;
    let collected = Collected::read(&log, options, until_ts).await?;
    if collected.groups.is_empty() {
        folder::remove_left_behind(request).await;
        return Ok(CompactSummary {
            from_ts: options.from_ts,
            until_ts,
            ..CompactSummary::default()
        });
    }
    let hash = collected.hash();
    let name = format!("{}/{}_{hash:016X}", names::COMPACTION_FOLDER, options.name);
    let folder = Folder::take(request, name).await?;
    kill_point("compact.folder");
    let prepared = prepare(target, options, &collected, &folder, until_ts).await;
    let (summary, migration) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            folder.give_up().await;
            return Err(error);
        }
    };
    // Whatever the storage says of it now, the migration may be there: nothing is removed.
    let name = migrate::append_beside_readers(request, &migration).await?;
    kill_point("compact.migration");
    folder.keep().await;
    folder::remove_left_behind(request).await;
    Ok(CompactSummary {
        migration: name.to_name(),
        ..summary
    })
}

/// Writes everything but the migration, which it gives.
async fn prepare(
    target: &CompactTarget,
    options: &CompactOptions,
    collected: &Collected,
    folder: &Folder,
    until_ts: TimeStamp,
) -> Result<(CompactSummary, Migration), CompactError> {
    let (from_ts, name) = (options.from_ts, folder.name.as_str());
    let mut compaction = Compaction {
        from_ts,
        until_ts,
        name: options.name.clone(),
        comments: comments(options, until_ts),
        artifacts: format!("{name}/metas"),
        artifacts_hash: collected.hash(),
        generated_files: format!("{name}/outputs"),
        ..Compaction::default()
    };
    let log = LogStorage::new(target.storage.clone());
    let done = match folder.is_prepared() {
        true => log.subcompactions(&compaction).await?,
        false => {
            let range = (from_ts, until_ts);
            let done = execute(target, options, collected, name, range).await?;
            kill_point("compact.ssts");
            write_indices(target, name, &done).await?;
            folder.set_prepared(target.rt.wall().0).await?;
            done
        }
    };
    let outputs = || done.iter().flat_map(|item| &item.outputs);
    let least = done.iter().map(|item| item.input_min_ts).min();
    let greatest = done.iter().map(|item| item.input_max_ts).max();
    compaction.input_min_ts = least.unwrap_or_default();
    compaction.input_max_ts = greatest.unwrap_or_default();
    compaction.metas_size_bytes = size_of(target, &compaction.artifacts).await?;
    compaction.ssts_size_bytes = outputs().map(|file| file.size_bytes).sum();
    let summary = CompactSummary {
        from_ts,
        until_ts,
        folder: name.to_owned(),
        migration: String::new(),
        input_files: collected.files() as u64,
        input_bytes: done.iter().map(|item| item.size_bytes).sum(),
        output_files: outputs().count() as u64,
        output_bytes: outputs().map(|file| file.size_bytes).sum(),
        records: outputs().map(|file| file.stats.total_kvs).sum(),
    };
    let migration = Migration {
        edits: edits(collected),
        compactions: vec![compaction],
        creator: concat!("br ", env!("CARGO_PKG_VERSION"), " log compact").to_owned(),
        ..Migration::default()
    };
    Ok((summary, migration))
}

/// Bytes of all objects in a folder.
async fn size_of(target: &CompactTarget, folder: &str) -> Result<u64, CompactError> {
    let mut listed = target.storage.list(&format!("{folder}/"));
    let mut bytes = 0;
    while let Some(entry) = listed.try_next().await? {
        bytes += entry.size_bytes;
    }
    Ok(bytes)
}

async fn execute(
    target: &CompactTarget,
    options: &CompactOptions,
    collected: &Collected,
    folder: &str,
    range: (TimeStamp, TimeStamp),
) -> Result<Vec<Subcompaction>, CompactError> {
    let bytes = collected.groups.iter().map(|group| group.bytes()).sum();
    let phase = Phase::start(&target.progress, "Compact Log", Unit::Bytes, bytes);
    let scratch = ScratchDir::create(&target.rt, &target.temp_dir);
    let scratch = scratch.map_err(|source| CompactError::LocalFile {
        path: target.temp_dir.clone(),
        source,
    })?;
    let executor = Executor {
        scratch: &scratch,
        target,
        log: LogStorage::new(target.storage.clone()),
        folder,
        from_ts: range.0,
        until_ts: range.1,
    };
    let at_once = options.concurrency.clamp(1, SUBCOMPACTIONS_IN_FLIGHT_MAX);
    let work = stream::iter(&collected.groups)
        .map(|group| async {
            let done = executor.run(group).await?;
            phase.advance(group.bytes(), group.bytes());
            Ok::<_, CompactError>(done)
        })
        .buffered(at_once)
        .try_collect();
    tokio::select! {
        biased;
        done = work => done,
        () = target.cancel.cancelled() => Err(CompactError::Cancelled),
    }
}

/// Writes the indices.
async fn write_indices(
    target: &CompactTarget,
    folder: &str,
    done: &[Subcompaction],
) -> Result<(), CompactError> {
    let batch = target.rt.uuid();
    for (number, items) in done.chunks(SUBCOMPACTIONS_PER_META_MAX).enumerate() {
        let encoded = compaction::encode(items);
        let suffix = names::COMPACTION_META_SUFFIX;
        let name = format!("{folder}/metas/batch_{batch}_{number}{suffix}");
        target.storage.write(&name, encoded).await?;
        kill_point("compact.index");
    }
    Ok(())
}

/// What other tools want to know of a compaction, as the official tool writes it.
fn comments(options: &CompactOptions, until_ts: TimeStamp) -> String {
    let shard = options
        .shard
        .map(|shard| serde_json::json!({ "index": shard.index, "total": shard.total }));
    let config = serde_json::json!({
        "from-ts": options.from_ts.0,
        "until-ts": until_ts.0,
        "cal-shift-ts": options.shifts,
        "minimal-compaction-size": options.minimal_bytes,
        "shard": shard,
    });
    serde_json::json!({ "config": config }).to_string()
}
