use br_cluster::{KvError, PdError};
use br_codec::DecodeError;
use br_tidb::{
    row::{RowError, UnsupportedIndex},
    schema::SchemaError,
};
use br_types::{Classify, Code, Kind};

/// The schemas of a cluster could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A store did not help.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A meta key or its value makes no sense.
    #[error("the cluster's meta key {key}: {problem}")]
    Damaged {
        /// The key, in hexadecimal.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The JSON of a schema makes no sense.
    #[error("the cluster's schema of {name}: {source}")]
    Schema {
        /// What it is the schema of.
        name: String,
        /// Why.
        source: SchemaError,
    },
    /// Rows of a table cannot be made here.
    #[error("rows of the cluster's table {table}: {source}")]
    Unwritable {
        /// The table.
        table: String,
        /// Why.
        source: UnsupportedIndex,
    },
    /// A row of a table makes no sense.
    #[error("a row of table {table}: {source}")]
    Row {
        /// The table.
        table: String,
        /// Why.
        source: RowError,
    },
    /// A database or table of that name exists.
    #[error("{name} exists already")]
    Exists {
        /// Its name.
        name: String,
    },
}

impl CatalogError {
    pub(crate) fn damaged(key: &impl std::fmt::Display, problem: impl Into<String>) -> Self {
        CatalogError::Damaged {
            key: key.to_string(),
            problem: problem.into(),
        }
    }

    pub(crate) fn bad_key(key: &impl std::fmt::Display, error: DecodeError) -> Self {
        CatalogError::damaged(key, error.to_string())
    }
}

impl Classify for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            CatalogError::Kv(error) => error.kind(),
            CatalogError::Pd(error) => error.kind(),
            CatalogError::Damaged { .. } | CatalogError::Schema { .. } => Kind::Data,
            CatalogError::Unwritable { .. } => Kind::Invalid,
            CatalogError::Row { source, .. } => source.kind(),
            CatalogError::Exists { .. } => Kind::Conflict,
        }
    }

    fn code(&self) -> Code {
        match self {
            CatalogError::Kv(error) => error.code(),
            CatalogError::Pd(error) => error.code(),
            CatalogError::Damaged { .. }
            | CatalogError::Schema { .. }
            | CatalogError::Row { .. } => Code::DATA_DAMAGED,
            CatalogError::Unwritable { .. } => Code::UNSUPPORTED_SYS_TABLE,
            CatalogError::Exists { .. } => Code::TABLES_ALREADY_EXISTED,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            CatalogError::Kv(error) => error.next_step(),
            CatalogError::Pd(error) => error.next_step(),
            CatalogError::Unwritable { .. } => {
                Some("Leave the table out with a filter, or pass --with-sys-table=false".into())
            }
            CatalogError::Damaged { .. }
            | CatalogError::Schema { .. }
            | CatalogError::Row { .. } => {
                Some("Check the cluster's schemas with a TiDB server".into())
            }
            CatalogError::Exists { .. } => None,
        }
    }
}
