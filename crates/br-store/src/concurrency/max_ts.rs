use std::sync::atomic::{AtomicU64, Ordering};

use br_types::TimeStamp;

/// The largest timestamp that anything was read at. Only grows.
#[derive(Debug, Default)]
pub(crate) struct MaxTs(AtomicU64);

impl MaxTs {
    /// The largest so far.
    pub(crate) fn get(&self) -> TimeStamp {
        // One total order with the lock table's count: see `LockTable`.
        TimeStamp(self.0.load(Ordering::SeqCst))
    }

    /// Raises it to `ts`. [`TimeStamp::MAX`] means "the newest" and is no timestamp of a read.
    pub(crate) fn update(&self, ts: TimeStamp) {
        if !ts.is_max() {
            self.0.fetch_max(ts.0, Ordering::SeqCst);
        }
    }
}
