//! Entries of indexes, made from rows: what a restore does for indexes whose entries were never
//! logged.
//!
//! ```text
//! key    't' i64(table) "_i" i64(index) columns [handle]     the handle unless the entry is unique
//! column 0 for NULL, or a type flag and the value so that bytes sort like values
//! value  of a table with an integer handle or the first form of clustered keys:
//!          '0'                           not unique
//!          BE8(handle)                   unique
//!          tail_len [restored row] [padding to 10] [BE8(handle)]     with values that keys cannot give back
//!        of a clustered key: tail_len 125 1 [127 BE2(len) handle] [restored row]
//! ```
//! Strings are in keys as their collation sorts them; where that cannot be turned back, the value has
//! them once more, in the form of a row. Of collations that only ignore spaces at the end, the
//! second form has just the number of those.
//!
//! Source: TiDB pkg/tablecodec/tablecodec.go, pkg/util/collate, pkg/util/rowcodec.

mod part;
mod restored;

use br_codec::{DecodeError, number::write_i64};
use br_types::{IndexId, RawKey, TableId};

use super::{Datum, IndexEntry, RowError, value::RowValue};
use crate::{
    schema::{ColumnInfo, IndexInfo, TableInfo, flag},
    table_key::{index_prefix, int_handle},
};
use part::{Encoded, Part, RestoredHandle, Sort, spaces};

pub(super) use part::Text;
pub(super) use restored::{RowPart, compact_int, compact_uint, row_of};

/// What an integer handle begins with at the end of a key.
const INT_FLAG: u8 = 3;
/// Marks in values.
const VERSION_FLAG: u8 = 125;
const HANDLE_FLAG: u8 = 127;
/// A value with restored columns is at least so long, so that it is none of the short forms.
const RESTORED_LEN_MIN: usize = 10;

/// An index whose entries cannot be made here.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("entries of index {index:?} cannot be made: {why}")]
pub struct UnsupportedIndex {
    /// Its name.
    pub index: String,
    /// Why not.
    pub why: String,
}

/// Makes the entries of one index.
#[derive(Clone, Debug)]
pub struct IndexEncoder {
    index: IndexId,
    is_unique: bool,
    parts: Vec<Part>,
    handle: HandleForm,
    /// Columns of a clustered key that its bytes cannot give back.
    handle_restored: Vec<RestoredHandle>,
    /// Whether values have columns that keys cannot give back.
    restores: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandleForm {
    Integer,
    /// So many columns.
    Columns(usize),
}

impl IndexEncoder {
    /// Prepares to make entries. `new_collations`: whether the cluster sorts strings by their
    /// collations.
    ///
    /// # Errors
    /// The index has a column whose values or sort keys cannot be made here.
    pub fn new(
        table: &TableInfo,
        index: &IndexInfo,
        new_collations: bool,
    ) -> Result<IndexEncoder, UnsupportedIndex> {
        let unsupported = |why: String| UnsupportedIndex {
            index: index.name.original.clone(),
            why,
        };
        if index.is_global {
            return Err(unsupported("it spans all partitions".to_owned()));
        }
        let mut handle_columns: Vec<i64> = Vec::new();
        let mut handle_restored = Vec::new();
        let handle = if table.is_common_handle {
            let key = table.indexes.iter().find(|index| index.is_primary);
            let key = key.ok_or_else(|| unsupported("the table has no primary key".to_owned()))?;
            for part in &key.columns {
                let column = table.columns.get(part.offset);
                let column = column.ok_or_else(|| unsupported("a column is missing".to_owned()))?;
                handle_columns.push(column.id);
                let text = Text::of(&column.field_type, new_collations);
                if text.is_restored() {
                    if part.length > 0 {
                        let name = &column.name.original;
                        return Err(unsupported(format!(
                            "the key has a part of column {name:?}"
                        )));
                    }
                    handle_restored.push(RestoredHandle {
                        column: column.clone(),
                        is_pad_space: text.is_bin,
                    });
                }
            }
            HandleForm::Columns(key.columns.len())
        } else {
            if table.pk_is_handle {
                let is_key = |column: &&ColumnInfo| column.field_type.flag & flag::PRIMARY_KEY != 0;
                handle_columns.extend(table.columns.iter().find(is_key).map(|column| column.id));
            }
            HandleForm::Integer
        };
        let mut parts = Vec::with_capacity(index.columns.len());
        for part in &index.columns {
            let column = table.columns.get(part.offset);
            let column = column.ok_or_else(|| unsupported("a column is missing".to_owned()))?;
            let in_handle = handle_columns.iter().position(|id| *id == column.id);
            let prefix = usize::try_from(part.length).ok();
            let part = Part::new(column, in_handle, prefix, new_collations);
            parts.push(part.map_err(unsupported)?);
        }
        Ok(IndexEncoder {
            index: IndexId(index.id),
            is_unique: index.is_unique || index.is_primary,
            restores: parts.iter().any(|part| part.restores),
            parts,
            handle,
            handle_restored,
        })
    }

    /// Makes the entry of a row: `handle` is its key without the record prefix. Gives key and value.
    ///
    /// # Errors
    /// The row is damaged.
    pub fn entry(
        &self,
        physical_table: TableId,
        handle: &[u8],
        row: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), RowError> {
        let entry = self.index_entry(physical_table, handle, row)?;
        Ok((entry.key.into_bytes(), entry.value))
    }

    /// The same, with whether there is only one entry of that key.
    ///
    /// # Errors
    /// The row is damaged.
    pub(super) fn index_entry(
        &self,
        physical_table: TableId,
        handle: &[u8],
        row: &[u8],
    ) -> Result<IndexEntry, RowError> {
        let in_handle = self.handle_columns(handle)?;
        let row = RowValue::parse(row)?;
        let mut columns = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            columns.push(part.encode(&row, &in_handle)?);
        }
        let has_null = columns
            .iter()
            .any(|column| matches!(column.in_row, RowPart::Null));
        let is_distinct = self.is_unique && !has_null;
        let mut key = index_prefix(physical_table, self.index).into_bytes();
        for column in &columns {
            key.extend_from_slice(&column.in_key);
        }
        if !is_distinct {
            match self.handle {
                HandleForm::Integer => {
                    key.push(INT_FLAG);
                    key.extend_from_slice(handle);
                }
                HandleForm::Columns(_) => key.extend_from_slice(handle),
            }
        }
        let value = match self.handle {
            HandleForm::Integer => self.value_with_integer(handle, is_distinct, &columns)?,
            HandleForm::Columns(_) => {
                self.value_with_columns(handle, is_distinct, &columns, &row)?
            }
        };
        Ok(IndexEntry {
            key: RawKey::from(key),
            value,
            is_distinct,
        })
    }

    /// Whether it admits each row once: it is unique, and no column of it may be NULL.
    pub(super) fn tells_rows_apart(&self) -> bool {
        let is_given = |part: &Part| part.column.field_type.flag & flag::NOT_NULL != 0;
        self.is_unique && self.parts.iter().all(is_given)
    }

    /// The columns of the index as keys have them; of a clustered key, the handle of its rows.
    pub(super) fn columns(&self, row: &[u8]) -> Result<Vec<u8>, RowError> {
        let row = RowValue::parse(row)?;
        let mut columns = Vec::new();
        for part in &self.parts {
            columns.extend(part.encode(&row, &[])?.in_key);
        }
        Ok(columns)
    }

    fn handle_columns<'h>(&self, handle: &'h [u8]) -> Result<Vec<Datum<'h>>, RowError> {
        match self.handle {
            HandleForm::Integer => Ok(vec![Datum::Int(int_handle(handle)?)]),
            HandleForm::Columns(count) => {
                let mut input = handle;
                let columns = (0..count).map(|_| Datum::read(&mut input));
                Ok(columns.collect::<Result<_, _>>()?)
            }
        }
    }

    fn value_with_integer(
        &self,
        handle: &[u8],
        is_distinct: bool,
        columns: &[Encoded],
    ) -> Result<Vec<u8>, RowError> {
        let number = int_handle(handle)?.cast_unsigned().to_be_bytes();
        if !self.restores {
            return Ok(match is_distinct {
                true => number.to_vec(),
                false => b"0".to_vec(),
            });
        }
        let all = self.parts.iter().zip(columns);
        let all = all.map(|(part, column)| (part.column.id, &column.in_row));
        let mut value = vec![0];
        value.extend(row_of(all.collect()));
        let mut tail = 0;
        if is_distinct {
            value.extend_from_slice(&number);
            tail += number.len();
        } else if value.len() < RESTORED_LEN_MIN {
            tail += RESTORED_LEN_MIN - value.len();
            value.resize(RESTORED_LEN_MIN, 0);
        }
        if let Some(first) = value.first_mut() {
            *first = tail as u8;
        }
        Ok(value)
    }

    fn value_with_columns(
        &self,
        handle: &[u8],
        is_distinct: bool,
        columns: &[Encoded],
        row: &RowValue<'_>,
    ) -> Result<Vec<u8>, RowError> {
        let mut value = vec![0, VERSION_FLAG, 1];
        if is_distinct {
            value.push(HANDLE_FLAG);
            value.extend_from_slice(&(handle.len() as u16).to_be_bytes());
            value.extend_from_slice(handle);
        }
        // Those of the key come from the key's own list.
        let mut restored: Vec<_> = self
            .parts
            .iter()
            .zip(columns)
            .filter(|(part, _)| part.restores && part.in_handle.is_none())
            .map(|(part, column)| {
                let beside_key = match part.sort {
                    Sort::GeneralCi => column.in_row.clone(),
                    Sort::Binary | Sort::PadSpace => spaces(&column.in_row),
                };
                (part.column.id, beside_key)
            })
            .collect();
        for part in &self.handle_restored {
            restored.push((part.column.id, part.of_row(row)?));
        }
        if !restored.is_empty() {
            let restored = restored.iter().map(|(id, part)| (*id, part)).collect();
            value.extend(row_of(restored));
        }
        Ok(value)
    }
}

/// The handle of the row that a distinct entry with this value belongs to.
pub(super) fn handle_of_value(value: &[u8], is_clustered: bool) -> Result<Vec<u8>, DecodeError> {
    let damaged = || DecodeError::new("index entry", "its value has no handle");
    if is_clustered {
        let rest = value.get(1..).ok_or_else(damaged)?;
        // The first form of clustered keys has no version.
        let rest = rest.strip_prefix(&[VERSION_FLAG, 1]).unwrap_or(rest);
        let rest = rest.strip_prefix(&[HANDLE_FLAG]).ok_or_else(damaged)?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        let handle = rest.get(..usize::from(u16::from_be_bytes(*len)));
        return handle.map(<[u8]>::to_vec).ok_or_else(damaged);
    }
    // A short value is the number; a longer one ends with it.
    let number = value.last_chunk::<8>().ok_or_else(damaged)?;
    let mut handle = Vec::with_capacity(number.len());
    write_i64(&mut handle, u64::from_be_bytes(*number).cast_signed());
    Ok(handle)
}
