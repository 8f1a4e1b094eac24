//! What a store does: MVCC over an engine, backup worker, log backup, import worker, coprocessor.
//!
//! [`routes`] gives the gRPC services of one store, from a [`StoreContext`].

mod backup;
mod cipher;
mod concurrency;
mod context;
mod coprocessor;
mod courtesy;
pub mod engine;
mod import;
pub mod log_backup;
pub mod mvcc;
mod raw;
mod region_check;
mod scratch_file;
mod service;
mod split;
pub mod storage;
pub mod topology;
pub mod txn;

#[cfg(test)]
mod testing;

pub use context::{StoreConfig, StoreContext};
pub use courtesy::Courtesy;
pub use import::Importer;
pub use service::{MESSAGE_BYTES_MAX, routes};
