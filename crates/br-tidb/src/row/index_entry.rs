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

use br_codec::{
    bytes::encode_into,
    number::{write_f64, write_i64, write_u64},
};
use br_types::{IndexId, TableId};

use super::{
    Datum, RowError,
    text::read_compact,
    value::{RowValue, Stored},
};
use crate::{
    schema::{ColumnInfo, FieldType, IndexInfo, TableInfo, flag, tp},
    table_key::{index_prefix, int_handle},
};

const NULL_FLAG: u8 = 0;
const BYTES_FLAG: u8 = 1;
const INT_FLAG: u8 = 3;
const UINT_FLAG: u8 = 4;
const FLOAT_FLAG: u8 = 5;
const DECIMAL_FLAG: u8 = 6;
const DURATION_FLAG: u8 = 7;
/// Marks in values.
const VERSION_FLAG: u8 = 125;
const HANDLE_FLAG: u8 = 127;
/// A value with restored columns is at least so long, so that it is none of the short forms.
const RESTORED_LEN_MIN: usize = 10;
/// Columns of a row with few and short values; more or greater ones take the large form.
const SMALL_ID_MAX: i64 = 255;
const SMALL_VALUES_LEN_MAX: usize = u16::MAX as usize;

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

#[derive(Clone, Debug)]
struct RestoredHandle {
    column: ColumnInfo,
    /// Whether only spaces at the end are lost.
    is_pad_space: bool,
}

#[derive(Clone, Debug)]
struct Part {
    column: ColumnInfo,
    /// Where in a clustered key it is; of an integer handle 0.
    in_handle: Option<usize>,
    /// How many characters, or bytes, of it are in the index.
    prefix: Option<usize>,
    sort: Sort,
    /// Whether the value has to have it.
    restores: bool,
}

/// How strings sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// By their bytes.
    Binary,
    /// By their bytes, without spaces at the end.
    PadSpace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandleForm {
    Integer,
    /// So many columns.
    Columns(usize),
}

/// A value of an index column: its bytes in a key, and what it is in a row.
struct Encoded {
    in_key: Vec<u8>,
    in_row: RowPart,
}

enum RowPart {
    Null,
    Bytes(Vec<u8>),
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
        Ok((key, value))
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
            .map(|(part, column)| (part.column.id, spaces(&column.in_row)))
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

impl Part {
    fn new(
        column: &ColumnInfo,
        in_handle: Option<usize>,
        prefix: Option<usize>,
        new_collations: bool,
    ) -> Result<Part, String> {
        let name = &column.name.original;
        let field = &column.field_type;
        if column.is_virtual() || column.hidden {
            return Err(format!("column {name:?} is computed when it is read"));
        }
        if column
            .origin_default
            .as_ref()
            .is_some_and(|json| json.get() != "null")
            || column.origin_default_bit.is_some()
        {
            return Err(format!("column {name:?} was added with a default value"));
        }
        if matches!(field.tp, tp::JSON | tp::VECTOR) {
            return Err(format!("column {name:?} is of type {}", field.name()));
        }
        let text = Text::of(field, new_collations);
        if text.is_text
            && !matches!(
                field.charset.as_str(),
                "utf8mb4" | "utf8" | "ascii" | "latin1"
            )
        {
            return Err(format!(
                "column {name:?} has character set {}",
                field.charset
            ));
        }
        let sort = match (text.is_collated, text.is_bin) {
            (false, _) => Sort::Binary,
            (true, true) => Sort::PadSpace,
            (true, false) => {
                return Err(format!("column {name:?} has collation {}", field.collate));
            }
        };
        Ok(Part {
            column: column.clone(),
            in_handle,
            prefix,
            sort,
            restores: text.is_restored(),
        })
    }

    fn encode(&self, row: &RowValue<'_>, handle: &[Datum<'_>]) -> Result<Encoded, RowError> {
        let damaged = |source| RowError::Column {
            column: self.column.name.original.clone(),
            source,
        };
        let field = &self.column.field_type;
        match row.column(self.column.id).map_err(damaged)? {
            Stored::Bytes(stored) if field.tp == tp::NEW_DECIMAL => Ok(Encoded {
                in_key: [&[DECIMAL_FLAG], stored].concat(),
                in_row: RowPart::Bytes(stored.to_vec()),
            }),
            Stored::Bytes(stored) => {
                let datum = read_compact(field, stored).map_err(damaged)?;
                self.encode_datum(&datum, stored)
            }
            Stored::Datum(datum) => self.encode_datum(&datum, &[]),
            Stored::Absent => match self.in_handle.and_then(|at| handle.get(at)) {
                Some(datum) => self.encode_datum(&self.of_handle(datum), &[]),
                None => Ok(Encoded::null()),
            },
            Stored::Null => Ok(Encoded::null()),
        }
    }

    /// An integer handle is signed in its key, whatever the column is.
    fn of_handle<'d>(&self, datum: &Datum<'d>) -> Datum<'d> {
        match datum {
            Datum::Int(value) if self.column.field_type.is_unsigned() => {
                Datum::Uint(value.cast_unsigned())
            }
            datum => datum.clone(),
        }
    }

    fn encode_datum(&self, datum: &Datum<'_>, stored: &[u8]) -> Result<Encoded, RowError> {
        let mut in_key = Vec::new();
        let mut in_row = stored.to_vec();
        match datum {
            Datum::Null => return Ok(Encoded::null()),
            Datum::Int(value) => {
                in_key.push(INT_FLAG);
                write_i64(&mut in_key, *value);
                in_row = compact_int(*value);
            }
            Datum::Uint(value) => {
                in_key.push(UINT_FLAG);
                write_u64(&mut in_key, *value);
                in_row = compact_uint(*value);
            }
            Datum::Float(value) => {
                in_key.push(FLOAT_FLAG);
                write_f64(&mut in_key, *value);
            }
            Datum::DurationNs(value) => {
                in_key.push(DURATION_FLAG);
                write_i64(&mut in_key, *value);
                in_row = compact_int(*value);
            }
            Datum::Bytes(bytes) => {
                let cut = self.cut(bytes);
                in_key.push(BYTES_FLAG);
                encode_into(&mut in_key, self.sort_key(cut));
                in_row = cut.to_vec();
            }
            Datum::Decimal(_) | Datum::Json(_) | Datum::Vector(_) => {
                return Err(RowError::Column {
                    column: self.column.name.original.clone(),
                    source: br_codec::DecodeError::new(
                        "index entry",
                        "its value is of an old form",
                    ),
                });
            }
        }
        Ok(Encoded {
            in_key,
            in_row: RowPart::Bytes(in_row),
        })
    }

    /// The part of a string that is in the index.
    fn cut<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(count) = self.prefix else {
            return bytes;
        };
        if is_counted_in_bytes(&self.column.field_type) {
            return bytes.get(..count).unwrap_or(bytes);
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return bytes.get(..count).unwrap_or(bytes);
        };
        let end = text.char_indices().nth(count).map(|(at, _)| at);
        end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
    }

    fn sort_key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        match self.sort {
            Sort::Binary => bytes,
            Sort::PadSpace => without_spaces(bytes),
        }
    }
}

/// What a value beside a clustered key has of a column: how many spaces the key left out.
fn spaces(in_row: &RowPart) -> RowPart {
    match in_row {
        RowPart::Null => RowPart::Null,
        RowPart::Bytes(bytes) => {
            let left_out = bytes.len() - without_spaces(bytes).len();
            RowPart::Bytes(compact_uint(left_out as u64))
        }
    }
}

impl RestoredHandle {
    /// What values have of it; the row has such a column itself.
    fn of_row(&self, row: &RowValue<'_>) -> Result<RowPart, RowError> {
        let failed = |source| RowError::Column {
            column: self.column.name.original.clone(),
            source,
        };
        let whole = match row.column(self.column.id).map_err(failed)? {
            Stored::Bytes(bytes) => RowPart::Bytes(bytes.to_vec()),
            Stored::Datum(Datum::Bytes(bytes)) => RowPart::Bytes(bytes.into_owned()),
            _ => {
                let what = "a row lacks a column of its key";
                return Err(failed(br_codec::DecodeError::new("index entry", what)));
            }
        };
        Ok(match self.is_pad_space {
            true => spaces(&whole),
            false => whole,
        })
    }
}

/// What a column's type means for sort keys.
#[derive(Clone, Copy, Debug)]
struct Text {
    is_text: bool,
    /// Whether its sort key is not its bytes.
    is_collated: bool,
    /// Whether the sort key is its bytes without spaces at the end.
    is_bin: bool,
    /// Whether it may end with spaces at all; a CHAR does not.
    is_varying: bool,
}

impl Text {
    fn of(field: &FieldType, new_collations: bool) -> Text {
        let is_text = field.is_string() && !field.is_binary_string();
        let collate = field.collate.as_str();
        Text {
            is_text,
            is_collated: is_text && new_collations && collate != "utf8mb4_0900_bin",
            is_bin: matches!(
                collate,
                "utf8mb4_bin" | "utf8_bin" | "ascii_bin" | "latin1_bin"
            ),
            is_varying: matches!(field.tp, tp::VARCHAR | tp::VAR_STRING),
        }
    }

    /// Whether the sort key does not give the value back.
    fn is_restored(self) -> bool {
        self.is_collated && !(self.is_bin && !self.is_varying)
    }
}

impl Encoded {
    fn null() -> Encoded {
        Encoded {
            in_key: vec![NULL_FLAG],
            in_row: RowPart::Null,
        }
    }
}

fn is_counted_in_bytes(field: &FieldType) -> bool {
    matches!(field.charset.as_str(), "binary" | "ascii" | "latin1")
}

fn without_spaces(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ');
    bytes.get(..end.map_or(0, |at| at + 1)).unwrap_or(bytes)
}

/// The fewest bytes of 1, 2, 4 and 8 that hold the number, little-endian.
fn compact_int(value: i64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let len = if i8::try_from(value).is_ok() {
        1
    } else if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    };
    bytes.iter().take(len).copied().collect()
}

fn compact_uint(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let len = if u8::try_from(value).is_ok() {
        1
    } else if u16::try_from(value).is_ok() {
        2
    } else if u32::try_from(value).is_ok() {
        4
    } else {
        8
    };
    bytes.iter().take(len).copied().collect()
}

/// A row of the new format with these columns.
fn row_of(columns: Vec<(i64, &RowPart)>) -> Vec<u8> {
    let mut values: Vec<(i64, &[u8])> = Vec::new();
    let mut nulls: Vec<i64> = Vec::new();
    for (id, part) in columns {
        match part {
            RowPart::Null => nulls.push(id),
            RowPart::Bytes(bytes) => values.push((id, bytes)),
        }
    }
    values.sort_unstable_by_key(|(id, _)| *id);
    nulls.sort_unstable();
    let len: usize = values.iter().map(|(_, bytes)| bytes.len()).sum();
    let ids = || {
        values
            .iter()
            .map(|(id, _)| *id)
            .chain(nulls.iter().copied())
    };
    let is_large = len > SMALL_VALUES_LEN_MAX || ids().any(|id| id > SMALL_ID_MAX);
    let mut row = vec![0x80, u8::from(is_large)];
    row.extend_from_slice(&(values.len() as u16).to_le_bytes());
    row.extend_from_slice(&(nulls.len() as u16).to_le_bytes());
    for id in ids() {
        match is_large {
            true => row.extend_from_slice(&(id as u32).to_le_bytes()),
            false => row.push(id as u8),
        }
    }
    let mut end = 0;
    for (_, bytes) in &values {
        end += bytes.len();
        match is_large {
            true => row.extend_from_slice(&(end as u32).to_le_bytes()),
            false => row.extend_from_slice(&(end as u16).to_le_bytes()),
        }
    }
    for (_, bytes) in values {
        row.extend_from_slice(bytes);
    }
    row
}
