//! The typed view of databases and tables.

use br_types::{DbId, TableId};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{SchemaError, TABLE_INFO_VERSION_MAX};

/// Numbers of column types, as in MySQL's protocol.
pub mod tp {
    #![allow(missing_docs, reason = "each is the type that its name says")]
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const DURATION: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const VECTOR: u8 = 225;
    pub const JSON: u8 = 245;
    pub const NEW_DECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
}

/// Flags of columns, as in MySQL's protocol.
pub mod flag {
    #![allow(missing_docs, reason = "each is the flag that its name says")]
    pub const NOT_NULL: u64 = 1;
    pub const PRIMARY_KEY: u64 = 1 << 1;
    pub const UNSIGNED: u64 = 1 << 5;
    pub const AUTO_INCREMENT: u64 = 1 << 9;
}

/// How far an object is on its way in or out of the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct SchemaState(pub u8);

impl SchemaState {
    /// Everybody sees it.
    pub const PUBLIC: SchemaState = SchemaState(5);
}

/// A name with the case in which it was written, and in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
pub struct Name {
    /// As it was written.
    #[serde(rename = "O")]
    pub original: String,
    /// In lower case; what names are compared by.
    #[serde(rename = "L")]
    pub lower: String,
}

/// A database.
#[derive(Clone, Debug, Deserialize)]
pub struct DbInfo {
    /// Its id.
    pub id: i64,
    /// Its name.
    #[serde(rename = "db_name")]
    pub name: Name,
    /// Character set of its new tables.
    #[serde(default)]
    pub charset: String,
    /// Collation of its new tables.
    #[serde(default)]
    pub collate: String,
    /// Its state.
    #[serde(default)]
    pub state: SchemaState,
    /// Its placement policy.
    #[serde(default, rename = "policy_ref_info")]
    pub policy: Option<PolicyRef>,
}

/// A reference to a placement policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PolicyRef {
    /// The policy's id.
    pub id: i64,
    /// The policy's name.
    pub name: Name,
}

/// A placement policy.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyInfo {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: Name,
    /// Its state.
    #[serde(default)]
    pub state: SchemaState,
}

/// A table, view or sequence.
#[derive(Clone, Debug, Deserialize)]
pub struct TableInfo {
    /// Its id; what stands in its keys unless it has partitions.
    pub id: i64,
    /// Its name.
    pub name: Name,
    /// Default character set of its columns.
    #[serde(default)]
    pub charset: String,
    /// Default collation of its columns.
    #[serde(default)]
    pub collate: String,
    /// Its columns, hidden ones and ones that are not public included, in their order.
    #[serde(default, rename = "cols", deserialize_with = "null_as_default")]
    pub columns: Vec<ColumnInfo>,
    /// Its indexes.
    #[serde(default, rename = "index_info", deserialize_with = "null_as_default")]
    pub indexes: Vec<IndexInfo>,
    /// Its state.
    #[serde(default)]
    pub state: SchemaState,
    /// Whether the integer primary key is the handle of its rows.
    #[serde(default)]
    pub pk_is_handle: bool,
    /// Whether the columns of the primary key are the handle of its rows (clustered index).
    #[serde(default)]
    pub is_common_handle: bool,
    /// In backups: the next AUTO_INCREMENT or row id, or the next value of a sequence.
    #[serde(default)]
    pub auto_inc_id: i64,
    /// In backups: the next row id, where AUTO_INCREMENT is apart from it.
    #[serde(default)]
    pub auto_inc_id_extra: i64,
    /// How many ids a server takes at once; 1: AUTO_INCREMENT is apart from the row id.
    #[serde(default)]
    pub auto_id_cache: i64,
    /// In backups: the next AUTO_RANDOM, without its shard bits.
    #[serde(default)]
    pub auto_rand_id: i64,
    /// Shard bits of AUTO_RANDOM; 0: none.
    #[serde(default)]
    pub auto_random_bits: u64,
    /// The database under which its counters are, if it was renamed from there; 0: its own.
    #[serde(default)]
    pub old_schema_id: i64,
    /// Its partitions.
    #[serde(default)]
    pub partition: Option<PartitionInfo>,
    /// What makes it a view.
    #[serde(default)]
    pub view: Option<ViewInfo>,
    /// What makes it a sequence.
    #[serde(default)]
    pub sequence: Option<SequenceInfo>,
    /// Version of this structure.
    #[serde(default)]
    pub version: u16,
    /// Replicas in TiFlash.
    #[serde(default)]
    pub tiflash_replica: Option<TiflashReplica>,
    /// 0: an ordinary table.
    #[serde(default)]
    pub temp_table_type: u8,
    /// Its placement policy.
    #[serde(default, rename = "policy_ref_info")]
    pub policy: Option<PolicyRef>,
}

/// Replicas in TiFlash.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TiflashReplica {
    /// How many.
    #[serde(rename = "Count", default)]
    pub count: u64,
}

/// A view.
#[derive(Clone, Debug, Deserialize)]
pub struct ViewInfo {
    /// The query behind it.
    #[serde(rename = "view_select", default)]
    pub select: String,
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SequenceInfo {
    /// The first value.
    #[serde(rename = "sequence_start")]
    pub start: i64,
    /// Whether it begins anew at its end.
    #[serde(rename = "sequence_cycle", default)]
    pub is_cyclic: bool,
    /// The least value.
    #[serde(rename = "sequence_min_value")]
    pub min: i64,
    /// The greatest value.
    #[serde(rename = "sequence_max_value")]
    pub max: i64,
    /// The step; may be negative.
    #[serde(rename = "sequence_increment")]
    pub increment: i64,
}

/// How a table is divided.
#[derive(Clone, Debug, Deserialize)]
pub struct PartitionInfo {
    /// Whether it is divided at all; a definition without it is ignored.
    #[serde(default)]
    pub enable: bool,
    /// The partitions.
    #[serde(default, deserialize_with = "null_as_default")]
    pub definitions: Vec<PartitionDefinition>,
}

/// A partition.
#[derive(Clone, Debug, Deserialize)]
pub struct PartitionDefinition {
    /// Its id; what stands in its keys.
    pub id: i64,
    /// Its name.
    pub name: Name,
    /// Its placement policy.
    #[serde(default, rename = "policy_ref_info")]
    pub policy: Option<PolicyRef>,
}

/// A column.
#[derive(Clone, Debug, Deserialize)]
pub struct ColumnInfo {
    /// Its id within the table; what stands in rows.
    pub id: i64,
    /// Its name.
    pub name: Name,
    /// Its place within the table.
    #[serde(default)]
    pub offset: usize,
    /// Its value in rows from before it was added, as JSON text; `null`: NULL.
    #[serde(default)]
    pub origin_default: Option<Box<RawValue>>,
    /// The same of a BIT column: base64 of its bytes.
    #[serde(default)]
    pub origin_default_bit: Option<String>,
    /// Its value in new rows that give none, as JSON text; `null`: NULL.
    #[serde(default, rename = "default")]
    pub default_value: Option<Box<RawValue>>,
    /// The expression of a generated column; empty: not generated.
    #[serde(default)]
    pub generated_expr_string: String,
    /// Whether the generated value is stored.
    #[serde(default)]
    pub generated_stored: bool,
    /// Its type.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// Its state.
    #[serde(default)]
    pub state: SchemaState,
    /// Whether users do not see it (columns behind expression indexes).
    #[serde(default)]
    pub hidden: bool,
    /// 0: its timestamps' defaults are in the local time of the server that made it; later: UTC.
    #[serde(default)]
    pub version: u64,
}

/// The type of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FieldType {
    /// Number of the type, see [`tp`].
    pub tp: u8,
    /// Flags, see [`flag`].
    #[serde(default)]
    pub flag: u64,
    /// Length in characters, digits or bits; -1: not given.
    #[serde(default)]
    pub flen: i64,
    /// Digits after the decimal point, also of times; -1: not given.
    #[serde(default)]
    pub decimal: i64,
    /// Character set; `binary` for what is not text.
    #[serde(default)]
    pub charset: String,
    /// Collation.
    #[serde(default)]
    pub collate: String,
    /// The names of an ENUM or SET.
    #[serde(default, deserialize_with = "null_as_default")]
    pub elems: Vec<String>,
}

/// An index.
#[derive(Clone, Debug, Deserialize)]
pub struct IndexInfo {
    /// Its id within the table; what stands in its keys.
    pub id: i64,
    /// Its name; `PRIMARY` for the primary key.
    #[serde(rename = "idx_name")]
    pub name: Name,
    /// Its columns in their order.
    #[serde(rename = "idx_cols", default, deserialize_with = "null_as_default")]
    pub columns: Vec<IndexColumn>,
    /// Its state.
    #[serde(default)]
    pub state: SchemaState,
    /// Whether it admits each value once.
    #[serde(default)]
    pub is_unique: bool,
    /// Whether it is the primary key.
    #[serde(default)]
    pub is_primary: bool,
    /// Whether it spans all partitions.
    #[serde(default)]
    pub is_global: bool,
}

/// A column of an index.
#[derive(Clone, Debug, Deserialize)]
pub struct IndexColumn {
    /// Its name.
    pub name: Name,
    /// Its place within the table.
    #[serde(default)]
    pub offset: usize,
    /// How many characters of it are in the index; -1: all.
    #[serde(default)]
    pub length: i64,
}

impl DbInfo {
    /// Reads a DBInfo.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        parse("DBInfo", json)
    }

    /// Its id.
    pub fn id(&self) -> DbId {
        DbId(self.id)
    }
}

impl PolicyInfo {
    /// Reads a PolicyInfo, without [`crate::meta_key::POLICY_MAGIC`].
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        parse("PolicyInfo", json)
    }
}

impl TableInfo {
    /// Reads a TableInfo.
    ///
    /// # Errors
    /// It is not one, or of a version that is not known.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        let table: TableInfo = parse("TableInfo", json)?;
        if table.version > TABLE_INFO_VERSION_MAX {
            return Err(SchemaError::TooNew {
                table: table.name.original,
                version: table.version,
            });
        }
        Ok(table)
    }

    /// Its id.
    pub fn id(&self) -> TableId {
        TableId(self.id)
    }

    /// Whether it is a view: no rows, no counters.
    pub fn is_view(&self) -> bool {
        self.view.is_some()
    }

    /// Whether it is a sequence: no rows, one counter.
    pub fn is_sequence(&self) -> bool {
        self.sequence.is_some()
    }

    /// Its partitions, if it is divided.
    pub fn active_partition(&self) -> Option<&PartitionInfo> {
        self.partition.as_ref().filter(|partition| partition.enable)
    }

    /// The ids that stand in the keys of its rows: of its partitions, or its own.
    pub fn physical_ids(&self) -> Vec<TableId> {
        match self.active_partition() {
            Some(partition) => partition
                .definitions
                .iter()
                .map(|part| TableId(part.id))
                .collect(),
            None => vec![self.id()],
        }
    }

    /// All ids that it uses: its own and those of its partitions.
    pub fn all_ids(&self) -> Vec<TableId> {
        let parts = self
            .active_partition()
            .map(|partition| &partition.definitions[..]);
        let parts = parts
            .unwrap_or_default()
            .iter()
            .map(|part| TableId(part.id));
        std::iter::once(self.id()).chain(parts).collect()
    }

    /// The column with AUTO_INCREMENT.
    pub fn auto_increment_column(&self) -> Option<&ColumnInfo> {
        self.columns
            .iter()
            .find(|column| column.field_type.flag & flag::AUTO_INCREMENT != 0)
    }

    /// Whether its rows have ids of their own, behind the scenes.
    pub fn has_row_id(&self) -> bool {
        !self.pk_is_handle && !self.is_common_handle
    }

    /// Whether AUTO_INCREMENT is counted apart from the row id.
    pub fn is_auto_increment_apart(&self) -> bool {
        self.version >= 5 && self.auto_id_cache == 1
    }

    /// Whether it gives out ids that must not come twice.
    pub fn needs_auto_id(&self) -> bool {
        self.has_row_id() || self.auto_increment_column().is_some()
    }

    /// The database under which its counters are.
    pub fn counter_db(&self, db: DbId) -> DbId {
        if self.old_schema_id == 0 {
            db
        } else {
            DbId(self.old_schema_id)
        }
    }
}

impl ColumnInfo {
    /// Whether its value is computed when read, and stored nowhere.
    pub fn is_virtual(&self) -> bool {
        !self.generated_expr_string.is_empty() && !self.generated_stored
    }
}

impl FieldType {
    /// Whether its integers have no sign.
    pub fn is_unsigned(&self) -> bool {
        self.flag & flag::UNSIGNED != 0
    }

    /// Whether it is a character or byte string of any length.
    pub fn is_string(&self) -> bool {
        matches!(
            self.tp,
            tp::VARCHAR
                | tp::VAR_STRING
                | tp::STRING
                | tp::TINY_BLOB
                | tp::MEDIUM_BLOB
                | tp::LONG_BLOB
                | tp::BLOB
        )
    }

    /// Whether it is bytes rather than text: BINARY, VARBINARY and the BLOBs.
    pub fn is_binary_string(&self) -> bool {
        self.is_string() && self.charset == "binary"
    }

    /// The name that `information_schema.columns` gives as DATA_TYPE.
    pub fn name(&self) -> &'static str {
        let text = |text, binary| {
            if self.charset == "binary" {
                binary
            } else {
                text
            }
        };
        match self.tp {
            tp::TINY => "tinyint",
            tp::SHORT => "smallint",
            tp::LONG => "int",
            tp::FLOAT => "float",
            tp::DOUBLE => "double",
            tp::TIMESTAMP => "timestamp",
            tp::LONGLONG => "bigint",
            tp::INT24 => "mediumint",
            tp::DATE => "date",
            tp::DURATION => "time",
            tp::DATETIME => "datetime",
            tp::YEAR => "year",
            tp::VARCHAR | tp::VAR_STRING => text("varchar", "varbinary"),
            tp::BIT => "bit",
            tp::VECTOR => "vector",
            tp::JSON => "json",
            tp::NEW_DECIMAL => "decimal",
            tp::ENUM => "enum",
            tp::SET => "set",
            tp::TINY_BLOB => text("tinytext", "tinyblob"),
            tp::MEDIUM_BLOB => text("mediumtext", "mediumblob"),
            tp::LONG_BLOB => text("longtext", "longblob"),
            tp::BLOB => text("text", "blob"),
            tp::STRING => text("char", "binary"),
            _ => "unknown",
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, json: &'a [u8]) -> Result<T, SchemaError> {
    serde_json::from_slice(json).map_err(|source| SchemaError::Json { what, source })
}

/// Go writes an empty list as null.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
