//! The value of a row: which column has which bytes.
//!
//! New format (first byte 0x80):
//! ```text
//! 0x80 flags u16 n u16 m                 n columns that are not NULL, m that are; little-endian
//! ids of both kinds, each kind sorted    1 byte each, 4 with flag 0x01 ("large")
//! ends of the n values                   2 bytes each, 4 with flag 0x01
//! values
//! checksum                               with flag 0x02; not needed here
//! ```
//! Old format: for each column its id and its value, both with type flags.

use br_codec::{
    DecodeError,
    number::{read_slice, read_u8},
};

use super::Datum;

const WHAT: &str = "row";
const NEW_FORMAT: u8 = 0x80;
const LARGE: u8 = 1;
const SHORT: DecodeError = DecodeError::new(WHAT, "it ends too early");

/// What a row says of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored<'a> {
    /// Nothing.
    Absent,
    /// That it is NULL.
    Null,
    /// Its bytes in the new format.
    Bytes(&'a [u8]),
    /// Its value in the old format.
    Datum(Datum<'a>),
}

/// A row's value.
pub(super) enum RowValue<'a> {
    /// In the new format.
    New(NewRow<'a>),
    /// In the old format: ids and values.
    Old(Vec<(i64, Datum<'a>)>),
}

/// A row's value in the new format.
pub(super) struct NewRow<'a> {
    is_large: bool,
    ids: &'a [u8],
    null_ids: &'a [u8],
    ends: &'a [u8],
    values: &'a [u8],
}

impl<'a> RowValue<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.first() == Some(&NEW_FORMAT) {
            NewRow::parse(bytes).map(RowValue::New)
        } else {
            old_row(bytes).map(RowValue::Old)
        }
    }

    pub(super) fn column(&self, id: i64) -> Result<Stored<'a>, DecodeError> {
        match self {
            RowValue::New(row) => row.column(id),
            RowValue::Old(columns) => Ok(match columns.iter().find(|(column, _)| *column == id) {
                None => Stored::Absent,
                Some((_, Datum::Null)) => Stored::Null,
                Some((_, datum)) => Stored::Datum(datum.clone()),
            }),
        }
    }
}

fn old_row(bytes: &[u8]) -> Result<Vec<(i64, Datum<'_>)>, DecodeError> {
    let mut input = bytes;
    let mut columns = Vec::new();
    // A row with nothing but its handle is a single NULL.
    if bytes == [0] {
        return Ok(columns);
    }
    while !input.is_empty() {
        let Datum::Int(id) = Datum::read(&mut input)? else {
            return Err(DecodeError::new(WHAT, "a column id is not a number"));
        };
        columns.push((id, Datum::read(&mut input)?));
    }
    Ok(columns)
}

impl<'a> NewRow<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = bytes;
        let _version = read_u8(&mut input)?;
        let is_large = read_u8(&mut input)? & LARGE != 0;
        let (id_len, end_len) = if is_large { (4, 4) } else { (1, 2) };
        let mut count = || {
            let bytes = read_slice(&mut input, 2)?;
            number(bytes, 2, 0).ok_or(SHORT)
        };
        let (not_null, null) = (count()?, count()?);
        let ids = read_slice(&mut input, not_null * id_len)?;
        let null_ids = read_slice(&mut input, null * id_len)?;
        let ends = read_slice(&mut input, not_null * end_len)?;
        Ok(Self {
            is_large,
            ids,
            null_ids,
            ends,
            values: input,
        })
    }

    fn column(&self, id: i64) -> Result<Stored<'a>, DecodeError> {
        let Ok(id) = usize::try_from(id) else {
            return Ok(Stored::Absent);
        };
        if let Some(at) = self.search(self.ids, id) {
            let end_len = if self.is_large { 4 } else { 2 };
            let end = number(self.ends, end_len, at).ok_or(SHORT)?;
            let start = match at.checked_sub(1) {
                Some(before) => number(self.ends, end_len, before).ok_or(SHORT)?,
                None => 0,
            };
            return self.values.get(start..end).map(Stored::Bytes).ok_or(SHORT);
        }
        Ok(if self.search(self.null_ids, id).is_some() {
            Stored::Null
        } else {
            Stored::Absent
        })
    }

    fn search(&self, ids: &[u8], id: usize) -> Option<usize> {
        let len = if self.is_large { 4 } else { 1 };
        let (mut low, mut high) = (0, ids.len() / len);
        while low < high {
            let middle = usize::midpoint(low, high);
            match number(ids, len, middle)?.cmp(&id) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// The little-endian number of `len` bytes at place `at` of a list of them.
fn number(list: &[u8], len: usize, at: usize) -> Option<usize> {
    let bytes = list.get(at.checked_mul(len)?..)?.get(..len)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | usize::from(byte)),
    )
}
