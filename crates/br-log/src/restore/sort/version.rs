use std::cmp::Ordering;

use br_types::{Cf, TimeStamp};

/// One version of a key, as it is in a column family of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    /// The memcomparable key, without timestamp.
    pub(crate) key: &'a [u8],
    /// `Write` or `Default`.
    pub(crate) cf: Cf,
    /// Of a record when it was committed, of a value when its transaction began.
    pub(crate) ts: TimeStamp,
    /// The record or value.
    pub(crate) value: &'a [u8],
}

impl Version<'_> {
    /// By key; records before values; newest first.
    pub(crate) fn compare(&self, other: &Version<'_>) -> Ordering {
        self.key
            .cmp(other.key)
            .then_with(|| rank(self.cf).cmp(&rank(other.cf)))
            .then_with(|| other.ts.cmp(&self.ts))
    }

    /// Whether it stands for the same entry of a store.
    pub(crate) fn is_same_entry(&self, other: &Version<'_>) -> bool {
        self.compare(other) == Ordering::Equal
    }
}

/// Where a column family stands in the order.
pub(super) fn rank(cf: Cf) -> u8 {
    match cf {
        Cf::Write => 0,
        Cf::Default => 1,
        Cf::Lock => 2,
    }
}

/// The column family of a place in the order.
pub(super) fn of_rank(rank: u8) -> Option<Cf> {
    match rank {
        0 => Some(Cf::Write),
        1 => Some(Cf::Default),
        2 => Some(Cf::Lock),
        _ => None,
    }
}
