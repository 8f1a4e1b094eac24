//! Whether the values that records of a log need are in the log: they lie in other objects, and an
//! index object that was lost as a whole shows in nothing else.

use std::collections::{HashMap, HashSet};

use br_codec::checksum::crc64_of_pair;
use br_types::{TableId, TimeStamp};

/// Values that are remembered: 16 bytes each, with what a set needs 200 MB. Beyond that the check
/// ends, and it is said.
pub(super) const VALUES_MAX: usize = 8_000_000;

/// One long value, by a hash of its key and `start_ts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ValueId(u64);

impl ValueId {
    /// `encoded`: the memcomparable key.
    pub(super) fn new(encoded: &[u8], start_ts: TimeStamp) -> ValueId {
        ValueId(crc64_of_pair(encoded, &start_ts.0.to_be_bytes()))
    }
}

/// What one file has and needs.
#[derive(Clone, Debug, Default)]
pub(super) struct ValuesOfFile {
    pub(super) has: Vec<ValueId>,
    pub(super) needs: Vec<Need>,
}

/// A record whose value lies elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) value: ValueId,
    pub(super) start_ts: TimeStamp,
    pub(super) commit_ts: TimeStamp,
    pub(super) table: TableId,
}

/// What a log has and needs.
#[derive(Default)]
pub(super) struct LongValues {
    values: HashSet<ValueId>,
    needs: HashMap<ValueId, (Need, u32)>,
    objects: Vec<String>,
    is_given_up: bool,
}

/// Records of one object whose values are lost.
pub(super) struct LostValues {
    pub(super) object: String,
    pub(super) needs: Vec<Need>,
}

impl LongValues {
    /// Takes what a file of an object has and needs.
    pub(super) fn add(&mut self, object: &str, file: ValuesOfFile) {
        if self.is_given_up {
            return;
        }
        for value in file.has {
            self.needs.remove(&value);
            self.values.insert(value);
        }
        if !file.needs.is_empty() && self.objects.last().is_none_or(|last| last != object) {
            self.objects.push(object.to_owned());
        }
        let place = u32::try_from(self.objects.len().saturating_sub(1)).unwrap_or(u32::MAX);
        for need in file.needs {
            if !self.values.contains(&need.value) {
                self.needs.insert(need.value, (need, place));
            }
        }
        if self.values.len() + self.needs.len() > VALUES_MAX {
            *self = LongValues {
                is_given_up: true,
                ..LongValues::default()
            };
        }
    }

    /// Whether there were too many.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Records within `(from, until]` whose values were not seen; by object.
    pub(super) fn lost(self, from: TimeStamp, until: TimeStamp) -> Vec<LostValues> {
        let mut lost: HashMap<u32, Vec<Need>> = HashMap::new();
        for (need, place) in self.needs.into_values() {
            // Values from before the log began are in the backup.
            if need.start_ts > from && need.commit_ts <= until {
                lost.entry(place).or_default().push(need);
            }
        }
        let mut lost: Vec<_> = lost
            .into_iter()
            .filter_map(|(place, needs)| {
                let object = self.objects.get(place as usize)?.clone();
                Some(LostValues { object, needs })
            })
            .collect();
        lost.sort_by(|a, b| a.object.cmp(&b.object));
        lost
    }
}
