//! A row as its values are stored, by column: what rows are copied between tables as.

use br_codec::DecodeError;

use super::{
    Datum,
    index_entry::{RowPart, compact_int, compact_uint, row_of},
    text::{int, uint},
};
use crate::schema::FieldType;

/// Values of a row as they are stored, by the column's id; a column that is not among them has the
/// value that it had when it was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Sorted by id.
    cells: Vec<(i64, RowPart)>,
}

impl StoredRow {
    /// A row with no column.
    pub fn new() -> StoredRow {
        StoredRow::default()
    }

    pub(super) fn get(&self, column: i64) -> Option<&RowPart> {
        let at = self.cells.binary_search_by_key(&column, |(id, _)| *id);
        at.ok()
            .and_then(|at| self.cells.get(at))
            .map(|(_, part)| part)
    }

    pub(super) fn set(&mut self, column: i64, part: RowPart) {
        match self.cells.binary_search_by_key(&column, |(id, _)| *id) {
            Ok(at) => {
                if let Some(cell) = self.cells.get_mut(at) {
                    cell.1 = part;
                }
            }
            Err(at) => self.cells.insert(at, (column, part)),
        }
    }

    /// The bytes of a column; `None`: NULL, or the row has no such column.
    pub fn bytes(&self, column: i64) -> Option<&[u8]> {
        match self.get(column)? {
            RowPart::Null => None,
            RowPart::Bytes(bytes) => Some(bytes),
        }
    }

    /// The number in a column of integers with a sign; `None`: it has none.
    pub fn int(&self, column: i64) -> Option<i64> {
        int(self.bytes(column)?).ok()
    }

    /// The number in a column of integers without sign, or of times; `None`: it has none.
    pub fn uint(&self, column: i64) -> Option<u64> {
        uint(self.bytes(column)?).ok()
    }

    /// Sets a column of integers with a sign.
    pub fn set_int(&mut self, column: i64, value: i64) {
        self.set(column, RowPart::Bytes(compact_int(value)));
    }

    /// Sets a column of integers without sign, or of times, ENUMs and SETs.
    pub fn set_uint(&mut self, column: i64, value: u64) {
        self.set(column, RowPart::Bytes(compact_uint(value)));
    }

    /// Sets a column of text or bytes, or of JSON in its stored form.
    pub fn set_bytes(&mut self, column: i64, value: Vec<u8>) {
        self.set(column, RowPart::Bytes(value));
    }

    /// Sets a column of floating-point numbers.
    pub fn set_float(&mut self, column: i64, value: f64) {
        let mut bytes = Vec::with_capacity(8);
        br_codec::number::write_f64(&mut bytes, value);
        self.set(column, RowPart::Bytes(bytes));
    }

    /// Sets a column to NULL.
    pub fn set_null(&mut self, column: i64) {
        self.set(column, RowPart::Null);
    }

    /// The value of a row with all its columns but those that `is_left_out` takes.
    pub(super) fn encode(&self, is_left_out: impl Fn(i64) -> bool) -> Vec<u8> {
        let kept = self.cells.iter().filter(|(id, _)| !is_left_out(*id));
        row_of(kept.map(|(id, part)| (*id, part)).collect())
    }
}

/// A value with a type flag, as rows of the new format have it.
pub(super) fn compact(field: &FieldType, datum: &Datum<'_>) -> Result<RowPart, DecodeError> {
    Ok(RowPart::Bytes(match datum {
        Datum::Null => return Ok(RowPart::Null),
        // An integer handle is signed in its key, whatever the column is.
        Datum::Int(value) if field.is_unsigned() => compact_uint(value.cast_unsigned()),
        Datum::Int(value) | Datum::DurationNs(value) => compact_int(*value),
        Datum::Uint(value) => compact_uint(*value),
        Datum::Float(value) => {
            let mut bytes = Vec::with_capacity(8);
            br_codec::number::write_f64(&mut bytes, *value);
            bytes
        }
        Datum::Bytes(bytes) => bytes.to_vec(),
        Datum::Json(stored) | Datum::Vector(stored) => stored.to_vec(),
        Datum::Decimal(_) => {
            let what = "a decimal of the old format cannot be copied";
            return Err(DecodeError::new("row", what));
        }
    }))
}
