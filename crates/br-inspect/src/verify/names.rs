//! What ids mean: tables and partitions of the backup, and those that the log made.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use br_codec::{WriteKind, WriteRef, key};
use br_format::log::record::Records;
use br_tidb::meta_key::{DATABASES, DbField, MetaKey, parse_db_field, parse_table_field};
use br_tidb::schema::{DbInfo, TableInfo, strip_temporary_prefix};
use br_types::{Cf, DbId, TableId, TimeStamp};

#[derive(Clone, Debug)]
struct TableName {
    db: DbName,
    table: String,
    partition: Option<String>,
}

#[derive(Clone, Debug)]
enum DbName {
    Known(String),
    /// The log may have its name.
    Id(DbId),
}

/// Names of tables and partitions by id; the newest one that was heard of.
#[derive(Clone, Debug, Default)]
pub(super) struct TableNames {
    tables: HashMap<TableId, (TimeStamp, TableName)>,
    dbs: HashMap<DbId, (TimeStamp, String)>,
}

impl TableNames {
    /// Takes the names of a table as it was at `ts`.
    pub(super) fn add(&mut self, db: &DbInfo, info: &TableInfo, ts: TimeStamp) {
        let name = strip_temporary_prefix(&db.name.original).to_owned();
        self.add_db(DbId(db.id), name.clone(), ts);
        self.add_table(&DbName::Known(name), info, ts);
    }

    fn add_db(&mut self, id: DbId, name: String, ts: TimeStamp) {
        let known = self.dbs.entry(id).or_insert((ts, name.clone()));
        if known.0 <= ts {
            *known = (ts, name);
        }
    }

    fn add_table(&mut self, db: &DbName, info: &TableInfo, ts: TimeStamp) {
        let mut add = |id: TableId, partition: Option<String>| {
            let name = TableName {
                db: db.clone(),
                table: info.name.original.clone(),
                partition,
            };
            let known = self.tables.entry(id).or_insert((ts, name.clone()));
            if known.0 <= ts {
                *known = (ts, name);
            }
        };
        add(TableId(info.id), None);
        for part in info.partition.iter().flat_map(|all| &all.definitions) {
            add(TableId(part.id), Some(part.name.original.clone()));
        }
    }

    /// Takes what the records of a file of schemas say. What makes no sense here is somebody else's
    /// to find.
    pub(super) fn add_log(&mut self, records: &[u8], cf: Cf) {
        for record in Records::new(records).map_while(Result::ok) {
            let Ok((encoded, ts)) = record.split_key() else {
                continue;
            };
            let json = match cf {
                Cf::Write => match WriteRef::parse(record.value) {
                    Ok(write) if write.kind == WriteKind::Put => write.short_value,
                    _ => None,
                },
                Cf::Default | Cf::Lock => Some(record.value),
            };
            let (Some(json), Ok(raw)) = (json, key::decode(encoded)) else {
                continue;
            };
            let Ok(MetaKey::HashField { name, field }) = MetaKey::parse(raw.as_bytes()) else {
                continue;
            };
            if name == DATABASES {
                if let Ok(db) = DbInfo::parse(json) {
                    self.add_db(DbId(db.id), db.name.original, ts);
                }
            } else if let Some(db) = parse_db_field(&name)
                && let Some(DbField::Table(_)) = parse_table_field(&field)
                && let Ok(info) = TableInfo::parse(json)
            {
                self.add_table(&DbName::Id(db), &info, ts);
            }
        }
    }

    /// The name of the table that an id is of, without its partition.
    pub(super) fn table(&self, id: TableId) -> String {
        match self.tables.get(&id) {
            Some((_, name)) => self.full(name),
            None => format!("(table with id {id})"),
        }
    }

    fn full(&self, name: &TableName) -> String {
        let db = match &name.db {
            DbName::Known(db) => db.clone(),
            DbName::Id(id) => match self.dbs.get(id) {
                Some((_, db)) => db.clone(),
                None => format!("(database with id {id})"),
            },
        };
        format!("{db}.{}", name.table)
    }

    /// The tables of these ids by name; partitions stand behind their table.
    pub(super) fn list(&self, ids: &BTreeSet<TableId>) -> Vec<String> {
        let mut tables: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for id in ids {
            if id.0 == 0 {
                tables.entry("(keys of no table)".to_owned()).or_default();
                continue;
            }
            let partitions = tables.entry(self.table(*id)).or_default();
            let partition = self.tables.get(id).map(|(_, name)| &name.partition);
            if let Some(Some(partition)) = partition {
                partitions.insert(partition);
            }
        }
        let listed = tables.into_iter().map(|(table, partitions)| {
            if partitions.is_empty() {
                return table;
            }
            let word = match partitions.len() {
                1 => "partition",
                _ => "partitions",
            };
            let partitions: Vec<_> = partitions.into_iter().collect();
            format!("{table} ({word} {})", partitions.join(", "))
        });
        listed.collect()
    }

    /// The names of these tables, without partitions.
    pub(super) fn tables(&self, ids: &BTreeSet<TableId>) -> BTreeSet<String> {
        ids.iter().map(|id| self.table(*id)).collect()
    }
}
