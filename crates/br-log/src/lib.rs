//! Log backup and point-in-time recovery: the tool's side and the coordinator's.

pub mod advancer;
pub mod compact;
mod flush_now;
pub mod migrate;
#[cfg(test)]
mod model_log;
mod operator;
pub mod read;
pub mod restore;
mod scratch;
pub mod status;
pub mod storage_lock;
pub mod task;
pub mod truncate;

pub use flush_now::{StoreFlush, TaskFlush, flush_now};
pub use operator::Operator;
