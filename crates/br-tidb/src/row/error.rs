use br_codec::DecodeError;
use br_types::{Classify, Kind};

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Its key or its value as a whole.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// The value of one column.
    #[error("column {column:?}: {source}")]
    Column {
        /// The column.
        column: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// A column of a type that is not known.
    #[error("column {column:?} has type {tp}, which is not known")]
    UnknownType {
        /// The column.
        column: String,
        /// The type's number.
        tp: u8,
    },
    /// The value that a column has in rows from before it was added.
    #[error("the origin default of column {column:?} cannot be read")]
    OriginDefault {
        /// The column.
        column: String,
    },
    /// A table without the columns that its handle is made of.
    #[error("table {table:?} has no primary key to make its handle of")]
    NoPrimaryKey {
        /// The table.
        table: String,
    },
}

impl Classify for RowError {
    fn kind(&self) -> Kind {
        match self {
            RowError::UnknownType { .. } => Kind::Invalid,
            _ => Kind::Data,
        }
    }
}
