//! What a restore of tables will do, decided before anything is changed.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_catalog::DroppedTable;
use br_format::{
    backupmeta::{Content, DataFile},
    kv_stats::KvStats,
};
use br_tidb::{
    schema::{self, DbInfo, TableInfo, strip_temporary_prefix},
    table_key,
};
use br_types::{DbId, TableId, TimeStamp};

use super::{
    changes::Changes,
    error::RestoreError,
    options::RestoreOptions,
    source::Source,
    system::{self, PlannedSystemTable},
    table_ids::TableIdMap,
};

/// A plan, as `--dry-run` shows it.
#[derive(Clone, Debug, Default)]
pub struct RestorePlan {
    /// Where changes begin; zero for a full backup.
    pub last_backup_ts: TimeStamp,
    /// The point in time that the tables will show.
    pub backup_ts: TimeStamp,
    /// Databases, in the order of the backup.
    pub databases: Vec<PlannedDatabase>,
    /// Tables, views and sequences, in the order of the backup.
    pub tables: Vec<PlannedTable>,
    /// Tables of TiDB's own databases whose rows are taken over.
    pub system: Vec<PlannedSystemTable>,
    /// Whether the cluster's strings sort by their collations; known if there are such tables.
    pub new_collations: bool,
    /// Rows of each table and partition, by the id in the backup.
    pub rows: HashMap<TableId, u64>,
    /// Tables of TiDB's own databases that the filter takes and that stay behind.
    pub system_tables_left_out: usize,
    /// The ids that they get.
    pub ids: TableIdMap,
    /// Tables of the cluster that were dropped or truncated before an incremental backup.
    pub dropped: Vec<DroppedTable>,
    /// Databases of the cluster that were dropped before an incremental backup.
    pub dropped_databases: Vec<DbId>,
    /// Data files, their bytes as stored, and the pairs in them.
    pub files: FileTotals,
    /// Tables of the backup that an interrupted command made visible.
    pub created: HashSet<TableId>,
}

/// A database of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDatabase {
    /// Its name.
    pub name: String,
    /// Its id in the backup.
    pub old_id: DbId,
    /// Its id in the cluster, if it exists there already; it is not created then.
    pub existing: Option<DbId>,
}

/// A table, view or sequence of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTable {
    /// The place of its database in [`RestorePlan::databases`].
    pub database: usize,
    /// Its name.
    pub name: String,
    /// Its id in the backup.
    pub old_id: TableId,
    /// Its ids and those of its partitions in the backup, under which its keys lie.
    pub old_physical_ids: Vec<TableId>,
    /// Ids of its partitions in the backup, by name in lower case.
    pub partition_names: BTreeMap<String, TableId>,
    /// The table of the cluster that it goes on from, for an incremental backup.
    pub existing: Option<ExistingTable>,
    /// Whether it can have rows: not for views and sequences.
    pub has_rows: bool,
    /// Sums over its data files.
    pub sums: KvStats,
}

/// A table of the cluster that one of an incremental backup goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingTable {
    /// Its database in the cluster.
    pub db: DbId,
    /// Ids of the backup, of the table and its partitions, and their ids in the cluster.
    pub ids: BTreeMap<TableId, TableId>,
    /// Every id that it uses in the cluster.
    pub all_ids: Vec<TableId>,
}

/// Data files of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Files.
    pub files: u64,
    /// Bytes of the files as they are stored.
    pub stored_bytes: u64,
    /// Pairs of keys and values.
    pub kvs: u64,
    /// Bytes of those pairs.
    pub kv_bytes: u64,
}

impl RestorePlan {
    /// The name of a table with its database.
    pub fn full_name(&self, table: &PlannedTable) -> String {
        let db = self
            .databases
            .get(table.database)
            .map_or("", |db| db.name.as_str());
        format!("{db}.{}", table.name)
    }

    /// Whether it goes on from an earlier restore, whose tables it may change.
    pub(super) fn is_on_base(&self) -> bool {
        !self.last_backup_ts.is_zero()
    }

    /// Which table holds the keys of each physical id of the backup.
    pub(super) fn by_physical_id(&self) -> HashMap<TableId, usize> {
        let mut places = HashMap::new();
        for (place, table) in self.tables.iter().enumerate() {
            for id in &table.old_physical_ids {
                places.insert(*id, place);
            }
        }
        places
    }

    /// Whether files of a table or partition of the backup are brought in.
    pub(super) fn takes(&self, places: &HashMap<TableId, usize>, id: TableId) -> bool {
        places.contains_key(&id) || self.system.iter().any(|table| table.old_id == id)
    }

    /// All ids of the backup that need one in the cluster.
    fn old_ids(&self) -> impl Iterator<Item = TableId> + '_ {
        let databases = self.databases.iter().filter(|db| db.existing.is_none());
        let databases = databases.map(|db| TableId(db.old_id.0));
        let tables = self.tables.iter().flat_map(|table| {
            table
                .old_physical_ids
                .iter()
                .copied()
                .chain(std::iter::once(table.old_id))
        });
        let system = self.system.iter().map(|table| table.old_id);
        databases.chain(tables).chain(system)
    }

    /// Gives every table, partition and new database an id behind `last_used`, the last one that
    /// the cluster has given away.
    pub(super) fn assign_ids(&mut self, last_used: i64) {
        let existing = self
            .tables
            .iter()
            .filter_map(|table| table.existing.as_ref());
        let known = existing.flat_map(|table| table.ids.clone()).collect();
        self.ids = TableIdMap::plan(self.old_ids().collect::<Vec<_>>(), last_used, known);
    }

    /// Ids of the cluster whose keys no table has any more: of what was dropped, and of partitions
    /// that are gone.
    pub(super) fn abandoned_ids(&self) -> Vec<TableId> {
        let mut abandoned: Vec<_> = self
            .dropped
            .iter()
            .flat_map(|table| table.ids.iter().copied())
            .collect();
        for existing in self
            .tables
            .iter()
            .filter_map(|table| table.existing.as_ref())
        {
            let kept = |id: &TableId| existing.ids.values().any(|kept| kept == id);
            abandoned.extend(existing.all_ids.iter().copied().filter(|id| !kept(id)));
        }
        abandoned
    }

    /// The id that a database has in the cluster.
    pub(super) fn new_db_id(&self, database: usize) -> Option<DbId> {
        let db = self.databases.get(database)?;
        db.existing
            .or_else(|| self.ids.get(TableId(db.old_id.0)).map(|id| DbId(id.0)))
    }
}

/// Reads which databases and tables of the backup are asked for.
///
/// # Errors
/// The backup holds something else than tables, its metadata is damaged, or nothing of it is asked
/// for.
pub(super) async fn select<C: Changes>(
    source: &Source,
    changes: &C,
    options: &RestoreOptions,
) -> Result<RestorePlan, C::Error> {
    let head = &source.meta.head;
    let (found, command) = match head.content {
        Content::Tables => ("", ""),
        Content::Txn => ("transactional keys without schemas", "br restore txn"),
        Content::Raw(_) => ("raw keys", "br restore raw"),
    };
    if !found.is_empty() {
        let wanted = "tables";
        return Err(RestoreError::WrongContent {
            found,
            wanted,
            command,
        }
        .into());
    }
    let mut plan = RestorePlan {
        last_backup_ts: head.last_backup_ts,
        backup_ts: changes
            .point()
            .map_or(head.backup_ts, |point| point.restored_ts),
        ..RestorePlan::default()
    };
    let mut places: HashMap<DbId, usize> = HashMap::new();
    changes
        .schemas(Some(source), async |entry| {
            let db = parse_db(&entry.db_json)?;
            let name = strip_temporary_prefix(&db.name.original).to_owned();
            let is_system = schema::is_system_db(&name.to_lowercase());
            let table = entry
                .table_json
                .as_deref()
                .map(|json| parse_table(json, &name));
            let Some(table) = table.transpose()? else {
                if !is_system && options.takes_db(&name) {
                    place_of(&mut plan, &mut places, &db, name);
                }
                return Ok(());
            };
            if is_system || !options.takes_table(&name, &table.name.original) {
                return Ok(());
            }
            let database = place_of(&mut plan, &mut places, &db, name);
            let has_rows = !table.is_view() && !table.is_sequence();
            let partitions = table
                .active_partition()
                .map(|partition| &partition.definitions[..]);
            let partitions = partitions.unwrap_or_default().iter();
            plan.tables.push(PlannedTable {
                database,
                existing: None,
                partition_names: partitions
                    .map(|part| (part.name.lower.clone(), TableId(part.id)))
                    .collect(),
                old_id: table.id(),
                old_physical_ids: table.all_ids(),
                has_rows,
                sums: KvStats::default(),
                name: table.name.original,
            });
            Ok(())
        })
        .await?;
    system::select(source, options, &mut plan).await?;
    if plan.databases.is_empty() && plan.system.is_empty() {
        let what = options.wanted();
        return Err(RestoreError::NothingSelected { what }.into());
    }
    Ok(plan)
}

fn place_of(
    plan: &mut RestorePlan,
    places: &mut HashMap<DbId, usize>,
    db: &DbInfo,
    name: String,
) -> usize {
    *places.entry(db.id()).or_insert_with(|| {
        plan.databases.push(PlannedDatabase {
            name,
            old_id: db.id(),
            existing: None,
        });
        plan.databases.len() - 1
    })
}

/// Adds up the data files of the selected tables.
///
/// # Errors
/// The metadata is damaged.
pub(super) async fn add_up_files(
    source: &Source,
    wants: impl Fn(&DataFile) -> bool,
    plan: &mut RestorePlan,
) -> Result<(), RestoreError> {
    let places = plan.by_physical_id();
    source
        .data_files(async |files| {
            for file in files.into_iter().filter(&wants) {
                let id = table_key::table_id(file.range.start.as_bytes());
                let Some(id) = id.filter(|id| plan.takes(&places, *id)) else {
                    continue;
                };
                plan.files.files += 1;
                plan.files.stored_bytes += file.size_bytes;
                plan.files.kvs += file.stats.total_kvs;
                plan.files.kv_bytes += file.stats.total_bytes;
                if let Some(table) = places.get(&id).and_then(|at| plan.tables.get_mut(*at)) {
                    table.sums += file.stats;
                    if table_key::is_record(file.range.start.as_bytes()) {
                        *plan.rows.entry(id).or_default() += file.stats.total_kvs;
                    }
                }
                let system = plan.system.iter_mut().find(|table| table.old_id == id);
                if let Some(table) = system {
                    table.sums += file.stats;
                }
            }
            Ok(())
        })
        .await
}

pub(super) fn parse_db(json: &[u8]) -> Result<DbInfo, RestoreError> {
    DbInfo::parse(json).map_err(|source| RestoreError::Schema {
        name: "a database".to_owned(),
        source,
    })
}

pub(super) fn parse_table(json: &[u8], db: &str) -> Result<TableInfo, RestoreError> {
    TableInfo::parse(json).map_err(|source| RestoreError::Schema {
        name: format!("a table of {db}"),
        source,
    })
}
