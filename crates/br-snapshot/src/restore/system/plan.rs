//! Which tables of TiDB's own databases are taken over.

use br_cluster::Snapshot;
use br_format::kv_stats::KvStats;
use br_tidb::{
    row::{RowCopier, RowEncoder},
    schema::{self, SystemTable, strip_temporary_prefix},
};

use super::{
    super::{
        error::RestoreError,
        options::{RestoreOptions, Scope},
        plan::{RestorePlan, parse_db, parse_table},
        source::Source,
    },
    PRIVILEGE_TABLES, PlannedSystemTable,
};

/// Tables whose rows are history, or that no planner reads any more.
const STATISTICS_LEFT: [&str; 4] = [
    "stats_feedback",
    "stats_history",
    "stats_meta_history",
    "stats_table_locked",
];

/// Adds the tables of TiDB's own databases that are asked for to the plan.
///
/// # Errors
/// The metadata is damaged.
pub(in super::super) async fn select(
    source: &Source,
    options: &RestoreOptions,
    plan: &mut RestorePlan,
) -> Result<(), RestoreError> {
    let takes_statistics = options.load_stats
        && matches!(options.scope, Scope::Full { .. })
        && plan.last_backup_ts.is_zero()
        && !plan.tables.is_empty();
    source
        .schemas(async |entry| {
            let db = parse_db(&entry.db_json)?;
            let name = strip_temporary_prefix(&db.name.original).to_owned();
            let Some(json) = entry.table_json else {
                return Ok(());
            };
            if !schema::is_system_db(&name.to_lowercase()) {
                return Ok(());
            }
            let info = parse_table(&json, &name)?;
            let is_wanted = options.takes_table(&name, &info.name.original);
            let kind = schema::system_table(&name.to_lowercase(), &info.name.lower);
            let is_statistics = kind == Some(SystemTable::Statistics);
            let is_taken = match kind {
                Some(SystemTable::Restored) => is_wanted && options.with_system_tables,
                Some(SystemTable::Statistics) => {
                    takes_statistics && !STATISTICS_LEFT.contains(&info.name.lower.as_str())
                }
                _ => false,
            };
            if is_taken && !info.is_view() && !info.is_sequence() {
                plan.system.push(PlannedSystemTable {
                    db: name,
                    name: info.name.original.clone(),
                    old_id: info.id(),
                    is_statistics,
                    sums: KvStats::default(),
                    info,
                    target: None,
                });
            } else if is_wanted && !is_statistics {
                plan.system_tables_left_out += 1;
            }
            Ok(())
        })
        .await
}

/// Finds the cluster's tables that rows are written into. Those that it does not have are left out.
///
/// # Errors
/// [`RestoreError::IncompatibleSystemTable`].
pub(in super::super) async fn match_target(
    snapshot: &Snapshot,
    plan: &mut RestorePlan,
) -> Result<(), RestoreError> {
    if plan.system.is_empty() {
        return Ok(());
    }
    plan.new_collations = br_catalog::new_collations_enabled(snapshot)
        .await?
        .unwrap_or(true);
    let mut has_mysql = false;
    for db in br_catalog::databases(snapshot).await? {
        has_mysql |= db.info.name.lower == "mysql";
        let mut wanted: Vec<_> = plan
            .system
            .iter_mut()
            .filter(|table| table.db.to_lowercase() == db.info.name.lower)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        br_catalog::tables(snapshot, db.info.id(), |found| {
            let lower = &found.info.name.lower;
            for table in &mut wanted {
                if table.info.name.lower == *lower {
                    table.target = Some((db.info.id(), found.info.clone()));
                }
            }
            Ok(())
        })
        .await?;
    }
    let mut kept = Vec::new();
    for table in std::mem::take(&mut plan.system) {
        match fits(&table, plan.new_collations) {
            Ok(()) => kept.push(table),
            // Without TiDB's own tables nobody could log in anyway.
            Err(_) if !has_mysql => {
                plan.system_tables_left_out += usize::from(!table.is_statistics)
            }
            Err(why) if table.is_statistics => left_out(plan, &table, &why),
            Err(why) if table.target.is_none() && !table.is_of_mysql(&PRIVILEGE_TABLES) => {
                left_out(plan, &table, &why);
            }
            Err(why) => {
                return Err(RestoreError::IncompatibleSystemTable {
                    table: table.full_name(),
                    why,
                });
            }
        }
    }
    if !has_mysql {
        tracing::warn!(
            "users and privileges are left out: no TiDB server has ever run on the cluster"
        );
    }
    plan.system = kept;
    Ok(())
}

fn left_out(plan: &mut RestorePlan, table: &PlannedSystemTable, why: &str) {
    tracing::warn!(table = table.full_name(), why, "its rows are left out");
    if !table.is_statistics {
        plan.system_tables_left_out += 1;
    }
}

fn fits(table: &PlannedSystemTable, new_collations: bool) -> Result<(), String> {
    let Some((_, target)) = &table.target else {
        return Err("the cluster does not have it".to_owned());
    };
    RowCopier::new(&table.info, target, 0).map_err(|error| error.to_string())?;
    RowEncoder::new(target, new_collations).map_err(|error| error.to_string())?;
    Ok(())
}
