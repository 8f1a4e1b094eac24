//! The storage engine over RocksDB: the only crate that links it.
//!
//! # What it does
//! [`RocksEngine`] keeps the data of all stores of an embedded cluster in the column families
//! `default`, `lock` and `write`; [`MetaStore`] keeps what PD, etcd and the regions need in a
//! column family of its own, in the same database.
//!
//! # After a crash
//! Every write is in the write-ahead log before it is answered, and the log is handed to the
//! operating system at once: the death of the process loses nothing. A power cut may lose the last
//! writes unless [`RocksOptions::syncs_writes`] is set; what is left is always a prefix of what was
//! written.

mod disk;
mod error;
mod iterate;
mod meta;
mod options;
mod rocks;
mod sst;

pub use br_store::engine::{SstCompression, SstOptions};
pub use meta::{MetaChange, MetaStore};
pub use options::RocksOptions;
pub use rocks::RocksEngine;
pub use sst::RocksSstFiles;
