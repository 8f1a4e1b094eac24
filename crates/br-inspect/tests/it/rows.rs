//! Compares folders of rows: in any order, floating-point numbers, JSON and vectors by value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// How often each row is there, and what the columns are.
type Table = (Vec<String>, BTreeMap<Vec<Option<String>>, usize>);

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().unwrap().iter();
    items
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn load(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap();
    let (header, lines) = text.split_once('\n').unwrap();
    let header: Value = serde_json::from_str(header).unwrap();
    let types = texts(&header["types"]);
    let mut rows = BTreeMap::new();
    for line in lines.lines() {
        let row: Vec<Option<String>> = serde_json::from_str(line).unwrap();
        let row = row.into_iter().zip(&types);
        let row = row.map(|(value, tp)| value.map(|value| by_value(value, tp)));
        *rows.entry(row.collect()).or_default() += 1;
    }
    (texts(&header["columns"]), rows)
}

fn by_value(value: String, tp: &str) -> String {
    let tp = tp.to_lowercase();
    if tp == "float" {
        return format!("{:.5e}", value.parse::<f64>().unwrap());
    }
    if tp == "double" {
        return value.parse::<f64>().unwrap().to_string();
    }
    if tp == "json" {
        return sorted(&serde_json::from_str(&value).unwrap());
    }
    if tp.contains("vector") {
        let numbers = value.trim_matches(['[', ']']).split(',');
        let numbers =
            numbers.map(|number| format!("{:.5e}", number.trim().parse::<f64>().unwrap()));
        return numbers.collect::<Vec<_>>().join(",");
    }
    value
}

/// JSON with its keys in order and numbers by value.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().map(|(k, v)| (k, sorted(v))).collect();
            format!("{fields:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(sorted).collect::<Vec<_>>()),
        Value::Number(number) => number.as_f64().unwrap().to_string(),
        other => other.to_string(),
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".jsonl")).collect()
}

/// The tables of `actual` must be those of `expected` that `wanted` takes, row by row.
pub(crate) fn assert_same(expected: &Path, actual: &Path, wanted: impl Fn(&str) -> bool) {
    let mut tables = names(expected);
    tables.retain(|name| wanted(name));
    assert_eq!(names(actual), tables);
    assert!(!tables.is_empty());
    for name in tables {
        let (expected_columns, expected) = load(&expected.join(&name));
        let (columns, rows) = load(&actual.join(&name));
        assert_eq!(columns, expected_columns, "{name}");
        let lost = expected.iter().find(|(row, n)| rows.get(*row) != Some(n));
        let more = rows.iter().find(|(row, n)| expected.get(*row) != Some(n));
        assert_eq!((lost, more), (None, None), "{name}");
    }
}
