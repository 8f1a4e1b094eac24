//! What the value of an entry has of columns that its key cannot give back: a row.

/// Columns of a row with few and short values; more or greater ones take the large form.
const SMALL_ID_MAX: i64 = 255;
const SMALL_VALUES_LEN_MAX: usize = u16::MAX as usize;

/// A column of such a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum RowPart {
    /// NULL.
    Null,
    /// Its bytes.
    Bytes(Vec<u8>),
}

/// The fewest bytes of 1, 2, 4 and 8 that hold the number, little-endian.
pub(in super::super) fn compact_int(value: i64) -> Vec<u8> {
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

pub(in super::super) fn compact_uint(value: u64) -> Vec<u8> {
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
pub(in super::super) fn row_of(columns: Vec<(i64, &RowPart)>) -> Vec<u8> {
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
