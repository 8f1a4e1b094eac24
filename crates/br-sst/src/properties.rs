use std::collections::BTreeMap;

use crate::SstError;
use crate::cursor::Cursor;
use crate::varint::take_u64;

/// The table's properties by name, as written: numbers of RocksDB are varints.
#[derive(Clone, Debug, Default)]
pub struct Properties(BTreeMap<String, Vec<u8>>);

impl Properties {
    pub(crate) fn read(mut cursor: Cursor) -> Result<Properties, SstError> {
        let mut properties = BTreeMap::new();
        while cursor.advance()? {
            let name = String::from_utf8_lossy(cursor.key()).into_owned();
            properties.insert(name, cursor.value().to_vec());
        }
        Ok(Properties(properties))
    }

    /// The bytes of a property.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// A property of RocksDB that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        take_u64(&mut self.get(name)?)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The number of entries, as the writer counted them.
    pub fn entries(&self) -> Option<u64> {
        self.number("rocksdb.num.entries")
    }

    /// Bytes of all internal keys and values: the sum of
    /// `rocksdb.raw.key.size` and `rocksdb.raw.value.size`.
    pub fn raw_size_bytes(&self) -> Option<u64> {
        self.number("rocksdb.raw.key.size")?
            .checked_add(self.number("rocksdb.raw.value.size")?)
    }
}
