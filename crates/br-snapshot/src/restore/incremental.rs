//! # What it does
//! Finds out what the tables of an incremental backup are in a cluster to which the backup before
//! it was restored: which tables go on, which are new, and which were dropped in between.
//!
//! The schemas of the backup are those at its end, so nothing is replayed: a table that goes on gets
//! its newest schema, and changed keys go on top of those that are there. The DDL jobs of the backup
//! tell only where tables come from and which are gone.
//!
//! # Ordering and invariants
//! A table goes on from the one with its id, if that has its name or a DDL job names the id; else
//! from the one with its name, unless a DDL job made the table. Everything else has to be made by a
//! DDL job: a table without an origin means that the backup before was not restored here.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_catalog::DroppedTable;
use br_cluster::Snapshot;
use br_tidb::schema::TableInfo;
use br_types::{DbId, TableId};
use serde::Deserialize;

use super::{
    error::RestoreError,
    plan::{ExistingTable, RestorePlan},
    source::Source,
};

/// Kinds of DDL jobs, as TiDB numbers them.
mod kind {
    pub(super) const DROP_DATABASE: i64 = 2;
    pub(super) const DROP_TABLE: i64 = 4;
    pub(super) const TRUNCATE_TABLE: i64 = 11;
    pub(super) const DROP_VIEW: i64 = 24;
    pub(super) const DROP_SEQUENCE: i64 = 36;
}

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
}

#[derive(Deserialize)]
struct Binlog {
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

    fn drops_table(&self) -> bool {
        use kind::{DROP_SEQUENCE, DROP_TABLE, DROP_VIEW, TRUNCATE_TABLE};
        [DROP_TABLE, DROP_VIEW, DROP_SEQUENCE, TRUNCATE_TABLE].contains(&self.kind)
    }
}

/// The tables of the cluster, found by id and by name.
struct Base {
    by_id: HashMap<TableId, Found>,
    by_name: HashMap<(String, String), TableId>,
    databases: HashMap<String, DbId>,
}

#[derive(Clone)]
struct Found {
    db: DbId,
    name: (String, String),
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

    fn named(&self, name: &(String, String)) -> Option<&Found> {
        self.by_id.get(self.by_name.get(name)?)
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
    let made: HashSet<TableId> = jobs.iter().flat_map(Job::results).collect();
    let named: HashSet<TableId> = jobs.iter().map(|job| TableId(job.table_id)).collect();
    for db in &mut plan.databases {
        db.existing = base.databases.get(&db.name.to_lowercase()).copied();
    }
    let last_backup_ts = plan.last_backup_ts;
    let databases: Vec<_> = plan
        .databases
        .iter()
        .map(|db| db.name.to_lowercase())
        .collect();
    let mut goes_on = HashSet::new();
    for table in &mut plan.tables {
        let db = databases.get(table.database).cloned().unwrap_or_default();
        let name = (db, table.name.to_lowercase());
        let same_id = base.by_id.get(&table.old_id);
        let same_id = same_id.filter(|found| found.name == name || named.contains(&table.old_id));
        // A table that a job made, by CREATE or TRUNCATE, is not the one of its name.
        let is_altered = named.contains(&table.old_id);
        let same_name = || {
            let found = base.named(&name)?;
            (is_altered || !made.contains(&table.old_id)).then_some(found)
        };
        match same_id.or_else(same_name) {
            Some(found) => {
                goes_on.insert(found.info.id());
                table.existing = Some(existing(found, &table.partition_names, table.old_id));
            }
            None if made.contains(&table.old_id) => {}
            None => {
                let missing = format!("table {}.{}", name.0, name.1);
                return Err(RestoreError::NoBase {
                    last_backup_ts,
                    missing,
                });
            }
        }
    }
    plan.dropped = dropped(&jobs, &base, &goes_on);
    plan.dropped_databases = dropped_databases(&jobs, &base, plan);
    Ok(())
}

/// Ids of the backup and of the cluster, partitions matched by name.
fn existing(
    found: &Found,
    partitions: &BTreeMap<String, TableId>,
    old_id: TableId,
) -> ExistingTable {
    let mut ids = BTreeMap::from([(old_id, found.info.id())]);
    let known = found
        .info
        .active_partition()
        .map(|partition| &partition.definitions[..]);
    for definition in known.unwrap_or_default() {
        let id = TableId(definition.id);
        // A partition that was truncated has its name and another id: its rows are new ones.
        if let Some(old) = partitions.get(&definition.name.lower)
            && (*old == id || found.info.id() != old_id)
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

/// Tables of the cluster that a job dropped or truncated, by id or else by name.
fn dropped(jobs: &[Job], base: &Base, goes_on: &HashSet<TableId>) -> Vec<DroppedTable> {
    let mut dropped = BTreeMap::new();
    for job in jobs.iter().filter(|job| job.drops_table()) {
        let name = (
            job.schema_name.to_lowercase(),
            job.table_name.to_lowercase(),
        );
        let by_id = base.by_id.get(&TableId(job.table_id));
        let found = by_id
            .filter(|found| found.name == name)
            .or_else(|| base.named(&name));
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
    Ok(jobs)
}
