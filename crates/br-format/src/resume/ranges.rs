use std::time::Duration;

use br_proto::backup::File;
use br_types::{KeyRange, RawKey};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ResumeError, json};
use crate::backupmeta::DataFile;
use crate::crypter::{Crypter, Iv};

/// `data/*.cpt`: ranges that are backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResumeRanges {
    /// The ranges.
    pub ranges: Vec<ResumeRange>,
    /// For how long the backup has been running, over all its runs.
    pub elapsed: Duration,
}

/// A range that is backed up, with its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeRange {
    /// Raw keys.
    pub range: KeyRange<RawKey>,
    /// None if no key has data there.
    pub files: Vec<DataFile>,
}

#[derive(Deserialize, Serialize)]
struct FileJson {
    #[serde(rename = "dure-time")]
    elapsed_ns: u64,
    #[serde(rename = "range-group-metas")]
    groups: Option<Vec<SealedJson>>,
}

/// Names as in the official tool, spelling included.
#[derive(Deserialize, Serialize)]
struct SealedJson {
    #[serde(rename = "RangeGroupsEncriptedData", with = "json::base64")]
    content: Vec<u8>,
    #[serde(rename = "Checksum", with = "json::base64")]
    sha256: Vec<u8>,
    #[serde(rename = "CipherIv", with = "json::base64")]
    iv: Vec<u8>,
    /// Of the plaintext.
    #[serde(rename = "Size")]
    size_bytes: u64,
}

#[derive(Deserialize, Serialize)]
struct GroupJson {
    #[serde(
        rename = "group-key",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    key: String,
    groups: Option<Vec<RangeJson>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RangeJson {
    #[serde(with = "json::base64")]
    start_key: Vec<u8>,
    #[serde(with = "json::base64")]
    end_key: Vec<u8>,
    files: Option<Vec<DataFileJson>>,
}

/// `backup.File`, as Go writes it: fields without a value are left out.
#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct DataFileJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(with = "json::base64", skip_serializing_if = "Vec::is_empty")]
    sha256: Vec<u8>,
    #[serde(with = "json::base64", skip_serializing_if = "Vec::is_empty")]
    start_key: Vec<u8>,
    #[serde(with = "json::base64", skip_serializing_if = "Vec::is_empty")]
    end_key: Vec<u8>,
    #[serde(skip_serializing_if = "json::is_zero")]
    start_version: u64,
    #[serde(skip_serializing_if = "json::is_zero")]
    end_version: u64,
    #[serde(skip_serializing_if = "json::is_zero")]
    crc64xor: u64,
    #[serde(skip_serializing_if = "json::is_zero")]
    total_kvs: u64,
    #[serde(skip_serializing_if = "json::is_zero")]
    total_bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    cf: String,
    #[serde(skip_serializing_if = "json::is_zero")]
    size: u64,
    #[serde(with = "json::base64", skip_serializing_if = "Vec::is_empty")]
    cipher_iv: Vec<u8>,
}

impl ResumeRanges {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ResumeError`]; the file may be left out then.
    pub fn decode(
        object: &str,
        bytes: &[u8],
        crypter: &Crypter,
    ) -> Result<ResumeRanges, ResumeError> {
        let malformed = |error: serde_json::Error| ResumeError::malformed(object, error);
        let file: FileJson = serde_json::from_slice(bytes).map_err(malformed)?;
        let mut ranges = Vec::new();
        for sealed in file.groups.into_iter().flatten() {
            let plain = open(object, sealed, crypter)?;
            let group: GroupJson = serde_json::from_slice(&plain).map_err(malformed)?;
            for range in group.groups.into_iter().flatten() {
                ranges.push(decode_range(object, range)?);
            }
        }
        Ok(ResumeRanges {
            ranges,
            elapsed: Duration::from_nanos(file.elapsed_ns),
        })
    }

    /// The bytes of a file; `iv` is drawn at random for each, and not used without encryption.
    pub fn encode(&self, crypter: &Crypter, iv: &Iv) -> Bytes {
        let group = GroupJson {
            key: String::new(),
            groups: Some(self.ranges.iter().map(encode_range).collect()),
        };
        let mut content = Vec::from(json::encode(&group));
        let sha256 = Sha256::digest(&content).to_vec();
        crypter.apply(iv, &mut content);
        let sealed = SealedJson {
            size_bytes: content.len() as u64,
            content,
            sha256,
            iv: if crypter.is_plaintext() {
                Vec::new()
            } else {
                iv.0.to_vec()
            },
        };
        json::encode(&FileJson {
            elapsed_ns: nanos(self.elapsed),
            groups: Some(vec![sealed]),
        })
    }
}

/// Go's durations have 63 bits of nanoseconds: 292 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(i64::MAX as u64, |ns| ns.min(i64::MAX as u64))
}

fn open(object: &str, sealed: SealedJson, crypter: &Crypter) -> Result<Vec<u8>, ResumeError> {
    let mut content = sealed.content;
    if !crypter.is_plaintext() {
        let iv = Iv::from_slice(&sealed.iv).map_err(|e| ResumeError::malformed(object, e))?;
        crypter.apply(&iv, &mut content);
    }
    if Sha256::digest(&content).as_slice() != sealed.sha256 {
        return Err(ResumeError::Checksum {
            object: object.to_owned(),
        });
    }
    Ok(content)
}

fn decode_range(object: &str, range: RangeJson) -> Result<ResumeRange, ResumeError> {
    let files = range
        .files
        .into_iter()
        .flatten()
        .map(|file| {
            let file = File {
                name: file.name,
                sha256: file.sha256,
                start_key: file.start_key,
                end_key: file.end_key,
                start_version: file.start_version,
                end_version: file.end_version,
                crc64xor: file.crc64xor,
                total_kvs: file.total_kvs,
                total_bytes: file.total_bytes,
                table_metas: Vec::new(),
                cf: file.cf,
                size: file.size,
                cipher_iv: file.cipher_iv,
            };
            DataFile::from_proto(object, file).map_err(|e| ResumeError::malformed(object, e))
        })
        .collect::<Result<_, _>>()?;
    Ok(ResumeRange {
        range: KeyRange::new(range.start_key, range.end_key),
        files,
    })
}

fn encode_range(range: &ResumeRange) -> RangeJson {
    let file = |file: &DataFile| {
        let file = file.clone().into_proto();
        DataFileJson {
            name: file.name,
            sha256: file.sha256,
            start_key: file.start_key,
            end_key: file.end_key,
            start_version: file.start_version,
            end_version: file.end_version,
            crc64xor: file.crc64xor,
            total_kvs: file.total_kvs,
            total_bytes: file.total_bytes,
            cf: file.cf,
            size: file.size,
            cipher_iv: file.cipher_iv,
        }
    };
    RangeJson {
        start_key: range.range.start.as_bytes().to_vec(),
        end_key: range.range.end.as_bytes().to_vec(),
        files: (!range.files.is_empty()).then(|| range.files.iter().map(file).collect()),
    }
}
