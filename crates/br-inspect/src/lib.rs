//! Reads backups on external storage without a cluster.

pub mod export;
