//! # What it does
//! `br restore point`: a full backup and the log after it, as of one timestamp.
//!
//! # Objects it reads and writes
//! The full backup and the log, read only; the cluster, as a restore of a full backup, with its
//! registration and its progress; in the log's storage the ids that tables were given, for a restore
//! that goes on from this one.
//!
//! # Ordering and invariants
//! Everything is computed and checked before anything is changed. Then ids are reserved, the
//! backup's data goes in, on top of it the events of the log, and at the very end the schemas as
//! they are at the point. So a table that can be seen is complete.
//!
//! # Cancellation and failure
//! As for a full backup: no table is visible. Data under the reserved ids stays for the same command
//! to go on with, and is deleted if the error would come again.
//!
//! # After a crash
//! The same; the pauses and the registration end by themselves. The same command goes on to the same
//! point: the full backup's groups of files and the parts of the log that are in are left, and when
//! the log is complete only schemas are. A restore that goes on from an earlier one writes down all
//! changes of schemas before the first.

use std::sync::{Arc, Mutex};

use br_rt::{CancellationToken, Phase, Unit, kill_point};
use br_snapshot::restore::{self, Origin, RestorePlan, RestoreSummary, RestoreTarget};
use br_storage::SEALED_FORM;
use br_types::TimeStamp;

use super::{
    added_indexes::LeftOutIndex,
    earlier::Earlier,
    error::PointError,
    id_map,
    ingest::IngestTotals,
    load::{KeyChoice, LoadTotals},
    log_changes::{LogChanges, Seen, loader},
    options::{PointOptions, PointTarget},
    schema_changes::SchemaChanges,
    sort::Sorter,
    versions::Window,
};
use crate::{
    Operator,
    read::{LogFiles, LogPart, LogStorage},
    scratch::ScratchDir,
    storage_lock::LockRequest,
};

/// Memory for the events of schemas; more goes to disk.
const SCHEMA_MEMORY_BYTES: usize = 64 << 20;

/// What a restore to a point in time would do.
#[derive(Clone, Debug, Default)]
pub struct PointPlan {
    /// Commits up to this come from the full backup.
    pub start_ts: TimeStamp,
    /// Commits after that and up to this come from the log.
    pub restored_ts: TimeStamp,
    /// Tables and ids.
    pub tables: RestorePlan,
    /// Files of the log with rows and indexes.
    pub log_files: u64,
    /// SSTs of compactions.
    pub compacted_files: u64,
    /// Bytes of the events in both.
    pub log_bytes: u64,
    /// Indexes whose entries the log does not have: they are left out, to be added again.
    pub left_out: Vec<LeftOutIndex>,
}

/// What a restore to a point in time did.
#[derive(Clone, Debug, Default)]
pub struct PointSummary {
    /// What was planned.
    pub plan: PointPlan,
    /// What became of the full backup.
    pub full: RestoreSummary,
    /// What was read of the log.
    pub load: PointLoad,
    /// What was brought in of it.
    pub ingest: IngestTotals,
    /// Entries of indexes that were made from rows, for the log does not have them.
    pub rebuilt_entries: u64,
    /// Parts of the log that an interrupted command had brought in.
    pub resumed_parts: usize,
}

/// What was read of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PointLoad {
    /// Files, and SSTs of compactions.
    pub files: u64,
    /// Records.
    pub records: u64,
    /// Bytes of the records.
    pub bytes: u64,
}

impl From<LoadTotals> for PointLoad {
    fn from(totals: LoadTotals) -> PointLoad {
        PointLoad {
            files: totals.files,
            records: totals.records,
            bytes: totals.record_bytes,
        }
    }
}

/// Decides what a restore would do, without changing anything.
///
/// # Errors
/// What the restore would refuse at its start.
pub async fn plan(target: &PointTarget, options: &PointOptions) -> Result<PointPlan, PointError> {
    let changes = open(target, options).await?;
    let tables = match &target.full {
        Some(full) => restore::plan_with(full, &options.tables, &changes).await?,
        None => changes.plan_on_earlier()?,
    };
    Ok(plan_of(&changes, tables))
}

/// Restores.
///
/// # Errors
/// [`PointError`]; no table is visible then, unless creating them in several transactions broke
/// off.
pub async fn restore(
    target: &PointTarget,
    options: &PointOptions,
) -> Result<PointSummary, PointError> {
    if options.leaves_no_trace {
        return Box::pin(restore_locked(target, options)).await;
    }
    let operator = Operator::this();
    // The end of a restore that was cancelled is told under no token.
    let cancel = CancellationToken::new();
    let request = LockRequest {
        storage: &target.log,
        rt: target.cluster.rt(),
        cancel: &cancel,
        operator: &operator,
        hint: "the log is being restored by br restore point",
    };
    let lock = request.read_migrations().await?;
    lock.with(Box::pin(restore_locked(target, options))).await
}

async fn restore_locked(
    target: &PointTarget,
    options: &PointOptions,
) -> Result<PointSummary, PointError> {
    if let Some(done) = Box::pin(complete_interrupted(target, options)).await? {
        return Ok(done);
    }
    let changes = open(target, options).await?;
    kill_point("point.opened");
    let mut summary = match &target.full {
        Some(full) => Box::pin(restore::restore_with(full, &options.tables, &changes)).await?,
        None => {
            let plan = changes.plan_on_earlier()?;
            // Only the cluster of it is used.
            let on = RestoreTarget {
                cluster: target.cluster.clone(),
                storage: target.log.clone(),
                backend: target.log_backend.clone(),
                progress: target.progress.clone(),
            };
            let (options, origin) = (&options.tables, &changes.origin);
            let work = restore::restore_changes(&on, options, &changes, plan, origin);
            Box::pin(work).await?
        }
    };
    let tables = std::mem::take(&mut summary.plan);
    let plan = plan_of(&changes, tables);
    let seen = changes.seen();
    Ok(PointSummary {
        plan,
        full: summary,
        load: seen.load.into(),
        ingest: seen.ingest,
        rebuilt_entries: seen.rebuilt_entries,
        resumed_parts: seen.resumed_parts,
    })
}

/// Ends an interrupted restore that goes on from an earlier one, if only schemas were left: what it
/// went on from is not there any more as it was.
async fn complete_interrupted(
    target: &PointTarget,
    options: &PointOptions,
) -> Result<Option<PointSummary>, PointError> {
    let (None, Some(start_ts)) = (&target.full, options.start_ts) else {
        return Ok(None);
    };
    let bounds = LogStorage::new(target.log.clone()).bounds().await?;
    let origin = Origin::of_earlier(bounds.marker.cluster_id, start_ts);
    let (cluster, tables) = (&target.cluster, &options.tables);
    let Some(point) = restore::interrupted_point(cluster, tables, &origin).await? else {
        return Ok(None);
    };
    let is_other = |wanted: TimeStamp| wanted != point.restored_ts;
    if options.restored_ts.is_some_and(is_other) || options.newest_only != point.newest_only {
        // Refused with what is different, once it is planned.
        return Ok(None);
    }
    let keep = async |ids: &[u8]| id_map::keep(target, ids, point.restored_ts).await;
    let done = restore::complete_interrupted(cluster, tables, &origin, keep);
    let done = Box::pin(done).await?;
    Ok(done.map(|full| PointSummary {
        plan: PointPlan {
            start_ts,
            restored_ts: point.restored_ts,
            ..PointPlan::default()
        },
        full,
        ..PointSummary::default()
    }))
}

fn plan_of(changes: &LogChanges<'_>, tables: RestorePlan) -> PointPlan {
    PointPlan {
        start_ts: changes.window.start,
        restored_ts: changes.window.end,
        log_files: changes.files.rows.files,
        compacted_files: changes.files.compacted.len() as u64,
        log_bytes: changes.files.data_bytes(),
        left_out: left_out(changes, &tables),
        tables,
    }
}

/// The indexes that were left out of tables of the plan.
fn left_out(changes: &LogChanges<'_>, tables: &RestorePlan) -> Vec<LeftOutIndex> {
    let seen = changes.seen();
    let of_tables = tables.tables.iter();
    of_tables
        .filter_map(|table| seen.left_out.get(&table.old_id))
        .flatten()
        .cloned()
        .collect()
}

/// Reads backup and log as far as the plan needs them, and checks that they go together.
async fn open<'a>(
    target: &'a PointTarget,
    options: &'a PointOptions,
) -> Result<LogChanges<'a>, PointError> {
    if target.log_backend.is_sealed() {
        target.cluster.pd().check_sealing(SEALED_FORM).await?;
    }
    let log = LogStorage::new(target.log.clone())
        .with_reads(options.meta_reads)
        .with_files_held_max(options.files_held_max);
    let bounds = log.bounds().await?;
    let new_collations;
    let origin;
    let (from_cluster, start) = match (&target.full, options.start_ts) {
        (Some(full), None) => {
            let source = restore::Source::open(full.storage.clone(), &options.tables).await?;
            let head = source.head();
            if head.is_incremental() {
                // Names and ids of its tables could not be told from those that the log gives them.
                let text = format!(
                    "--full-backup-storage has only what changed since {}; the log goes on from the \
                     full backup as well",
                    head.last_backup_ts
                );
                return Err(PointError::Options(text));
            }
            new_collations = head.new_collations_enabled;
            origin = Origin::of(&source);
            (head.cluster_id, head.backup_ts)
        }
        (None, Some(start_ts)) => {
            let now = target.cluster.pd().tso().await?;
            let snapshot = target.cluster.snapshot(now);
            new_collations = br_catalog::new_collations_enabled(&snapshot).await?;
            origin = Origin::of_earlier(bounds.marker.cluster_id, start_ts);
            (bounds.marker.cluster_id, start_ts)
        }
        _ => {
            let text = "a restore begins either with a full backup or where an earlier one ended";
            return Err(PointError::Options(text.to_owned()));
        }
    };
    // A log that grows has no other end when its restore goes on.
    let interrupted = restore::interrupted_point(&target.cluster, &options.tables, &origin).await?;
    let interrupted = interrupted.map(|point| point.restored_ts);
    let end = options.restored_ts.or(interrupted).unwrap_or(bounds.max_ts);
    bounds.check((from_cluster, start), end)?;
    let earlier = match target.full {
        Some(_) => None,
        None => Some(Earlier::read(&target.cluster, &target.log, start).await?),
    };
    let window = Window { start, end };
    let files = log.select(&bounds, window.start, window.end).await?;
    if let Some(group) = files.ingested.first() {
        let text = format!(
            "another restore brought files into the cluster at {} while the log was written, and \
             they cannot be taken over yet",
            group.as_if_ts
        );
        return Err(PointError::Options(text));
    }
    files.check_key(&options.log_crypter).await?;
    let schema = read_schemas(target, options, window, &files).await?;
    Ok(LogChanges {
        target,
        options,
        window,
        origin,
        files,
        schema,
        earlier,
        // Every cluster of the last years has them.
        new_collations: new_collations.unwrap_or(true),
        seen: Mutex::new(Seen::default()),
    })
}

async fn read_schemas(
    target: &PointTarget,
    options: &PointOptions,
    window: Window,
    files: &LogFiles,
) -> Result<SchemaChanges, PointError> {
    let rt = target.cluster.rt();
    let scratch = ScratchDir::create(rt, &options.temp_dir);
    let scratch = scratch.map_err(|source| PointError::LocalFile {
        path: options.temp_dir.clone(),
        source,
    })?;
    let sorter = Arc::new(Sorter::new(Arc::new(scratch), SCHEMA_MEMORY_BYTES));
    let bytes = files.schemas.bytes;
    let phase = Phase::start(&target.progress, "Read Schemas", Unit::Bytes, bytes);
    loader(
        target,
        options,
        window,
        KeyChoice::Schemas,
        &sorter,
        SCHEMA_MEMORY_BYTES / 4,
    )
    .run(files.objects(LogPart::Schemas), Vec::new(), &phase)
    .await?;
    let sorted = Arc::into_inner(sorter)
        .ok_or(PointError::Cancelled)?
        .finish();
    rt.blocking(move || SchemaChanges::read(&sorted)).await
}
