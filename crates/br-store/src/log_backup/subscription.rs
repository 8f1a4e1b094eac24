//! One region as a store observes it: from when on, which keys, which locks hold it back.

use std::collections::BTreeMap;

use br_proto::metapb;
use br_types::{EncodedKey, KeyRange, RegionId, TimeStamp};

use super::locks::{LockTracker, TooManyLocks};

/// Names one observation of a region. A region that is observed anew gets a new one, so that late
/// events of the old observation are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriptionId(pub(crate) u64);

/// What a new subscription is about.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionSpec {
    pub(crate) id: SubscriptionId,
    /// The region with the epoch for which it is observed.
    pub(crate) region: metapb::Region,
    /// Its keys that are in the task's ranges, in order.
    pub(crate) ranges: Vec<KeyRange<EncodedKey>>,
    /// What is committed at or below it is on the storage already; the scan starts above.
    pub(crate) checkpoint: TimeStamp,
}

impl SubscriptionSpec {
    pub(crate) fn region_id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    pub(crate) fn version(&self) -> u64 {
        self.region.region_epoch.unwrap_or_default().version
    }

    /// Whether an engine key, with or without a timestamp at its end, is observed. Encoded keys
    /// are never prefixes of each other, so the timestamp does not change where a key lies.
    pub(crate) fn covers(&self, engine_key: &[u8]) -> bool {
        self.ranges.iter().any(|range| {
            engine_key >= range.start.as_bytes()
                && (range.end.is_empty() || engine_key < range.end.as_bytes())
        })
    }
}

/// What holds a region's resolved timestamp where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBy {
    /// Nothing of the region's own: it follows the clock.
    Nothing,
    /// The initial scan is not through.
    InitialScan,
    /// The oldest lock.
    Lock,
}

/// A subscription and its resolver.
///
/// # Ordering and invariants
/// While the scan runs, lock events are kept apart, the last one of each key: the snapshot of the
/// scan is older than all of them, so where there is an event the scan's lock does not count.
pub(crate) struct Subscription {
    pub(crate) spec: SubscriptionSpec,
    phase: Phase,
    locks: LockTracker,
    resolved: TimeStamp,
}

enum Phase {
    /// Lock events since the snapshot; `None`: unlocked.
    Scanning(BTreeMap<Vec<u8>, Option<TimeStamp>>),
    Running,
}

impl Subscription {
    pub(crate) fn new(spec: SubscriptionSpec) -> Subscription {
        Subscription {
            resolved: spec.checkpoint,
            spec,
            phase: Phase::Scanning(BTreeMap::new()),
            locks: LockTracker::default(),
        }
    }

    /// The timestamp up to which the region was resolved last.
    pub(crate) fn resolved(&self) -> TimeStamp {
        self.resolved
    }

    /// An event: the key was locked at `start_ts`.
    pub(crate) fn lock(&mut self, key: &[u8], start_ts: TimeStamp) -> Result<(), TooManyLocks> {
        match &mut self.phase {
            Phase::Running => self.locks.lock(key, start_ts),
            Phase::Scanning(events) => {
                events.insert(key.to_vec(), Some(start_ts));
                LockTracker::check_count(events.len())
            }
        }
    }

    /// An event: the key was unlocked.
    pub(crate) fn unlock(&mut self, key: &[u8]) -> Result<(), TooManyLocks> {
        match &mut self.phase {
            Phase::Running => {
                self.locks.unlock(key);
                Ok(())
            }
            Phase::Scanning(events) => {
                events.insert(key.to_vec(), None);
                LockTracker::check_count(events.len())
            }
        }
    }

    /// The scan found a lock.
    pub(crate) fn scanned_lock(
        &mut self,
        key: &[u8],
        start_ts: TimeStamp,
    ) -> Result<(), TooManyLocks> {
        self.locks.lock(key, start_ts)
    }

    /// The scan is through; from now on events count as they come.
    pub(crate) fn scan_done(&mut self) -> Result<(), TooManyLocks> {
        let phase = std::mem::replace(&mut self.phase, Phase::Running);
        if let Phase::Scanning(events) = phase {
            for (key, lock) in events {
                match lock {
                    Some(start_ts) => self.locks.lock(&key, start_ts)?,
                    None => self.locks.unlock(&key),
                }
            }
        }
        Ok(())
    }

    /// Resolves with a timestamp below every lock in memory: all that is committed at or below the
    /// result has been seen. Never goes back.
    pub(crate) fn resolve(&mut self, min_ts: TimeStamp) -> (TimeStamp, HeldBy) {
        let (bound, held_by) = match &self.phase {
            Phase::Scanning(_) => (self.spec.checkpoint, HeldBy::InitialScan),
            Phase::Running => match self.locks.oldest() {
                // Its transaction commits above its start.
                Some(start_ts) => (start_ts, HeldBy::Lock),
                None => (TimeStamp::MAX, HeldBy::Nothing),
            },
        };
        self.resolved = self.resolved.max(bound.min(min_ts));
        let held_by = if bound < min_ts {
            held_by
        } else {
            HeldBy::Nothing
        };
        (self.resolved, held_by)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A region of all keys.
    pub(crate) fn whole_region(id: u64) -> SubscriptionSpec {
        SubscriptionSpec {
            id: SubscriptionId(id),
            region: metapb::Region {
                id,
                ..Default::default()
            },
            ranges: vec![KeyRange::default()],
            checkpoint: TimeStamp::ZERO,
        }
    }

    fn subscription(checkpoint: u64) -> Subscription {
        Subscription::new(SubscriptionSpec {
            id: SubscriptionId(1),
            region: metapb::Region::default(),
            ranges: vec![
                KeyRange::new(&b"b"[..], &b"d"[..]),
                KeyRange::new(&b"x"[..], &b""[..]),
            ],
            checkpoint: TimeStamp(checkpoint),
        })
    }

    fn resolve(subscription: &mut Subscription, min_ts: u64) -> u64 {
        subscription.resolve(TimeStamp(min_ts)).0.0
    }

    #[test]
    fn the_scan_holds_it_at_its_start_and_events_win_over_the_snapshot() {
        let mut region = subscription(10);
        assert_eq!(resolve(&mut region, 50), 10);
        // Locked in the snapshot, unlocked since: the scan finds the lock later.
        region.unlock(b"b1").unwrap();
        region.scanned_lock(b"b1", TimeStamp(5)).unwrap();
        // Not in the snapshot, locked, unlocked and locked again since.
        region.lock(b"b2", TimeStamp(40)).unwrap();
        region.unlock(b"b2").unwrap();
        region.lock(b"b2", TimeStamp(45)).unwrap();
        // In the snapshot alone.
        region.scanned_lock(b"b3", TimeStamp(30)).unwrap();
        assert_eq!(
            region.resolve(TimeStamp(60)),
            (TimeStamp(10), HeldBy::InitialScan)
        );
        region.scan_done().unwrap();
        assert_eq!(region.resolve(TimeStamp(60)), (TimeStamp(30), HeldBy::Lock));
        region.unlock(b"b3").unwrap();
        assert_eq!(resolve(&mut region, 60), 45);
        region.unlock(b"b2").unwrap();
        assert_eq!(
            region.resolve(TimeStamp(60)),
            (TimeStamp(60), HeldBy::Nothing)
        );
    }

    #[test]
    fn it_never_goes_back() {
        let mut region = subscription(10);
        region.scan_done().unwrap();
        assert_eq!(resolve(&mut region, 60), 60);
        region.lock(b"b", TimeStamp(20)).unwrap();
        assert_eq!(resolve(&mut region, 70), 60);
        assert_eq!(resolve(&mut region, 50), 60);
    }

    #[test]
    fn keys_of_the_tasks_ranges_alone_are_covered() {
        let region = subscription(0).spec;
        let covers = |key: &[u8]| region.covers(key);
        assert!(covers(b"b") && covers(b"c\xff\x00") && covers(b"zz"));
        assert!(!covers(b"a\xff") && !covers(b"d") && !covers(b"w"));
    }
}
