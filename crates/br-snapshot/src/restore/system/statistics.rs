//! The optimizer's statistics of the restored tables: rows of `mysql.stats_*`, with the ids that the
//! tables have now. Tables without statistics get the number of their rows, so that TiDB analyzes
//! them soon.

use std::collections::{BTreeMap, BTreeSet};

use br_catalog::{CopiesOf, RowWriter};
use br_cluster::Cluster;
use br_rt::kill_point;
use br_tidb::{row::StoredRow, schema::TableInfo};
use br_types::{DbId, TableId, TimeStamp};

use super::{
    super::{RestoreTarget, error::RestoreError, plan::RestorePlan, resume::DoneSteps},
    PlannedSystemTable,
    rows::{Rows, writer},
};

/// The step after which statistics are there.
const TAKEN_OVER: &str = "statistics";
/// The table whose rows tell TiDB servers that there is something new.
const META: &str = "stats_meta";

/// Writes the statistics of the restored tables. Gives how many tables and partitions have some.
///
/// # Errors
/// [`RestoreError`]; some of them may have been written.
pub(in super::super) async fn take_over(
    target: &RestoreTarget,
    plan: &RestorePlan,
    done: Option<&DoneSteps>,
    is_resumed: bool,
) -> Result<usize, RestoreError> {
    if done.is_some_and(|done| !done.missing(TAKEN_OVER, 1, "").contains(&true)) {
        return Ok(0);
    }
    let work = Work {
        cluster: &target.cluster,
        plan,
        new_ids: new_ids(plan),
        // The tables are new, and so are rows about them, unless an interrupted command wrote some.
        copies: match is_resumed {
            true => CopiesOf::AnyRow,
            false => CopiesOf::NoRow,
        },
    };
    let known = work.write().await?;
    if let Some(done) = done {
        done.mark(TAKEN_OVER, 0);
        done.flush().await?;
    }
    kill_point("restore.statistics");
    Ok(known)
}

/// Ids of restored tables and partitions, old and new.
fn new_ids(plan: &RestorePlan) -> BTreeMap<i64, i64> {
    let tables = plan.tables.iter().filter(|table| table.has_rows);
    let old = tables.flat_map(|table| table.old_physical_ids.iter().copied());
    old.filter_map(|old| Some((old.0, plan.ids.get(old)?.0)))
        .collect()
}

struct Work<'a> {
    cluster: &'a Cluster,
    plan: &'a RestorePlan,
    new_ids: BTreeMap<i64, i64>,
    copies: CopiesOf,
}

/// Columns that are changed.
struct Columns {
    table_id: i64,
    /// Timestamps of the last change.
    versions: Vec<i64>,
}

impl Columns {
    fn of(table: &TableInfo) -> Option<Columns> {
        let id_of = |name: &str| {
            let mut columns = table.columns.iter();
            columns
                .find(|column| column.name.lower == name)
                .map(|column| column.id)
        };
        let versions = ["version", "last_stats_histograms_version"];
        Some(Columns {
            table_id: id_of("table_id")?,
            versions: versions.into_iter().filter_map(id_of).collect(),
        })
    }
}

impl Work<'_> {
    async fn write(&self) -> Result<usize, RestoreError> {
        let all = || self.plan.system.iter().filter(|table| table.is_statistics);
        // TiDB servers look at the rest when they see a new row here.
        let (meta, rest): (Vec<_>, Vec<_>) = all().partition(|table| table.info.name.lower == META);
        for table in rest {
            self.copy(table).await?;
            kill_point("restore.statistics_part");
        }
        let mut known = BTreeSet::new();
        for table in meta {
            known.extend(self.copy(table).await?);
            if let Some((db, to)) = &table.target {
                self.count_rows(*db, to, &known).await?;
            }
        }
        Ok(known.len())
    }

    /// Copies the rows of restored tables; gives the new ids of those that have some.
    async fn copy(&self, table: &PlannedSystemTable) -> Result<BTreeSet<i64>, RestoreError> {
        let mut known = BTreeSet::new();
        let Some((db, to)) = &table.target else {
            return Ok(known);
        };
        let Some(columns) = Columns::of(to) else {
            return Ok(known);
        };
        let version = self.cluster.pd().tso().await?;
        let mut rows = Rows::open(self.cluster, self.plan, table, to).await?;
        let mut writer = writer(self.cluster, self.plan, *db, to, self.copies).await?;
        loop {
            let batch = rows.next_batch().await?;
            if batch.is_empty() {
                return Ok(known);
            }
            let mut kept = Vec::new();
            for mut row in batch {
                let old = row.int(columns.table_id).unwrap_or_default();
                let Some(new) = self.new_ids.get(&old) else {
                    continue;
                };
                known.insert(*new);
                row.set_int(columns.table_id, *new);
                for column in &columns.versions {
                    row.set_uint(*column, version.0);
                }
                kept.push(row);
            }
            writer.replace(&kept).await?;
        }
    }

    /// Tells TiDB how many rows the tables have that no statistics are of.
    async fn count_rows(
        &self,
        db: DbId,
        meta: &TableInfo,
        known: &BTreeSet<i64>,
    ) -> Result<(), RestoreError> {
        let version = self.cluster.pd().tso().await?;
        let mut rows = Vec::new();
        for table in self.plan.tables.iter().filter(|table| table.has_rows) {
            let count = |id: TableId| self.plan.rows.get(&id).copied().unwrap_or_default();
            let all: u64 = table.old_physical_ids.iter().copied().map(count).sum();
            for old in &table.old_physical_ids {
                let count = match *old == table.old_id {
                    true => all,
                    false => count(*old),
                };
                let new = self.new_ids.get(&old.0).copied();
                if let Some(new) = new.filter(|new| !known.contains(new) && count > 0) {
                    rows.extend(meta_row(meta, new, count, version));
                }
            }
        }
        let mut writer: RowWriter<'_> =
            writer(self.cluster, self.plan, db, meta, self.copies).await?;
        writer.replace(&rows).await?;
        Ok(())
    }
}

/// A row of `mysql.stats_meta` of a table that was never analyzed; `None`: it is not the table that
/// we know.
fn meta_row(meta: &TableInfo, id: i64, count: u64, version: TimeStamp) -> Option<StoredRow> {
    let columns = Columns::of(meta)?;
    let mut row = StoredRow::new();
    for column in &meta.columns {
        match column.name.lower.as_str() {
            "modify_count" => row.set_int(column.id, count.try_into().unwrap_or(i64::MAX)),
            "count" => row.set_uint(column.id, count),
            "snapshot" => row.set_uint(column.id, 0),
            _ => row.set_null(column.id),
        }
    }
    row.set_int(columns.table_id, id);
    for column in columns.versions {
        row.set_uint(column, version.0);
    }
    Some(row)
}
