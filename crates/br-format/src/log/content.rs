//! The bytes of a logical file: records, compressed, then encrypted.
//!
//! `sha256`, `crc64_xor` and `length` are of the records; the checksum beside the initialization
//! vector is of the encrypted bytes. Metadata, checkpoints and names are never encrypted.

use std::io::Read;

use br_codec::{WriteRef, checksum::crc64_of_pair, key};
use br_types::{Cf, TimeStamp};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::LogFormatError;
use super::encryption::{FileEncryption, KeySource};
use super::file::{EventKind, FileIdentity, LogCompression, LogFile, Span};
use super::record::{Record, Records};
use crate::crypter::{Crypter, Iv};

/// Room that is made for decompressed records before any are seen, whatever metadata promises.
const ROOM_BYTES_MAX: u64 = 64 << 20;
/// zstd's fastest regular level, which stores use as well: they must not fall behind the writers.
const ZSTD_LEVEL: i32 = 1;

/// Sums over the records of one file, one record after the other.
#[derive(Clone, Debug)]
pub struct Tally {
    cf: Cf,
    entries: u64,
    range: Option<(TimeStamp, TimeStamp)>,
    min_start_ts: Option<TimeStamp>,
    keys: Option<(Vec<u8>, Vec<u8>)>,
    length: u64,
    crc64_xor: u64,
    sha256: Sha256,
}

impl Tally {
    /// Of no records yet.
    pub fn new(cf: Cf) -> Tally {
        Tally {
            cf,
            entries: 0,
            range: None,
            min_start_ts: None,
            keys: None,
            length: 0,
            crc64_xor: 0,
            sha256: Sha256::new(),
        }
    }

    /// How many records there are.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Their bytes, neither compressed nor encrypted.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Counts a record and appends its bytes to `out`.
    ///
    /// # Errors
    /// The key has no timestamp, or the value of the write column family is no write record.
    /// Nothing is counted or appended then.
    pub fn append(
        &mut self,
        record: Record<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), br_codec::DecodeError> {
        let (_, ts) = record.split_key()?;
        // Deletions have no values.
        if self.cf == Cf::Write && !record.value.is_empty() {
            let start_ts = WriteRef::parse(record.value)?.start_ts;
            self.min_start_ts = Some(self.min_start_ts.map_or(start_ts, |min| min.min(start_ts)));
        }
        let from = out.len();
        record.encode_into(out);
        let encoded = out.get(from..).unwrap_or_default();
        self.sha256.update(encoded);
        self.length += encoded.len() as u64;
        self.entries += 1;
        self.crc64_xor ^= crc64_of_pair(record.key, record.value);
        self.range = Some(match self.range {
            None => (ts, ts),
            Some((min, max)) => (min.min(ts), max.max(ts)),
        });
        match &mut self.keys {
            None => self.keys = Some((record.key.to_vec(), record.key.to_vec())),
            Some((first, last)) => {
                if record.key < first.as_slice() {
                    record.key.clone_into(first);
                } else if record.key > last.as_slice() {
                    record.key.clone_into(last);
                }
            }
        }
        Ok(())
    }

    /// The file of these records; none without records.
    ///
    /// What nobody but the writer knows is left empty: the span, the compression and encryption
    /// (see [`seal`]), and what is known of the region.
    pub fn finish(self, identity: FileIdentity) -> Option<LogFile> {
        let (min_ts, max_ts) = self.range?;
        let (first_key, last_key) = self.keys?;
        Some(LogFile {
            identity,
            entries: self.entries,
            min_ts,
            max_ts,
            resolved_ts: TimeStamp::ZERO,
            min_begin_ts: self.min_start_ts.unwrap_or(min_ts),
            first_key,
            last_key,
            length: self.length,
            span: Span::default(),
            compression: LogCompression::None,
            encryption: None,
            crc64_xor: self.crc64_xor,
            sha256: self.sha256.finalize().into(),
            region_range: br_types::KeyRange::default(),
            region_epochs: Vec::new(),
        })
    }
}

/// Compresses and encrypts the records of a file, and notes both in `file`, as well as the length
/// of its span.
///
/// `iv` is drawn at random for each file; it is not used without encryption.
pub fn seal(
    file: &mut LogFile,
    records: &[u8],
    compression: LogCompression,
    crypter: &Crypter,
    iv: Iv,
) -> std::io::Result<Vec<u8>> {
    let stored = match compression {
        LogCompression::None => records.to_vec(),
        LogCompression::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL)?,
    };
    Ok(encrypt(file, stored, compression, crypter, iv))
}

/// As [`seal`], for records that have been compressed while they came.
pub fn encrypt(
    file: &mut LogFile,
    mut stored: Vec<u8>,
    compression: LogCompression,
    crypter: &Crypter,
    iv: Iv,
) -> Vec<u8> {
    file.compression = compression;
    file.encryption = None;
    if !crypter.is_plaintext() {
        crypter.apply(&iv, &mut stored);
        file.encryption = Some(FileEncryption {
            method: crypter.method(),
            iv,
            checksum: Sha256::digest(&stored).to_vec(),
            key: KeySource::Task,
        });
    }
    file.span.length = stored.len() as u64;
    stored
}

/// The records of a file, out of its stored bytes; every sum is checked.
///
/// `object` is named in errors.
///
/// # Errors
/// [`LogFormatError::Length`], [`LogFormatError::Checksum`], [`LogFormatError::NoKey`],
/// [`LogFormatError::WrongKey`], [`LogFormatError::Unsupported`].
pub fn open(
    object: &str,
    file: &LogFile,
    stored: Bytes,
    crypter: &Crypter,
) -> Result<Bytes, LogFormatError> {
    let place = || format!("{object} ({})", file.span);
    // Objects of the first layout may not say how long they are.
    if file.span.length != 0 && stored.len() as u64 != file.span.length {
        return Err(LogFormatError::Length {
            object: place(),
            expected: file.span.length,
            found: stored.len() as u64,
        });
    }
    let stored = match &file.encryption {
        None => stored,
        Some(encryption) => decrypt(&place(), encryption, stored, crypter)?,
    };
    let records = match file.compression {
        LogCompression::None => stored,
        LogCompression::Zstd => match decompress(&stored, file.length) {
            Ok(records) => records.into(),
            Err(_) if file.encryption.is_some() => {
                return Err(LogFormatError::WrongKey { object: place() });
            }
            Err(error) => return Err(LogFormatError::malformed(place(), error.to_string())),
        },
    };
    if records.len() as u64 != file.length {
        return Err(LogFormatError::Length {
            object: place(),
            expected: file.length,
            found: records.len() as u64,
        });
    }
    let found: [u8; 32] = Sha256::digest(&records).into();
    if found != file.sha256 {
        if file.encryption.is_some() {
            return Err(LogFormatError::WrongKey { object: place() });
        }
        return Err(LogFormatError::Checksum {
            object: place(),
            sum: "SHA-256",
            expected: hex::encode(file.sha256),
            found: hex::encode(found),
        });
    }
    Ok(records)
}

fn decrypt(
    place: &str,
    encryption: &FileEncryption,
    stored: Bytes,
    crypter: &Crypter,
) -> Result<Bytes, LogFormatError> {
    if !encryption.checksum.is_empty() {
        let found = Sha256::digest(&stored);
        if found.as_slice() != encryption.checksum {
            return Err(LogFormatError::Checksum {
                object: place.to_owned(),
                sum: "SHA-256",
                expected: hex::encode(&encryption.checksum),
                found: hex::encode(found),
            });
        }
    }
    let crypter = match &encryption.key {
        KeySource::Task => crypter,
        KeySource::MasterKey { opened, .. } => {
            opened.as_ref().ok_or_else(|| LogFormatError::NoMasterKey {
                object: place.to_owned(),
            })?
        }
    };
    if crypter.is_plaintext() {
        return Err(LogFormatError::NoKey {
            object: place.to_owned(),
            method: encryption.method.to_string(),
        });
    }
    if crypter.method() != encryption.method {
        return Err(LogFormatError::WrongKey {
            object: place.to_owned(),
        });
    }
    let mut bytes = Vec::from(stored);
    crypter.apply(&encryption.iv, &mut bytes);
    Ok(bytes.into())
}

/// At most one byte more than `length`, which then shows as a wrong length.
fn decompress(stored: &[u8], length: u64) -> std::io::Result<Vec<u8>> {
    let room = usize::try_from(length.min(ROOM_BYTES_MAX)).unwrap_or_default();
    let mut records = Vec::with_capacity(room);
    zstd::stream::Decoder::with_buffer(stored)?
        .take(length.saturating_add(1))
        .read_to_end(&mut records)?;
    Ok(records)
}

/// Checks what metadata says of the records of a file, beyond what [`open`] has checked: number,
/// sum, timestamps and keys.
///
/// # Errors
/// [`LogFormatError::Malformed`], [`LogFormatError::Checksum`].
pub fn check_records(object: &str, file: &LogFile, records: &[u8]) -> Result<(), LogFormatError> {
    let place = || format!("{object} ({})", file.span);
    let wrong = |reason: String| LogFormatError::malformed(place(), reason);
    let mut entries = 0;
    let mut crc64_xor = 0;
    for record in Records::new(records) {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let (encoded, ts) = record
            .split_key()
            .map_err(|error| wrong(error.to_string()))?;
        entries += 1;
        crc64_xor ^= crc64_of_pair(record.key, record.value);
        if ts < file.min_ts || ts > file.max_ts {
            let reason = format!("a record of {ts} is not within its timestamps");
            return Err(wrong(reason));
        }
        let bounded = !file.first_key.is_empty() && !file.last_key.is_empty();
        let within =
            file.first_key.as_slice() <= record.key && record.key <= file.last_key.as_slice();
        if bounded && !within {
            let key = key::decode(encoded).unwrap_or_default();
            return Err(wrong(format!("{key:?} is not within its keys")));
        }
    }
    if entries != file.entries {
        let reason = format!(
            "it has {entries} records, and {} were written",
            file.entries
        );
        return Err(wrong(reason));
    }
    // The first versions did not sum.
    if file.crc64_xor != 0 && crc64_xor != file.crc64_xor {
        return Err(LogFormatError::Checksum {
            object: place(),
            sum: "CRC-64",
            expected: format!("{:016x}", file.crc64_xor),
            found: format!("{crc64_xor:016x}"),
        });
    }
    Ok(())
}

/// Splits files into objects in the order in which they come: a new one begins once the records so
/// far, neither compressed nor encrypted, reach `size_bytes_max`; files of schemas and of rows
/// never share one. `identity_and_length` says what a file is.
pub fn split_into_groups<F>(
    files: impl IntoIterator<Item = F>,
    size_bytes_max: u64,
    identity_and_length: impl Fn(&F) -> (FileIdentity, u64),
) -> Vec<Vec<F>> {
    let mut done = Vec::new();
    let mut open: [(Vec<F>, u64); 2] = [(Vec::new(), 0), (Vec::new(), 0)];
    for file in files {
        let (identity, length) = identity_and_length(&file);
        let [rows, schemas] = &mut open;
        let (group, size) = if identity.is_schema { schemas } else { rows };
        if *size >= size_bytes_max && !group.is_empty() {
            done.push(std::mem::take(group));
            *size = 0;
        }
        group.push(file);
        *size = size.saturating_add(length);
    }
    done.extend(
        open.into_iter()
            .map(|(group, _)| group)
            .filter(|group| !group.is_empty()),
    );
    done
}

/// Sets the spans of files that are put into one object one after the other, and says how long
/// that is.
pub fn lay_out<'a>(files: impl IntoIterator<Item = &'a mut LogFile>) -> u64 {
    let mut offset = 0;
    for file in files {
        file.span.offset = offset;
        offset += file.span.length;
    }
    offset
}

/// Whether a file must be applied after all files of values.
pub fn is_applied_last(file: &LogFile) -> bool {
    file.identity.kind == EventKind::Delete
}
