//! Values from text: what schemas say of defaults, in the form that rows have.

use super::{
    decimal,
    decoder::origin_default,
    index_entry::{RowPart, compact_int, compact_uint},
    time::{DateTime, duration_from_text},
};
use crate::schema::{ColumnInfo, FieldType, tp};

/// What rows from before the column was added have of it. `None`: its default cannot be read.
pub(super) fn origin_value(column: &ColumnInfo) -> Option<RowPart> {
    let Some(text) = origin_default(column).ok()? else {
        return Some(RowPart::Null);
    };
    // Of the oldest columns the time zone is not known.
    let is_local_time = column.field_type.tp == tp::TIMESTAMP && column.version == 0;
    match is_local_time {
        true => None,
        false => of_text(&column.field_type, &text),
    }
}

/// The value that [`super::text::text`] shows so. `None`: the text says nothing for that type.
pub(super) fn of_text(field: &FieldType, text: &str) -> Option<RowPart> {
    let bytes = match field.tp {
        tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG if field.is_unsigned() => {
            compact_uint(text.parse().ok()?)
        }
        tp::TINY | tp::SHORT | tp::INT24 | tp::LONG | tp::LONGLONG | tp::YEAR => {
            compact_int(text.parse().ok()?)
        }
        // Rows have a FLOAT's digits of a DOUBLE.
        tp::FLOAT => float(f64::from(text.parse::<f32>().ok()?)),
        tp::DOUBLE => float(text.parse().ok()?),
        tp::NEW_DECIMAL => {
            let precision = usize::try_from(field.flen).ok()?;
            let frac = usize::try_from(field.decimal).ok()?;
            decimal::from_text(text, precision, frac)?
        }
        tp::DATE | tp::DATETIME | tp::TIMESTAMP => {
            compact_uint(DateTime::from_text(text)?.to_packed())
        }
        tp::DURATION => compact_int(duration_from_text(text)?),
        tp::ENUM => {
            let at = field.elems.iter().position(|name| name == text)?;
            compact_uint(at as u64 + 1)
        }
        tp::SET => {
            let mut bits = 0_u64;
            for name in text.split(',').filter(|name| !name.is_empty()) {
                let at = field.elems.iter().position(|known| known == name)?;
                bits |= 1_u64.checked_shl(u32::try_from(at).ok()?)?;
            }
            compact_uint(bits)
        }
        tp::BIT => compact_uint(u64::from_str_radix(text, 16).ok()?),
        _ if field.is_binary_string() => binary(field, text)?,
        tp::STRING => text.trim_end_matches(' ').as_bytes().to_vec(),
        _ if field.is_string() => text.as_bytes().to_vec(),
        _ => return None,
    };
    Some(RowPart::Bytes(bytes))
}

fn float(value: f64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    br_codec::number::write_f64(&mut bytes, value);
    bytes
}

/// Bytes in hexadecimal.
fn binary(field: &FieldType, text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digits = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let mut bytes: Vec<u8> = pairs.iter().map(digits).collect::<Option<_>>()?;
    // JSON holds text only: this stands there for any byte that is none.
    let is_whole = !String::from_utf8_lossy(&bytes).contains(char::REPLACEMENT_CHARACTER);
    if field.tp == tp::STRING {
        let len = usize::try_from(field.flen).unwrap_or(0);
        bytes.resize(len.max(bytes.len()), 0);
    }
    (rest.is_empty() && is_whole).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::row::{Datum, text::read_compact, text::text};

    fn column(number: u8, rest: &str) -> ColumnInfo {
        let json = format!(
            r#"{{"id":2,"name":{{"O":"c","L":"c"}},"state":5,"type":{{"Tp":{number}{rest}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    /// Text, value, and text again.
    fn comes_back(column: &ColumnInfo, shown: &str) {
        let part = of_text(&column.field_type, shown);
        let Some(RowPart::Bytes(bytes)) = part else {
            panic!("{shown:?} of {}: {part:?}", column.field_type.name());
        };
        let datum = read_compact(&column.field_type, &bytes).unwrap();
        assert_eq!(text(column, &datum).unwrap().as_deref(), Some(shown));
    }

    #[test]
    fn texts_come_back() {
        let enumerated = r#","Elems":["one","two","three"]"#;
        let cases = [
            (tp::TINY, "", "-1"),
            (tp::LONGLONG, r#","Flag":32"#, "18446744073709551615"),
            (tp::YEAR, "", "2026"),
            (tp::FLOAT, "", "1.1"),
            (tp::DOUBLE, "", "-0.000001"),
            (tp::NEW_DECIMAL, r#","Flen":10,"Decimal":3"#, "-1234.500"),
            (
                tp::NEW_DECIMAL,
                r#","Flen":20,"Decimal":0"#,
                "12345678901234567890",
            ),
            (tp::DATE, "", "2026-01-31"),
            (tp::DATETIME, r#","Decimal":0"#, "0000-00-00 00:00:00"),
            (tp::DATETIME, r#","Decimal":3"#, "2026-01-31 23:59:59.120"),
            (
                tp::TIMESTAMP,
                r#","Decimal":6"#,
                "2026-01-31 23:59:59.123456",
            ),
            (tp::DURATION, r#","Decimal":2"#, "-838:59:59.25"),
            (tp::ENUM, enumerated, "two"),
            (tp::SET, enumerated, "one,three"),
            (tp::SET, enumerated, ""),
            (tp::BIT, r#","Flen":12"#, "A5F"),
            (tp::VARCHAR, r#","Charset":"utf8mb4""#, "so lala  "),
            (
                tp::VARCHAR,
                r#","Charset":"binary","Collate":"binary""#,
                "0041",
            ),
        ];
        for (number, rest, shown) in cases {
            comes_back(&column(number, rest), shown);
        }
    }

    #[test]
    fn what_says_nothing() {
        let enumerated = r#","Elems":["one"]"#;
        let cases = [
            (tp::LONG, "", "1.5"),
            (tp::NEW_DECIMAL, r#","Flen":4,"Decimal":2"#, "123.45"),
            (tp::NEW_DECIMAL, r#","Flen":4,"Decimal":2"#, "1.234"),
            (tp::NEW_DECIMAL, "", "1"),
            (tp::NEW_DECIMAL, r#","Flen":4,"Decimal":2"#, "1e2"),
            (tp::DATE, "", "2026-13-01"),
            (tp::DATE, "", "today"),
            (tp::DATETIME, "", "2026-01-01 24:00:00"),
            (tp::DATETIME, "", "2026-01-01 00:00:00.1234567"),
            (tp::DURATION, "", "1:61:00"),
            (tp::ENUM, enumerated, "two"),
            (tp::SET, enumerated, "one,two"),
            (tp::JSON, "", "{}"),
            (
                tp::VARCHAR,
                r#","Charset":"binary","Collate":"binary""#,
                "00EFBFBD",
            ),
        ];
        for (number, rest, shown) in cases {
            let column = column(number, rest);
            assert_eq!(of_text(&column.field_type, shown), None, "{shown}");
        }
    }

    #[test]
    fn characters_and_bytes_of_fixed_length() {
        let characters = column(tp::STRING, r#","Flen":6,"Charset":"utf8mb4""#);
        let part = of_text(&characters.field_type, "ab  ").unwrap();
        assert_eq!(part, RowPart::Bytes(b"ab".to_vec()));
        let bytes = r#","Flen":4,"Charset":"binary","Collate":"binary""#;
        let part = of_text(&column(tp::STRING, bytes).field_type, "6162").unwrap();
        assert_eq!(part, RowPart::Bytes(b"ab\0\0".to_vec()));
    }

    #[test]
    fn old_timestamps_are_of_an_unknown_zone() {
        let mut column = column(tp::TIMESTAMP, "");
        let default = serde_json::value::to_raw_value("2026-01-01 00:00:00").unwrap();
        column.origin_default = Some(default);
        assert_eq!(origin_value(&column), None);
        column.version = 1;
        assert!(matches!(origin_value(&column), Some(RowPart::Bytes(_))));
        column.origin_default = None;
        assert_eq!(origin_value(&column), Some(RowPart::Null));
    }

    proptest! {
        #[test]
        fn decimals_come_back(int in "[1-9][0-9]{0,30}|0", frac in "[0-9]{0,20}", negative: bool) {
            let precision = int.len() + frac.len();
            let mut shown = int;
            if !frac.is_empty() {
                shown = format!("{shown}.{frac}");
            }
            if negative && shown.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
                shown.insert(0, '-');
            }
            let rest = format!(r#","Flen":{precision},"Decimal":{}"#, frac.len());
            comes_back(&column(tp::NEW_DECIMAL, &rest), &shown);
        }

        #[test]
        fn datetimes_come_back(packed in (0_u64..10_000, 1_u64..13, 1_u64..32, 0_u64..24, 0_u64..60, 0_u64..60, 0_u64..1_000_000)) {
            let (year, month, day, hour, minute, second, micros) = packed;
            let days = (year * 13 + month) << 5 | day;
            let packed = (days << 17 | hour << 12 | minute << 6 | second) << 24 | micros;
            let column = column(tp::DATETIME, r#","Decimal":6"#);
            let shown = text(&column, &Datum::Uint(packed)).unwrap().unwrap();
            prop_assert_eq!(of_text(&column.field_type, &shown), Some(RowPart::Bytes(compact_uint(packed))));
        }

        #[test]
        fn durations_come_back(micros in -3_020_399_000_000_i64..3_020_399_000_000) {
            let column = column(tp::DURATION, r#","Decimal":6"#);
            let datum = Datum::DurationNs(micros * 1000);
            let shown = text(&column, &datum).unwrap().unwrap();
            prop_assert_eq!(of_text(&column.field_type, &shown), Some(RowPart::Bytes(compact_int(micros * 1000))));
        }
    }
}
