//! What a store does: MVCC over an engine, backup worker, import worker, coprocessor.

mod concurrency;
pub mod engine;
pub mod mvcc;
mod raw;
pub mod storage;
pub mod topology;
pub mod txn;
