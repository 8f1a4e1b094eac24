//! Statistics of TiDB's optimizer: JSON per table or partition, in files or within the schema.

use br_proto::backup::{StatsBlock, StatsFile, StatsFileIndex};
use br_types::TableId;
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::Object;
use crate::backupmeta::MetaError;
use crate::backupmeta::index::open_sealed;
use crate::crypter::{Crypter, Iv};
use crate::names;
use crate::wire;

/// JSON beyond this many bytes ends a file.
pub const STATS_FILE_SIZE_BYTES_MAX: usize = 32 << 20;

/// Less than this many bytes, if it is all of a table, stands in the schema itself.
pub const STATS_INLINE_SIZE_BYTES_MAX: usize = 8 << 10;

/// Where statistics of a table are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsRef {
    /// Here: an encoded `backup.StatsFile`. Not encrypted by itself: the object around it is.
    Inline(Vec<u8>),
    /// In an object.
    Object {
        /// The name below the prefix of the backup.
        name: String,
        /// Of the plaintext.
        sha256: [u8; 32],
        /// Bytes as stored.
        stored_size_bytes: u64,
        /// Bytes of the plaintext.
        plain_size_bytes: u64,
        /// If it is encrypted.
        iv: Option<Iv>,
    },
}

/// Statistics of one table or partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// The table or partition.
    pub physical_id: TableId,
    /// TiDB's `JSONTable`.
    pub json: Vec<u8>,
}

impl StatsRef {
    pub(crate) fn from_proto(object: &str, index: StatsFileIndex) -> Result<StatsRef, MetaError> {
        if index.name.is_empty() {
            return Ok(StatsRef::Inline(index.inline_data));
        }
        let wrong =
            |what: &str| MetaError::malformed(object, format!("{what} of {:?}", index.name));
        Ok(StatsRef::Object {
            sha256: index
                .sha256
                .as_slice()
                .try_into()
                .map_err(|_| wrong("length of SHA-256"))?,
            stored_size_bytes: index.size_enc,
            plain_size_bytes: index.size_ori,
            iv: match index.cipher_iv.as_slice() {
                [] => None,
                iv => Some(Iv::from_slice(iv).map_err(|_| wrong("initialization vector"))?),
            },
            name: index.name,
        })
    }

    pub(crate) fn into_proto(self) -> StatsFileIndex {
        match self {
            StatsRef::Inline(inline_data) => StatsFileIndex {
                inline_data,
                ..Default::default()
            },
            StatsRef::Object {
                name,
                sha256,
                stored_size_bytes,
                plain_size_bytes,
                iv,
            } => StatsFileIndex {
                name,
                sha256: sha256.to_vec(),
                size_enc: stored_size_bytes,
                size_ori: plain_size_bytes,
                cipher_iv: iv.map(|iv| iv.0.to_vec()).unwrap_or_default(),
                inline_data: Vec::new(),
            },
        }
    }

    /// Bytes of the object; 0 if there is none.
    pub fn stored_size_bytes(&self) -> u64 {
        match self {
            StatsRef::Inline(_) => 0,
            StatsRef::Object {
                stored_size_bytes, ..
            } => *stored_size_bytes,
        }
    }

    /// The object to read for [`StatsRef::open`]; `None` if it needs none.
    pub fn object_name(&self) -> Option<&str> {
        match self {
            StatsRef::Inline(_) => None,
            StatsRef::Object { name, .. } => Some(name),
        }
    }

    /// The statistics, from the stored bytes of the object (none for [`StatsRef::Inline`]).
    ///
    /// # Errors
    /// [`MetaError::Truncated`], [`MetaError::Checksum`], [`MetaError::Malformed`].
    pub fn open(&self, stored: Bytes, crypter: &Crypter) -> Result<Vec<TableStats>, MetaError> {
        match self {
            StatsRef::Inline(bytes) => decode("statistics in a schema", bytes),
            StatsRef::Object {
                name,
                sha256,
                plain_size_bytes,
                iv,
                ..
            } => {
                let plain = open_sealed(
                    name,
                    stored,
                    sha256,
                    *plain_size_bytes,
                    iv.as_ref(),
                    crypter,
                )?;
                decode(name, &plain)
            }
        }
    }
}

fn decode(object: &str, bytes: &[u8]) -> Result<Vec<TableStats>, MetaError> {
    let malformed = || MetaError::malformed(object, "it is not a file of statistics");
    // A field that is not known loses nothing here: statistics are advice.
    wire::unknown_field("backup.StatsFile", bytes).map_err(|_| malformed())?;
    let file = StatsFile::decode(bytes).map_err(|_| malformed())?;
    let stats = |block: StatsBlock| TableStats {
        physical_id: TableId(block.physical_id),
        json: block.json_table,
    };
    Ok(file.blocks.into_iter().map(stats).collect())
}

/// Collects the statistics of one table and its partitions.
#[derive(Debug)]
pub struct StatsWriter<'a> {
    crypter: &'a Crypter,
    blocks: Vec<StatsBlock>,
    json_size_bytes: usize,
    refs: Vec<StatsRef>,
}

impl<'a> StatsWriter<'a> {
    /// No statistics yet.
    pub fn new(crypter: &'a Crypter) -> StatsWriter<'a> {
        StatsWriter {
            crypter,
            blocks: Vec::new(),
            json_size_bytes: 0,
            refs: Vec::new(),
        }
    }

    /// Takes the statistics of one table or partition; `new_iv` draws a random vector.
    ///
    /// Returns an object to write if enough has come together.
    pub fn push(&mut self, stats: TableStats, new_iv: impl FnOnce() -> Iv) -> Option<Object> {
        let TableStats { physical_id, json } = stats;
        self.json_size_bytes += json.len();
        self.blocks.push(StatsBlock {
            physical_id: physical_id.0,
            json_table: json,
        });
        (self.json_size_bytes > STATS_FILE_SIZE_BYTES_MAX)
            .then(|| self.end(physical_id, new_iv))
            .flatten()
    }

    /// What goes into the schema, and the last object, if there is one.
    pub fn finish(mut self, new_iv: impl FnOnce() -> Iv) -> (Vec<StatsRef>, Option<Object>) {
        let object = match self.blocks.first() {
            None => None,
            Some(first) => {
                let physical_id = TableId(first.physical_id);
                self.end(physical_id, new_iv)
            }
        };
        (self.refs, object)
    }

    fn end(&mut self, physical_id: TableId, new_iv: impl FnOnce() -> Iv) -> Option<Object> {
        let file = StatsFile {
            blocks: std::mem::take(&mut self.blocks),
        };
        let mut bytes = file.encode_to_vec();
        self.json_size_bytes = 0;
        if self.refs.is_empty() && bytes.len() < STATS_INLINE_SIZE_BYTES_MAX {
            self.refs.push(StatsRef::Inline(bytes));
            return None;
        }
        let sha256 = Sha256::digest(&bytes).into();
        let iv = (!self.crypter.is_plaintext()).then(new_iv);
        if let Some(iv) = &iv {
            self.crypter.apply(iv, &mut bytes);
        }
        let name = names::stats_file(physical_id);
        let size = bytes.len() as u64;
        self.refs.push(StatsRef::Object {
            name: name.clone(),
            sha256,
            stored_size_bytes: size,
            plain_size_bytes: size,
            iv,
        });
        Some(Object {
            name,
            bytes: bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypter::Method;

    fn stats(id: i64, size_bytes: usize) -> TableStats {
        TableStats {
            physical_id: TableId(id),
            json: vec![b'x'; size_bytes],
        }
    }

    #[test]
    fn small_statistics_stay_in_the_schema() {
        let crypter = Crypter::new(Method::Aes128Ctr, &[1; 16]).unwrap();
        let mut writer = StatsWriter::new(&crypter);
        assert_eq!(writer.push(stats(7, 100), || unreachable!()), None);
        let (refs, object) = writer.finish(|| unreachable!());
        assert_eq!((refs.len(), object), (1, None));
        assert_eq!(
            refs[0].open(Bytes::new(), &crypter).unwrap(),
            vec![stats(7, 100)]
        );
    }

    #[test]
    fn large_statistics_fill_objects() {
        let crypter = Crypter::new(Method::Aes128Ctr, &[1; 16]).unwrap();
        let mut writer = StatsWriter::new(&crypter);
        let first = writer
            .push(stats(8, STATS_FILE_SIZE_BYTES_MAX + 1), || Iv([2; 16]))
            .unwrap();
        assert_eq!(writer.push(stats(9, 10), || unreachable!()), None);
        let (refs, second) = writer.finish(|| Iv([3; 16]));
        let second = second.unwrap();
        assert_eq!(
            refs[0].object_name(),
            Some("backupmeta.schema.stats.000000008")
        );
        assert_eq!(
            refs[1].open(second.bytes.clone(), &crypter).unwrap(),
            vec![stats(9, 10)]
        );
        assert_eq!(refs[1].object_name(), Some(second.name.as_str()));
        let cut = first.bytes.slice(1..);
        assert!(matches!(
            refs[0].open(cut, &crypter),
            Err(MetaError::Truncated { .. })
        ));
    }
}
