//! What a backup is going to do, as plain data, before anything is changed.

use std::fmt;

use br_proto::kvrpcpb::ApiVersion;
use br_types::{Cf, ClusterId, KeyRange, RawKey, StoreId, TimeStamp};

/// Tables that a printed plan names; beyond, it counts them.
const TABLES_SHOWN_MAX: usize = 1_000;

/// A backup, planned. `Display` prints it for `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlan {
    /// The name of the command.
    pub title: &'static str,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Its version.
    pub cluster_version: String,
    /// Where the backup goes, without credentials.
    pub place: String,
    /// What goes there.
    pub content: PlannedContent,
    /// The ranges that the stores are asked for, in the keys of requests, sorted.
    pub ranges: Vec<KeyRange<RawKey>>,
    /// The stores that live now.
    pub stores: Vec<StoreId>,
    /// About so many regions, if PD could tell.
    pub regions: Option<u64>,
}

/// What is planned to be backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedContent {
    /// Tables.
    Tables {
        /// The point in time.
        backup_ts: TimeStamp,
        /// The last backup, if this one holds the changes since only.
        last_backup_ts: Option<TimeStamp>,
        /// Databases with their tables.
        databases: Vec<PlannedDatabase>,
    },
    /// Raw keys.
    Raw {
        /// The column family.
        cf: Cf,
        /// How the stores lay raw keys out; `None`: they did not say, and are asked for one after
        /// the other.
        api_version: Option<ApiVersion>,
    },
    /// Transactional keys.
    Txn {
        /// The point in time.
        backup_ts: TimeStamp,
    },
}

/// A database of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDatabase {
    /// Its name in the cluster.
    pub name: String,
    /// Its tables, views and sequences.
    pub tables: Vec<String>,
}

impl BackupPlan {
    /// The point in time; `None` for raw keys.
    pub fn backup_ts(&self) -> Option<TimeStamp> {
        match self.content {
            PlannedContent::Tables { backup_ts, .. } | PlannedContent::Txn { backup_ts } => {
                Some(backup_ts)
            }
            PlannedContent::Raw { .. } => None,
        }
    }

    /// Databases and tables.
    pub fn counts(&self) -> (u64, u64) {
        match &self.content {
            PlannedContent::Tables { databases, .. } => {
                let tables: usize = databases.iter().map(|db| db.tables.len()).sum();
                (databases.len() as u64, tables as u64)
            }
            PlannedContent::Raw { .. } | PlannedContent::Txn { .. } => (0, 0),
        }
    }
}

impl fmt::Display for BackupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of cluster {} ({})",
            self.title, self.cluster_id, self.cluster_version
        )?;
        writeln!(f, "to {}", self.place)?;
        match &self.content {
            PlannedContent::Tables {
                backup_ts,
                last_backup_ts,
                databases,
            } => {
                writeln!(f, "at timestamp {backup_ts}")?;
                if let Some(last) = last_backup_ts {
                    writeln!(f, "changes after {last} only")?;
                }
                let (databases_count, tables_count) = self.counts();
                writeln!(f, "{databases_count} databases, {tables_count} tables:")?;
                let names = databases.iter().flat_map(|db| {
                    let empty = db.tables.is_empty().then(|| format!("{} (empty)", db.name));
                    empty.into_iter().chain(
                        db.tables
                            .iter()
                            .map(move |table| format!("{}.{table}", db.name)),
                    )
                });
                for name in names.take(TABLES_SHOWN_MAX) {
                    writeln!(f, "  {name}")?;
                }
                let more = tables_count.saturating_sub(TABLES_SHOWN_MAX as u64);
                if more > 0 {
                    writeln!(f, "  and {more} more")?;
                }
            }
            PlannedContent::Raw { cf, api_version } => {
                let version = api_version.map_or("not known", |version| version.as_str_name());
                writeln!(f, "raw keys of column family {cf}, API version {version}")?;
            }
            PlannedContent::Txn { backup_ts } => {
                writeln!(f, "transactional keys at timestamp {backup_ts}")?;
            }
        }
        match self.regions {
            Some(regions) => write!(f, "{} ranges, about {regions} regions", self.ranges.len())?,
            None => write!(f, "{} ranges", self.ranges.len())?,
        }
        writeln!(f, ", {} stores", self.stores.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_will_happen() {
        let database = |name: &str, tables: &[&str]| PlannedDatabase {
            name: name.to_owned(),
            tables: tables.iter().map(|&table| table.to_owned()).collect(),
        };
        let plan = BackupPlan {
            title: "Full Backup",
            cluster_id: ClusterId(7),
            cluster_version: "9.0.0".to_owned(),
            place: "s3://bucket/prefix".to_owned(),
            content: PlannedContent::Tables {
                backup_ts: TimeStamp(500),
                last_backup_ts: Some(TimeStamp(400)),
                databases: vec![
                    database("shop", &["orders", "items"]),
                    database("empty", &[]),
                ],
            },
            ranges: vec![KeyRange::default()],
            stores: vec![StoreId(1), StoreId(4)],
            regions: Some(12),
        };
        let expected = "Full Backup of cluster 7 (9.0.0)\nto s3://bucket/prefix\n\
            at timestamp 500\nchanges after 400 only\n2 databases, 2 tables:\n  shop.orders\n  \
            shop.items\n  empty (empty)\n1 ranges, about 12 regions, 2 stores\n";
        assert_eq!(plan.to_string(), expected);
    }
}
