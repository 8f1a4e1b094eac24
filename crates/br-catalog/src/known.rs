//! # What it does
//! Remembers the names and ids in use from one change of schemas to the next: a restore makes
//! thousands of tables in many transactions, and reading all schemas for each would take longer than
//! everything else.
//!
//! # Ordering and invariants
//! What is remembered holds for one schema version. Every change of schemas raises the version and
//! writes it, so a transaction that has read the version it relies on cannot miss one.

use std::collections::{BTreeMap, BTreeSet};

use br_cluster::Snapshot;
use br_types::{DbId, TableId};

use crate::{CatalogError, SchemaChange, read};

pub(crate) struct Known {
    version: i64,
    /// Names in lower case, by id.
    databases: BTreeMap<DbId, String>,
    /// Of the databases that were asked for.
    tables: BTreeMap<DbId, Tables>,
}

/// The tables of a database; names in lower case.
#[derive(Default)]
struct Tables {
    by_name: BTreeMap<String, TableId>,
    by_id: BTreeMap<TableId, String>,
}

impl Tables {
    fn insert(&mut self, id: TableId, name: String) {
        self.by_id.insert(id, name.clone());
        self.by_name.insert(name, id);
    }

    fn remove(&mut self, id: TableId) {
        if let Some(name) = self.by_id.remove(&id) {
            self.by_name.remove(&name);
        }
    }
}

/// The tables that a change takes away.
fn gone(change: &SchemaChange) -> BTreeSet<(DbId, TableId)> {
    let replaced = change.tables.iter().filter_map(|table| table.replaces);
    let dropped = change.dropped.iter().map(|table| (table.db, table.id));
    replaced.chain(dropped).collect()
}

impl Known {
    /// What `known` has, if it is of the snapshot's version; what is there otherwise.
    pub(crate) async fn of<'a>(
        snapshot: &Snapshot,
        known: &'a mut Option<Known>,
    ) -> Result<&'a mut Known, CatalogError> {
        let version = read::schema_version(snapshot).await?;
        if known.as_ref().is_none_or(|known| known.version != version) {
            let databases = read::databases(snapshot).await?;
            let databases = databases.into_iter();
            *known = Some(Known {
                version,
                databases: databases
                    .map(|db| (db.info.id(), db.info.name.lower))
                    .collect(),
                tables: BTreeMap::new(),
            });
        }
        Ok(known.as_mut().expect("it was set above"))
    }

    /// # Errors
    /// [`CatalogError::Exists`] if something that is to be created is there already.
    pub(crate) async fn check_absent(
        &mut self,
        snapshot: &Snapshot,
        change: &SchemaChange,
    ) -> Result<(), CatalogError> {
        for db in &change.databases {
            let lower = db.name.to_lowercase();
            if self.databases.contains_key(&db.id)
                || self.databases.values().any(|known| *known == lower)
            {
                let name = format!("database {}", db.name);
                return Err(CatalogError::Exists { name });
            }
        }
        let gone = gone(change);
        for table in &change.tables {
            let known = self.tables_of(snapshot, table.db).await?;
            let same_name = known.by_name.get(&table.name.to_lowercase()).copied();
            let same_id = known.by_id.contains_key(&table.id).then_some(table.id);
            let mut same = same_name.into_iter().chain(same_id);
            if same.any(|id| !gone.contains(&(table.db, id))) {
                let name = format!("table {}", table.name);
                return Err(CatalogError::Exists { name });
            }
        }
        Ok(())
    }

    async fn tables_of(&mut self, snapshot: &Snapshot, db: DbId) -> Result<&Tables, CatalogError> {
        // An entry's `or_insert_with` cannot wait.
        if !self.tables.contains_key(&db) {
            let mut found = Tables::default();
            // One that is created with its tables has none.
            if self.databases.contains_key(&db) {
                read::tables(snapshot, db, |table| {
                    found.insert(table.info.id(), table.info.name.lower);
                    Ok(())
                })
                .await?;
            }
            self.tables.insert(db, found);
        }
        Ok(&self.tables[&db])
    }

    /// The change was made and led to that version.
    pub(crate) fn take_in(&mut self, change: &SchemaChange, version: i64) {
        self.version = version;
        for db in &change.databases {
            self.databases.insert(db.id, db.name.to_lowercase());
        }
        for (db, id) in gone(change) {
            if let Some(known) = self.tables.get_mut(&db) {
                known.remove(id);
            }
        }
        for table in &change.tables {
            if let Some(known) = self.tables.get_mut(&table.db) {
                known.insert(table.id, table.name.to_lowercase());
            }
        }
        for db in &change.dropped_databases {
            self.databases.remove(db);
            self.tables.remove(db);
        }
    }
}
