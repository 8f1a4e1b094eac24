//! Snapshot backup and restore: plan, push, split, ingest, checksum.

pub mod backup;
pub mod checksum;
pub mod range_tree;
pub mod restore;
pub mod schema;
pub mod stored_meta;
pub mod versions;
