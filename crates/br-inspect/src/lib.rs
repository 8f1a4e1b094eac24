//! Reads backups on external storage without a cluster.

pub mod export;
pub mod show;
pub mod verify;
