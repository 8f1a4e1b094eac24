//! # What it does
//! The schemas at the restored point: those of the full backup, with the changes of the log on top.
//!
//! # Ordering and invariants
//! Tables are told apart by database and id, never by name: a database that was dropped and made
//! again under its name is another one, a table that moved keeps its rows because it keeps its id,
//! and partitions that were exchanged take theirs along.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_format::schema::SchemaEntry;
use br_snapshot::restore::RestoreError;
use br_tidb::schema::{Counters, DbInfo, TableInfo, for_backup, is_memory_db, stored_db_name};
use br_types::{DbId, IndexId, TableId};

use super::{
    error::PointError,
    schema_changes::{SchemaChanges, public_indexes},
};

/// A table of the restored point.
#[derive(Clone, Debug)]
pub(crate) struct FinalTable {
    /// Whether the log says anything of it that is not in the backup.
    pub(crate) is_changed: bool,
    /// Its DBInfo and TableInfo as a backup has them.
    pub(crate) entry: SchemaEntry,
    /// What the TableInfo says.
    pub(crate) info: TableInfo,
    /// Indexes that were added while the log ran: whether their entries are in it depends on how.
    pub(crate) added_indexes: HashSet<IndexId>,
}

/// What there is at the restored point, one table after the other.
pub(crate) struct SchemaState<'c> {
    changes: &'c SchemaChanges,
    /// Databases of the point, by id.
    databases: BTreeMap<DbId, String>,
    /// Databases that have tables.
    with_tables: HashSet<DbId>,
    /// Tables of the log that the backup has as well.
    seen: HashSet<(DbId, TableId)>,
    /// Of tables that are written again elsewhere: what the backup knew of them, by id.
    moved: HashMap<TableId, (Counters, HashSet<IndexId>)>,
}

impl<'c> SchemaState<'c> {
    /// Begins with nothing but the changes.
    pub(crate) fn new(changes: &'c SchemaChanges) -> SchemaState<'c> {
        let databases = changes.databases.iter();
        let databases = databases.filter_map(|(id, json)| Some((*id, json.clone()?)));
        SchemaState {
            changes,
            databases: databases.collect(),
            with_tables: HashSet::new(),
            seen: HashSet::new(),
            moved: HashMap::new(),
        }
    }

    /// An entry of the backup as it is at the point; `None` if it is gone by then.
    ///
    /// # Errors
    /// A schema makes no sense.
    pub(crate) fn entry_of_backup(
        &mut self,
        entry: SchemaEntry,
    ) -> Result<Option<FinalTable>, PointError> {
        let db_info = DbInfo::parse(&entry.db_json).map_err(|error| failed("a database", error))?;
        let db = db_info.id();
        // One that the log has is newer, or dropped.
        if !self.changes.databases.contains_key(&db) {
            let json = String::from_utf8_lossy(&entry.db_json).into_owned();
            self.databases.entry(db).or_insert(json);
        }
        let Some(json) = &entry.table_json else {
            return Ok(None);
        };
        let info = TableInfo::parse(json).map_err(|error| failed(&db_info.name.original, error))?;
        let change = self.changes.tables.get(&(db, info.id()));
        let base = (base_counters(&info), public_indexes(&info));
        if change.is_some() {
            self.seen.insert((db, info.id()));
        }
        let is_dropped_db = matches!(self.changes.databases.get(&db), Some(None));
        let new_json = match change {
            _ if is_dropped_db => None,
            None => Some(String::from_utf8_lossy(json).into_owned()),
            Some(change) => change.json.clone(),
        };
        let Some(new_json) = new_json else {
            self.moved.insert(info.id(), base);
            return Ok(None);
        };
        if change.is_none() && !self.changes.has_counters(info.id()) {
            self.with_tables.insert(db);
            return Ok(Some(FinalTable {
                is_changed: false,
                entry,
                info,
                added_indexes: HashSet::new(),
            }));
        }
        self.table(db, info.id(), &new_json, Some(base)).map(Some)
    }

    /// What the backup does not have: tables that are new or moved, and databases without tables.
    /// After all of the backup.
    ///
    /// # Errors
    /// A schema makes no sense.
    pub(crate) fn rest(
        &mut self,
        mut take: impl FnMut(FinalTable) -> Result<(), PointError>,
    ) -> Result<Vec<SchemaEntry>, PointError> {
        let changes = self.changes;
        for ((db, id), change) in &changes.tables {
            let Some(json) = &change.json else { continue };
            if self.seen.contains(&(*db, *id)) || !self.databases.contains_key(db) {
                continue;
            }
            let base = self.moved.get(id).cloned();
            let table = self.table(*db, *id, json, base)?;
            take(table)?;
        }
        let empty = self.databases.iter();
        let empty = empty.filter(|(id, _)| !self.with_tables.contains(id));
        let mut entries = Vec::new();
        for (_, json) in empty {
            if let Some(db_json) = self.stored_db(json)? {
                entries.push(SchemaEntry {
                    db_json,
                    ..SchemaEntry::default()
                });
            }
        }
        Ok(entries)
    }

    fn table(
        &mut self,
        db: DbId,
        id: TableId,
        json: &str,
        base: Option<(Counters, HashSet<IndexId>)>,
    ) -> Result<FinalTable, PointError> {
        let name = || format!("table {id}");
        let info = TableInfo::parse(json.as_bytes()).map_err(|error| failed(&name(), error))?;
        let (base_counters, base_indexes) = match base {
            Some((counters, indexes)) => (counters, Some(indexes)),
            None => (Counters::default(), None),
        };
        let counters = self
            .changes
            .counters(info.counter_db(db), id, base_counters);
        let json = for_backup(json, &counters, true)
            .map_err(|error| failed(&info.name.original, error))?;
        let db_json = self.databases.get(&db).cloned().unwrap_or_default();
        let db_json = self.stored_db(&db_json)?.unwrap_or_default();
        let at_first = match &base_indexes {
            Some(indexes) => Some(indexes),
            None => self.changes.first_indexes(id),
        };
        let added = public_indexes(&info);
        let added = added
            .into_iter()
            .filter(|index| at_first.is_some_and(|first| !first.contains(index)));
        let added_indexes = added.collect();
        self.with_tables.insert(db);
        Ok(FinalTable {
            is_changed: true,
            entry: SchemaEntry {
                db_json,
                table_json: Some(json.clone().into_bytes()),
                ..SchemaEntry::default()
            },
            info: TableInfo::parse(json.as_bytes()).map_err(|error| failed(&name(), error))?,
            added_indexes,
        })
    }

    /// DBInfo as a backup has it; `None` for databases that no backup has.
    fn stored_db(&self, json: &str) -> Result<Option<Vec<u8>>, PointError> {
        let info = DbInfo::parse(json.as_bytes()).map_err(|error| failed("a database", error))?;
        let name = &info.name.original;
        if is_memory_db(&info.name.lower) {
            return Ok(None);
        }
        // That of the backup has its temporary name already.
        let stored = stored_db_name(name);
        if stored == *name {
            return Ok(Some(json.as_bytes().to_vec()));
        }
        let mut patch =
            br_tidb::schema::patch::DbPatch::new(json).map_err(|error| failed(name, error))?;
        patch
            .set_name(&stored)
            .map_err(|error| failed(name, error))?;
        Ok(Some(patch.finish().into_bytes()))
    }
}

/// What each counter had given out at the backup: it notes the next one.
fn base_counters(table: &TableInfo) -> Counters {
    let last = |next: i64| (next > 0).then(|| next - 1);
    let mut counters = Counters::default();
    if table.is_sequence() {
        counters.sequence = Some(table.auto_inc_id.saturating_sub(1));
    } else if table.is_auto_increment_apart() {
        counters.auto_increment = last(table.auto_inc_id);
        counters.row_id = last(table.auto_inc_id_extra);
    } else {
        counters.row_id = last(table.auto_inc_id);
    }
    if table.auto_random_bits > 0 {
        counters.auto_random = last(table.auto_rand_id);
    }
    counters
}

fn failed(name: &str, error: br_tidb::schema::SchemaError) -> PointError {
    PointError::Restore(RestoreError::Schema {
        name: name.to_owned(),
        source: error,
    })
}

#[cfg(test)]
mod tests;
