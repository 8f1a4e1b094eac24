//! Contents of a log's objects, held against what metadata says of them.

use br_codec::key::{decode, split_data_key};
use br_codec::{WriteKind, WriteRef};
use br_format::backupmeta::DataFile;
use br_format::crypter::Crypter;
use br_format::log::LogFormatError;
use br_format::log::content::{self, Tally};
use br_format::log::file::{EventKind, FileIdentity, LogFile};
use br_format::log::metadata::LogGroup;
use br_format::log::record::{Record, Records};
use br_sst::{SstError, Table};
use br_tidb::meta_key::META_PREFIX;
use br_tidb::table_key::table_id;
use br_types::{Cf, Kind, TableId, TimeStamp};
use bytes::Bytes;

use super::long_values::{Need, ValueId, ValuesOfFile};

/// What a file came to.
pub(super) struct CheckedFile {
    /// Its place in the group.
    pub(super) place: usize,
    /// What is wrong; none: nothing.
    pub(super) problem: Option<String>,
    pub(super) values: ValuesOfFile,
}

/// Checks all files of an object.
///
/// # Errors
/// What is no damage: the key is wrong, or none was given.
pub(super) fn check_group(
    group: &LogGroup,
    stored: &Bytes,
    crypter: &Crypter,
) -> Result<Vec<CheckedFile>, LogFormatError> {
    let mut checked = Vec::new();
    for (place, file) in group.files.iter().enumerate() {
        let mut values = ValuesOfFile::default();
        let problem = match check_file(&group.path, file, stored, crypter, &mut values) {
            Ok(problem) => problem,
            Err(error) if is_damage(&error) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        checked.push(CheckedFile {
            place,
            problem,
            values,
        });
    }
    Ok(checked)
}

fn is_damage(error: &LogFormatError) -> bool {
    use br_types::Classify;
    error.kind() == Kind::Data
}

fn check_file(
    object: &str,
    file: &LogFile,
    stored: &Bytes,
    crypter: &Crypter,
    values: &mut ValuesOfFile,
) -> Result<Option<String>, LogFormatError> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(stored.len());
    let bytes = match file.span.length {
        // The first layout: an object is a file.
        0 => stored.clone(),
        _ => stored.slice(place(file.span.offset)..place(file.span.end().unwrap_or(u64::MAX))),
    };
    let records = content::open(object, file, bytes, crypter)?;
    content::check_records(object, file, &records)?;
    Ok(compare(file, &records, values))
}

/// What metadata says beyond the sums.
fn compare(file: &LogFile, records: &[u8], values: &mut ValuesOfFile) -> Option<String> {
    let mut tally = Tally::new(file.identity.cf);
    let mut again = Vec::new();
    let wrong = |what: String| Some(format!("({}) {what}", file.span));
    for record in Records::new(records) {
        again.clear();
        let taken = record.and_then(|record| {
            tally.append(record, &mut again)?;
            Ok(record)
        });
        let record = match taken {
            Ok(record) => record,
            Err(error) => return wrong(error.to_string()),
        };
        // Deletions have no values, and nothing else has none.
        if record.value.is_empty() != (file.identity.kind == EventKind::Delete) {
            return wrong("has a record that is not of its kind".to_owned());
        }
        if let Some(problem) = misplaced(record, &file.identity) {
            return wrong(problem);
        }
        if let Err(error) = note_value(record, &file.identity, values) {
            return wrong(error.to_string());
        }
    }
    let found = tally.finish(file.identity)?;
    if (found.min_ts, found.max_ts) != (file.min_ts, file.max_ts) {
        return wrong(format!(
            "has records of {} to {}, and metadata says {} to {}",
            found.min_ts, found.max_ts, file.min_ts, file.max_ts
        ));
    }
    // Values are found by the least start_ts: it must not be later than it is.
    let knows_begin = file.identity.cf == Cf::Write && !file.min_begin_ts.is_zero();
    if knows_begin && file.min_begin_ts > found.min_begin_ts {
        return wrong(format!(
            "has a transaction of {}, and metadata says {}",
            found.min_begin_ts, file.min_begin_ts
        ));
    }
    None
}

/// A record that is not of the table that metadata says.
fn misplaced(record: Record<'_>, identity: &FileIdentity) -> Option<String> {
    let (encoded, _) = record.split_key().ok()?;
    let raw = match decode(encoded) {
        Ok(raw) => raw,
        Err(error) => return Some(error.to_string()),
    };
    let is_schema = raw.as_bytes().first() == Some(&META_PREFIX);
    if is_schema != identity.is_schema {
        return Some(format!("has key {raw}, which is not of its kind"));
    }
    let table = table_id(raw.as_bytes()).unwrap_or(TableId(0));
    if !is_schema && table != identity.table {
        let said = identity.table;
        return Some(format!("has key {raw}, and metadata says table {said}"));
    }
    None
}

fn note_value(
    record: Record<'_>,
    identity: &FileIdentity,
    values: &mut ValuesOfFile,
) -> Result<(), br_codec::DecodeError> {
    if identity.kind == EventKind::Delete {
        return Ok(());
    }
    let (encoded, ts) = record.split_key()?;
    note(encoded, ts, record.value, identity, values)
}

fn note(
    encoded: &[u8],
    ts: TimeStamp,
    value: &[u8],
    identity: &FileIdentity,
    values: &mut ValuesOfFile,
) -> Result<(), br_codec::DecodeError> {
    if identity.cf == Cf::Default {
        values.has.push(ValueId::new(encoded, ts));
        return Ok(());
    }
    let write = WriteRef::parse(value)?;
    if write.kind == WriteKind::Put && write.short_value.is_none() {
        values.needs.push(Need {
            value: ValueId::new(encoded, write.start_ts),
            start_ts: write.start_ts,
            commit_ts: ts,
            table: identity.table,
        });
    }
    Ok(())
}

/// Reads an SST that stands for files of the log: its blocks, the order of its keys, its table and
/// timestamps.
pub(super) fn check_sst(
    file: &DataFile,
    stored: Bytes,
    identity: &FileIdentity,
    values: &mut ValuesOfFile,
) -> Option<String> {
    match read_sst(file, stored, identity, values) {
        Ok(problem) => problem,
        Err(error) => Some(error.to_string()),
    }
}

fn read_sst(
    file: &DataFile,
    stored: Bytes,
    identity: &FileIdentity,
    values: &mut ValuesOfFile,
) -> Result<Option<String>, SstError> {
    let table = Table::open(stored)?;
    let mut entries = table.iter();
    entries.seek(&[])?;
    let mut last: Vec<u8> = Vec::new();
    while let Some(entry) = entries.next()? {
        if !last.is_empty() && entry.user_key <= last.as_slice() {
            return Ok(Some("its keys are not in order".to_owned()));
        }
        entry.user_key.clone_into(&mut last);
        let (encoded, ts) = match split_data_key(entry.user_key) {
            Ok(parts) => parts,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if ts < file.start_ts || ts > file.end_ts {
            return Ok(Some(format!("a record of {ts} is not within its time")));
        }
        let table = decode(encoded).map(|raw| table_id(raw.as_bytes()).unwrap_or(TableId(0)));
        match table {
            Ok(table) if table == identity.table => {}
            Ok(table) => {
                let said = identity.table;
                return Ok(Some(format!(
                    "it has keys of table {table}, and its index says {said}"
                )));
            }
            Err(error) => return Ok(Some(error.to_string())),
        }
        if entry.kind == br_sst::EntryKind::Put
            && identity.kind == EventKind::Put
            && let Err(error) = note(encoded, ts, entry.value, identity, values)
        {
            return Ok(Some(error.to_string()));
        }
    }
    Ok(None)
}
