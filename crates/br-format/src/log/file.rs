//! Logical files, as metadata describes them.

use std::fmt;

use br_proto::backup::{CompressionType, DataFileInfo, FileType};
use br_proto::metapb;
use br_types::{Cf, EncodedKey, KeyRange, RegionEpoch, RegionId, TableId, TimeStamp};

use super::LogFormatError;
use super::encryption::FileEncryption;

/// What the records of a file do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventKind {
    /// They write values.
    Put,
    /// They remove keys from the column family: the garbage of rolled back transactions, mostly. A
    /// row that a user deletes is a [`EventKind::Put`] of a deletion record. To be applied after
    /// all others.
    Delete,
}

/// How the bytes of a file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogCompression {
    /// Not at all.
    None,
    /// As one zstd frame.
    #[default]
    Zstd,
}

impl LogCompression {
    /// The number in metadata and task values.
    pub const fn number(self) -> i32 {
        match self {
            LogCompression::None => CompressionType::Unknown as i32,
            LogCompression::Zstd => CompressionType::Zstd as i32,
        }
    }

    pub(super) fn from_number(object: &str, number: i32) -> Result<Self, LogFormatError> {
        match CompressionType::try_from(number) {
            Ok(CompressionType::Unknown) => Ok(LogCompression::None),
            Ok(CompressionType::Zstd) => Ok(LogCompression::Zstd),
            Ok(CompressionType::Lz4 | CompressionType::Snappy) => {
                Err(LogFormatError::Unsupported {
                    object: object.to_owned(),
                    feature: "a compression other than zstd",
                })
            }
            Err(_) => Err(LogFormatError::NewerVersion {
                object: object.to_owned(),
                field: "compression type",
                found: i64::from(number),
                supported: CompressionType::Zstd as i64,
            }),
        }
    }
}

/// What keeps the events of one file together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// Whether they are keys of schemas (`m…`).
    pub is_schema: bool,
    /// The table or partition; 0 for schemas and for keys of no table.
    pub table: TableId,
    /// The region that they were applied in.
    pub region: RegionId,
    /// The column family: default or write.
    pub cf: Cf,
    /// What they do.
    pub kind: EventKind,
}

/// A piece of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

impl Span {
    /// Where it ends; none if that is no number.
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}+{}", self.offset, self.length)
    }
}

/// A logical file: the events of one region, table, column family and kind in one flush.
///
/// # Source
/// `backup.DataFileInfo`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFile {
    /// What its events have in common.
    pub identity: FileIdentity,
    /// How many they are.
    pub entries: u64,
    /// The least timestamp of a key in it.
    pub min_ts: TimeStamp,
    /// The greatest timestamp of a key in it.
    pub max_ts: TimeStamp,
    /// The greatest resolved timestamp of the region while it was written; a hint.
    pub resolved_ts: TimeStamp,
    /// For the write column family the least `start_ts` within its values: the values of these
    /// transactions may lie in earlier flushes. Zero if nobody knows.
    pub min_begin_ts: TimeStamp,
    /// The least and the greatest key, both inclusive, memcomparable and with timestamps.
    pub first_key: Vec<u8>,
    /// See [`LogFile::first_key`].
    pub last_key: Vec<u8>,
    /// Bytes of the records, neither compressed nor encrypted.
    pub length: u64,
    /// Where it lies in its object, compressed and encrypted.
    pub span: Span,
    /// How it is compressed.
    pub compression: LogCompression,
    /// How it is encrypted, if it is.
    pub encryption: Option<FileEncryption>,
    /// CRC-64/XZ of each record's key and value, all joined by XOR.
    pub crc64_xor: u64,
    /// Over the records, neither compressed nor encrypted.
    pub sha256: [u8; 32],
    /// The region when it was flushed; a hint.
    pub region_range: KeyRange<EncodedKey>,
    /// The region's epochs while it was written; a hint.
    pub region_epochs: Vec<RegionEpoch>,
}

impl LogFile {
    /// Checks and takes over; the path of files of the first layout is returned beside.
    pub(super) fn from_proto(
        object: &str,
        info: DataFileInfo,
    ) -> Result<(LogFile, String), LogFormatError> {
        let wrong = |what: &str| {
            let reason = format!(
                "wrong {what} of the file at byte {} of {:?}",
                info.range_offset, info.path
            );
            LogFormatError::malformed(object, reason)
        };
        let kind = match FileType::try_from(info.r#type) {
            Ok(FileType::Put) => EventKind::Put,
            Ok(FileType::Delete) => EventKind::Delete,
            Err(_) => return Err(wrong("type")),
        };
        let cf = match Cf::from_name(&info.cf) {
            Some(cf @ (Cf::Default | Cf::Write)) => cf,
            Some(Cf::Lock) | None => return Err(wrong("column family")),
        };
        let region = u64::try_from(info.region_id).map_err(|_| wrong("region"))?;
        let entries = u64::try_from(info.number_of_entries).map_err(|_| wrong("entries"))?;
        let sha256 = info
            .sha256
            .as_slice()
            .try_into()
            .map_err(|_| wrong("length of SHA-256"))?;
        if info.min_ts > info.max_ts {
            return Err(wrong("range of timestamps"));
        }
        let span = Span {
            offset: info.range_offset,
            length: info.range_length,
        };
        if span.end().is_none() {
            return Err(wrong("position"));
        }
        let encryption = match info.file_encryption_info {
            Some(encryption) => FileEncryption::from_proto(object, encryption)?,
            None => None,
        };
        let file = LogFile {
            identity: FileIdentity {
                is_schema: info.is_meta,
                table: TableId(info.table_id),
                region: RegionId(region),
                cf,
                kind,
            },
            entries,
            min_ts: TimeStamp(info.min_ts),
            max_ts: TimeStamp(info.max_ts),
            resolved_ts: TimeStamp(info.resolved_ts),
            min_begin_ts: TimeStamp(info.min_begin_ts_in_default_cf),
            first_key: info.start_key,
            last_key: info.end_key,
            length: info.length,
            span,
            compression: LogCompression::from_number(object, info.compression_type)?,
            encryption,
            crc64_xor: info.crc64xor,
            sha256,
            region_range: KeyRange::new(info.region_start_key, info.region_end_key),
            region_epochs: info
                .region_epoch
                .iter()
                .map(|epoch| RegionEpoch {
                    conf_ver: epoch.conf_ver,
                    version: epoch.version,
                })
                .collect(),
        };
        Ok((file, info.path))
    }

    /// `path` is empty in files of a group.
    pub(super) fn to_proto(&self, path: &str) -> DataFileInfo {
        DataFileInfo {
            sha256: self.sha256.to_vec(),
            path: path.to_owned(),
            number_of_entries: i64::try_from(self.entries).unwrap_or(i64::MAX),
            min_ts: self.min_ts.0,
            max_ts: self.max_ts.0,
            resolved_ts: self.resolved_ts.0,
            region_id: i64::try_from(self.identity.region.0).unwrap_or(i64::MAX),
            start_key: self.first_key.clone(),
            end_key: self.last_key.clone(),
            cf: self.identity.cf.name().to_owned(),
            r#type: match self.identity.kind {
                EventKind::Put => FileType::Put,
                EventKind::Delete => FileType::Delete,
            } as i32,
            is_meta: self.identity.is_schema,
            table_id: self.identity.table.0,
            length: self.length,
            min_begin_ts_in_default_cf: self.min_begin_ts.0,
            range_offset: self.span.offset,
            range_length: self.span.length,
            compression_type: self.compression.number(),
            crc64xor: self.crc64_xor,
            region_start_key: self.region_range.start.as_bytes().to_vec(),
            region_end_key: self.region_range.end.as_bytes().to_vec(),
            region_epoch: self
                .region_epochs
                .iter()
                .map(|epoch| metapb::RegionEpoch {
                    conf_ver: epoch.conf_ver,
                    version: epoch.version,
                })
                .collect(),
            file_encryption_info: self.encryption.as_ref().map(FileEncryption::to_proto),
        }
    }

    /// Whether a restore of `(start_ts, restored_ts]` needs it. Values in the default column family
    /// are needed from `shift_ts` on, see [`crate::log::metadata::LogMeta::shift_ts`].
    pub fn is_needed(&self, window: Window) -> bool {
        let from = match self.identity.cf {
            Cf::Default => window.shift_ts,
            Cf::Write | Cf::Lock => window.start_ts,
        };
        self.min_ts <= window.restored_ts && self.max_ts >= from
    }
}

/// What a restore takes out of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Commits up to this, inclusive, are there already; records from it on are read, as the
    /// official tool does.
    pub start_ts: TimeStamp,
    /// The last commit that is restored.
    pub restored_ts: TimeStamp,
    /// Values of its commits may be as old as this.
    pub shift_ts: TimeStamp,
}
