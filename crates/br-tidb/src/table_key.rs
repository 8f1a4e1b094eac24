//! Keys of rows and indexes.
//!
//! ```text
//! row    't' i64(table) "_r" handle              handle: i64, or memcomparable columns (clustered)
//! index  't' i64(table) "_i" i64(index) columns [handle]
//! ```
//! All raw keys. A partition has its own table id; global indexes lie under the logical table's.

use br_codec::{
    DecodeError,
    number::{read_i64, write_i64},
};
use br_types::{IndexId, KeyRange, RawKey, TableId};

use crate::schema::{SchemaState, TableInfo};

/// What every key of a table begins with.
pub const TABLE_PREFIX: u8 = b't';
const RECORD: &[u8; 2] = b"_r";
const INDEX: &[u8; 2] = b"_i";
const WHAT: &str = "table key";
/// Bytes of `t` and the id.
pub const TABLE_PREFIX_LEN: usize = 9;
/// Bytes of what all rows of a table begin with.
pub const RECORD_PREFIX_LEN: usize = 11;

/// First bytes of an encoded column in a key: before NULL, before the first value that is not
/// NULL, and beyond every value.
const FROM_NULL: u8 = 0x00;
const FROM_NOT_NULL: u8 = 0x01;
const BEYOND_MAX: u8 = 0xFB;

/// A key of a table, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKey<'a> {
    /// A row.
    Record {
        /// The table or partition.
        table: TableId,
        /// 8 bytes for an integer handle, or the memcomparable columns of a clustered key.
        handle: &'a [u8],
    },
    /// An index entry.
    Index {
        /// The table or partition.
        table: TableId,
        /// The index.
        index: IndexId,
        /// The memcomparable columns and, unless unique, the handle.
        columns: &'a [u8],
    },
}

impl<'a> TableKey<'a> {
    /// Takes a raw key apart.
    ///
    /// # Errors
    /// It is not the key of a row or index entry.
    pub fn parse(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let table = table_id(raw).ok_or(DecodeError::new(WHAT, "it has no table id"))?;
        let rest = raw.get(TABLE_PREFIX_LEN..).unwrap_or_default();
        match rest.split_first_chunk::<2>() {
            Some((RECORD, handle)) => Ok(TableKey::Record { table, handle }),
            Some((INDEX, mut columns)) => {
                let index = IndexId(read_i64(&mut columns)?);
                Ok(TableKey::Index {
                    table,
                    index,
                    columns,
                })
            }
            _ => Err(DecodeError::new(
                WHAT,
                "it is neither a row nor an index entry",
            )),
        }
    }

    /// The table or partition.
    pub fn table(&self) -> TableId {
        match self {
            TableKey::Record { table, .. } | TableKey::Index { table, .. } => *table,
        }
    }
}

/// The table id that a raw key begins with; `None` if it is no key of a table.
pub fn table_id(raw: &[u8]) -> Option<TableId> {
    let mut input = raw.strip_prefix(&[TABLE_PREFIX])?;
    read_i64(&mut input).ok().map(TableId)
}

/// The integer handle of a row's key.
///
/// # Errors
/// It does not have 8 bytes.
pub fn int_handle(handle: &[u8]) -> Result<i64, DecodeError> {
    let mut input = handle;
    let value = read_i64(&mut input)?;
    if input.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::new(
            WHAT,
            "its integer handle is longer than 8 bytes",
        ))
    }
}

/// The bytes of an integer handle in a row's key.
pub fn int_handle_bytes(handle: i64) -> [u8; 8] {
    // With the sign flipped, so that bytes sort like numbers.
    (handle.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

/// Whether a raw key is that of a row.
pub fn is_record(raw: &[u8]) -> bool {
    let after_id = raw
        .strip_prefix(&[TABLE_PREFIX])
        .and_then(|rest| rest.get(8..));
    after_id.is_some_and(|rest| rest.starts_with(RECORD))
}

/// What all keys of a table begin with.
pub fn table_prefix(table: TableId) -> RawKey {
    let mut key = Vec::with_capacity(TABLE_PREFIX_LEN);
    key.push(TABLE_PREFIX);
    write_i64(&mut key, table.0);
    RawKey::from(key)
}

/// What all rows of a table begin with.
pub fn record_prefix(table: TableId) -> RawKey {
    let mut key = table_prefix(table).into_bytes();
    key.extend_from_slice(RECORD);
    RawKey::from(key)
}

/// What all entries of an index begin with.
pub fn index_prefix(table: TableId, index: IndexId) -> RawKey {
    let mut key = table_prefix(table).into_bytes();
    key.extend_from_slice(INDEX);
    write_i64(&mut key, index.0);
    RawKey::from(key)
}

/// The key of a row with an integer handle.
pub fn record_key(table: TableId, handle: i64) -> RawKey {
    let mut key = record_prefix(table).into_bytes();
    write_i64(&mut key, handle);
    RawKey::from(key)
}

/// Every key of a table: rows and indexes.
pub fn table_range(table: TableId) -> KeyRange<RawKey> {
    let start = table_prefix(table);
    KeyRange {
        end: start.prefix_end(),
        start,
    }
}

/// Every row of a table.
pub fn record_range(table: TableId) -> KeyRange<RawKey> {
    let start = record_prefix(table);
    KeyRange {
        end: start.prefix_end(),
        start,
    }
}

/// Every entry of an index.
pub fn index_range(table: TableId, index: IndexId) -> KeyRange<RawKey> {
    let start = index_prefix(table, index);
    KeyRange {
        end: start.prefix_end(),
        start,
    }
}

/// The ranges that a backup of a table asks for, as the official tool asks for them, sorted: the
/// rows and each public index of the table or of each partition, and the global indexes. Nothing
/// for views and sequences.
pub fn backup_ranges(table: &TableInfo) -> Vec<KeyRange<RawKey>> {
    if table.is_view() || table.is_sequence() {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    match table.active_partition() {
        None => push_physical(&mut ranges, table, table.id()),
        Some(partition) => {
            let global = public_indexes(table).filter(|index| index.is_global);
            ranges.extend(global.map(|index| index_scan(table.id(), IndexId(index.id))));
            for definition in &partition.definitions {
                push_physical(&mut ranges, table, TableId(definition.id));
            }
        }
    }
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    ranges
}

fn push_physical(ranges: &mut Vec<KeyRange<RawKey>>, table: &TableInfo, id: TableId) {
    let prefix = record_prefix(id);
    ranges.push(if table.is_common_handle {
        KeyRange {
            start: with(&prefix, &[FROM_NOT_NULL]),
            end: with(&prefix, &[BEYOND_MAX]),
        }
    } else {
        // Every handle, the greatest one included.
        KeyRange {
            start: with(&prefix, &[0; 8]),
            end: with(&prefix, &[255, 255, 255, 255, 255, 255, 255, 255, 0]),
        }
    });
    let local = public_indexes(table).filter(|index| !index.is_global);
    ranges.extend(local.map(|index| index_scan(id, IndexId(index.id))));
}

fn public_indexes(table: &TableInfo) -> impl Iterator<Item = &crate::schema::IndexInfo> {
    table
        .indexes
        .iter()
        .filter(|index| index.state == SchemaState::PUBLIC)
}

fn index_scan(table: TableId, index: IndexId) -> KeyRange<RawKey> {
    let prefix = index_prefix(table, index);
    KeyRange {
        start: with(&prefix, &[FROM_NULL]),
        end: with(&prefix, &[BEYOND_MAX]),
    }
}

fn with(prefix: &RawKey, suffix: &[u8]) -> RawKey {
    let mut key = prefix.as_bytes().to_vec();
    key.extend_from_slice(suffix);
    RawKey::from(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_other_things_are_refused() {
        for raw in [
            &b""[..],
            b"t",
            b"m\0\0\0\0\0\0\0\0_r",
            b"t\x80\0\0\0\0\0\0\x01_x",
            b"t\x80\0\0\0\0\0\0\x01_i\0",
        ] {
            assert!(TableKey::parse(raw).is_err(), "{raw:?}");
        }
        assert!(int_handle(&[0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn handles_are_written_as_in_keys(table: i64, handle: i64) {
            let key = record_key(TableId(table), handle);
            prop_assert!(key.as_bytes().ends_with(&int_handle_bytes(handle)));
            prop_assert_eq!(int_handle(&int_handle_bytes(handle)), Ok(handle));
            prop_assert!(is_record(key.as_bytes()));
            prop_assert!(!is_record(index_prefix(TableId(table), IndexId(handle)).as_bytes()));
        }

        #[test]
        fn keys_come_back(table: i64, index: i64, handle: i64, columns: Vec<u8>) {
            let (table, index) = (TableId(table), IndexId(index));
            let key = record_key(table, handle);
            prop_assert!(record_range(table).contains(&key));
            prop_assert!(table_range(table).contains(&key));
            let TableKey::Record { table: found, handle: bytes } = TableKey::parse(key.as_bytes()).unwrap() else {
                panic!("not a row");
            };
            prop_assert_eq!((found, int_handle(bytes)), (table, Ok(handle)));
            let key = with(&index_prefix(table, index), &columns);
            prop_assert!(index_range(table, index).contains(&key));
            prop_assert_eq!(
                TableKey::parse(key.as_bytes()),
                Ok(TableKey::Index { table, index, columns: &columns })
            );
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = TableKey::parse(&noise);
        }
    }
}
