use std::collections::{BTreeMap, HashMap};

use br_types::TimeStamp;

/// Locks of one region that are tracked at most, in some 100 bytes each: a region of 256 MiB has
/// about as many keys of TiDB's shortest rows.
pub(crate) const LOCKS_MAX: usize = 4_000_000;

/// A region has more locks than can be tracked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyLocks;

/// The locks of a region's keys, and which of them is the oldest.
#[derive(Default)]
pub(crate) struct LockTracker {
    by_key: HashMap<Box<[u8]>, TimeStamp>,
    /// How many keys each transaction has locked.
    by_start: BTreeMap<TimeStamp, usize>,
}

impl LockTracker {
    pub(crate) fn lock(&mut self, key: &[u8], start_ts: TimeStamp) -> Result<(), TooManyLocks> {
        if let Some(before) = self.by_key.insert(key.into(), start_ts) {
            self.release(before);
        }
        *self.by_start.entry(start_ts).or_default() += 1;
        Self::check_count(self.by_key.len())
    }

    pub(crate) fn unlock(&mut self, key: &[u8]) {
        if let Some(start_ts) = self.by_key.remove(key) {
            self.release(start_ts);
        }
        // After a large transaction its room is given back.
        if self.by_key.capacity() > 4096 && self.by_key.len() < self.by_key.capacity() / 8 {
            self.by_key.shrink_to_fit();
        }
    }

    fn release(&mut self, start_ts: TimeStamp) {
        if let Some(count) = self.by_start.get_mut(&start_ts) {
            *count -= 1;
            if *count == 0 {
                self.by_start.remove(&start_ts);
            }
        }
    }

    /// The `start_ts` of the oldest transaction with a lock.
    pub(crate) fn oldest(&self) -> Option<TimeStamp> {
        self.by_start.keys().next().copied()
    }

    /// Refuses more than [`LOCKS_MAX`].
    pub(crate) fn check_count(count: usize) -> Result<(), TooManyLocks> {
        if count > LOCKS_MAX {
            Err(TooManyLocks)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_oldest_is_the_least_of_those_held(
            steps in proptest::collection::vec((0..6_u8, 0..2_u8, 1..20_u64), 0..60)
        ) {
            let mut tracker = LockTracker::default();
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for (key, is_lock, ts) in steps {
                if is_lock == 1 {
                    tracker.lock(&[key], TimeStamp(ts)).unwrap();
                    model.insert(key, ts);
                } else {
                    tracker.unlock(&[key]);
                    model.remove(&key);
                }
                prop_assert_eq!(
                    tracker.oldest().map(|ts| ts.0),
                    model.values().min().copied()
                );
            }
        }
    }
}
