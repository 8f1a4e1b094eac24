//! What one region's pair of SST files says of each key.

use br_codec::{
    DecodeError, WriteKind, WriteRef,
    key::{DATA_PREFIX, data_key_at, split_data_key},
};
use br_sst::{EntryKind, TableIter};
use br_types::TimeStamp;
use bytes::Bytes;

use super::{ExportError, sst::SstFile};

/// Versions of one batch: enough to make the seek at its start cheap.
const BATCH_VERSIONS_MAX: usize = 1024;
/// Bytes of values of one batch, beyond which it ends.
const BATCH_BYTES: usize = 1 << 20;

/// A key and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The memcomparable key.
    pub(super) key: Vec<u8>,
    /// Its value; `None`: it was removed.
    pub(super) value: Option<Bytes>,
}

/// The files of one piece of a region, in memory.
pub(super) struct OpenPair {
    /// The records.
    pub(super) write: SstFile,
    /// The long values.
    pub(super) default: Option<SstFile>,
}

impl OpenPair {
    /// The newest version of each key at or before `at`, for some keys after `after` (empty: from
    /// the first one), in their order. Nothing: that was the end.
    pub(super) fn batch(&self, after: &[u8], at: TimeStamp) -> Result<Vec<Version>, ExportError> {
        let mut versions: Vec<Version> = Vec::new();
        let mut long_values = LongValues {
            file: self.default.as_ref(),
            iter: None,
            here: None,
        };
        let mut bytes = 0;
        let mut records = self.write.table.iter();
        records
            .seek(&beyond(after))
            .map_err(|source| self.write.error(source))?;
        while let Some(entry) = records.next().map_err(|source| self.write.error(source))? {
            let damaged = |source| self.damaged(source);
            if entry.kind != EntryKind::Put {
                return Err(self.damaged(NOT_A_PUT));
            }
            let (key, commit_ts) = split_data_key(entry.user_key).map_err(damaged)?;
            // What follows the newest version are older ones.
            if commit_ts > at || versions.last().is_some_and(|last| last.key == key) {
                continue;
            }
            if versions.len() >= BATCH_VERSIONS_MAX || bytes > BATCH_BYTES {
                break;
            }
            let record = WriteRef::parse(entry.value).map_err(damaged)?;
            let value = match (record.kind, record.short_value) {
                (WriteKind::Lock | WriteKind::Rollback, _) => continue,
                _ if !record.is_valid_as_newest(at) => None,
                (WriteKind::Delete, _) => None,
                (WriteKind::Put, Some(short)) => Some(Bytes::copy_from_slice(short)),
                (WriteKind::Put, None) => {
                    let long = long_values.get(data_key_at(key, record.start_ts).as_bytes())?;
                    Some(long.ok_or_else(|| self.damaged(MISSING))?)
                }
            };
            bytes += value.as_ref().map_or(0, Bytes::len);
            versions.push(Version {
                key: key.to_vec(),
                value,
            });
        }
        Ok(versions)
    }

    fn damaged(&self, source: DecodeError) -> ExportError {
        ExportError::Entry {
            file: self.write.name.clone(),
            source,
        }
    }
}

const MISSING: DecodeError = DecodeError::new(
    "backup",
    "the long value of a record is not in the default file",
);

const NOT_A_PUT: DecodeError = DecodeError::new(
    "data file",
    "it has an entry that sets no value, which no backup has",
);

/// The first data key after every version of an encoded key; of the empty key: the first of all.
fn beyond(key: &[u8]) -> Vec<u8> {
    let mut out = vec![DATA_PREFIX];
    if !key.is_empty() {
        out.extend_from_slice(key);
        out.extend_from_slice(&[0xFF; 9]);
    }
    out
}

/// Values of the default file. Keys are asked for in ascending order.
struct LongValues<'a> {
    file: Option<&'a SstFile>,
    iter: Option<TableIter<'a, Bytes>>,
    here: Option<(Vec<u8>, Bytes)>,
}

impl LongValues<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, ExportError> {
        let Some(file) = self.file else {
            return Ok(None);
        };
        if self.iter.is_none() {
            let mut iter = file.table.iter();
            iter.seek(key).map_err(|source| file.error(source))?;
            self.iter = Some(iter);
        }
        let Some(iter) = &mut self.iter else {
            return Ok(None);
        };
        while self
            .here
            .as_ref()
            .is_none_or(|(here, _)| here.as_slice() < key)
        {
            let entry = iter.next().map_err(|source| file.error(source))?;
            let Some(found) = entry.map(|entry| entry.user_key.to_vec()) else {
                return Ok(None);
            };
            self.here = Some((found, iter.value_bytes()));
        }
        Ok(self
            .here
            .as_ref()
            .filter(|(here, _)| here == key)
            .map(|(_, value)| value.clone()))
    }
}
