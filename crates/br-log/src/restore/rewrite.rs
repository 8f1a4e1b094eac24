//! From keys of the log to keys of the cluster: which tables are wanted, and which ids they have
//! there.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use br_codec::key;
use br_types::{IndexId, TableId};

/// Bytes of a group of a memcomparable key without its marker.
const GROUP: usize = 8;
/// Where a memcomparable key of a table has its id: seven bytes, the marker, one more.
const ID_HIGH: std::ops::Range<usize> = 1..8;
const MARKER_AT: usize = 8;
const ID_LOW: usize = 9;
/// The first bit of an id in a key is the inverted sign.
const SIGN: u64 = 1 << 63;

/// What is wanted of a table or partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedTable {
    /// Its id in the cluster.
    pub(crate) new_id: TableId,
    /// The indexes that it has in the end; entries of others, which were dropped or never
    /// completed, are left out.
    pub(crate) indexes: Arc<HashSet<IndexId>>,
}

/// Which keys are wanted, and what they become.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyRewrite {
    tables: HashMap<TableId, WantedTable>,
}

impl KeyRewrite {
    pub(crate) fn new(tables: HashMap<TableId, WantedTable>) -> KeyRewrite {
        KeyRewrite { tables }
    }

    /// Whether a table or partition, by its id in the log, has anything that is wanted.
    pub(crate) fn wants_table(&self, id: TableId) -> bool {
        self.tables.contains_key(&id)
    }

    /// The id of a wanted table or partition in the cluster.
    pub(crate) fn new_id(&self, id: TableId) -> Option<TableId> {
        self.tables.get(&id).map(|wanted| wanted.new_id)
    }

    /// The memcomparable key of the cluster of any key of a wanted table, its indexes included.
    pub(crate) fn move_key(&self, encoded: &[u8]) -> Option<Vec<u8>> {
        let new_id = self.new_id(encoded_table_id(encoded)?)?;
        let mut moved = encoded.to_vec();
        set_id(&mut moved, new_id);
        Some(moved)
    }

    /// The memcomparable keys of the cluster from the first to the last of a file, given with their
    /// timestamps; `None` if the file does not say.
    pub(crate) fn move_span(&self, first: &[u8], last: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let moved = |key: &[u8]| {
            let (encoded, _) = key::split_ts(key).ok()?;
            self.move_key(encoded)
        };
        Some((moved(first)?, moved(last)?))
    }

    /// Puts the memcomparable key of the cluster into `out`; `false`: the key is not wanted.
    pub(crate) fn apply(&self, encoded: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(wanted) = encoded_table_id(encoded).and_then(|id| self.tables.get(&id)) else {
            return false;
        };
        if let Some(index) = encoded_index_id(encoded)
            && !wanted.indexes.contains(&index)
        {
            return false;
        }
        out.clear();
        out.extend_from_slice(encoded);
        set_id(out, wanted.new_id);
        true
    }
}

/// Puts another id into the memcomparable key of a table.
fn set_id(encoded: &mut [u8], id: TableId) {
    let id = (id.0 as u64 ^ SIGN).to_be_bytes();
    let (high, low) = id.split_at(7);
    if let Some(place) = encoded.get_mut(ID_HIGH) {
        place.copy_from_slice(high);
    }
    if let (Some(place), [low]) = (encoded.get_mut(ID_LOW), low) {
        *place = *low;
    }
}

/// The byte at a place of the raw key.
fn raw_byte(encoded: &[u8], at: usize) -> Option<u8> {
    encoded.get(at + at / GROUP).copied()
}

/// The table or partition of a memcomparable key; `None` if it is none of a table.
pub(crate) fn encoded_table_id(encoded: &[u8]) -> Option<TableId> {
    if encoded.first() != Some(&b't') || encoded.get(MARKER_AT) != Some(&0xFF) {
        return None;
    }
    let mut id = [0; 8];
    let (high, low) = id.split_at_mut(7);
    high.copy_from_slice(encoded.get(ID_HIGH)?);
    low.copy_from_slice(encoded.get(ID_LOW..=ID_LOW)?);
    Some(TableId((u64::from_be_bytes(id) ^ SIGN) as i64))
}

/// The index of a memcomparable key of a table; `None`: it is of a row.
fn encoded_index_id(encoded: &[u8]) -> Option<IndexId> {
    if (raw_byte(encoded, 9)?, raw_byte(encoded, 10)?) != (b'_', b'i') {
        return None;
    }
    let mut id = [0; 8];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = raw_byte(encoded, 11 + at)?;
    }
    Some(IndexId((u64::from_be_bytes(id) ^ SIGN) as i64))
}

#[cfg(test)]
mod tests {
    use br_codec::key;
    use br_tidb::table_key;
    use proptest::prelude::*;

    use super::*;

    fn rewrite(old: i64, new: i64, indexes: &[i64]) -> KeyRewrite {
        let wanted = WantedTable {
            new_id: TableId(new),
            indexes: Arc::new(indexes.iter().copied().map(IndexId).collect()),
        };
        KeyRewrite::new(HashMap::from([(TableId(old), wanted)]))
    }

    proptest! {
        #[test]
        fn rows_and_entries_of_kept_indexes_move(
            old in 1..i64::MAX, new in 1..i64::MAX, index in 1..1000i64, tail: Vec<u8>,
        ) {
            let rewrite = rewrite(old, new, &[index]);
            let mut out = Vec::new();
            for prefix in [table_key::record_prefix, |id| table_key::index_prefix(id, IndexId(7))] {
                let raw = |id| [prefix(TableId(id)).as_bytes(), tail.as_slice()].concat();
                let moved = rewrite.apply(key::encode(&raw(old)).as_bytes(), &mut out);
                if moved {
                    let expected = key::encode(&raw(new));
                    prop_assert_eq!(&out, expected.as_bytes());
                }
                prop_assert_eq!(moved, raw(old)[10] == b'r' || index == 7);
            }
        }

        #[test]
        fn strangers_stay_away(noise: Vec<u8>, old in 1..i64::MAX) {
            let mut out = Vec::new();
            let rewrite = rewrite(old, 5, &[]);
            rewrite.apply(&noise, &mut out);
            let other = table_key::record_key(TableId(old ^ 1), 3);
            prop_assert!(!rewrite.apply(key::encode(other.as_bytes()).as_bytes(), &mut out));
            prop_assert!(!rewrite.apply(key::encode(b"mDDLJobHi").as_bytes(), &mut out));
        }
    }
}
