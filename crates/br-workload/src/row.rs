//! Rows and index entries as TiDB writes them: row format v2, non-unique indexes.
//!
//! Written apart from the decoder in `br-tidb`, so that each checks the other.

use br_codec::bytes;
use br_types::{IndexId, RawKey, TableId};

use crate::table::{Handle, Value};

/// What a non-unique index stores for an int handle.
pub(crate) const INDEX_VALUE: &[u8] = b"0";

/// First byte of row format v2.
const ROW_V2: u8 = 128;
/// Flag of rows with wide column ids or offsets.
const FLAG_LARGE: u8 = 1;

const DATUM_NIL: u8 = 0x00;
const DATUM_BYTES: u8 = 0x01;
const DATUM_INT: u8 = 0x03;
const DATUM_UINT: u8 = 0x04;

fn comparable(value: i64) -> [u8; 8] {
    ((value as u64) ^ (1 << 63)).to_be_bytes()
}

fn push_bytes(key: &mut Vec<u8>, value: &[u8]) {
    key.push(DATUM_BYTES);
    bytes::encode_into(key, value);
}

fn push_handle(key: &mut Vec<u8>, handle: &Handle) {
    match handle {
        Handle::Int(handle) => key.extend_from_slice(&comparable(*handle)),
        Handle::Text(text) => push_bytes(key, text.as_bytes()),
    }
}

fn table_prefix(table: TableId) -> Vec<u8> {
    let mut key = vec![b't'];
    key.extend_from_slice(&comparable(table.0));
    key
}

/// The key of a row.
pub(crate) fn record_key(table: TableId, handle: &Handle) -> RawKey {
    let mut key = table_prefix(table);
    key.extend_from_slice(b"_r");
    push_handle(&mut key, handle);
    RawKey::new(key)
}

/// The key of an entry of a non-unique index.
pub(crate) fn index_key<'a>(
    table: TableId,
    index: IndexId,
    values: impl Iterator<Item = &'a Value>,
    handle: &Handle,
) -> RawKey {
    let mut key = table_prefix(table);
    key.extend_from_slice(b"_i");
    key.extend_from_slice(&comparable(index.0));
    for value in values {
        match value {
            Value::Null => key.push(DATUM_NIL),
            Value::Int(value) => {
                key.push(DATUM_INT);
                key.extend_from_slice(&comparable(*value));
            }
            Value::Uint(value) => {
                key.push(DATUM_UINT);
                key.extend_from_slice(&value.to_be_bytes());
            }
            Value::Text(text) => push_bytes(&mut key, text.as_bytes()),
            Value::Bytes(bytes) => push_bytes(&mut key, bytes),
        }
    }
    if let Handle::Int(_) = handle {
        key.push(DATUM_INT);
    }
    push_handle(&mut key, handle);
    RawKey::new(key)
}

/// A row of these columns (id, value), ids ascending.
pub(crate) fn encode<'a>(columns: impl Iterator<Item = (usize, &'a Value)>) -> Vec<u8> {
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    let mut data = Vec::new();
    for (id, value) in columns {
        match value {
            Value::Null => {
                absent.push(id);
                continue;
            }
            Value::Int(value) => push_int(&mut data, *value),
            Value::Uint(value) => push_uint(&mut data, *value),
            Value::Text(text) => data.extend_from_slice(text.as_bytes()),
            Value::Bytes(bytes) => data.extend_from_slice(bytes),
        }
        present.push((id, data.len()));
    }
    let large = data.len() > usize::from(u16::MAX)
        || present
            .iter()
            .map(|(id, _)| id)
            .chain(&absent)
            .any(|id| *id > usize::from(u8::MAX));
    let mut row = vec![ROW_V2, if large { FLAG_LARGE } else { 0 }];
    row.extend_from_slice(&narrow::<2>(present.len()));
    row.extend_from_slice(&narrow::<2>(absent.len()));
    for id in present.iter().map(|(id, _)| id).chain(&absent) {
        if large {
            row.extend_from_slice(&narrow::<4>(*id));
        } else {
            row.extend_from_slice(&narrow::<1>(*id));
        }
    }
    for (_, end) in &present {
        if large {
            row.extend_from_slice(&narrow::<4>(*end));
        } else {
            row.extend_from_slice(&narrow::<2>(*end));
        }
    }
    row.extend_from_slice(&data);
    row
}

/// The low bytes of a number that was checked to fit, least first.
fn narrow<const N: usize>(number: usize) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, source) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *byte = source;
    }
    bytes
}

/// The least of 1, 2, 4 or 8 bytes that hold the number.
fn push_int(data: &mut Vec<u8>, value: i64) {
    if let Ok(value) = i8::try_from(value) {
        data.extend_from_slice(&value.to_le_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        data.extend_from_slice(&value.to_le_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        data.extend_from_slice(&value.to_le_bytes());
    } else {
        data.extend_from_slice(&value.to_le_bytes());
    }
}

fn push_uint(data: &mut Vec<u8>, value: u64) {
    if let Ok(value) = u8::try_from(value) {
        data.push(value);
    } else if let Ok(value) = u16::try_from(value) {
        data.extend_from_slice(&value.to_le_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        data.extend_from_slice(&value.to_le_bytes());
    } else {
        data.extend_from_slice(&value.to_le_bytes());
    }
}
