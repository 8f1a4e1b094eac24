use br_types::{TableId, TimeStamp};

use super::{patch::TablePatch, *};
use crate::table_key::backup_ranges;

/// Schemas of the golden full backup, all of the users and some of the system: for each table a line with its DBInfo, then one with its
/// TableInfo (empty for a database without tables).
fn golden() -> Vec<(String, String)> {
    let path = "../../tests/golden/tidb-1/schemas.txt";
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks(2)
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect()
}

fn golden_tables() -> Vec<String> {
    golden()
        .into_iter()
        .map(|(_, table)| table)
        .filter(|table| !table.is_empty())
        .collect()
}

fn golden_table(name: &str) -> String {
    let marker = format!("\"name\":{{\"O\":\"{name}\"");
    golden_tables()
        .into_iter()
        .find(|table| table.contains(&marker))
        .unwrap()
}

fn options(name: Option<&str>) -> RestoreOptions<'_> {
    RestoreOptions {
        name,
        keep_placement: false,
        update_ts: TimeStamp(1),
    }
}

#[test]
fn every_golden_schema_reads_and_has_the_shape_that_tidb_needs() {
    let schemas = golden();
    assert_eq!(schemas.len(), 36);
    for (db, table) in &schemas {
        assert!(
            !DbInfo::parse(db.as_bytes())
                .unwrap()
                .name
                .original
                .is_empty()
        );
        if table.is_empty() {
            continue;
        }
        let info = TableInfo::parse(table.as_bytes()).unwrap();
        check_fast_load_shape(table, &info).unwrap();
        assert_eq!(info.state, SchemaState::PUBLIC);
        assert_eq!(info.columns.is_empty(), info.is_sequence());
    }
}

#[test]
fn no_edit_changes_no_byte() {
    for table in golden_tables() {
        assert_eq!(TablePatch::new(&table).unwrap().finish().unwrap(), table);
        // The same value again.
        let mut patch = TablePatch::new(&table).unwrap();
        patch.set_ids(Some).unwrap();
        patch
            .set_name(&TableInfo::parse(table.as_bytes()).unwrap().name.original)
            .unwrap();
        patch.keep_public_indexes().unwrap();
        assert_eq!(patch.finish().unwrap(), table);
    }
    for (db, _) in golden() {
        assert_eq!(patch::DbPatch::new(&db).unwrap().finish(), db);
    }
}

#[test]
fn restored_tables_differ_in_what_was_asked_for_only() {
    for text in golden_tables() {
        let old = TableInfo::parse(text.as_bytes()).unwrap();
        let ids = |id: TableId| Some(TableId(id.0 + 1000));
        let new = for_restore(&text, &ids, &options(Some("a\"b<\\")))
            .unwrap()
            .finish()
            .unwrap();
        let info = TableInfo::parse(new.as_bytes()).unwrap();
        assert_eq!(info.name.original, "a\"b<\\");
        let shifted: Vec<_> = old
            .all_ids()
            .into_iter()
            .map(|id| TableId(id.0 + 1000))
            .collect();
        assert_eq!(info.all_ids(), shifted);
        assert!(!new.contains(",\"enable\":true,\"job_interval\""));
        // Back again gives the text of the backup, apart from the fields that restore sets.
        let back = |id: TableId| Some(TableId(id.0 - 1000));
        let again = for_restore(&new, &back, &options(Some(&old.name.original)))
            .unwrap()
            .finish()
            .unwrap();
        let same = for_restore(&text, &Some, &options(None))
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(again, same);
        let fields = |text: &str| -> serde_json::Map<String, serde_json::Value> {
            serde_json::from_str(text).unwrap()
        };
        let (before, after) = (fields(&text), fields(&same));
        assert!(before.keys().eq(after.keys()));
        for (field, value) in &before {
            let is_set = ["update_timestamp", "ttl_info", "cache_table_status"];
            assert!(
                after[field] == *value || is_set.contains(&field.as_str()),
                "{field}"
            );
        }
    }
}

#[test]
fn an_id_without_a_new_one_is_an_error() {
    let text = golden_table("sessions");
    let only_table = |id: TableId| (id == TableId(214)).then_some(TableId(1));
    let error = for_restore(&text, &only_table, &options(None))
        .err()
        .unwrap();
    assert!(matches!(error, SchemaError::NoNewId { id: 215 }), "{error}");
}

#[test]
fn backups_have_the_next_ids_of_the_counters() {
    let counters = Counters {
        row_id: Some(30_000),
        auto_increment: Some(7),
        auto_random: Some(9),
        sequence: Some(100),
    };
    let next = |name: &str| {
        let text = for_backup(&golden_table(name), &counters, true).unwrap();
        let info = TableInfo::parse(text.as_bytes()).unwrap();
        (info.auto_inc_id, info.auto_inc_id_extra, info.auto_rand_id)
    };
    assert_eq!(next("customers"), (30_001, 0, 0));
    assert_eq!(next("composite"), (1, 0, 0));
    assert_eq!(next("ticket"), (101, 0, 0));
    assert_eq!(next("wide"), (1, 0, 10));
    let apart = golden_table("customers").replace("\"auto_id_cache\":0", "\"auto_id_cache\":1");
    let text = for_backup(&apart, &counters, true).unwrap();
    assert!(text.contains("\"auto_inc_id\":8,\"auto_inc_id_extra\":30001,\"auto_id_cache\":1,"));
}

#[test]
fn backups_leave_out_unfinished_indexes_and_placement() {
    let text = golden_table("composite")
        .replacen(
            "\"length\":-1}],\"state\":5,\"backfill_state\":0",
            "\"length\":-1}],\"state\":3,\"backfill_state\":2",
            1,
        )
        .replace(
            "\"policy_ref_info\":null",
            "\"policy_ref_info\":{\"id\":1,\"name\":{\"O\":\"P\",\"L\":\"p\"}}",
        );
    let counters = Counters::default();
    let partial = for_backup(&text, &counters, false).unwrap();
    let info = TableInfo::parse(partial.as_bytes()).unwrap();
    assert_eq!(
        info.indexes
            .iter()
            .map(|index| index.id)
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(info.policy, None);
    let full = for_backup(&text, &counters, true).unwrap();
    assert!(TableInfo::parse(full.as_bytes()).unwrap().policy.is_some());
    let mut patch = TablePatch::new(&full).unwrap();
    patch
        .set_policy_ids(|name| (name == "p").then_some(77))
        .unwrap();
    assert!(
        patch
            .into_text()
            .contains("\"policy_ref_info\":{\"id\":77,\"name\":{\"O\":\"P\",\"L\":\"p\"}}")
    );
}

#[test]
fn text_that_would_hurt_tidb_is_refused() {
    let text = golden_table("accounts");
    let info = TableInfo::parse(text.as_bytes()).unwrap();
    let refused = |text: &str| check_fast_load_shape(text, &info).is_err();
    assert!(!refused(&text));
    assert!(refused(&text.replacen("\"id\":", "\"id\": ", 1)));
    assert!(refused(&text.replacen("\"O\":", "\"O\": ", 1)));
    let moved = text.replacen(
        "{\"id\"",
        "{\"comment\":\"\\\"id\\\":5\",\"x\":{\"id\":4},\"id\"",
        1,
    );
    assert!(refused(&moved));
    // A partitioned table whose comment has the marker of one without.
    let text = golden_table("events").replace(
        "\"enable\":true",
        "\"x\":{\"partition\":null},\"enable\":true",
    );
    let info = TableInfo::parse(text.as_bytes()).unwrap();
    assert!(check_fast_load_shape(&text, &info).is_err());
}

#[test]
fn tables_of_newer_versions_are_refused() {
    let text = golden_table("accounts").replace("\"version\":5", "\"version\":6");
    let error = TableInfo::parse(text.as_bytes()).err().unwrap();
    assert!(
        matches!(error, SchemaError::TooNew { version: 6, .. }),
        "{error}"
    );
}

#[test]
fn backup_ranges_are_those_of_the_official_tool() {
    let show = |name: &str| {
        let info = TableInfo::parse(golden_table(name).as_bytes()).unwrap();
        backup_ranges(&info)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    // Table 191 with a clustered key of columns and two indexes.
    assert_eq!(
        show("composite"),
        [
            "[7480000000000000BF5F69800000000000000100, 7480000000000000BF5F698000000000000001FB)",
            "[7480000000000000BF5F69800000000000000200, 7480000000000000BF5F698000000000000002FB)",
            "[7480000000000000BF5F7201, 7480000000000000BF5F72FB)",
        ]
    );
    // Partitions 215 to 218, integer handles.
    let sessions = show("sessions");
    assert_eq!(sessions.len(), 4);
    assert_eq!(
        sessions[0],
        "[7480000000000000D75F720000000000000000, 7480000000000000D75F72FFFFFFFFFFFFFFFF00)"
    );
    assert!(show("ticket").is_empty());
    assert!(show("big_orders").is_empty());
}

#[test]
fn schema_diffs_are_written_as_tidb_writes_them() {
    assert_eq!(
        SchemaDiff::reload_all(7).to_text(),
        "{\"version\":7,\"type\":0,\"schema_id\":0,\"table_id\":0,\"old_table_id\":0,\"old_schema_id\":0,\
         \"regenerate_schema_map\":true,\"affected_options\":null}"
    );
    let text = SchemaDiff::reload_all(7).to_text();
    assert_eq!(
        SchemaDiff::parse(text.as_bytes()).unwrap(),
        SchemaDiff::reload_all(7)
    );
}

#[test]
fn system_databases_are_known() {
    assert_eq!(stored_db_name("mysql"), "__TiDB_BR_Temporary_mysql");
    assert_eq!(stored_db_name("shop"), "shop");
    assert_eq!(strip_temporary_prefix("__TiDB_BR_Temporary_sys"), "sys");
    assert!(is_temporary_system_db("__TiDB_BR_Temporary_mysql"));
    assert!(is_memory_db("information_schema"));
    assert_eq!(system_table("mysql", "user"), Some(SystemTable::Restored));
    assert_eq!(
        system_table("mysql", "stats_meta"),
        Some(SystemTable::Statistics)
    );
    assert_eq!(
        system_table("mysql", "tidb"),
        Some(SystemTable::NeverRestored)
    );
    assert_eq!(
        system_table("workload_schema", "x"),
        Some(SystemTable::NeverRestored)
    );
    assert_eq!(system_table("shop", "tidb"), None);
    let golden_system = golden()
        .iter()
        .filter(|(db, _)| db.contains("__TiDB_BR_Temporary_"))
        .count();
    assert_eq!(golden_system, 15);
}
