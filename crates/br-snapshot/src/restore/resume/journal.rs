//! # What it does
//! Keeps which schemas a restore is going to make and to drop, when it changes tables that are there:
//! from the first such change on the cluster cannot be asked any more what was there before.
//!
//! # Ordering and invariants
//! Written when all data is in, before the first schema. Changes are made in their order, each in one
//! transaction; one that was made is known by what it left.
//!
//! # After a crash
//! A part of it is as good as nothing: no schema has changed then. With a whole one the same command
//! makes the rest of the changes, and nothing else is needed of backup, log and cluster.

use br_catalog::{DroppedTable, NewDatabase, NewTable, SchemaChange};
use br_cluster::Cluster;
use br_rt::kill_point;
use br_tidb::meta_key::Counter;
use br_types::{DbId, TableId};
use serde::{Deserialize, Serialize};

use super::{
    super::{cleanup, error::RestoreError},
    DoneSteps,
};

/// The name of the note.
const NOTE: &str = "schemas";
/// Level of the compression: JSON of schemas becomes a tenth with the fastest.
const ZSTD_LEVEL: i32 = 1;
/// Bytes of a journal: the schemas of a million tables. More would be damage.
const JOURNAL_BYTES_MAX: usize = 8 << 30;

/// See the module.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) struct Journal {
    changes: Vec<ChangeRecord>,
    /// Ids whose keys no table has afterwards.
    abandoned: Vec<i64>,
    /// What the layer on top wants to have in the end.
    layer: Vec<u8>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ChangeRecord {
    databases: Vec<DatabaseRecord>,
    tables: Vec<TableRecord>,
    dropped: Vec<DroppedRecord>,
    dropped_databases: Vec<i64>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct DatabaseRecord {
    id: i64,
    name: String,
    json: String,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct TableRecord {
    db: i64,
    id: i64,
    name: String,
    json: String,
    /// By their place in [`Counter::EVERY`].
    counters: Vec<(usize, i64)>,
    replaces: Option<(i64, i64)>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct DroppedRecord {
    db: i64,
    id: i64,
    ids: Vec<i64>,
}

impl Journal {
    pub(in super::super) fn new(
        changes: &[SchemaChange],
        abandoned: &[TableId],
        layer: Vec<u8>,
    ) -> Journal {
        Journal {
            changes: changes.iter().map(ChangeRecord::of).collect(),
            abandoned: abandoned.iter().map(|id| id.0).collect(),
            layer,
        }
    }

    /// What the layer on top wants to have in the end.
    pub(in super::super) fn layer(&self) -> &[u8] {
        &self.layer
    }

    /// Tables that it makes or changes.
    pub(in super::super) fn tables(&self) -> usize {
        self.changes.iter().map(|change| change.tables.len()).sum()
    }

    /// The one that an interrupted command wrote.
    pub(in super::super) async fn read(done: &DoneSteps) -> Result<Option<Journal>, RestoreError> {
        let Some(note) = done.note(NOTE).await? else {
            return Ok(None);
        };
        let damaged = |problem: String| RestoreError::BadRecord {
            task: "with its schemas".to_owned(),
            problem,
        };
        let json =
            zstd::stream::decode_all(&note[..]).map_err(|error| damaged(error.to_string()))?;
        if json.len() > JOURNAL_BYTES_MAX {
            return Err(damaged("it is too long".to_owned()));
        }
        let journal = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(journal))
    }

    pub(in super::super) async fn write(&self, done: &DoneSteps) -> Result<(), RestoreError> {
        let failed = |problem: String| RestoreError::BadRecord {
            task: "with its schemas".to_owned(),
            problem,
        };
        let json = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        let note = zstd::stream::encode_all(&json[..], ZSTD_LEVEL);
        let note = note.map_err(|error| failed(error.to_string()))?;
        done.keep_note(NOTE, &note).await?;
        kill_point("restore.journal");
        Ok(())
    }

    /// Makes the changes that are not made yet, and removes the keys that no table has any more.
    pub(in super::super) async fn carry_out(&self, cluster: &Cluster) -> Result<(), RestoreError> {
        for change in &self.changes {
            let change = change.change();
            if !br_catalog::is_applied(cluster, &change).await? {
                br_catalog::apply(cluster, &change).await?;
            }
            kill_point("restore.schemas_part");
        }
        kill_point("restore.schemas");
        let abandoned: Vec<TableId> = self.abandoned.iter().copied().map(TableId).collect();
        cleanup::delete_abandoned(cluster, &abandoned).await;
        Ok(())
    }
}

impl ChangeRecord {
    fn of(change: &SchemaChange) -> ChangeRecord {
        let place = |counter: Counter| Counter::EVERY.iter().position(|known| *known == counter);
        ChangeRecord {
            databases: change
                .databases
                .iter()
                .map(|db| DatabaseRecord {
                    id: db.id.0,
                    name: db.name.clone(),
                    json: db.json.clone(),
                })
                .collect(),
            tables: change
                .tables
                .iter()
                .map(|table| TableRecord {
                    db: table.db.0,
                    id: table.id.0,
                    name: table.name.clone(),
                    json: table.json.clone(),
                    counters: table
                        .counters
                        .iter()
                        .filter_map(|(counter, last)| Some((place(*counter)?, *last)))
                        .collect(),
                    replaces: table.replaces.map(|(db, id)| (db.0, id.0)),
                })
                .collect(),
            dropped: change
                .dropped
                .iter()
                .map(|table| DroppedRecord {
                    db: table.db.0,
                    id: table.id.0,
                    ids: table.ids.iter().map(|id| id.0).collect(),
                })
                .collect(),
            dropped_databases: change.dropped_databases.iter().map(|id| id.0).collect(),
        }
    }

    fn change(&self) -> SchemaChange {
        SchemaChange {
            databases: self
                .databases
                .iter()
                .map(|db| NewDatabase {
                    id: DbId(db.id),
                    name: db.name.clone(),
                    json: db.json.clone(),
                })
                .collect(),
            tables: self
                .tables
                .iter()
                .map(|table| NewTable {
                    db: DbId(table.db),
                    id: TableId(table.id),
                    name: table.name.clone(),
                    json: table.json.clone(),
                    counters: table
                        .counters
                        .iter()
                        .filter_map(|(place, last)| Some((*Counter::EVERY.get(*place)?, *last)))
                        .collect(),
                    replaces: table.replaces.map(|(db, id)| (DbId(db), TableId(id))),
                })
                .collect(),
            dropped: self
                .dropped
                .iter()
                .map(|table| DroppedTable {
                    db: DbId(table.db),
                    id: TableId(table.id),
                    ids: table.ids.iter().copied().map(TableId).collect(),
                })
                .collect(),
            dropped_databases: self.dropped_databases.iter().copied().map(DbId).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_written() {
        let change = SchemaChange {
            databases: vec![NewDatabase {
                id: DbId(5),
                name: "Shop".to_owned(),
                json: "{}".to_owned(),
            }],
            tables: vec![NewTable {
                db: DbId(5),
                id: TableId(7),
                name: "orders".to_owned(),
                json: "{\"id\":7}".to_owned(),
                counters: Counter::EVERY.into_iter().zip([1, 2, 3, -4, 5]).collect(),
                replaces: Some((DbId(1), TableId(7))),
            }],
            dropped: vec![DroppedTable {
                db: DbId(1),
                id: TableId(9),
                ids: vec![TableId(9), TableId(10)],
            }],
            dropped_databases: vec![DbId(1)],
        };
        let journal = Journal::new(std::slice::from_ref(&change), &[TableId(9)], vec![1, 2]);
        let json = serde_json::to_vec(&journal).expect("JSON");
        let read: Journal = serde_json::from_slice(&json).expect("a journal");
        assert_eq!(read, journal);
        assert_eq!(read.changes[0].change(), change);
        assert_eq!((read.tables(), read.layer()), (1, &[1, 2][..]));
    }
}
