//! What a store does: MVCC over an engine, backup worker, import worker, coprocessor.

pub mod engine;
pub mod topology;
