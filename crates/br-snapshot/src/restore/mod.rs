//! Restore of a snapshot backup: plan, reserve ids, split, download, ingest, checksum, and only then
//! the schemas.

mod changes;
mod checks;
mod cleanup;
mod error;
mod file_groups;
mod import;
mod incremental;
mod ingest;
mod key_form;
mod keys;
mod options;
mod pause;
mod pipeline;
mod plan;
mod resume;
mod schemas;
mod source;
mod split;
mod system;
mod table_ids;
mod tables;
mod tidb_servers;

use std::sync::Arc;

use br_cluster::Cluster;
use br_rt::Progress;
use br_storage::{Backend, Storage};

use changes::NoChanges;

pub use changes::{Changes, PointInTime};
pub use error::RestoreError;
pub use file_groups::{GroupError, PrefixRule};
pub use ingest::ingest;
pub use options::{
    CHECKSUM_CONCURRENCY_DEFAULT, DOWNLOADS_PER_STORE_DEFAULT, PAUSE_LEASE_DEFAULT,
    REGION_KEYS_DEFAULT, REGION_SIZE_BYTES_DEFAULT, RestoreOptions, SWITCH_MODE_INTERVAL_DEFAULT,
    Scope, TABLE_CONCURRENCY_DEFAULT,
};
pub use plan::{ExistingTable, FileTotals, PlannedDatabase, PlannedTable, RestorePlan};
pub use resume::{AbortedRestore, CASE_SENSITIVE, DoneSteps, Origin, abort, interrupted_point};
pub use source::Source;
pub use split::split_at;
pub use system::PlannedSystemTable;
pub use table_ids::TableIdMap;

/// What a restore works on: the cluster, and the backup's storage opened and as stores open it.
#[derive(Clone)]
pub struct RestoreTarget {
    /// The cluster. Its token cancels the restore.
    pub cluster: Cluster,
    /// The backup.
    pub storage: Storage,
    /// Where it is, for the stores.
    pub backend: Backend,
    /// Where progress is reported.
    pub progress: Arc<dyn Progress>,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreSummary {
    /// The plan that was carried out.
    pub plan: RestorePlan,
    /// Groups of files that were brought in.
    pub groups: usize,
    /// Keys at which regions were split.
    pub split_keys: usize,
    /// Regions that came of it.
    pub split_regions: usize,
    /// Files with long values.
    pub default_files: usize,
    /// Files with records.
    pub write_files: usize,
    /// Tables whose checksum was compared.
    pub checked_tables: usize,
    /// Groups of files that an interrupted command had brought in.
    pub resumed_groups: usize,
    /// Files in them.
    pub resumed_files: usize,
    /// Tables that an interrupted command had made visible.
    pub resumed_tables: usize,
    /// Rows of TiDB's own tables that were taken over: users, privileges, bindings.
    pub system_rows: u64,
    /// Tables and partitions that got statistics.
    pub tables_with_statistics: usize,
}

/// Decides what a restore of tables would do, without changing anything.
///
/// # Errors
/// What the restore would refuse at its start.
pub async fn plan(
    target: &RestoreTarget,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    match options.scope {
        Scope::Raw { .. } | Scope::Txn => keys::plan(target, options).await,
        Scope::Full { .. } | Scope::Database { .. } | Scope::Table { .. } => {
            plan_with(target, options, &NoChanges).await
        }
    }
}

/// Restores.
///
/// Tables become visible only when all their data is in and, with `checksum`, found right. A
/// restore that fails or is cancelled lets PD and the stores go on as before; after a crash of this
/// process every pause ends by itself within ten minutes. What it brought in stays unseen, and the
/// same restore goes on with it; it is removed if the error would come again, or without
/// `use_resume`, or by [`abort`].
///
/// # Errors
/// [`RestoreError`]; its kind says what to do.
pub async fn restore(
    target: &RestoreTarget,
    options: &RestoreOptions,
) -> Result<RestoreSummary, RestoreError> {
    match options.scope {
        Scope::Raw { .. } | Scope::Txn => Box::pin(keys::restore(target, options)).await,
        Scope::Full { .. } | Scope::Database { .. } | Scope::Table { .. } => {
            Box::pin(restore_with(target, options, &NoChanges)).await
        }
    }
}

/// Decides what a restore of tables with changes after the backup would do, as [`plan`].
///
/// # Errors
/// What the restore would refuse at its start.
pub async fn plan_with<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
) -> Result<RestorePlan, C::Error> {
    let (plan, _) = tables::plan(target, options, changes).await?;
    Ok(plan)
}

/// Restores tables of a backup and what changed after it, as [`restore`].
///
/// # Errors
/// [`RestoreError`], or those of the changes.
pub async fn restore_with<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
) -> Result<RestoreSummary, C::Error> {
    tables::restore(target, options, changes).await
}

/// Restores what changed since an earlier restore. The plan names what goes on, what is new and what
/// was dropped; its ids are assigned here. Nothing is read from the target's storage.
///
/// # Errors
/// [`RestoreError`], or those of the changes; tables that go on may have some of the changes then,
/// and the same restore again completes them.
pub async fn restore_changes<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
    plan: RestorePlan,
    origin: &Origin,
) -> Result<RestoreSummary, C::Error> {
    tables::restore_changes(target, options, changes, plan, origin).await
}

/// Completes an interrupted restore that changes tables of an earlier one, if all its data is in:
/// makes the changes of schemas that are missing, and hands `finish` what [`Changes::layer`] gave.
///
/// # Errors
/// [`RestoreError`]; the same again goes on.
pub async fn complete_interrupted(
    cluster: &Cluster,
    options: &RestoreOptions,
    origin: &Origin,
    finish: impl AsyncFnOnce(&[u8]),
) -> Result<Option<RestoreSummary>, RestoreError> {
    tables::complete_interrupted(cluster, options, origin, finish).await
}
