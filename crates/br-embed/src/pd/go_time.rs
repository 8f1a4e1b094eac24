//! Times as Go writes them, which is how PD's HTTP API tells them.

use std::time::Duration;

use br_rt::UnixMillis;

/// Reads a duration such as `5m0s`, `1h30m` or `1.5s`; `None` if it is none or below zero.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let number: f64 = number.parse().ok()?;
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        let unit_seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * unit_seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

/// As `time.Duration.String`, to milliseconds: `3m30.352s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let millis = duration.subsec_millis();
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{millis:03}").trim_end_matches('0').to_owned()
    };
    let (hours, minutes, left) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{left}{fraction}s")
    } else if minutes > 0 {
        format!("{minutes}m{left}{fraction}s")
    } else {
        format!("{left}{fraction}s")
    }
}

/// As `time.UnixDate`, in UTC.
pub(crate) fn unix_date(at: UnixMillis) -> String {
    timestamp(at)
        .strftime("%a %b %e %H:%M:%S UTC %Y")
        .to_string()
}

/// As RFC 3339, in UTC.
pub(crate) fn rfc3339(at: UnixMillis) -> String {
    timestamp(at).to_string()
}

fn timestamp(at: UnixMillis) -> jiff::Timestamp {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, seconds) in [
            ("5m0s", 300.0),
            ("1h0m0s", 3600.0),
            ("1.5s", 1.5),
            ("300ms", 0.3),
            ("0", 0.0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for text in ["", "5", "m", "5x", "-5s", "1e400s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(format_duration(Duration::from_millis(210_352)), "3m30.352s");
        assert_eq!(format_duration(Duration::from_secs(3600)), "1h0m0s");
    }
}
