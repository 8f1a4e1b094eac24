//! Reads the rows of system tables from where they were brought in, and writes them where they
//! belong.

use br_catalog::{CopiesOf, ReplacedRows, RowWriter};
use br_cluster::{Cluster, Scanner};
use br_rt::kill_point;
use br_tidb::{
    row::{RowCopier, StoredRow, json_without_key},
    schema::TableInfo,
    table_key,
};
use br_types::{DbId, RawKey, TableId};

use super::{
    super::{RestoreTarget, cleanup, error::RestoreError, plan::RestorePlan, resume::DoneSteps},
    PRIVILEGE_TABLES, PlannedSystemTable,
};

/// Rows in memory at a time.
const ROWS_MAX: usize = 512;

/// The step after which rows are where they belong, and may be gone from where they were.
const TAKEN_OVER: &str = "system-rows";

/// Writes the rows of system tables, those of statistics apart.
///
/// # Errors
/// [`RestoreError`]; some rows may have been written.
pub(in super::super) async fn take_over(
    target: &RestoreTarget,
    plan: &RestorePlan,
    done: Option<&DoneSteps>,
) -> Result<ReplacedRows, RestoreError> {
    let mut all = ReplacedRows::default();
    let cluster = &target.cluster;
    let tables = || plan.system.iter().filter(|table| !table.is_statistics);
    if tables().next().is_none()
        || done.is_some_and(|done| !done.missing(TAKEN_OVER, 1, "").contains(&true))
    {
        return Ok(all);
    }
    for table in tables() {
        let written = copy(cluster, plan, table).await?;
        tracing::info!(table = table.full_name(), ?written, "rows taken over");
        all += written;
        kill_point("restore.system_table");
    }
    if tables().any(|table| table.is_of_mysql(&PRIVILEGE_TABLES))
        && let Err(error) = br_catalog::flush_privileges(cluster).await
    {
        tracing::warn!(%error, "run FLUSH PRIVILEGES: TiDB servers know the restored users later only");
    }
    if let Some(done) = done {
        done.mark(TAKEN_OVER, 0);
        done.flush().await?;
    }
    kill_point("restore.system");
    Ok(all)
}

async fn copy(
    cluster: &Cluster,
    plan: &RestorePlan,
    table: &PlannedSystemTable,
) -> Result<ReplacedRows, RestoreError> {
    let Some((db, to)) = &table.target else {
        return Ok(ReplacedRows::default());
    };
    let is_user = table.is_of_mysql(&["user"]);
    let attributes = to
        .columns
        .iter()
        .find(|column| is_user && column.name.lower == "user_attributes")
        .map(|column| column.id);
    let mut rows = Rows::open(cluster, plan, table, to).await?;
    let copies = CopiesOf::AnyRow;
    let mut writer = writer(cluster, plan, *db, to, copies).await?;
    let mut all = ReplacedRows::default();
    loop {
        let mut batch = rows.next_batch().await?;
        if batch.is_empty() {
            return Ok(all);
        }
        for row in &mut batch {
            // Resource groups do not come over, so users must not refer to them.
            if let Some(column) = attributes
                && let Some(json) = row.bytes(column)
                && let Some(json) = json_without_key(json, "resource_group")
                    .map_err(|error| table.bad_row(&error))?
            {
                row.set_bytes(column, json);
            }
        }
        all += writer.replace(&batch).await?;
    }
}

pub(super) async fn writer<'a>(
    cluster: &'a Cluster,
    plan: &RestorePlan,
    db: DbId,
    to: &TableInfo,
    copies: CopiesOf,
) -> Result<RowWriter<'a>, RestoreError> {
    Ok(RowWriter::open(cluster, db, to, plan.new_collations, copies).await?)
}

/// The rows of a system table of the backup, with the columns of the cluster's.
pub(super) struct Rows<'a> {
    table: &'a PlannedSystemTable,
    copier: RowCopier,
    prefix: RawKey,
    scanner: Scanner,
}

impl<'a> Rows<'a> {
    pub(super) async fn open(
        cluster: &Cluster,
        plan: &RestorePlan,
        table: &'a PlannedSystemTable,
        to: &TableInfo,
    ) -> Result<Rows<'a>, RestoreError> {
        let id = plan.ids.get(table.old_id).unwrap_or(table.old_id);
        let snapshot = cluster.snapshot(cluster.pd().tso().await?);
        let now_unix_s = cluster.rt().wall().0 / 1000;
        let copier = RowCopier::new(&table.info, to, now_unix_s);
        let copier = copier.map_err(|error| RestoreError::IncompatibleSystemTable {
            table: table.full_name(),
            why: error.to_string(),
        })?;
        Ok(Rows {
            table,
            copier,
            prefix: table_key::record_prefix(id),
            scanner: snapshot.scan(&table_key::record_range(id)),
        })
    }

    /// The next rows; none if all were given.
    pub(super) async fn next_batch(&mut self) -> Result<Vec<StoredRow>, RestoreError> {
        let mut batch = Vec::new();
        while batch.len() < ROWS_MAX {
            let Some((key, value)) = self.scanner.next().await? else {
                break;
            };
            let handle = key.as_bytes().strip_prefix(self.prefix.as_bytes());
            let row = self.copier.copy(handle.unwrap_or_default(), &value);
            batch.push(row.map_err(|error| self.table.bad_row(&error))?);
        }
        Ok(batch)
    }
}

impl PlannedSystemTable {
    fn bad_row(&self, error: &dyn std::fmt::Display) -> RestoreError {
        RestoreError::IncompatibleSystemTable {
            table: self.full_name(),
            why: format!("has a row that cannot be read: {error}"),
        }
    }
}

/// Removes what was brought in for it. Failing is only told.
pub(in super::super) async fn forget(target: &RestoreTarget, plan: &RestorePlan) {
    cleanup::delete_abandoned(&target.cluster, &ids(plan)).await;
}

/// The ids under which it was brought in.
pub(in super::super) fn ids(plan: &RestorePlan) -> Vec<TableId> {
    let tables = plan.system.iter();
    let ids = tables.filter_map(|table| plan.ids.get(table.old_id));
    // They lie beyond all that the cluster gave out, unless its counter is wrong; then better leave
    // something behind than delete the cluster's users.
    let is_table = |id: &TableId| {
        let mut targets = plan.system.iter().filter_map(|table| table.target.as_ref());
        targets.any(|(_, target)| target.id() == *id)
    };
    ids.filter(|id| !is_table(id)).collect()
}
