use proptest::prelude::*;

use super::*;
use br_types::TableId;

use crate::schema::TableInfo;

/// A table with an integer key `id` (column 1) and the columns given as (id, type, more JSON).
fn table(columns: &[(i64, &str)]) -> TableInfo {
    let mut json = String::from(
        r#"{"id":1,"name":{"O":"t","L":"t"},"pk_is_handle":true,"cols":[{"id":1,"name":{"O":"id","L":"id"},"type":{"Tp":8,"Flag":3},"state":5}"#,
    );
    for (id, rest) in columns {
        json += &format!(r#",{{"id":{id},"name":{{"O":"c{id}","L":"c{id}"}},"state":5,{rest}}}"#);
    }
    json += "]}";
    TableInfo::parse(json.as_bytes()).unwrap()
}

const HANDLE_5: [u8; 8] = [0x80, 0, 0, 0, 0, 0, 0, 5];

fn decode(table: &TableInfo, handle: &[u8], value: &[u8]) -> Result<Vec<Option<String>>, RowError> {
    let mut row = vec![Some("left over".to_owned())];
    RowDecoder::new(table)
        .unwrap()
        .decode(handle, value, &mut row)?;
    Ok(row)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn both_formats_and_missing_columns() {
    let table = table(&[
        (2, r#""type":{"Tp":15,"Charset":"utf8mb4"}"#),
        (3, r#""type":{"Tp":3,"Flag":32},"origin_default":"7""#),
        (4, r#""type":{"Tp":3},"origin_default":null"#),
    ]);
    // New: column 2 is "ab", column 3 NULL.
    let new = [0x80, 0, 1, 0, 1, 0, 2, 3, 2, 0, b'a', b'b'];
    assert_eq!(
        decode(&table, &HANDLE_5, &new).unwrap(),
        [some("5"), some("ab"), None, None]
    );
    // The same with wide ids and offsets, and a checksum after it.
    let large = [
        0x80, 3, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 0, 1, 2, 3, 4,
    ];
    assert_eq!(
        decode(&table, &HANDLE_5, &large).unwrap(),
        [some("5"), some("ab"), some("7"), None]
    );
    // Old: column 2 is "ab" (compact bytes).
    let old = [8, 4, 2, 4, b'a', b'b'];
    assert_eq!(
        decode(&table, &HANDLE_5, &old).unwrap(),
        [some("5"), some("ab"), some("7"), None]
    );
    // Old without columns.
    assert_eq!(
        decode(&table, &HANDLE_5, &[0]).unwrap(),
        [some("5"), None, some("7"), None]
    );
}

#[test]
fn index_entries_of_rows_from_before_a_column() {
    let mut table = table(&[
        (2, r#""type":{"Tp":3},"origin_default":"5""#),
        (3, r#""type":{"Tp":3,"Flag":32},"origin_default":"7""#),
        (
            4,
            r#""type":{"Tp":15,"Charset":"utf8mb4","Collate":"utf8mb4_bin"},"origin_default":"no ""#,
        ),
        (
            5,
            r#""type":{"Tp":12},"origin_default":"2026-11-21 00:00:00""#,
        ),
        (
            6,
            r#""type":{"Tp":7},"origin_default":"2026-11-21 00:00:00""#,
        ),
    ]);
    let index = |offset: usize| {
        let json = format!(
            r#"{{"id":9,"idx_name":{{"O":"k","L":"k"}},"idx_cols":[{{"name":{{"O":"c","L":"c"}},"offset":{offset},"length":-1}}],"state":5}}"#
        );
        serde_json::from_str(&json).unwrap()
    };
    table.indexes = (1..=5).map(index).collect();
    let entry = |at: usize, row: &[u8]| {
        IndexEncoder::new(&table, &table.indexes[at], true)
            .map(|encoder| encoder.entry(TableId(1), &HANDLE_5, row).unwrap())
    };
    let key = |column: &[u8]| {
        let prefix = b"t\x80\0\0\0\0\0\0\x01_i\x80\0\0\0\0\0\0\x09";
        [&prefix[..], column, b"\x03", &HANDLE_5].concat()
    };
    let row_without_columns = [0x80, 0, 0, 0, 0, 0];
    // As TiDB makes them: INT 5, INT UNSIGNED 7, and text without its last space, which the value has.
    assert_eq!(
        entry(0, &row_without_columns).unwrap(),
        (key(b"\x03\x80\0\0\0\0\0\0\x05"), b"0".to_vec())
    );
    assert_eq!(
        entry(1, &row_without_columns).unwrap(),
        (key(b"\x04\0\0\0\0\0\0\0\x07"), b"0".to_vec())
    );
    let (text_key, value) = entry(2, &row_without_columns).unwrap();
    assert_eq!(text_key, key(b"\x01no\0\0\0\0\0\0\xf9"));
    assert_eq!(value, b"\x00\x80\0\x01\0\0\0\x04\x03\0no ");
    // What the row has counts more, NULL too.
    let row = [0x80, 0, 1, 0, 1, 0, 2, 3, 1, 0, 8];
    assert_eq!(entry(0, &row).unwrap().0, key(b"\x03\x80\0\0\0\0\0\0\x08"));
    assert_eq!(entry(1, &row).unwrap().0, key(b"\0"));
    // A time is stored otherwise than it is shown: year and month times 13, day, hour and so on.
    let packed = (((2026_u64 * 13 + 11) << 5 | 21) << 17) << 24;
    let time_key = [&b"\x04"[..], &packed.to_be_bytes()].concat();
    assert_eq!(entry(3, &row_without_columns).unwrap().0, key(&time_key));
    // Of old columns the time zone of a TIMESTAMP is not known.
    let why = entry(4, &row_without_columns).unwrap_err().why;
    assert!(why.contains("default"), "{why}");
}

#[test]
fn columns_that_users_do_not_see_are_left_out() {
    let table = table(&[
        (2, r#""type":{"Tp":3},"hidden":true"#),
        (3, r#""type":{"Tp":3},"generated_expr_string":"1""#),
        (
            4,
            r#""type":{"Tp":3},"generated_expr_string":"1","generated_stored":true"#,
        ),
    ]);
    let decoder = RowDecoder::new(&table).unwrap();
    assert_eq!(
        decoder
            .columns()
            .map(|column| column.id)
            .collect::<Vec<_>>(),
        [1, 4]
    );
}

#[test]
fn times_and_durations_have_the_column_s_digits() {
    let table = table(&[
        (2, r#""type":{"Tp":12,"Decimal":3}"#),
        (3, r#""type":{"Tp":10,"Decimal":0}"#),
        (4, r#""type":{"Tp":11,"Decimal":1}"#),
        (5, r#""type":{"Tp":13}"#),
    ]);
    let packed: u64 =
        ((((2026 * 13 + 11) << 5 | 21) << 17) | (8 << 12 | 29 << 6 | 7)) << 24 | 123_456;
    let mut value = vec![0x80, 0, 4, 0, 0, 0, 2, 3, 4, 5, 8, 0, 9, 0, 17, 0, 18, 0];
    value.extend_from_slice(&packed.to_le_bytes());
    value.push(0);
    value.extend_from_slice(&(-3_661_500_000_000_i64).to_le_bytes());
    value.push(0);
    assert_eq!(
        decode(&table, &HANDLE_5, &value).unwrap(),
        [
            some("5"),
            some("2026-11-21 08:29:07.123"),
            some("0000-00-00"),
            some("-01:01:01.5"),
            some("0000")
        ]
    );
}

#[test]
fn json_is_printed_as_mysql_does() {
    let document = |tp: u8, value: &[u8]| {
        let mut stored = vec![tp];
        stored.extend_from_slice(value);
        json::text(&stored)
    };
    let double = |value: f64| document(0x0B, &value.to_le_bytes()).unwrap();
    assert_eq!(double(1.0), "1.0");
    assert_eq!(double(-0.0), "-0.0");
    assert_eq!(double(1e15), "1e15");
    assert_eq!(double(999_999_999_999_999.0), "999999999999999.0");
    assert_eq!(double(1.5e-16), "1.5e-16");
    assert_eq!(double(1e-15), "0.000000000000001");
    assert_eq!(
        document(0x0C, b"\x07a\"\\\n\x01\xE2\x80").unwrap(),
        "\"a\\\"\\\\\\n\\u0001\\ufffd\\ufffd\""
    );
    assert_eq!(
        document(0x0D, b"\xFC\x02ab").unwrap(),
        "\"base64:type252:YWI=\""
    );
    let core: u64 = 2026 << 50 | 11 << 46 | 21 << 41 | 8 << 36 | 29 << 30 | 7 << 24 | 5 << 4;
    assert_eq!(
        document(0x0E, &core.to_le_bytes()).unwrap(),
        "\"2026-11-21\""
    );
    assert_eq!(
        document(0x0F, &core.to_le_bytes()).unwrap(),
        "\"2026-11-21 08:29:07.000005\""
    );
    let mut duration = 3_600_000_000_000_i64.to_le_bytes().to_vec();
    duration.extend_from_slice(&[0; 4]);
    assert_eq!(document(0x11, &duration).unwrap(), "\"01:00:00.000000\"");
    // {"a": [null, -1]}
    let mut object = vec![1, 0, 0, 0, 46, 0, 0, 0];
    object.extend_from_slice(&[19, 0, 0, 0, 1, 0, 3, 20, 0, 0, 0, b'a']);
    object.extend_from_slice(&[2, 0, 0, 0, 26, 0, 0, 0, 4, 0, 0, 0, 0, 9, 18, 0, 0, 0]);
    object.extend_from_slice(&(-1_i64).to_le_bytes());
    assert_eq!(document(0x01, &object).unwrap(), "{\"a\": [null, -1]}");
}

#[test]
fn json_that_refers_to_itself_is_refused() {
    // An array whose two elements are the array itself.
    let array = [2, 0, 0, 0, 18, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    let mut stored = vec![3];
    stored.extend_from_slice(&array);
    assert!(json::text(&stored).is_err());
}

#[test]
fn text_that_is_not_text_is_an_error_with_its_column() {
    let table = table(&[(2, r#""type":{"Tp":15,"Charset":"utf8mb4"}"#)]);
    let error = decode(&table, &HANDLE_5, &[0x80, 0, 1, 0, 0, 0, 2, 1, 0, 0xFF])
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "column \"c2\": value is damaged: its text is not UTF-8"
    );
}

proptest! {
    #[test]
    fn noise_never_panics(handle: Vec<u8>, value: Vec<u8>, tp in 0_u8..=255, new: bool) {
        let columns = [(2, format!(r#""type":{{"Tp":{tp},"Elems":["a"],"Decimal":6}}"#))];
        let columns: Vec<_> = columns.iter().map(|(id, text)| (*id, text.as_str())).collect();
        let table = table(&columns);
        let _ = decode(&table, &handle, &value);
        let mut row = vec![0x80, 0, 1, 0, 0, 0, 2];
        row.extend_from_slice(&(value.len() as u16).to_le_bytes());
        row.extend_from_slice(&value);
        let row = if new { row } else { value };
        let _ = decode(&table, &HANDLE_5, &row);
        let _ = json::text(row.get(1..).unwrap_or_default());
        let _ = Datum::read(&mut &handle[..]);
    }
}

#[test]
fn a_key_leaves_a_json_object() {
    // {"a": 1, "resource_group": "rg1", "x": true}, as TiDB stores it.
    let object = |pairs: &[(&str, u8, &[u8])]| {
        let keys_at = 8 + pairs.len() * 11;
        let keys: Vec<u8> = pairs.iter().flat_map(|(key, ..)| key.bytes()).collect();
        let (mut names, mut entries, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = keys_at;
        for (key, tp, value) in pairs {
            names.extend((at as u32).to_le_bytes());
            names.extend((key.len() as u16).to_le_bytes());
            at += key.len();
            entries.push(*tp);
            if *tp == 4 {
                entries.extend([value[0], 0, 0, 0]);
            } else {
                let offset = keys_at + keys.len() + values.len();
                entries.extend((offset as u32).to_le_bytes());
                values.extend_from_slice(value);
            }
        }
        let size = keys_at + keys.len() + values.len();
        let mut out = vec![1];
        out.extend((pairs.len() as u32).to_le_bytes());
        out.extend((size as u32).to_le_bytes());
        for part in [names, entries, keys, values] {
            out.extend(part);
        }
        out
    };
    let one = 1_i64.to_le_bytes();
    let whole = object(&[
        ("a", 9, &one),
        ("resource_group", 12, b"\x03rg1"),
        ("x", 4, &[1]),
    ]);
    let rest = object(&[("a", 9, &one), ("x", 4, &[1])]);
    assert_eq!(
        json_without_key(&whole, "resource_group"),
        Ok(Some(rest.clone()))
    );
    assert_eq!(json_without_key(&rest, "resource_group"), Ok(None));
    assert_eq!(json::text(&rest).unwrap(), r#"{"a": 1, "x": true}"#);
    for len in 0..whole.len() {
        let _ = json_without_key(&whole[..len], "resource_group");
    }
}

#[test]
fn seconds_become_dates_and_times() {
    use super::time::DateTime;
    for (unix_s, text) in [
        (0, "1970-01-01 00:00:00"),
        (951_782_400, "2000-02-29 00:00:00"),
        (1_735_689_599, "2024-12-31 23:59:59"),
        (4_107_542_400, "2100-03-01 00:00:00"),
    ] {
        let time = DateTime::from_unix_s(unix_s);
        assert_eq!(time.text(0), text);
        assert_eq!(DateTime::from_packed(time.to_packed()), time);
    }
}
