//! TiDB's schemas in a cluster: read as of a timestamp, created by writing meta keys.
//!
//! Needs no TiDB server. TiDB servers that run see what was created as after any other DDL: the
//! schema version is raised with a diff that makes them load everything.

mod collation;
mod create;
mod error;
mod known;
mod read;

pub use collation::new_collations_enabled;
pub use create::{
    Created, DroppedTable, NewDatabase, NewTable, SchemaChange, SchemaWriter, apply, is_applied,
    raise_last_id,
};
pub use error::CatalogError;
pub use read::{CatalogTable, Database, counter, databases, last_id, schema_version, tables};
