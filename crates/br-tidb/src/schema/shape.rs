//! What TiDB's schema load expects of the text of a TableInfo.

use super::{SchemaError, TableInfo};

/// Checks that TiDB's schema load, which matches text instead of parsing it, would find the right
/// table in a TableInfo.
///
/// The first `"id":` followed by digits has to be the table's id, the first `"O":"…",` its name.
/// Then, in this order, `"fk_info":` null or `[]`, `"partition":null`, `"Lock":null`,
/// `"tiflash_replica":null`, `"temp_table_type":0`, `"policy_ref_info":null` and `"ttl_info":null`
/// are sought, each after the one before; if all are there, TiDB takes the table for an ordinary
/// one and does not look closer. So whichever of those a table does have must not be hidden by
/// such a text elsewhere; and blanks after colons, which would hide id and name, made every server
/// panic in its schema load.
///
/// # Errors
/// [`SchemaError::Shape`] names the rule.
///
/// # Source
/// TiDB pkg/meta/meta.go; tried on v9.0.0-beta.2.
pub fn check_fast_load_shape(json: &str, table: &TableInfo) -> Result<(), SchemaError> {
    let broken = |problem: String| {
        Err(SchemaError::Shape {
            table: table.name.original.clone(),
            problem,
        })
    };
    let id = first_id(json);
    if id != Some(table.id) {
        return broken(format!(
            "the first \"id\": is {id:?}, its id is {}",
            table.id
        ));
    }
    let name = first_name(json);
    if name.as_ref() != Some(&table.name.original) {
        return broken(format!("the first \"O\": is {name:?}, not its name"));
    }
    if is_special(table) && looks_ordinary(json) {
        return broken(
            "its markers are hidden, so that it would be taken for an ordinary table".to_owned(),
        );
    }
    Ok(())
}

/// The digits after the first `"id"`, if only a colon stands between.
fn first_id(json: &str) -> Option<i64> {
    let (_, after) = json.split_once("\"id\"")?;
    let after = after.strip_prefix(':')?;
    let len = after.bytes().take_while(u8::is_ascii_digit).count();
    after.get(..len)?.parse().ok()
}

/// The text after the first `"O"`, if only a colon stands between and a comma follows it.
fn first_name(json: &str) -> Option<String> {
    let (_, after) = json.split_once("\"O\"")?;
    let after = after.strip_prefix(':')?;
    if !after.starts_with('"') {
        return None;
    }
    let mut texts = serde_json::Deserializer::from_str(after).into_iter::<String>();
    let name = texts.next()?.ok()?;
    after
        .get(texts.byte_offset()..)?
        .starts_with(',')
        .then_some(name)
}

/// Whether TiDB has to keep the whole TableInfo in memory.
fn is_special(table: &TableInfo) -> bool {
    table.partition.is_some()
        || table.tiflash_replica.is_some()
        || table.temp_table_type != 0
        || table.policy.is_some()
}

/// Whether all markers of an ordinary table are found one after the other.
fn looks_ordinary(json: &str) -> bool {
    let keys = json
        .find("\"fk_info\":null")
        .or_else(|| json.find("\"fk_info\":[]"));
    let mut rest = keys.and_then(|at| json.get(at..));
    for marker in [
        "\"partition\":null",
        "\"Lock\":null",
        "\"tiflash_replica\":null",
        "\"temp_table_type\":0",
        "\"policy_ref_info\":null",
        "\"ttl_info\":null",
    ] {
        rest = rest.and_then(|text| text.find(marker).and_then(|at| text.get(at..)));
    }
    rest.is_some()
}
