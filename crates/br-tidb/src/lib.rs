//! What TiDB means by its bytes: table and meta keys, schema JSON, rows, table filters.
//!
//! Pure functions; files that a filter imports come through a closure of the caller.

pub mod filter;
pub mod meta_key;
pub mod row;
pub mod schema;
pub mod table_key;
