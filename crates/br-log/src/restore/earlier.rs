//! # What it does
//! What an earlier restore left in the cluster, in terms of the log: which of its tables are there,
//! under which ids, and what a restore that goes on from it has to do with each.
//!
//! # Ordering and invariants
//! The ids that the earlier restore saved are the only link; a table that they name and the cluster
//! does not have, or has under another database, means that somebody changed it since, and nothing
//! is restored. A restore that was gone on from already is not gone on from again.

use std::collections::{BTreeMap, HashMap};

use br_catalog::DroppedTable;
use br_cluster::{Cluster, Snapshot};
use br_format::{
    log::{id_map::RestoredIds, names},
    schema::SchemaEntry,
};
use br_snapshot::restore::{
    ExistingTable, PlannedDatabase, PlannedTable, RestoreOptions, RestorePlan,
};
use br_storage::Storage;
use br_tidb::schema::{
    DbInfo, TableInfo, is_system_db,
    patch::{DbPatch, TablePatch},
    strip_temporary_prefix,
};
use br_types::{ClusterId, DbId, TableId, TimeStamp};
use futures::TryStreamExt;

use super::{
    error::PointError,
    id_map::IdMap,
    schema_changes::SchemaChanges,
    schema_state::{FinalTable, SchemaState},
};

/// What an earlier restore left.
pub(super) struct Earlier {
    /// Databases, by their id in the log: the id in the cluster.
    databases: BTreeMap<DbId, DbId>,
    /// Tables, by their id in the log.
    tables: BTreeMap<TableId, EarlierTable>,
    /// Entries as a backup made at the end of that restore would have them, with the log's ids.
    pub(super) entries: Vec<SchemaEntry>,
}

struct EarlierTable {
    db: DbId,
    info: TableInfo,
    /// Ids of the log, of the table and its partitions, and their ids in the cluster.
    ids: BTreeMap<TableId, TableId>,
}

impl Earlier {
    /// Reads what the restore to `start_ts` left.
    ///
    /// # Errors
    /// No such restore is known, it was gone on from, or its tables are not there any more.
    pub(super) async fn read(
        cluster: &Cluster,
        log: &Storage,
        start_ts: TimeStamp,
    ) -> Result<Earlier, PointError> {
        refuse_repeated(log, cluster.id(), start_ts).await?;
        let IdMap(ids) = IdMap::load(log, cluster, start_ts).await?;
        let snapshot = cluster.snapshot(cluster.pd().tso().await?);
        let mut earlier = Earlier {
            databases: BTreeMap::new(),
            tables: BTreeMap::new(),
            entries: Vec::new(),
        };
        let known = br_catalog::databases(&snapshot).await?;
        for db in &ids.dbs {
            let found = known.iter().find(|found| found.info.id == db.id.downstream);
            let Some(found) = found else {
                return Err(gone(&format!("database {}", db.name)));
            };
            earlier
                .databases
                .insert(DbId(db.id.upstream), DbId(db.id.downstream));
            let db_json = with_db_id(&found.json, DbId(db.id.upstream))?;
            earlier.entries.push(SchemaEntry {
                db_json: db_json.clone().into_bytes(),
                ..SchemaEntry::default()
            });
            earlier
                .read_tables(&snapshot, &ids, db.id.upstream, &db_json)
                .await?;
        }
        Ok(earlier)
    }

    async fn read_tables(
        &mut self,
        snapshot: &Snapshot,
        ids: &RestoredIds,
        upstream_db: i64,
        db_json: &str,
    ) -> Result<(), PointError> {
        let Some(db) = ids.dbs.iter().find(|db| db.id.upstream == upstream_db) else {
            return Ok(());
        };
        let downstream = DbId(db.id.downstream);
        let mut found: HashMap<i64, (String, TableInfo)> = HashMap::new();
        let wanted: HashMap<i64, _> = db
            .tables
            .iter()
            .filter(|table| !table.filtered_out)
            .map(|table| (table.id.downstream, table))
            .collect();
        br_catalog::tables(snapshot, downstream, |table| {
            if wanted.contains_key(&table.info.id) {
                found.insert(table.info.id, (table.json, table.info));
            }
            Ok(())
        })
        .await?;
        for table in wanted.values() {
            let name = format!("{}.{}", db.name, table.name);
            let Some((json, info)) = found.remove(&table.id.downstream) else {
                return Err(gone(&format!("table {name}")));
            };
            let pairs = std::iter::once(&table.id).chain(&table.partitions);
            let ids: BTreeMap<TableId, TableId> = pairs
                .map(|pair| (TableId(pair.upstream), TableId(pair.downstream)))
                .collect();
            let json = with_log_ids(&name, &json, &ids)?;
            self.entries.push(SchemaEntry {
                db_json: db_json.as_bytes().to_vec(),
                table_json: Some(json.into_bytes()),
                ..SchemaEntry::default()
            });
            self.tables.insert(
                TableId(table.id.upstream),
                EarlierTable {
                    db: downstream,
                    info,
                    ids,
                },
            );
        }
        Ok(())
    }

    /// What a restore that goes on from here has to do. Ids of what is new are assigned later.
    ///
    /// # Errors
    /// A schema makes no sense.
    pub(super) fn plan(
        &self,
        changes: &SchemaChanges,
        options: &RestoreOptions,
        (start_ts, restored_ts): (TimeStamp, TimeStamp),
    ) -> Result<RestorePlan, PointError> {
        let mut plan = RestorePlan {
            last_backup_ts: start_ts,
            backup_ts: restored_ts,
            ..RestorePlan::default()
        };
        let mut places: HashMap<DbId, usize> = HashMap::new();
        let mut state = SchemaState::new(changes);
        for entry in &self.entries {
            if let Some(table) = state.entry_of_backup(entry.clone())? {
                self.add_table(&mut plan, &mut places, &table, options)?;
            }
        }
        let databases =
            state.rest(|table| self.add_table(&mut plan, &mut places, &table, options))?;
        for entry in databases {
            let db = parse_db(&entry)?;
            if options.takes_db(strip_temporary_prefix(&db.name.original)) {
                self.place_of(&mut plan, &mut places, &db);
            }
        }
        let kept: Vec<TableId> = plan.tables.iter().map(|table| table.old_id).collect();
        for (id, table) in &self.tables {
            if !kept.contains(id) {
                plan.dropped.push(DroppedTable {
                    db: table.db,
                    id: table.info.id(),
                    ids: table.info.all_ids(),
                });
            }
        }
        for (db, json) in &changes.databases {
            if let (None, Some(downstream)) = (json, self.databases.get(db)) {
                plan.dropped_databases.push(*downstream);
            }
        }
        Ok(plan)
    }

    fn add_table(
        &self,
        plan: &mut RestorePlan,
        places: &mut HashMap<DbId, usize>,
        table: &FinalTable,
        options: &RestoreOptions,
    ) -> Result<(), PointError> {
        let db = parse_db(&table.entry)?;
        let db_name = strip_temporary_prefix(&db.name.original);
        let info = &table.info;
        let earlier = self.tables.get(&info.id());
        let is_wanted = earlier.is_some() || options.takes_table(db_name, &info.name.original);
        if is_system_db(&db_name.to_lowercase()) || !is_wanted {
            return Ok(());
        }
        let database = self.place_of(plan, places, &db);
        let partitions = info.active_partition();
        let partitions = partitions.map(|partition| &partition.definitions[..]);
        let names = partitions.unwrap_or_default().iter();
        let still = |id: &TableId| info.all_ids().contains(id);
        plan.tables.push(PlannedTable {
            database,
            name: info.name.original.clone(),
            old_id: info.id(),
            old_physical_ids: info.all_ids(),
            partition_names: names
                .map(|part| (part.name.lower.clone(), TableId(part.id)))
                .collect(),
            existing: earlier.map(|earlier| ExistingTable {
                db: earlier.db,
                ids: earlier
                    .ids
                    .iter()
                    .filter(|(old, _)| still(old))
                    .map(|(old, new)| (*old, *new))
                    .collect(),
                all_ids: earlier.info.all_ids(),
            }),
            has_rows: !info.is_view() && !info.is_sequence(),
            sums: Default::default(),
        });
        Ok(())
    }

    fn place_of(
        &self,
        plan: &mut RestorePlan,
        places: &mut HashMap<DbId, usize>,
        db: &DbInfo,
    ) -> usize {
        *places.entry(db.id()).or_insert_with(|| {
            plan.databases.push(PlannedDatabase {
                name: strip_temporary_prefix(&db.name.original).to_owned(),
                old_id: db.id(),
                existing: self.databases.get(&db.id()).copied(),
            });
            plan.databases.len() - 1
        })
    }
}

fn parse_db(entry: &SchemaEntry) -> Result<DbInfo, PointError> {
    DbInfo::parse(&entry.db_json).map_err(|error| PointError::Schema {
        name: "a database".to_owned(),
        problem: error.to_string(),
    })
}

/// Refuses to go on from a restore that was gone on from.
async fn refuse_repeated(
    log: &Storage,
    cluster: ClusterId,
    start_ts: TimeStamp,
) -> Result<(), PointError> {
    let prefix = names::id_map(cluster, TimeStamp::ZERO);
    let prefix = prefix.trim_end_matches('0').to_owned();
    let mut listed = log.list(&prefix);
    while let Some(entry) = listed.try_next().await? {
        let ts = entry.name.strip_prefix(&prefix);
        let ts = ts.and_then(|digits| digits.parse().ok()).map(TimeStamp);
        if let Some(later) = ts.filter(|ts| *ts > start_ts) {
            return Err(PointError::NoBase(format!(
                "cluster {cluster} was restored up to {later} already, which is later than \
                 {start_ts}"
            )));
        }
    }
    Ok(())
}

fn gone(what: &str) -> PointError {
    PointError::NoBase(format!(
        "{what}, which the earlier restore made, is not in the cluster any more"
    ))
}

fn with_db_id(json: &str, id: DbId) -> Result<String, PointError> {
    let failed = |error: br_tidb::schema::SchemaError| PointError::Schema {
        name: "a database".to_owned(),
        problem: error.to_string(),
    };
    let mut patch = DbPatch::new(json).map_err(failed)?;
    patch.set_id(id).map_err(failed)?;
    Ok(patch.finish())
}

/// A TableInfo of the cluster with the ids that its table has in the log.
fn with_log_ids(
    name: &str,
    json: &str,
    ids: &BTreeMap<TableId, TableId>,
) -> Result<String, PointError> {
    let of_log: HashMap<TableId, TableId> = ids.iter().map(|(old, new)| (*new, *old)).collect();
    let failed = |error: br_tidb::schema::SchemaError| PointError::Schema {
        name: name.to_owned(),
        problem: format!("it was changed since the earlier restore: {error}"),
    };
    let mut patch = TablePatch::new(json).map_err(failed)?;
    patch
        .set_ids(|id| of_log.get(&id).copied())
        .map_err(failed)?;
    Ok(patch.into_text())
}
