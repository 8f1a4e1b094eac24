//! Tables that workloads use, described far enough to make TiDB's JSON, keys and rows of them.

use br_types::{DbId, IndexId, RawKey, TableId};
use serde::{Deserialize, Serialize};

use crate::row;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    /// `BIGINT`.
    BigInt,
    /// `BIGINT UNSIGNED`.
    BigUint,
    /// `VARCHAR(n)`, utf8mb4_bin.
    Varchar(u32),
    /// `LONGBLOB`.
    Blob,
}

/// A column; its id is its place, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether NULL is refused.
    pub not_null: bool,
}

/// An index over some columns; its id is its place, from 1 on (from 2 on behind a clustered
/// primary key, which takes the first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its columns, as places in the table's columns.
    pub columns: Vec<usize>,
}

/// What identifies a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrimaryKey {
    /// The first column, `BIGINT NOT NULL`, is the handle.
    IntHandle,
    /// The first column, `VARCHAR NOT NULL`, is a clustered key.
    CommonHandle,
    /// A hidden row id.
    None,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its database.
    #[serde(with = "as_number")]
    pub db: DbId,
    /// Its id; for a partitioned table, the logical one.
    #[serde(with = "as_number")]
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its secondary indexes, none of them unique.
    pub indexes: Vec<Index>,
    /// What identifies a row.
    pub primary_key: PrimaryKey,
    /// Ids of its hash partitions; empty if it is not partitioned. Only with an int handle.
    #[serde(with = "as_numbers")]
    pub partitions: Vec<TableId>,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// NULL.
    Null,
    /// Of a `BIGINT`.
    Int(i64),
    /// Of a `BIGINT UNSIGNED`.
    Uint(u64),
    /// Of a `VARCHAR`.
    Text(String),
    /// Of a `LONGBLOB`.
    Bytes(Vec<u8>),
}

/// What finds a row in its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Handle {
    /// The integer primary key or the hidden row id.
    Int(i64),
    /// The clustered primary key.
    Text(String),
}

/// A row: one value a column.
pub type Row = Vec<Value>;

impl Table {
    /// The tables and partitions that hold rows.
    pub fn physical_ids(&self) -> Vec<TableId> {
        if self.partitions.is_empty() {
            vec![self.id]
        } else {
            self.partitions.clone()
        }
    }

    /// Where a row lives.
    pub fn physical_id(&self, handle: &Handle) -> TableId {
        match (handle, self.partitions.len()) {
            (Handle::Int(handle), parts) if parts > 0 => {
                let place = handle.unsigned_abs() % parts as u64;
                usize::try_from(place)
                    .ok()
                    .and_then(|place| self.partitions.get(place).copied())
                    .unwrap_or(self.id)
            }
            _ => self.id,
        }
    }

    /// The id of the index at `place` among the secondary ones.
    pub fn index_id(&self, place: usize) -> IndexId {
        let clustered = i64::from(self.primary_key == PrimaryKey::CommonHandle);
        IndexId(i64::try_from(place).unwrap_or(i64::MAX - 2) + 1 + clustered)
    }

    /// The key of a row's record.
    pub fn record_key(&self, handle: &Handle) -> RawKey {
        row::record_key(self.physical_id(handle), handle)
    }

    /// The keys and values that a row stands for: its record, then its index entries.
    pub fn entries(&self, handle: &Handle, values: &Row) -> Vec<(RawKey, Vec<u8>)> {
        let physical = self.physical_id(handle);
        let mut entries = vec![(
            self.record_key(handle),
            row::encode(self.columns.iter().zip(values).enumerate().filter_map(
                |(place, (_, value))| {
                    // An int handle is in the key alone. A clustered text stays in the row too,
                    // because its collation's key need not give it back.
                    let in_key = place == 0 && self.primary_key == PrimaryKey::IntHandle;
                    (!in_key).then_some((place + 1, value))
                },
            )),
        )];
        for (place, index) in self.indexes.iter().enumerate() {
            // A row that is older than a column has NULL there.
            let columns = index.columns.iter();
            let columns = columns.map(|column| values.get(*column).unwrap_or(&Value::Null));
            entries.push((
                row::index_key(physical, self.index_id(place), columns, handle),
                row::INDEX_VALUE.to_vec(),
            ));
        }
        entries
    }
}

/// Ids as bare numbers in a history file.
mod as_number {
    use br_types::{DbId, TableId};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) trait Id: Copy {
        fn number(self) -> i64;
        fn of(number: i64) -> Self;
    }

    impl Id for DbId {
        fn number(self) -> i64 {
            self.0
        }
        fn of(number: i64) -> DbId {
            DbId(number)
        }
    }

    impl Id for TableId {
        fn number(self) -> i64 {
            self.0
        }
        fn of(number: i64) -> TableId {
            TableId(number)
        }
    }

    pub(super) fn serialize<I: Id, S: Serializer>(id: &I, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(id.number())
    }

    pub(super) fn deserialize<'de, I: Id, D: Deserializer<'de>>(from: D) -> Result<I, D::Error> {
        i64::deserialize(from).map(I::of)
    }
}

mod as_numbers {
    use br_types::TableId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(ids: &[TableId], to: S) -> Result<S::Ok, S::Error> {
        ids.iter().map(|id| id.0).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<TableId>, D::Error> {
        Ok(Vec::<i64>::deserialize(from)?
            .into_iter()
            .map(TableId)
            .collect())
    }
}
