//! # What it does
//! Takes over rows of TiDB's own tables: users and privileges, bindings, and the optimizer's
//! statistics of the tables that are restored.
//!
//! # Ordering and invariants
//! Data files of these tables go in like those of others, under ids that no table has. Their rows
//! are read from there and written into the cluster's tables, column by column by name, as
//! `REPLACE INTO` does: rows with an equal key go, others stay. Users and privileges come before the
//! restored tables are visible; statistics after, since TiDB servers forget those of tables that
//! they do not know.
//!
//! # After a crash
//! Some rows are there; the same restore again completes them. The ids are the restore's own and go
//! with it.

mod plan;
mod rows;
mod statistics;

use br_tidb::schema::TableInfo;
use br_types::{DbId, TableId};

use br_format::kv_stats::KvStats;

pub(super) use plan::{match_target, select};
pub(super) use rows::{forget, ids, take_over};
pub(super) use statistics::take_over as take_over_statistics;

/// A table of TiDB's own databases whose rows are taken over.
#[derive(Clone, Debug)]
pub struct PlannedSystemTable {
    /// Its database.
    pub db: String,
    /// Its name.
    pub name: String,
    /// Its id in the backup.
    pub old_id: TableId,
    /// Whether it has statistics, of which those of restored tables count.
    pub is_statistics: bool,
    /// Sums over its data files.
    pub sums: KvStats,
    /// As it is in the backup.
    pub(super) info: TableInfo,
    /// As it is in the cluster, with its database.
    pub(super) target: Option<(DbId, TableInfo)>,
}

/// Tables of `mysql` with users and what they may do.
const PRIVILEGE_TABLES: [&str; 8] = [
    "columns_priv",
    "db",
    "default_roles",
    "global_grants",
    "global_priv",
    "role_edges",
    "tables_priv",
    "user",
];

impl PlannedSystemTable {
    /// The name with its database.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.db, self.name)
    }

    fn is_of_mysql(&self, names: &[&str]) -> bool {
        self.db.eq_ignore_ascii_case("mysql") && names.contains(&self.info.name.lower.as_str())
    }
}
