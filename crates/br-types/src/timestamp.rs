use std::fmt;

/// Bits of the logical counter below the milliseconds.
const LOGICAL_BITS: u32 = 18;

/// A timestamp of PD's oracle (TSO): Unix milliseconds, then 18 bits of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimeStamp(pub u64);

impl TimeStamp {
    /// No timestamp; before every other.
    pub const ZERO: TimeStamp = TimeStamp(0);
    /// After every timestamp that PD gives out; "the newest" in reads.
    pub const MAX: TimeStamp = TimeStamp(u64::MAX);

    /// Composes a timestamp of Unix milliseconds and the counter within them.
    pub const fn compose(physical_ms: u64, logical: u64) -> TimeStamp {
        TimeStamp((physical_ms << LOGICAL_BITS) + logical)
    }

    /// Unix milliseconds.
    pub const fn physical_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter within the millisecond.
    pub const fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// The timestamp right after; `MAX` stays.
    #[must_use]
    pub const fn next(self) -> TimeStamp {
        TimeStamp(self.0.saturating_add(1))
    }

    /// The timestamp right before; `ZERO` stays.
    #[must_use]
    pub const fn prev(self) -> TimeStamp {
        TimeStamp(self.0.saturating_sub(1))
    }

    /// Whether it is [`TimeStamp::ZERO`].
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is [`TimeStamp::MAX`].
    pub const fn is_max(self) -> bool {
        self.0 == u64::MAX
    }
}

/// The bare number, as users pass it to `--backupts`.
impl fmt::Display for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_timestamp_of_the_golden_data() {
        let ts = TimeStamp(470_613_951_976_046_597);
        assert_eq!(ts.physical_ms(), 1_795_249_755_768);
        assert_eq!(TimeStamp::compose(ts.physical_ms(), ts.logical()), ts);
    }
}
