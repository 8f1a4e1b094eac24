use serde::{Deserialize, Serialize};

use super::SchemaError;

/// What one schema version changed, as TiDB servers read it to catch up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaDiff {
    /// The schema version that it leads to.
    pub version: i64,
    /// Number of the kind of change; 0 with `regenerate_schema_map`.
    #[serde(rename = "type")]
    pub action: u8,
    /// The database.
    pub schema_id: i64,
    /// The table; 0: see `affected_options`.
    pub table_id: i64,
    /// The table's id before.
    pub old_table_id: i64,
    /// The database's id before.
    pub old_schema_id: i64,
    /// Whether servers have to load every schema anew. What a restore sets, for it writes schemas
    /// without the DDL owner.
    pub regenerate_schema_map: bool,
    /// Further tables.
    pub affected_options: Option<Vec<AffectedOption>>,
}

/// A table that a [`SchemaDiff`] names in addition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedOption {
    /// The database.
    pub schema_id: i64,
    /// The table.
    pub table_id: i64,
    /// The table's id before.
    pub old_table_id: i64,
    /// The database's id before.
    pub old_schema_id: i64,
}

impl SchemaDiff {
    /// The diff that makes every server load all schemas anew.
    pub fn reload_all(version: i64) -> Self {
        Self {
            version,
            regenerate_schema_map: true,
            ..Self::default()
        }
    }

    /// Reads a SchemaDiff.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(json: &[u8]) -> Result<Self, SchemaError> {
        serde_json::from_slice(json).map_err(|source| SchemaError::Json {
            what: "SchemaDiff",
            source,
        })
    }

    /// The text for the meta key.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("numbers and lists can always be written as JSON")
    }
}
