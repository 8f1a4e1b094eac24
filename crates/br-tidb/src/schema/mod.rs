//! Schemas as TiDB stores them: JSON in meta keys and in backups.
//!
//! Two views of the same text. [`DbInfo`], [`TableInfo`] and the others are typed and leave out
//! what we do not need; they are for reading only. Text that is written again is never made from
//! them but patched in place ([`patch`]), so that fields of other versions survive and the order
//! of fields stays, on which TiDB's schema load depends ([`check_fast_load_shape`]).

mod backup;
mod diff;
mod error;
mod object;
pub mod patch;
mod restore;
mod shape;
mod system;
mod table;

pub use backup::{Counters, for_backup};
pub use diff::{AffectedOption, SchemaDiff};
pub use error::SchemaError;
pub use restore::{RestoreOptions, TableIds, for_restore};
pub use shape::check_fast_load_shape;
pub use system::{
    SystemTable, is_memory_db, is_system_db, is_temporary_system_db, stored_db_name,
    strip_temporary_prefix, system_table, temporary_name,
};
pub use table::{
    ColumnInfo, DbInfo, FieldType, IndexColumn, IndexInfo, Name, PartitionDefinition,
    PartitionInfo, PolicyInfo, PolicyRef, SchemaState, SequenceInfo, TableInfo, TiflashReplica,
    ViewInfo, flag, tp,
};

/// The newest version of TableInfo that is known; tables of a newer one are refused.
pub const TABLE_INFO_VERSION_MAX: u16 = 5;

#[cfg(test)]
mod tests;
