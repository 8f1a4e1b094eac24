//! # What it does
//! Reads TiDB's schemas at one timestamp, straight from the meta keys: no TiDB server is needed.
//!
//! # Objects it reads and writes
//! The keys below `m` (see [`br_tidb::meta_key`]), read only.
//!
//! # Ordering and invariants
//! One snapshot, so that databases, tables and counters fit together. Tables come one after the
//! other: memory holds one page of them, and the counters of one database.

mod ddl_history;
mod read;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use br_cluster::KvError;
use br_tidb::{
    meta_key::{self, Counter, DbField, MetaKey},
    schema::{Counters, DbInfo, SchemaError, TableInfo, is_memory_db, is_temporary_system_db},
};
use br_types::{Classify, Code, DbId, Kind, RawKey, TableId};

pub use self::{
    ddl_history::{DdlHistory, DdlJob},
    read::{MetaRead, MetaScan},
};

/// Why schemas could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SchemaReadError {
    /// The cluster did not answer.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A schema is none, or of a version that is not known.
    #[error("the schema of {what} cannot be read: {source}")]
    Schema {
        /// Of which object.
        what: String,
        /// Why.
        source: SchemaError,
    },
    /// A meta key or value is damaged.
    #[error("meta key {key} of the cluster is damaged: {what}")]
    Damaged {
        /// The key.
        key: RawKey,
        /// What is wrong.
        what: &'static str,
    },
}

impl Classify for SchemaReadError {
    fn kind(&self) -> Kind {
        match self {
            SchemaReadError::Kv(error) => error.kind(),
            SchemaReadError::Schema { source, .. } => source.kind(),
            SchemaReadError::Damaged { .. } => Kind::Data,
        }
    }

    fn code(&self) -> Code {
        match self {
            SchemaReadError::Kv(error) => error.code(),
            SchemaReadError::Schema { source, .. } => source.code(),
            SchemaReadError::Damaged { .. } => Code::DATA_DAMAGED,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            SchemaReadError::Kv(error) => error.next_step(),
            SchemaReadError::Schema { source, .. } => source.next_step(),
            SchemaReadError::Damaged { .. } => {
                Some("Check with ADMIN CHECK TABLE that the cluster is healthy".to_owned())
            }
        }
    }
}

/// A database of the cluster.
#[derive(Clone, Debug)]
pub struct Database {
    /// The DBInfo as it is stored.
    pub json: String,
    /// What it says.
    pub info: DbInfo,
}

/// A table, view or sequence of the cluster.
#[derive(Clone, Debug)]
pub struct Table {
    /// The TableInfo as it is stored.
    pub json: String,
    /// What it says.
    pub info: TableInfo,
    /// Its counters.
    pub counters: Counters,
}

/// The schemas of a cluster at one timestamp.
#[derive(Clone, Debug)]
pub struct Schemas<R> {
    read: R,
}

impl<R: MetaRead> Schemas<R> {
    /// The schemas that this reads.
    pub fn new(read: R) -> Schemas<R> {
        Schemas { read }
    }

    /// All databases but those that exist in memory only and those that a restore of system tables
    /// left behind, by id.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn databases(&self) -> Result<Vec<Database>, SchemaReadError> {
        let mut databases = Vec::new();
        let mut scan = self.read.scan(&meta_key::hash_range(meta_key::DATABASES));
        while let Some((key, value)) = scan.next().await? {
            if meta_key::parse_db_field(&field_of(&key)?).is_none() {
                continue;
            }
            let info = DbInfo::parse(&value).map_err(of(|| format!("the database at {key}")))?;
            let lower = info.name.lower.as_str();
            if !is_memory_db(lower) && !is_temporary_system_db(&info.name.original) {
                databases.push(Database {
                    json: text(&key, value)?,
                    info,
                });
            }
        }
        databases.sort_by_key(|database| database.info.id);
        Ok(databases)
    }

    /// The tables, views and sequences of a database, one after the other.
    pub fn tables(&self, database: DbId) -> Tables<R> {
        let range = meta_key::hash_range(&meta_key::db_field(database));
        Tables {
            scan: self.read.scan(&range),
            counters: HashMap::new(),
        }
    }

    /// The placement policies, each as TiDB's JSON.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn policies(&self) -> Result<Vec<Vec<u8>>, SchemaReadError> {
        let mut policies = Vec::new();
        let mut scan = self.read.scan(&meta_key::hash_range(meta_key::POLICIES));
        while let Some((key, value)) = scan.next().await? {
            let damaged = || SchemaReadError::Damaged {
                key: key.clone(),
                what: "it is no placement policy",
            };
            let (magic, json) = value.split_first().ok_or_else(damaged)?;
            if *magic != meta_key::POLICY_MAGIC {
                return Err(damaged());
            }
            policies.push(json.to_vec());
        }
        Ok(policies)
    }

    /// The schema version of which the diff is there: one that is only announced does not count.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn version(&self) -> Result<i64, SchemaReadError> {
        let key = meta_key::string_key(meta_key::SCHEMA_VERSION);
        let version = match self.read.get(&key).await? {
            None => 0,
            Some(value) => decimal(&key, &value)?,
        };
        if version <= 0 {
            return Ok(0);
        }
        let diff = self.read.get(&meta_key::schema_diff_key(version)).await?;
        Ok(if diff.is_some() { version } else { version - 1 })
    }

    /// The table, view or sequence of that name; both names in lower case.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn table_named(
        &self,
        db_lower: &str,
        table_lower: &str,
    ) -> Result<Option<Table>, SchemaReadError> {
        for database in self.databases().await? {
            if database.info.name.lower != db_lower {
                continue;
            }
            let mut tables = self.tables(database.info.id());
            while let Some(table) = tables.next().await? {
                if table.info.name.lower == table_lower {
                    return Ok(Some(table));
                }
            }
        }
        Ok(None)
    }

    /// What reads the keys.
    pub fn read(&self) -> &R {
        &self.read
    }
}

/// The tables of one database.
pub struct Tables<R: MetaRead> {
    scan: R::Scan,
    /// The counters come before the tables: `IID`, `SID`, `TARID` and `TID` sort before `Table`.
    counters: HashMap<TableId, Counters>,
}

impl<R: MetaRead> Tables<R> {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// [`SchemaReadError`].
    pub async fn next(&mut self) -> Result<Option<Table>, SchemaReadError> {
        while let Some((key, value)) = self.scan.next().await? {
            match meta_key::parse_table_field(&field_of(&key)?) {
                None => {}
                Some(DbField::Counter(table, counter)) => {
                    let last = decimal(&key, &value)?;
                    let counters = self.counters.entry(table).or_default();
                    match counter {
                        Counter::RowId => counters.row_id = Some(last),
                        Counter::AutoIncrement => counters.auto_increment = Some(last),
                        Counter::AutoRandom => counters.auto_random = Some(last),
                        Counter::Sequence => counters.sequence = Some(last),
                        Counter::SequenceCycle => {}
                    }
                }
                Some(DbField::Table(id)) => {
                    let info =
                        TableInfo::parse(&value).map_err(of(|| format!("the table at {key}")))?;
                    let counters = self.counters.remove(&id).unwrap_or_default();
                    return Ok(Some(Table {
                        json: text(&key, value)?,
                        info,
                        counters,
                    }));
                }
            }
        }
        Ok(None)
    }
}

fn of(what: impl Fn() -> String) -> impl Fn(SchemaError) -> SchemaReadError {
    move |source| SchemaReadError::Schema {
        what: what(),
        source,
    }
}

fn field_of(key: &RawKey) -> Result<Vec<u8>, SchemaReadError> {
    match MetaKey::parse(key.as_bytes()) {
        Ok(MetaKey::HashField { field, .. }) => Ok(field),
        _ => Err(SchemaReadError::Damaged {
            key: key.clone(),
            what: "it is no field of a hash",
        }),
    }
}

fn text(key: &RawKey, value: Vec<u8>) -> Result<String, SchemaReadError> {
    String::from_utf8(value).map_err(|_| SchemaReadError::Damaged {
        key: key.clone(),
        what: "its value is no text",
    })
}

fn decimal(key: &RawKey, value: &[u8]) -> Result<i64, SchemaReadError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(SchemaReadError::Damaged {
            key: key.clone(),
            what: "its value is no number",
        })
}
