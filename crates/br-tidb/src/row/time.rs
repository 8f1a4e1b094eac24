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

    /// That many seconds after 1970 began, in UTC.
    pub(super) fn from_unix_s(unix_s: u64) -> Self {
        let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
        // Days since March of year 0, whose leap day is its last one, in eras of 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = match month_from_march {
            0..=9 => month_from_march + 3,
            _ => month_from_march - 9,
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: 0,
        }
    }

    /// What [`Self::text`] gives, or a date alone.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
        let mut date = date.split('-').map(number);
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let (seconds, micros) = seconds_from_text(time)?;
        let is_date = date.next().is_none() && year < 10_000 && month <= 12 && day <= 31;
        (is_date && seconds < 86_400).then_some(Self {
            year,
            month,
            day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros,
        })
    }

    /// As rows and keys have it.
    pub(super) const fn to_packed(self) -> u64 {
        let days = (self.year * 13 + self.month) << 5 | self.day;
        let seconds = days << 17 | self.hour << 12 | self.minute << 6 | self.second;
        seconds << 24 | self.micros
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

/// The nanoseconds of what [`duration_text`] gives.
pub(super) fn duration_from_text(text: &str) -> Option<i64> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, micros) = seconds_from_text(text)?;
    let nanos = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    let nanos = i64::try_from(nanos.checked_mul(1000)?).ok()?;
    Some(if is_negative { -nanos } else { nanos })
}

/// Seconds and microseconds of `12:34:56.789`.
fn seconds_from_text(text: &str) -> Option<(u64, u64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_time = parts.next().is_none() && minute < 60 && second < 60;
    if !is_time || fraction.len() > 6 {
        return None;
    }
    let seconds = hour.checked_mul(3600)?.checked_add(minute * 60 + second)?;
    Some((seconds, number(&format!("{fraction:0<6}"))?))
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn push_fraction(out: &mut String, micros: u64, digits: usize) {
    if digits > 0 {
        let fraction = format!("{micros:06}");
        out.push('.');
        out.push_str(fraction.get(..digits).unwrap_or(&fraction));
    }
}
