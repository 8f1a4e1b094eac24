//! # What it does
//! Finds out what the tables of an incremental backup are in a cluster to which the backup before
//! it was restored: which tables go on, which are new, and which were dropped in between.
//!
//! The schemas of the backup are those at its end, so nothing is replayed: a table that goes on gets
//! its newest schema, and changed keys go on top of those that are there. The DDL jobs of the backup
//! tell only where tables come from and which are gone.
//!
//! # Ordering and invariants
//! Ids mean nothing by themselves: those of the cluster may be others, and belong to other tables. A
//! table goes on from the one that has the name which it had at the backup before; the DDL jobs tell
//! that name, and which tables were made since. A table with neither means that the backup before was
//! not restored here. If every table has its new name and its id, the backup itself was.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_catalog::DroppedTable;
use br_cluster::Snapshot;
use br_tidb::schema::TableInfo;
use br_types::{DbId, TableId};
use serde::Deserialize;

use super::{
    error::RestoreError,
    plan::{ExistingTable, PlannedTable, RestorePlan},
    source::Source,
};

#[cfg(test)]
mod tests;

/// Kinds of DDL jobs, as TiDB numbers them.
mod kind {
    pub(super) const DROP_DATABASE: i64 = 2;
    pub(super) const CREATE_TABLE: i64 = 3;
    pub(super) const DROP_TABLE: i64 = 4;
    pub(super) const TRUNCATE_TABLE: i64 = 11;
    pub(super) const RENAME_TABLE: i64 = 14;
    pub(super) const CREATE_VIEW: i64 = 21;
    pub(super) const DROP_VIEW: i64 = 24;
    pub(super) const CREATE_SEQUENCE: i64 = 34;
    pub(super) const DROP_SEQUENCE: i64 = 36;
    pub(super) const RENAME_TABLES: i64 = 47;
    pub(super) const CREATE_TABLES: i64 = 60;
    pub(super) const ALTER_PARTITIONING: i64 = 71;
    pub(super) const REMOVE_PARTITIONING: i64 = 72;
}

/// Database and table, in lower case.
type Name = (String, String);

#[derive(Deserialize)]
struct Job {
    #[serde(rename = "type")]
    kind: i64,
    #[serde(default)]
    schema_id: i64,
    #[serde(default)]
    table_id: i64,
    #[serde(default)]
    schema_name: String,
    #[serde(default)]
    table_name: String,
    binlog: Option<Binlog>,
    /// Of a RENAME: old name, new name, and so on.
    #[serde(rename = "involving_schema_info")]
    involved: Option<Vec<Involved>>,
    raw_args: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Involved {
    #[serde(default)]
    database: String,
    #[serde(default)]
    table: String,
}

#[derive(Deserialize)]
struct Binlog {
    #[serde(rename = "FinishedTS", default)]
    finished_ts: u64,
    #[serde(rename = "TableInfo")]
    table: Option<Named>,
    #[serde(rename = "MultipleTableInfos")]
    tables: Option<Vec<Option<Named>>>,
}

#[derive(Deserialize)]
struct Named {
    id: i64,
}

impl Job {
    /// The tables as they are after the job.
    fn results(&self) -> impl Iterator<Item = TableId> + '_ {
        let binlog = self.binlog.iter();
        let one = binlog.clone().filter_map(|binlog| binlog.table.as_ref());
        let many = binlog.flat_map(|binlog| binlog.tables.iter().flatten().flatten());
        one.chain(many).map(|table| TableId(table.id))
    }

    fn finished_ts(&self) -> u64 {
        self.binlog.as_ref().map_or(0, |binlog| binlog.finished_ts)
    }

    /// Tables that were not there before the job.
    fn made(&self) -> Vec<TableId> {
        use kind::{
            ALTER_PARTITIONING, CREATE_SEQUENCE, CREATE_TABLE, CREATE_TABLES, CREATE_VIEW,
            REMOVE_PARTITIONING, TRUNCATE_TABLE,
        };
        let own = TableId(self.table_id);
        match self.kind {
            CREATE_TABLE | CREATE_TABLES | CREATE_VIEW | CREATE_SEQUENCE => {
                self.results().chain([own]).collect()
            }
            TRUNCATE_TABLE | ALTER_PARTITIONING | REMOVE_PARTITIONING => {
                self.results().filter(|id| *id != own).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Partitions that were not there before a TRUNCATE.
    fn made_partitions(&self) -> impl Iterator<Item = TableId> + '_ {
        let ids = self.raw_args.as_ref();
        let ids = ids.and_then(|args| args.get("new_partition_ids")?.as_array());
        ids.into_iter()
            .flatten()
            .filter_map(|id| id.as_i64().map(TableId))
    }

    /// The names that tables had before the job.
    fn names_before(&self) -> Vec<(TableId, Name)> {
        let involved = self.involved.as_deref().unwrap_or_default();
        let olds = involved.iter().step_by(2);
        let mut olds = olds.map(|old| (old.database.to_lowercase(), old.table.to_lowercase()));
        let own = (
            self.schema_name.to_lowercase(),
            self.table_name.to_lowercase(),
        );
        match self.kind {
            kind::RENAME_TABLES => self.results().zip(olds).collect(),
            // The database that the job names is the new one.
            kind::RENAME_TABLE => {
                let old = olds.next().filter(|(_, table)| *table == own.1);
                vec![(TableId(self.table_id), old.unwrap_or(own))]
            }
            _ => vec![(TableId(self.table_id), own)],
        }
    }

    fn drops_table(&self) -> bool {
        use kind::{DROP_SEQUENCE, DROP_TABLE, DROP_VIEW, TRUNCATE_TABLE};
        [DROP_TABLE, DROP_VIEW, DROP_SEQUENCE, TRUNCATE_TABLE].contains(&self.kind)
    }
}

/// What DDL jobs tell of tables of the backup.
#[derive(Default)]
struct Past {
    /// Those that were not there at the backup before.
    made: HashSet<TableId>,
    /// Partitions that were made since, with the names of others.
    made_partitions: HashSet<TableId>,
    /// The names at that time of those that a job changed.
    names: HashMap<TableId, Name>,
}

impl Past {
    /// `jobs` are in the order in which they took effect.
    fn of(jobs: &[Job]) -> Past {
        let mut past = Past::default();
        for job in jobs {
            let made = job.made();
            let is_old = |id: &TableId| !past.names.contains_key(id);
            let made: Vec<_> = made.into_iter().filter(is_old).collect();
            past.made.extend(made);
            past.made_partitions.extend(job.made_partitions());
            for (id, name) in job.names_before() {
                if !past.made.contains(&id) {
                    past.names.entry(id).or_insert(name);
                }
            }
        }
        past
    }
}

/// The tables of the cluster, found by id and by name.
struct Base {
    by_id: HashMap<TableId, Found>,
    by_name: HashMap<Name, TableId>,
    databases: HashMap<String, DbId>,
}

#[derive(Clone)]
struct Found {
    db: DbId,
    name: Name,
    info: TableInfo,
}

impl Base {
    async fn read(snapshot: &Snapshot) -> Result<Base, RestoreError> {
        let mut base = Base {
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            databases: HashMap::new(),
        };
        for db in br_catalog::databases(snapshot).await? {
            let lower = db.info.name.lower.clone();
            base.databases.insert(lower.clone(), db.info.id());
            br_catalog::tables(snapshot, db.info.id(), |table| {
                let name = (lower.clone(), table.info.name.lower.clone());
                base.by_name.insert(name.clone(), table.info.id());
                let found = Found {
                    db: db.info.id(),
                    name,
                    info: table.info,
                };
                base.by_id.insert(found.info.id(), found);
                Ok(())
            })
            .await?;
        }
        Ok(base)
    }

    fn named(&self, name: &Name) -> Option<&Found> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// The table that one of the backup goes on from.
    fn origin(&self, past: &Past, id: TableId, name: &Name, has_rows: bool) -> Option<&Found> {
        // A view or sequence that was made again replaces the one of its name.
        if !has_rows {
            return self.named(name);
        }
        if past.made.contains(&id) {
            return None;
        }
        self.named(past.names.get(&id).unwrap_or(name))
    }
}

/// What of an incremental backup's plan depends on the cluster.
pub(super) async fn match_base(
    source: &Source,
    snapshot: &Snapshot,
    plan: &mut RestorePlan,
) -> Result<(), RestoreError> {
    let jobs = read_jobs(source).await?;
    let base = Base::read(snapshot).await?;
    matched(&jobs, &base, plan)
}

fn matched(jobs: &[Job], base: &Base, plan: &mut RestorePlan) -> Result<(), RestoreError> {
    let past = Past::of(jobs);
    for db in &mut plan.databases {
        db.existing = base.databases.get(&db.name.to_lowercase()).copied();
    }
    let last_backup_ts = plan.last_backup_ts;
    let databases: Vec<_> = plan
        .databases
        .iter()
        .map(|db| db.name.to_lowercase())
        .collect();
    let name_of = |table: &PlannedTable| {
        let db = databases.get(table.database).cloned().unwrap_or_default();
        (db, table.name.to_lowercase())
    };
    // All of it was restored before: names are the new ones, and ids those of the backup. Of one table
    // that says nothing, it may have another one's id by chance.
    let is_done = |table: &PlannedTable| {
        let found = base.by_id.get(&table.old_id);
        found.is_some_and(|found| found.name == name_of(table))
    };
    let is_done = plan.tables.iter().all(is_done);
    let mut goes_on = HashSet::new();
    for table in &mut plan.tables {
        let name = name_of(table);
        let origin = match is_done {
            true => base.by_id.get(&table.old_id),
            false => base.origin(&past, table.old_id, &name, table.has_rows),
        };
        match origin {
            Some(found) => {
                goes_on.insert(found.info.id());
                table.existing = Some(existing(found, &past, table));
            }
            None if past.made.contains(&table.old_id) || !table.has_rows => {}
            None => {
                let missing = format!("table {}.{}", name.0, name.1);
                return Err(RestoreError::NoBase {
                    last_backup_ts,
                    missing,
                });
            }
        }
    }
    plan.dropped = dropped(jobs, base, &past, &goes_on);
    plan.dropped_databases = dropped_databases(jobs, base, plan);
    Ok(())
}

/// Ids of the backup and of the cluster, partitions matched by name.
fn existing(found: &Found, past: &Past, table: &PlannedTable) -> ExistingTable {
    let mut ids = BTreeMap::from([(table.old_id, found.info.id())]);
    let known = found
        .info
        .active_partition()
        .map(|partition| &partition.definitions[..]);
    for definition in known.unwrap_or_default() {
        let id = TableId(definition.id);
        // A partition that was truncated has its name and another id: its rows are new ones.
        if let Some(old) = table.partition_names.get(&definition.name.lower)
            && !past.made_partitions.contains(old)
            && (*old == id || found.info.id() != table.old_id)
        {
            ids.insert(*old, id);
        }
    }
    ExistingTable {
        db: found.db,
        ids,
        all_ids: found.info.all_ids(),
    }
}

/// Tables of the cluster that a job dropped or truncated, by the names that they had before.
fn dropped(
    jobs: &[Job],
    base: &Base,
    past: &Past,
    goes_on: &HashSet<TableId>,
) -> Vec<DroppedTable> {
    let mut dropped = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.drops_table()) {
        let name = past.names.get(&TableId(job.table_id));
        let found = name.and_then(|name| base.named(name));
        if let Some(found) = found.filter(|found| !goes_on.contains(&found.info.id())) {
            let ids = found.info.all_ids();
            dropped.insert(
                found.info.id(),
                DroppedTable {
                    db: found.db,
                    id: found.info.id(),
                    ids,
                },
            );
        }
    }
    dropped.into_values().collect()
}

/// Databases of the cluster that a job dropped and that the backup does not have any more.
fn dropped_databases(jobs: &[Job], base: &Base, plan: &RestorePlan) -> Vec<DbId> {
    let kept: HashSet<_> = plan
        .databases
        .iter()
        .map(|db| db.name.to_lowercase())
        .collect();
    let mut dropped = Vec::new();
    for job in jobs.iter().filter(|job| job.kind == kind::DROP_DATABASE) {
        let name = job.schema_name.to_lowercase();
        if let Some(id) = base.databases.get(&name).filter(|_| !kept.contains(&name)) {
            tracing::info!(
                database = name,
                upstream_id = job.schema_id,
                "dropped in between"
            );
            dropped.push(*id);
        }
    }
    dropped.sort_unstable();
    dropped.dedup();
    dropped
}

async fn read_jobs(source: &Source) -> Result<Vec<Job>, RestoreError> {
    let mut jobs = Vec::new();
    source
        .ddl_jobs(|object, json| {
            let job = serde_json::from_slice(&json).map_err(|error| RestoreError::DdlJob {
                object: object.to_owned(),
                problem: error.to_string(),
            })?;
            jobs.push(job);
            Ok(())
        })
        .await?;
    jobs.sort_by_key(Job::finished_ts);
    Ok(jobs)
}
