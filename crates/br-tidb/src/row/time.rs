//! Dates, times and durations as text.

use std::fmt::Write as _;

/// A date and time without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    micros: u64,
}

impl DateTime {
    /// Of rows and keys: year and month times 13, day, hour, minute, second in 40 bits, then 24
    /// bits of microseconds.
    pub(super) const fn from_packed(packed: u64) -> Self {
        let seconds = packed >> 24;
        let days = seconds >> 17;
        Self {
            year: (days >> 5) / 13,
            month: (days >> 5) % 13,
            day: days & 31,
            hour: (seconds >> 12) & 31,
            minute: (seconds >> 6) & 63,
            second: seconds & 63,
            micros: packed & 0xFF_FFFF,
        }
    }

    /// Of JSON: 14 bits year, 4 month, 5 day, 5 hour, 6 minute, 6 second, 20 microseconds, 4 that
    /// say what it is.
    pub(super) const fn from_core(core: u64) -> Self {
        Self {
            year: core >> 50,
            month: (core >> 46) & 15,
            day: (core >> 41) & 31,
            hour: (core >> 36) & 31,
            minute: (core >> 30) & 63,
            second: (core >> 24) & 63,
            micros: (core >> 4) & 0xF_FFFF,
        }
    }

    /// The date alone.
    pub(super) fn date_text(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// Date and time with so many digits of the second's fraction.
    pub(super) fn text(self, fraction_digits: usize) -> String {
        let mut out = self.date_text();
        write!(
            out,
            " {:02}:{:02}:{:02}",
            self.hour, self.minute, self.second
        )
        .expect("writing to a string cannot fail");
        push_fraction(&mut out, self.micros, fraction_digits);
        out
    }
}

/// A duration with so many digits of the second's fraction.
pub(super) fn duration_text(nanos: i64, fraction_digits: usize) -> String {
    let micros = nanos.unsigned_abs() / 1000;
    let seconds = micros / 1_000_000;
    let sign = if nanos < 0 { "-" } else { "" };
    let mut out = format!(
        "{sign}{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    push_fraction(&mut out, micros % 1_000_000, fraction_digits);
    out
}

fn push_fraction(out: &mut String, micros: u64, digits: usize) {
    if digits > 0 {
        let fraction = format!("{micros:06}");
        out.push('.');
        out.push_str(fraction.get(..digits).unwrap_or(&fraction));
    }
}
