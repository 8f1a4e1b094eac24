//! What concurrent commands share: the largest timestamp read, locks in memory, latches.

mod latches;
mod lock_table;
mod max_ts;

pub(crate) use latches::{LatchGuard, Latches};
pub(crate) use lock_table::{LockGuard, LockTable, MemoryLock};
pub(crate) use max_ts::MaxTs;
