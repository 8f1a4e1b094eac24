use br_proto::backup::File;
use br_types::{Cf, KeyRange, RawKey, TimeStamp};

use super::MetaError;
use crate::crypter::Iv;
use crate::kv_stats::KvStats;
use crate::names;

/// A data file: an SST of one column family over a range of raw keys.
///
/// Long values lie in the `default` file, all records in the `write` file; a pair counts in the
/// [`KvStats`] of the file that has its value. So a `write` file with zero sums is needed all the
/// same.
///
/// # Source
/// `backup.File`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// The name below the prefix of the backup.
    pub name: String,
    /// Over the stored bytes: encrypted, if the backup is.
    pub sha256: [u8; 32],
    /// Raw keys, without encoding, timestamp and `z`, as keys in the file have.
    pub range: KeyRange<RawKey>,
    /// The column family.
    pub cf: Cf,
    /// Changes up to this, inclusive, are not in the file; zero in a full backup.
    pub start_ts: TimeStamp,
    /// The timestamp of the backup.
    pub end_ts: TimeStamp,
    /// Sums over the pairs that count in this file.
    pub stats: KvStats,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Set by stores whether they encrypt or not.
    pub cipher_iv: Option<Iv>,
}

impl DataFile {
    /// Checks and takes over what a store or an index says; `object` is where it stands.
    ///
    /// # Errors
    /// [`MetaError::Malformed`], [`MetaError::Unsupported`].
    pub fn from_proto(object: &str, file: File) -> Result<DataFile, MetaError> {
        let wrong = |what: &str| {
            MetaError::malformed(object, format!("{what} of data file {:?}", file.name))
        };
        if file.name.is_empty() {
            return Err(wrong("empty name"));
        }
        if !file.table_metas.is_empty() {
            let feature = "data files copied from engines";
            return Err(MetaError::Unsupported {
                object: object.to_owned(),
                feature,
            });
        }
        let sha256 = file
            .sha256
            .as_slice()
            .try_into()
            .map_err(|_| wrong("length of SHA-256"))?;
        let cf = if file.cf.is_empty() {
            // The first tools did not write it.
            names::parse_sst(&file.name).map(|(_, cf)| cf)
        } else {
            Cf::from_name(&file.cf)
        };
        let cf = cf.ok_or_else(|| wrong("column family"))?;
        let cipher_iv = match file.cipher_iv.as_slice() {
            [] => None,
            iv => Some(Iv::from_slice(iv).map_err(|_| wrong("initialization vector"))?),
        };
        Ok(DataFile {
            sha256,
            range: KeyRange::new(file.start_key, file.end_key),
            cf,
            start_ts: TimeStamp(file.start_version),
            end_ts: TimeStamp(file.end_version),
            stats: KvStats {
                crc64_xor: file.crc64xor,
                total_kvs: file.total_kvs,
                total_bytes: file.total_bytes,
            },
            size_bytes: file.size,
            cipher_iv,
            name: file.name,
        })
    }

    /// For an index, or for the answer of a store.
    pub fn into_proto(self) -> File {
        File {
            name: self.name,
            sha256: self.sha256.to_vec(),
            start_key: self.range.start.into_bytes(),
            end_key: self.range.end.into_bytes(),
            start_version: self.start_ts.0,
            end_version: self.end_ts.0,
            crc64xor: self.stats.crc64_xor,
            total_kvs: self.stats.total_kvs,
            total_bytes: self.stats.total_bytes,
            table_metas: Vec::new(),
            cf: self.cf.name().to_owned(),
            size: self.size_bytes,
            cipher_iv: self.cipher_iv.map(|iv| iv.0.to_vec()).unwrap_or_default(),
        }
    }
}
