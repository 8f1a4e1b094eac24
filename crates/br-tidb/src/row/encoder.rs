//! The keys and values of rows: what a table has in the cluster for a row.

use br_codec::DecodeError;
use br_types::{RawKey, TableId};

use super::{
    RowError, StoredRow,
    decoder::HandleColumns,
    index_entry::{IndexEncoder, Text, UnsupportedIndex, handle_of_value},
};
use crate::{
    schema::{SchemaState, TableInfo},
    table_key::record_prefix,
};

/// Makes the pairs of one table without partitions.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    table: TableId,
    indexes: Vec<IndexEncoder>,
    /// Makes the handle of a clustered key.
    key: Option<IndexEncoder>,
    /// The column that is the handle.
    integer_key: Option<i64>,
    /// Columns that the key gives back, which rows do not have.
    in_key: Vec<i64>,
}

/// An entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its key.
    pub key: RawKey,
    /// Its value.
    pub value: Vec<u8>,
    /// Whether no other row may have one with this key.
    pub is_distinct: bool,
}

impl RowEncoder {
    /// Prepares for a table. `new_collations`: whether the cluster sorts strings by their
    /// collations.
    ///
    /// # Errors
    /// An index whose entries cannot be made here, or a table with partitions.
    pub fn new(table: &TableInfo, new_collations: bool) -> Result<RowEncoder, UnsupportedIndex> {
        let unsupported = |why: &str| UnsupportedIndex {
            index: table.name.original.clone(),
            why: why.to_owned(),
        };
        if table.active_partition().is_some() {
            return Err(unsupported("the table has partitions"));
        }
        let handle = HandleColumns::of(table).map_err(|error| unsupported(&error.to_string()))?;
        let (mut indexes, mut key) = (Vec::new(), None);
        for index in &table.indexes {
            let encoder = IndexEncoder::new(table, index, new_collations)?;
            if table.is_common_handle && index.is_primary {
                key = Some(encoder);
            } else if index.state == SchemaState::PUBLIC {
                indexes.push(encoder);
            } else {
                return Err(UnsupportedIndex {
                    index: index.name.original.clone(),
                    why: "it is being added or dropped".to_owned(),
                });
            }
        }
        let in_handle = handle.columns();
        let column = |id: i64| table.columns.iter().find(|column| column.id == id);
        let in_key = in_handle.iter().copied().filter(|id| {
            let text = column(*id).map(|column| Text::of(&column.field_type, new_collations));
            text.is_some_and(|text| !text.is_restored())
        });
        Ok(RowEncoder {
            table: table.id(),
            in_key: in_key.collect(),
            integer_key: in_handle.first().copied().filter(|_| table.pk_is_handle),
            indexes,
            key,
        })
    }

    /// What its rows have in their key after the record prefix, if columns of it make that.
    ///
    /// # Errors
    /// A column of the key is missing.
    pub fn handle(&self, row: &StoredRow) -> Result<Option<Vec<u8>>, RowError> {
        if let Some(column) = self.integer_key {
            let number = row.int(column).ok_or(RowError::Damaged(DecodeError::new(
                "row",
                "its key has no value",
            )))?;
            let mut handle = Vec::with_capacity(8);
            br_codec::number::write_i64(&mut handle, number);
            return Ok(Some(handle));
        }
        let Some(key) = &self.key else {
            return Ok(None);
        };
        key.columns(&row.encode(|_| false)).map(Some)
    }

    /// Whether its rows have a number for a handle that is none of their columns.
    pub fn has_row_id(&self) -> bool {
        self.integer_key.is_none() && self.key.is_none()
    }

    /// Whether two rows that are the same may be in it.
    pub fn admits_copies(&self) -> bool {
        self.has_row_id() && !self.indexes.iter().any(IndexEncoder::tells_rows_apart)
    }

    /// The key of the row with that handle.
    pub fn record_key(&self, handle: &[u8]) -> RawKey {
        let mut key = record_prefix(self.table).into_bytes();
        key.extend_from_slice(handle);
        RawKey::from(key)
    }

    /// The value of a row.
    pub fn value(&self, row: &StoredRow) -> Vec<u8> {
        row.encode(|column| self.in_key.contains(&column))
    }

    /// The entries of a row, which has that handle and value.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn entries(&self, handle: &[u8], value: &[u8]) -> Result<Vec<IndexEntry>, RowError> {
        let of_index = |index: &IndexEncoder| index.index_entry(self.table, handle, value);
        self.indexes.iter().map(of_index).collect()
    }

    /// The handle of the row that an entry, of which there is one only, belongs to.
    ///
    /// # Errors
    /// The value is damaged.
    pub fn handle_of(&self, entry_value: &[u8]) -> Result<Vec<u8>, RowError> {
        Ok(handle_of_value(entry_value, self.key.is_some())?)
    }
}
