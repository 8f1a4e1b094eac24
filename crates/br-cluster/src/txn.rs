//! Transactions: reads at a timestamp, optimistic commits, locks in the way.

mod batches;
mod commit;
mod key_prefix;
mod lock_resolver;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod txn_status;

pub use key_prefix::KeyPrefix;
pub use lock_resolver::{LockResolver, Resolution};
pub use snapshot::{Scanner, Snapshot};
pub use transaction::Transaction;
