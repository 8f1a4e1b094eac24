//! What a backup says about a database or a table.

use std::collections::BTreeMap;

use br_proto::backup::Schema;
use br_types::{DbId, TableId};
use serde::Deserialize;

use crate::backupmeta::MetaError;
use crate::kv_stats::KvStats;
use crate::stats::StatsRef;

/// Stands before the names of system databases in a backup, so that a restore does not overwrite
/// those of the cluster by accident.
pub const TEMPORARY_DB_PREFIX: &str = "__TiDB_BR_Temporary_";

/// The name that the user knows the database by.
pub fn user_db_name(name: &str) -> &str {
    name.strip_prefix(TEMPORARY_DB_PREFIX).unwrap_or(name)
}

/// A table with its database, or a database without tables.
///
/// The JSON is kept as the cluster wrote it: TiDB depends on its order and unknown fields.
///
/// # Source
/// `backup.Schema`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaEntry {
    /// TiDB's `DBInfo`.
    pub db_json: Vec<u8>,
    /// TiDB's `TableInfo`; `None` for a database without tables.
    pub table_json: Option<Vec<u8>>,
    /// The checksum that the cluster computed; zero without `--checksum`, and for an empty table.
    pub checksum: KvStats,
    /// Replicas in TiFlash, for a report only.
    pub tiflash_replicas: u32,
    /// Statistics of the optimizer as JSON, as old versions of the tool stored them.
    pub inline_stats_json: Option<Vec<u8>>,
    /// Statistics of the optimizer.
    pub stats: Vec<StatsRef>,
    /// Whether regions of the table may be merged with others.
    pub is_merge_option_allowed: bool,
    /// The same by name of partition.
    pub partition_merge_option_allowed: BTreeMap<String, bool>,
}

/// The part of `DBInfo` that identifies a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbName {
    /// The id.
    pub id: DbId,
    /// The name as stored: of a system database, with [`TEMPORARY_DB_PREFIX`].
    pub name: String,
}

/// The part of `TableInfo` that identifies a table and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The id.
    pub id: TableId,
    /// The name.
    pub name: String,
    /// Ids of its partitions: their data lies under them.
    pub partitions: Vec<TableId>,
}

#[derive(Deserialize)]
struct NameJson {
    #[serde(rename = "O")]
    original: String,
}

#[derive(Deserialize)]
struct DbJson {
    id: i64,
    db_name: NameJson,
}

#[derive(Deserialize)]
struct TableJson {
    id: i64,
    name: NameJson,
    partition: Option<PartitionJson>,
}

#[derive(Deserialize)]
struct PartitionJson {
    definitions: Option<Vec<DefinitionJson>>,
}

#[derive(Deserialize)]
struct DefinitionJson {
    id: i64,
}

impl SchemaEntry {
    pub(crate) fn from_proto(object: &str, schema: Schema) -> Result<SchemaEntry, MetaError> {
        let stats = schema
            .stats_index
            .into_iter()
            .map(|index| StatsRef::from_proto(object, index))
            .collect::<Result<_, _>>()?;
        Ok(SchemaEntry {
            db_json: schema.db,
            table_json: (!schema.table.is_empty()).then_some(schema.table),
            checksum: KvStats {
                crc64_xor: schema.crc64xor,
                total_kvs: schema.total_kvs,
                total_bytes: schema.total_bytes,
            },
            tiflash_replicas: schema.tiflash_replicas,
            inline_stats_json: (!schema.stats.is_empty()).then_some(schema.stats),
            stats,
            is_merge_option_allowed: schema.is_merge_option_allowed,
            partition_merge_option_allowed: schema
                .partition_merge_option_allowed
                .into_iter()
                .collect(),
        })
    }

    pub(crate) fn into_proto(self) -> Schema {
        Schema {
            db: self.db_json,
            table: self.table_json.unwrap_or_default(),
            crc64xor: self.checksum.crc64_xor,
            total_kvs: self.checksum.total_kvs,
            total_bytes: self.checksum.total_bytes,
            tiflash_replicas: self.tiflash_replicas,
            stats: self.inline_stats_json.unwrap_or_default(),
            stats_index: self.stats.into_iter().map(StatsRef::into_proto).collect(),
            is_merge_option_allowed: self.is_merge_option_allowed,
            partition_merge_option_allowed: self
                .partition_merge_option_allowed
                .into_iter()
                .collect(),
        }
    }

    /// Bytes of the files of statistics that it points to.
    pub fn stats_size_bytes(&self) -> u64 {
        self.stats.iter().map(StatsRef::stored_size_bytes).sum()
    }

    /// Which database it is of.
    ///
    /// # Errors
    /// [`MetaError::Malformed`], naming `object`, the one that it was read from.
    pub fn db_name(&self, object: &str) -> Result<DbName, MetaError> {
        let db: DbJson = serde_json::from_slice(&self.db_json).map_err(|error| {
            MetaError::malformed(object, format!("JSON of a database: {error}"))
        })?;
        Ok(DbName {
            id: DbId(db.id),
            name: db.db_name.original,
        })
    }

    /// Which table it is of; `None` for a database without tables.
    ///
    /// # Errors
    /// [`MetaError::Malformed`], naming `object`, the one that it was read from.
    pub fn table_name(&self, object: &str) -> Result<Option<TableName>, MetaError> {
        let Some(json) = &self.table_json else {
            return Ok(None);
        };
        let table: TableJson = serde_json::from_slice(json)
            .map_err(|error| MetaError::malformed(object, format!("JSON of a table: {error}")))?;
        let definitions = table.partition.and_then(|partition| partition.definitions);
        Ok(Some(TableName {
            id: TableId(table.id),
            name: table.name.original,
            partitions: definitions
                .into_iter()
                .flatten()
                .map(|d| TableId(d.id))
                .collect(),
        }))
    }
}
