//! What every table held at every commit timestamp.

use std::collections::{BTreeMap, BTreeSet};

use br_types::{RawKey, TableId, TimeStamp};
use serde::{Deserialize, Serialize};

use crate::table::{Handle, Row, Table};

/// The keys and values of one physical table.
pub type Entries = BTreeMap<RawKey, Vec<u8>>;

/// The history of some tables: their schemas and each row's versions by commit timestamp.
#[derive(Clone, Debug, Default)]
pub struct Model {
    tables: Vec<TableHistory>,
}

/// One table from its making to its end. A truncated one ends, and another takes its name.
#[derive(Clone, Debug)]
struct TableHistory {
    /// From when on it was so; `None`: it is gone.
    schemas: BTreeMap<TimeStamp, Option<Table>>,
    rows: History,
}

impl TableHistory {
    fn at(&self, ts: TimeStamp) -> Option<&Table> {
        self.schemas.range(..=ts).next_back()?.1.as_ref()
    }
}

/// A row's versions; `None` is a deleted one.
type History = BTreeMap<Handle, BTreeMap<TimeStamp, Option<Row>>>;

/// One change of a committed transaction: the table's place, the row, and its new values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// The table's place among all that there ever were.
    pub table: usize,
    /// Which row.
    pub handle: Handle,
    /// Its values from now on; `None` deletes it.
    pub row: Option<Row>,
}

/// One change of schemas: the table's place, and how it is from now on; `None`: it is gone.
pub type SchemaChange = (usize, Option<Table>);

impl Model {
    /// Empty tables, there from the beginning.
    pub fn new(tables: Vec<Table>) -> Model {
        let mut model = Model::default();
        let made = tables.into_iter().enumerate();
        let made: Vec<_> = made.map(|(place, table)| (place, Some(table))).collect();
        model.change_schemas(TimeStamp::ZERO, &made);
        model
    }

    /// The tables that there are now, with their places.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Table)> {
        self.tables_at(TimeStamp::MAX)
    }

    /// The tables that a reader at `ts` sees, with their places.
    pub fn tables_at(&self, ts: TimeStamp) -> impl Iterator<Item = (usize, &Table)> {
        let tables = self.tables.iter().enumerate();
        tables.filter_map(move |(place, table)| Some((place, table.at(ts)?)))
    }

    /// The table at a place, if it is there now.
    pub fn table(&self, place: usize) -> Option<&Table> {
        self.tables.get(place)?.at(TimeStamp::MAX)
    }

    /// The place of the next table.
    pub fn next_place(&self) -> usize {
        self.tables.len()
    }

    /// Takes in a committed change of schemas. A new table takes the next place.
    pub fn change_schemas(&mut self, commit_ts: TimeStamp, changes: &[SchemaChange]) {
        for (place, schema) in changes {
            if *place == self.tables.len() {
                self.tables.push(TableHistory {
                    schemas: BTreeMap::new(),
                    rows: History::new(),
                });
            }
            if let Some(table) = self.tables.get_mut(*place) {
                table.schemas.insert(commit_ts, schema.clone());
            }
        }
    }

    /// Takes in a committed transaction.
    pub fn commit(&mut self, commit_ts: TimeStamp, changes: &[RowChange]) {
        for change in changes {
            if let Some(table) = self.tables.get_mut(change.table) {
                table
                    .rows
                    .entry(change.handle.clone())
                    .or_default()
                    .insert(commit_ts, change.row.clone());
            }
        }
    }

    /// Every commit timestamp, ascending.
    pub fn commits(&self) -> Vec<TimeStamp> {
        let all: BTreeSet<_> = self
            .tables
            .iter()
            .flat_map(|table| table.rows.values().flat_map(|versions| versions.keys()))
            .collect();
        all.into_iter().copied().collect()
    }

    /// A table's rows as a reader at `ts` sees them.
    pub fn rows_at(&self, place: usize, ts: TimeStamp) -> BTreeMap<Handle, Row> {
        let Some(table) = self.tables.get(place) else {
            return BTreeMap::new();
        };
        table
            .rows
            .iter()
            .filter_map(|(handle, versions)| {
                let (_, row) = versions.range(..=ts).next_back()?;
                Some((handle.clone(), row.clone()?))
            })
            .collect()
    }

    /// A row as a reader at `ts` sees it.
    pub fn row_at(&self, place: usize, handle: &Handle, ts: TimeStamp) -> Option<Row> {
        let rows = &self.tables.get(place)?.rows;
        rows.get(handle)?.range(..=ts).next_back()?.1.clone()
    }

    /// The keys and values of each physical table as a reader at `ts` sees them, records and
    /// index entries.
    pub fn entries_at(&self, ts: TimeStamp) -> BTreeMap<TableId, Entries> {
        let mut all: BTreeMap<TableId, Entries> = BTreeMap::new();
        for (place, table) in self.tables_at(ts) {
            for id in table.physical_ids() {
                all.entry(id).or_default();
            }
            for (handle, row) in self.rows_at(place, ts) {
                all.entry(table.physical_id(&handle))
                    .or_default()
                    .extend(table.entries(&handle, &row));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType, Index, PrimaryKey, Value};
    use br_types::DbId;

    #[test]
    fn a_reader_sees_the_newest_version_at_its_timestamp() {
        let column = |name: &str| Column {
            name: name.into(),
            ty: ColumnType::BigInt,
            not_null: true,
        };
        let table = Table {
            db: DbId(1),
            id: TableId(2),
            name: "t".into(),
            columns: vec![column("id"), column("v")],
            indexes: vec![Index {
                name: "k".into(),
                columns: vec![1],
            }],
            primary_key: PrimaryKey::IntHandle,
            partitions: Vec::new(),
        };
        let mut model = Model::new(vec![table]);
        let put = |value| RowChange {
            table: 0,
            handle: Handle::Int(7),
            row: Some(vec![Value::Int(7), Value::Int(value)]),
        };
        model.commit(TimeStamp(10), &[put(1)]);
        model.commit(TimeStamp(20), &[put(2)]);
        model.commit(
            TimeStamp(30),
            &[RowChange {
                row: None,
                ..put(0)
            }],
        );
        let count = |ts| model.entries_at(TimeStamp(ts))[&TableId(2)].len();
        assert_eq!([count(9), count(10), count(29), count(30)], [0, 2, 2, 0]);
        assert_ne!(
            model.entries_at(TimeStamp(10)),
            model.entries_at(TimeStamp(20))
        );
        assert_eq!(model.commits(), [10, 20, 30].map(TimeStamp));
    }
}
