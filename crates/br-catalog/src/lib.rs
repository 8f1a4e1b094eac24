//! TiDB's schemas in a cluster: read as of a timestamp, created by writing meta keys; and rows of
//! tables that are there, as `REPLACE INTO` writes them.
//!
//! Needs no TiDB server. TiDB servers that run see what was created as after any other DDL: the
//! schema version is raised with a diff that makes them load everything.

mod collation;
mod create;
mod error;
mod known;
mod loaded;
mod policies;
mod privileges;
mod read;
mod rows;

pub use collation::new_collations_enabled;
pub use create::{
    Created, DroppedTable, NewDatabase, NewTable, SchemaChange, SchemaWriter, apply, is_applied,
    raise_last_id,
};
pub use error::CatalogError;
pub use loaded::{LOAD_WAIT_MAX, LateServer, wait_until_loaded};
pub use policies::create_policies;
pub use privileges::flush_privileges;
pub use read::{CatalogTable, Database, counter, databases, last_id, schema_version, tables};
pub use rows::{CopiesOf, ReplacedRows, RowWriter};
