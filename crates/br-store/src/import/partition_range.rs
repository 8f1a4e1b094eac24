use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use br_proto::import_sstpb::Range;
use br_rt::{Monotonic, Rt};

/// Ranges kept at the same time at most; beyond it the oldest end first.
const RANGES_MAX: usize = 4096;
/// Time to live of a range whose request names none, as in TiKV.
const TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// Start and end of a range.
type Bounds = (Vec<u8>, Vec<u8>);

/// Ranges at whose bounds a restore wants the engine's files cut. The engine of the embedded
/// cluster takes files in above whatever lies there, so they are remembered for those who remove
/// them and otherwise without effect.
#[derive(Debug)]
pub(super) struct PartitionRanges {
    rt: Rt,
    /// Each with the time at which it ends.
    ranges: Mutex<BTreeMap<Bounds, Monotonic>>,
}

impl PartitionRanges {
    pub(super) fn new(rt: Rt) -> PartitionRanges {
        PartitionRanges {
            rt,
            ranges: Mutex::default(),
        }
    }

    /// Adds a range, or lets it live longer.
    pub(super) fn add(&self, range: Range, ttl_seconds: u64) {
        let now = self.rt.now();
        let ttl = match ttl_seconds {
            0 => TTL_DEFAULT,
            seconds => Duration::from_secs(seconds),
        };
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.retain(|_, until| now < *until);
        if ranges.len() >= RANGES_MAX
            && let Some(first) = ranges
                .iter()
                .min_by_key(|(_, until)| **until)
                .map(|(range, _)| range.clone())
        {
            ranges.remove(&first);
        }
        ranges.insert((range.start, range.end), now.plus(ttl));
    }

    /// Removes a range; gives whether it was there.
    pub(super) fn remove(&self, range: Range) -> bool {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.remove(&(range.start, range.end)).is_some()
    }
}
