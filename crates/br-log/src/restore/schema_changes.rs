//! # What it does
//! What the log says of schemas: of each meta key that was written in the window its last value, and
//! of tables also what they were first, which tells indexes that were added from those that came
//! with the table.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_codec::{WriteKind, WriteRef, key};
use br_tidb::{
    meta_key::{self, Counter, DbField, MetaKey},
    schema::{Counters, DbInfo, SchemaError, SchemaState, TableInfo},
};
use br_types::{DbId, IndexId, RawKey, TableId, TimeStamp};

use super::{
    error::PointError,
    sort::Sorted,
    versions::{KeyVersions, VersionReader},
};

/// What was written of schemas between the start of the window and its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct SchemaChanges {
    /// DBInfo by id; `None`: dropped.
    pub(crate) databases: BTreeMap<DbId, Option<String>>,
    /// By database and id.
    pub(crate) tables: BTreeMap<(DbId, TableId), TableChange>,
    /// The last value of each counter that was written.
    pub(super) counters: HashMap<(TableId, Counter), BTreeMap<DbId, i64>>,
    /// Indexes of the first schema that the log has of a table, by the table's id.
    pub(super) first_public: HashMap<TableId, (TimeStamp, HashSet<IndexId>)>,
    /// The last id that was given away with the first ids of the window.
    pub(crate) first_last_id: Option<i64>,
    /// Jobs that changed schemas, as TiDB's JSON, by id.
    pub(crate) jobs: BTreeMap<i64, Vec<u8>>,
}

/// A table of which something was written.
#[derive(Clone, Debug)]
pub(crate) struct TableChange {
    /// Its TableInfo in the end; `None`: it is gone from this database.
    pub(crate) json: Option<String>,
}

impl SchemaChanges {
    /// Reads the sorted meta keys of a window.
    ///
    /// # Errors
    /// A value is missing, or one of them makes no sense.
    pub(crate) fn read(sorted: &Sorted) -> Result<SchemaChanges, PointError> {
        let mut changes = SchemaChanges::default();
        let mut reader = VersionReader::new(sorted, &[], false)?;
        let mut versions = KeyVersions::default();
        while reader.next(&[], &mut versions)? {
            let raw = key::decode(&versions.key).map_err(|source| PointError::Key { source })?;
            let (name, field) = match MetaKey::parse(raw.as_bytes()) {
                Ok(MetaKey::HashField { name, field }) => (name, field),
                Ok(MetaKey::String { name }) if name == meta_key::NEXT_GLOBAL_ID => {
                    let first = oldest(&raw, &versions)?.map(|(_, value)| number(&raw, value));
                    changes.first_last_id = first.transpose()?;
                    continue;
                }
                _ => continue,
            };
            if name == meta_key::DATABASES {
                if let Some(db) = meta_key::parse_db_field(&field) {
                    changes
                        .databases
                        .insert(db, newest_visible(&raw, &versions, is_public_db)?);
                }
            } else if name == meta_key::DDL_JOB_HISTORY {
                if let (Some(job), Some(json)) =
                    (meta_key::parse_job_field(&field), newest(&raw, &versions)?)
                {
                    changes.jobs.insert(job, json);
                }
            } else if let Some(db) = meta_key::parse_db_field(&name) {
                changes.take_field(db, &field, &raw, &versions)?;
            }
        }
        Ok(changes)
    }

    fn take_field(
        &mut self,
        db: DbId,
        field: &[u8],
        raw: &RawKey,
        versions: &KeyVersions,
    ) -> Result<(), PointError> {
        match meta_key::parse_table_field(field) {
            None => {}
            Some(DbField::Counter(table, counter)) => {
                if let Some(value) = newest(raw, versions)? {
                    let value = number(raw, value)?;
                    let of_table = self.counters.entry((table, counter)).or_default();
                    of_table.insert(db, value);
                }
            }
            Some(DbField::Table(table)) => {
                let json = newest_visible(raw, versions, is_public_table)?;
                self.tables.insert((db, table), TableChange { json });
                if let Some((ts, json)) = oldest(raw, versions)? {
                    let info = TableInfo::parse(&json)
                        .map_err(|error| schema_error(raw, error.to_string()))?;
                    let is_first = |seen: &(TimeStamp, _)| ts < seen.0;
                    if self.first_public.get(&table).is_none_or(is_first) {
                        self.first_public.insert(table, (ts, public_indexes(&info)));
                    }
                }
            }
        }
        Ok(())
    }

    /// The counters of a table whose counters lie under `db`, on top of those of the backup.
    pub(crate) fn counters(&self, db: DbId, table: TableId, base: Counters) -> Counters {
        let newest = |counter, base: Option<i64>| {
            let of_table = self.counters.get(&(table, counter));
            let under_db = of_table.and_then(|values| values.get(&db)).copied();
            let elsewhere = || of_table.and_then(|values| values.values().copied().max());
            under_db.or_else(elsewhere).or(base)
        };
        Counters {
            row_id: newest(Counter::RowId, base.row_id),
            auto_increment: newest(Counter::AutoIncrement, base.auto_increment),
            auto_random: newest(Counter::AutoRandom, base.auto_random),
            sequence: newest(Counter::Sequence, base.sequence),
        }
    }

    /// Whether a counter of the table was written.
    pub(crate) fn has_counters(&self, table: TableId) -> bool {
        let written = |counter| self.counters.contains_key(&(table, counter));
        Counter::EVERY.into_iter().any(written)
    }

    /// The indexes that a table of the log had when it was written first; for tables that were made
    /// in the window those that it was made with.
    pub(crate) fn first_indexes(&self, table: TableId) -> Option<&HashSet<IndexId>> {
        self.first_public.get(&table).map(|(_, indexes)| indexes)
    }
}

#[cfg(test)]
impl SchemaChanges {
    pub(crate) fn set_counter(&mut self, db: DbId, table: TableId, counter: Counter, last: i64) {
        let of_table = self.counters.entry((table, counter)).or_default();
        of_table.insert(db, last);
    }

    pub(crate) fn set_first_indexes<const N: usize>(&mut self, table: TableId, ids: [IndexId; N]) {
        self.first_public
            .insert(table, (TimeStamp(1), HashSet::from(ids)));
    }
}

/// Ids of the indexes that everybody sees.
pub(crate) fn public_indexes(table: &TableInfo) -> HashSet<IndexId> {
    let public = table.indexes.iter();
    let public = public.filter(|index| index.state == SchemaState::PUBLIC);
    public.map(|index| IndexId(index.id)).collect()
}

fn number(raw: &RawKey, value: Vec<u8>) -> Result<i64, PointError> {
    let value = text(raw, value)?;
    value
        .parse()
        .map_err(|_| schema_error(raw, "a counter is no number"))
}

/// The last value of a key; `None`: it was deleted.
fn newest(raw: &RawKey, versions: &KeyVersions) -> Result<Option<Vec<u8>>, PointError> {
    match versions.records().next() {
        None => Ok(None),
        Some((_, record)) => value_of(raw, record, versions),
    }
}

/// The last schema of a key; `None`: it was deleted, or nobody sees it. A table or database that is
/// being dropped is hidden before it is gone, and one that is being made before it is complete.
fn newest_visible(
    raw: &RawKey,
    versions: &KeyVersions,
    is_public: fn(&str) -> Result<bool, SchemaError>,
) -> Result<Option<String>, PointError> {
    let Some(json) = newest(raw, versions)? else {
        return Ok(None);
    };
    let json = text(raw, json)?;
    let is_public = is_public(&json).map_err(|error| schema_error(raw, error.to_string()))?;
    Ok(is_public.then_some(json))
}

fn is_public_table(json: &str) -> Result<bool, SchemaError> {
    Ok(TableInfo::parse(json.as_bytes())?.state == SchemaState::PUBLIC)
}

fn is_public_db(json: &str) -> Result<bool, SchemaError> {
    Ok(DbInfo::parse(json.as_bytes())?.state == SchemaState::PUBLIC)
}

/// The first value of a key, with the time of its commit.
fn oldest(
    raw: &RawKey,
    versions: &KeyVersions,
) -> Result<Option<(TimeStamp, Vec<u8>)>, PointError> {
    let mut first = None;
    for (ts, record) in versions.records() {
        if let Some(value) = value_of(raw, record, versions)? {
            first = Some((ts, value));
        }
    }
    Ok(first)
}

fn value_of(
    raw: &RawKey,
    record: &[u8],
    versions: &KeyVersions,
) -> Result<Option<Vec<u8>>, PointError> {
    let record = WriteRef::parse(record).map_err(|source| PointError::Record {
        key: raw.clone(),
        source,
    })?;
    if record.kind != WriteKind::Put {
        return Ok(None);
    }
    if let Some(short) = record.short_value {
        return Ok(Some(short.to_vec()));
    }
    let mut values = versions.values();
    let found = values.find(|(start_ts, _)| *start_ts == record.start_ts);
    match found {
        Some((_, value)) => Ok(Some(value.to_vec())),
        None => Err(PointError::MissingValue {
            key: raw.clone(),
            start_ts: record.start_ts,
        }),
    }
}

fn text(raw: &RawKey, value: Vec<u8>) -> Result<String, PointError> {
    String::from_utf8(value).map_err(|_| schema_error(raw, "it is no text"))
}

fn schema_error(raw: &RawKey, problem: impl Into<String>) -> PointError {
    PointError::Schema {
        name: format!("key {raw}"),
        problem: problem.into(),
    }
}
