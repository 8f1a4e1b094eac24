//! Versions of keys: reading them under snapshot isolation, and collecting changes to them.
//!
//! # Objects it reads and writes
//! Three column families, described in `br-codec`: locks (one per key), write records (one per
//! commit or rollback, newest first), long values (at the `start_ts` of their transaction).

mod conflict;
mod context;
mod entries;
mod error;
mod inspect;
mod reader;
mod scan;
mod versions;
mod write_txn;

pub use context::ReadContext;
pub use entries::{Entries, Entry, RangeView};
pub use error::MvccError;
pub(crate) use error::engine_region_error;
pub use scan::{Direction, Pair, Scanner};

pub(crate) use conflict::{LockEffect, check_lock, is_visible_to_rc_check, lock_info};
pub(crate) use reader::{CommitRecord, OverlappedWrite, Reader};
pub(crate) use write_txn::WriteTxn;
