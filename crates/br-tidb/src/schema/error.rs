use br_types::{Classify, Code, Kind};

/// A schema that cannot be read, or must not be written.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The text is not the JSON that was expected.
    #[error("the JSON of {what} cannot be read: {source}")]
    Json {
        /// What was being read, such as "TableInfo".
        what: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A field is missing.
    #[error("the JSON of {what} has no field {field:?}")]
    MissingField {
        /// What was being read.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The table was written by a TiDB that is newer than this program.
    #[error("table {table:?} has schema version {version}; the newest that is known is {known}", known = super::TABLE_INFO_VERSION_MAX)]
    TooNew {
        /// The table.
        table: String,
        /// The version of its TableInfo.
        version: u16,
    },
    /// TiDB's schema load would not understand the text.
    #[error("TiDB would not load the TableInfo of table {table:?}: {problem}")]
    Shape {
        /// The table.
        table: String,
        /// Which rule it breaks.
        problem: String,
    },
    /// A table or partition has no new id.
    #[error("no new id for table or partition {id}")]
    NoNewId {
        /// The old id.
        id: i64,
    },
}

impl Classify for SchemaError {
    fn kind(&self) -> Kind {
        match self {
            SchemaError::Json { .. } | SchemaError::MissingField { .. } => Kind::Data,
            SchemaError::TooNew { .. } => Kind::Invalid,
            SchemaError::Shape { .. } | SchemaError::NoNewId { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> Code {
        match self {
            SchemaError::Json { .. } | SchemaError::MissingField { .. } => Code::INVALID_META_FILE,
            SchemaError::TooNew { .. } => Code::VERSION_MISMATCH,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            SchemaError::TooNew { .. } => Some(
                "Use a newer version of this program, or leave the table out with --filter.".into(),
            ),
            _ => None,
        }
    }
}
