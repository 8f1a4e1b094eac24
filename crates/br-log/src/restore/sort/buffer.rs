use std::cmp::Ordering;

use br_types::{Cf, TimeStamp};

use super::version::{Version, of_rank, rank};

/// Bytes between two samples of the keys; what parts of the data are cut by.
const SAMPLE_BYTES: u64 = 1 << 20;
/// Bytes of a group of a memcomparable key, with its marker.
const GROUP: usize = 9;

/// Versions in memory, in one piece, with an index that is sorted.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

/// Where a version is, and what decides most comparisons without looking there.
#[derive(Clone, Copy)]
struct Slot {
    /// The first 24 bytes of the key without the markers of its groups: of a row with an integer
    /// handle, all of it.
    head: [u64; 3],
    ts: TimeStamp,
    at: u32,
    key_len: u32,
    value_len: u32,
    cf_rank: u8,
}

impl Buffer {
    /// Most bytes of keys and values: places are numbers of 32 bits.
    pub(crate) const BYTES_MAX: usize = 1 << 30;

    /// Whether a version of that size would make it larger than `bytes_max`. One version alone
    /// always fits.
    pub(crate) fn is_full(&self, version: &Version<'_>, bytes_max: usize) -> bool {
        let more = version.key.len() + version.value.len() + size_of::<Slot>();
        !self.is_empty() && self.memory_bytes() + more > bytes_max.min(Buffer::BYTES_MAX)
    }

    /// Adds a version.
    pub(crate) fn push(&mut self, version: &Version<'_>) {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(version.key);
        self.bytes.extend_from_slice(version.value);
        self.slots.push(Slot {
            head: head(version.key),
            ts: version.ts,
            at,
            key_len: version.key.len() as u32,
            value_len: version.value.len() as u32,
            cf_rank: rank(version.cf),
        });
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes that it takes, index and all.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Bytes of keys and values.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Sorts what is in it.
    pub(crate) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| a.compare(b, bytes));
    }

    /// The version at a place, in order once sorted.
    pub(crate) fn get(&self, place: usize) -> Option<Version<'_>> {
        self.slots.get(place).map(|slot| slot.version(&self.bytes))
    }

    /// The place of the first version of this key or a later one; only when sorted.
    pub(crate) fn lower_bound(&self, encoded_key: &[u8]) -> usize {
        self.slots
            .partition_point(|slot| slot.key(&self.bytes) < encoded_key)
    }

    /// Gives keys that are about [`SAMPLE_BYTES`] apart, with the bytes from there on; only when
    /// sorted.
    pub(crate) fn samples<'b>(&'b self, mut take: impl FnMut(&'b [u8], u64)) {
        let mut current: Option<(&[u8], u64)> = None;
        for slot in &self.slots {
            let bytes = u64::from(slot.key_len) + u64::from(slot.value_len);
            match &mut current {
                Some((_, sum)) if *sum < SAMPLE_BYTES => *sum += bytes,
                _ => {
                    if let Some((key, sum)) = current.take() {
                        take(key, sum);
                    }
                    current = Some((slot.key(&self.bytes), bytes));
                }
            }
        }
        if let Some((key, sum)) = current {
            take(key, sum);
        }
    }
}

impl Slot {
    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.at as usize;
        bytes
            .get(start..start + self.key_len as usize)
            .unwrap_or_default()
    }

    fn version<'b>(&self, bytes: &'b [u8]) -> Version<'b> {
        let start = self.at as usize + self.key_len as usize;
        Version {
            key: self.key(bytes),
            cf: of_rank(self.cf_rank).unwrap_or(Cf::Write),
            ts: self.ts,
            value: bytes
                .get(start..start + self.value_len as usize)
                .unwrap_or_default(),
        }
    }

    fn compare(&self, other: &Slot, bytes: &[u8]) -> Ordering {
        self.head
            .cmp(&other.head)
            .then_with(|| self.key(bytes).cmp(other.key(bytes)))
            .then_with(|| self.cf_rank.cmp(&other.cf_rank))
            .then_with(|| other.ts.cmp(&self.ts))
    }
}

/// The data bytes of the first three groups of a memcomparable key, as numbers that compare like
/// the keys. Unequal heads decide: a key that ends earlier has zeros there, and where those do not
/// differ from the other's data, the whole keys are compared.
fn head(key: &[u8]) -> [u64; 3] {
    let word = |group: usize| {
        let mut word = [0; 8];
        let group = key.get(group * GROUP..).unwrap_or_default();
        let data = group.get(..group.len().min(8)).unwrap_or_default();
        word.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(word)
    };
    [word(0), word(1), word(2)]
}
