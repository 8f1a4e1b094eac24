use br_types::TimeStamp;
use jiff::{Zoned, civil::DateTime, fmt::strtime, tz::TimeZone};

/// Reads a timestamp: the number of PD's oracle, or `2026-11-21 10:17:45` in `zone`, or with an
/// offset such as `+0800` or `+08:00` after it.
pub(crate) fn parse_timestamp(text: &str, zone: &TimeZone) -> Result<TimeStamp, String> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return Ok(TimeStamp(number));
    }
    let zoned = with_offset(text)
        .or_else(|| text.parse::<DateTime>().ok()?.to_zoned(zone.clone()).ok())
        .ok_or("it is neither a TSO number nor a time such as 2026-11-21 10:17:45 +08:00")?;
    let millis = u64::try_from(zoned.timestamp().as_millisecond())
        .map_err(|_| "it is before 1970".to_owned())?;
    Ok(TimeStamp::compose(millis, 0))
}

fn with_offset(text: &str) -> Option<Zoned> {
    [
        "%Y-%m-%d %H:%M:%S%.f %:z",
        "%Y-%m-%d %H:%M:%S%.f %z",
        "%Y-%m-%d %H:%M:%S%.f%:z",
        "%Y-%m-%d %H:%M:%S%.f%z",
        "%Y-%m-%dT%H:%M:%S%.f%:z",
    ]
    .iter()
    .find_map(|format| strtime::parse(format, text).ok()?.to_zoned().ok())
}

#[cfg(test)]
mod tests {
    use jiff::tz::{Offset, TimeZone};

    use super::*;

    #[test]
    fn numbers_and_times() {
        let zone = TimeZone::fixed(Offset::constant(2));
        let millis = |text| parse_timestamp(text, &zone).map(TimeStamp::physical_ms);
        assert_eq!(
            parse_timestamp("470613951976046597", &zone),
            Ok(TimeStamp(470_613_951_976_046_597))
        );
        let noon = 1_795_262_400_000;
        for text in [
            "2026-11-21 14:00:00",
            "2026-11-21 12:00:00 +0000",
            "2026-11-21 12:00:00 +00:00",
            "2026-11-21 20:00:00+0800",
            "2026-11-21 20:00:00+08:00",
            "2026-11-21T12:00:00.000+00:00",
        ] {
            assert_eq!(millis(text), Ok(noon), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01 00:00:00",
            "1960-01-01 00:00:00",
            "-5",
        ] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
