//! When a store flushes: soon when there is something to protect, seldom when there is not.
//!
//! # What it does
//! Records that wait are flushed a moment after the first of them came, as long as there are
//! flushes in the budget; under steady writes the budget is what sets the pace. Without records
//! progress is published without any object. An object that says "nothing" is written once in the
//! longest interval, so that whoever looks at the storage alone sees that the store was there.

use std::time::Duration;

use br_rt::Monotonic;

/// How long after its first record a payload is flushed, so that writes which belong together go
/// together.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Flushes that can come in a row before the steady pace holds: single writes after a quiet time
/// are safe at once.
pub(crate) const BURST_FLUSHES_MAX: u32 = 6;
/// Time between two rounds that publish progress without objects: each asks PD for a timestamp.
pub(crate) const ADVANCE_INTERVAL: Duration = Duration::from_secs(2);
/// Regions that are published each second at most, beyond what one interval allows.
const ADVANCE_REGIONS_PER_S: u32 = 5_000;
/// After a failed flush; the official stores look every 5 seconds, too.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Objects of one flush besides those that data volume makes: rows, schemas, metadata.
pub(crate) const OBJECTS_PER_FLUSH_MAX: u32 = 3;

/// Objects that a store writes in an hour at most, besides one for each
/// `log-backup.file-size-limit` of data.
pub(crate) fn objects_per_hour_max(steady_interval: Duration) -> u64 {
    let millis = steady_interval.as_millis().max(1);
    let flushes = Duration::from_secs(3600).as_millis().div_ceil(millis);
    let flushes = u64::try_from(flushes).unwrap_or(u64::MAX);
    flushes
        .saturating_add(u64::from(BURST_FLUSHES_MAX))
        .saturating_mul(u64::from(OBJECTS_PER_FLUSH_MAX))
}

/// The settings that the pace depends on, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PaceConfig {
    /// `log-backup.max-flush-interval`: nothing waits longer.
    pub(crate) interval_max: Duration,
    /// `log-backup.min-flush-interval`: the steady pace.
    pub(crate) interval_min: Duration,
    /// `log-backup.file-size-limit`: a payload of this size does not wait.
    pub(crate) size_bytes: u64,
}

impl PaceConfig {
    /// A flush is due after this much time; the official stores do not wait until the last moment
    /// either.
    fn due(&self) -> Duration {
        self.interval_max / 5 * 4
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Wait,
    /// Publish progress; there is nothing to write.
    Advance,
    /// Flush; with nothing to write, metadata that says so.
    Flush,
}

/// Decides; see the module.
#[derive(Debug)]
pub(crate) struct Pace {
    budget: u32,
    refilled_at: Monotonic,
    advanced_at: Monotonic,
    flushed_at: Monotonic,
}

impl Pace {
    pub(crate) fn new(now: Monotonic) -> Pace {
        Pace {
            budget: BURST_FLUSHES_MAX,
            refilled_at: now,
            advanced_at: now,
            flushed_at: now,
        }
    }

    /// `waiting`: bytes of records that wait, and for how long the first of them has.
    pub(crate) fn step(
        &mut self,
        now: Monotonic,
        config: PaceConfig,
        waiting: Option<(u64, Duration)>,
        regions: usize,
    ) -> Step {
        self.refill(now, config);
        let is_due = now.since(self.flushed_at) >= config.due();
        match waiting {
            Some((bytes, _)) if bytes >= config.size_bytes => Step::Flush,
            Some((_, age)) if is_due || (age >= LINGER && self.budget > 0) => Step::Flush,
            Some(_) => Step::Wait,
            None if is_due => Step::Flush,
            None => {
                let regions = u32::try_from(regions).unwrap_or(u32::MAX);
                let interval = ADVANCE_INTERVAL
                    + Duration::from_secs((regions / ADVANCE_REGIONS_PER_S).into());
                if now.since(self.advanced_at) >= interval {
                    Step::Advance
                } else {
                    Step::Wait
                }
            }
        }
    }

    fn refill(&mut self, now: Monotonic, config: PaceConfig) {
        let interval = config.interval_min.min(config.due());
        if interval.is_zero() {
            self.budget = BURST_FLUSHES_MAX;
            return;
        }
        while self.budget < BURST_FLUSHES_MAX && now.since(self.refilled_at) >= interval {
            self.budget += 1;
            self.refilled_at = self.refilled_at.plus(interval);
        }
        if self.budget == BURST_FLUSHES_MAX {
            self.refilled_at = now;
        }
    }

    /// Progress was published without objects.
    pub(crate) fn advanced(&mut self, now: Monotonic) {
        self.advanced_at = now;
    }

    /// Something was flushed, or tried.
    pub(crate) fn flushed(&mut self, now: Monotonic, bytes: u64, config: PaceConfig) {
        // What is flushed for its size pays for itself.
        if bytes < config.size_bytes {
            self.budget = self.budget.saturating_sub(1);
        }
        self.flushed_at = now;
        self.advanced_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::simulate;

    const CONFIG: PaceConfig = PaceConfig {
        interval_max: Duration::from_secs(180),
        interval_min: Duration::from_secs(10),
        size_bytes: 1 << 20,
    };

    /// Flushes and advances within an hour, and the longest wait of a record, when a record of
    /// `bytes` comes every `every` (zero: never).
    fn hour(config: PaceConfig, every: Duration, bytes: u64) -> (u64, u64, Duration) {
        simulate(async |rt| {
            let start = rt.now();
            let mut pace = Pace::new(start);
            let (mut flushes, mut advances, mut longest) = (0, 0, Duration::ZERO);
            let mut waiting: Option<(u64, Monotonic)> = None;
            let mut next = Duration::ZERO;
            while rt.now().since(start) < Duration::from_secs(3600) {
                rt.sleep(Duration::from_millis(200)).await;
                let now = rt.now();
                while !every.is_zero() && now.since(start) >= next {
                    let entry = waiting.get_or_insert((0, now));
                    entry.0 += bytes;
                    next += every;
                }
                let seen = waiting.map(|(bytes, at)| (bytes, now.since(at)));
                match pace.step(now, config, seen, 10) {
                    Step::Wait => {}
                    Step::Advance => {
                        advances += 1;
                        pace.advanced(now);
                    }
                    Step::Flush => {
                        flushes += 1;
                        pace.flushed(now, seen.map_or(0, |seen| seen.0), config);
                        longest = longest.max(seen.map_or(Duration::ZERO, |seen| seen.1));
                        waiting = None;
                    }
                }
            }
            (flushes, advances, longest)
        })
    }

    #[test]
    fn steady_writes_wait_for_seconds_and_stay_within_the_bound() {
        let (flushes, _, longest) = hour(CONFIG, Duration::from_millis(50), 10);
        let bound = objects_per_hour_max(CONFIG.interval_min);
        assert!(
            flushes * u64::from(OBJECTS_PER_FLUSH_MAX) <= bound,
            "{flushes}"
        );
        assert!(longest <= Duration::from_secs(11), "{longest:?}");
        assert_eq!(bound, 1098);
    }

    #[test]
    fn a_single_write_now_and_then_is_safe_at_once() {
        let (_, advances, longest) = hour(CONFIG, Duration::from_secs(61), 10);
        assert!(
            longest <= LINGER + Duration::from_millis(400),
            "{longest:?}"
        );
        assert!(advances > 1000, "{advances}");
    }

    #[test]
    fn without_writes_there_is_one_object_in_the_longest_interval() {
        let (flushes, advances, _) = hour(CONFIG, Duration::ZERO, 0);
        assert_eq!(flushes, 25);
        assert!(advances > 1500, "{advances}");
    }

    #[test]
    fn size_is_a_reason_of_its_own_and_the_longest_interval_holds() {
        // One MiB each second.
        let (flushes, ..) = hour(CONFIG, Duration::from_millis(250), 1 << 18);
        assert!((3500..=3600).contains(&flushes), "{flushes}");
        let slow = PaceConfig {
            interval_min: Duration::from_secs(3600),
            ..CONFIG
        };
        let (flushes, _, longest) = hour(slow, Duration::from_millis(250), 1);
        assert!(longest <= Duration::from_secs(145), "{longest:?}");
        assert!(flushes <= 25 + u64::from(BURST_FLUSHES_MAX), "{flushes}");
    }
}
