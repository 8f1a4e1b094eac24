use br_types::DbId;

use super::*;
use crate::restore::plan::PlannedDatabase;

fn table_info(id: i64, name: &str, partitions: &[(i64, &str)]) -> TableInfo {
    let mut definitions = String::new();
    for (id, name) in partitions {
        let comma = if definitions.is_empty() { "" } else { "," };
        definitions += &format!(r#"{comma}{{"id":{id},"name":{{"O":"{name}","L":"{name}"}}}}"#);
    }
    let partition = match partitions {
        [] => String::new(),
        _ => format!(r#","partition":{{"type":2,"enable":true,"definitions":[{definitions}]}}"#),
    };
    let json = format!(r#"{{"id":{id},"name":{{"O":"{name}","L":"{name}"}}{partition}}}"#);
    TableInfo::parse(json.as_bytes()).unwrap()
}

/// A cluster with one database, `s`.
fn base(tables: &[(i64, &str, &[(i64, &str)])]) -> Base {
    let mut base = Base {
        by_id: HashMap::new(),
        by_name: HashMap::new(),
        databases: HashMap::from([("s".to_owned(), DbId(1))]),
    };
    for (id, name, partitions) in tables {
        let name = ("s".to_owned(), (*name).to_owned());
        base.by_name.insert(name.clone(), TableId(*id));
        let info = table_info(*id, &name.1, partitions);
        let db = DbId(1);
        base.by_id.insert(TableId(*id), Found { db, name, info });
    }
    base
}

/// The tables of a backup, each with its id in the cluster if it goes on.
fn matches(
    base: &Base,
    jobs: &[&str],
    tables: &[(i64, &str, &[(i64, &str)])],
) -> Result<RestorePlan, RestoreError> {
    let mut plan = RestorePlan {
        databases: vec![PlannedDatabase {
            name: "s".to_owned(),
            old_id: DbId(90),
            existing: None,
        }],
        ..RestorePlan::default()
    };
    for (id, name, partitions) in tables {
        let partitions = partitions.iter();
        let partitions = partitions.map(|(id, name)| ((*name).to_owned(), TableId(*id)));
        plan.tables.push(PlannedTable {
            database: 0,
            name: (*name).to_owned(),
            old_id: TableId(*id),
            old_physical_ids: Vec::new(),
            partition_names: partitions.collect(),
            existing: None,
            has_rows: true,
            sums: Default::default(),
        });
    }
    let jobs: Vec<Job> = jobs
        .iter()
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
    matched(&jobs, base, &mut plan)?;
    Ok(plan)
}

fn origins(plan: &RestorePlan) -> Vec<Option<i64>> {
    let existing = plan.tables.iter().map(|table| {
        table
            .existing
            .as_ref()
            .map(|existing| existing.ids[&table.old_id].0)
    });
    existing.collect()
}

const CREATE_X: &str = r#"{"type":3,"schema_id":90,"table_id":105,"schema_name":"s","table_name":"x",
    "binlog":{"FinishedTS":1,"TableInfo":{"id":105}}}"#;
const RENAME_A_TO_B: &str = r#"{"type":14,"schema_id":90,"table_id":101,"schema_name":"s","table_name":"a",
    "raw_args":null,"binlog":{"FinishedTS":2,"TableInfo":{"id":101}},
    "involving_schema_info":[{"database":"s","table":"a"},{"database":"s","table":"b"}]}"#;

#[test]
fn a_renamed_table_goes_on_in_a_cluster_with_other_ids() {
    let base = base(&[(7, "a", &[(8, "p0")])]);
    let plan = matches(&base, &[RENAME_A_TO_B], &[(101, "b", &[(102, "p0")])]).unwrap();
    assert_eq!(origins(&plan), [Some(7)]);
    let ids = &plan.tables[0].existing.as_ref().unwrap().ids;
    assert_eq!(ids[&TableId(102)], TableId(8));
    assert!(plan.dropped.is_empty());
}

#[test]
fn names_that_tables_exchanged_are_followed() {
    let swap = r#"{"type":47,"table_id":101,"schema_name":"s","binlog":{"FinishedTS":2,
        "MultipleTableInfos":[{"id":101},{"id":103},{"id":101}]},
        "involving_schema_info":[{"database":"s","table":"a"},{"database":"s","table":"tmp"},
        {"database":"s","table":"b"},{"database":"s","table":"a"},
        {"database":"s","table":"tmp"},{"database":"s","table":"b"}]}"#;
    let base = base(&[(7, "a", &[]), (9, "b", &[])]);
    let plan = matches(&base, &[swap], &[(101, "b", &[]), (103, "a", &[])]).unwrap();
    assert_eq!(origins(&plan), [Some(7), Some(9)]);
}

#[test]
fn a_new_table_is_none_that_has_its_id_by_chance() {
    let base = base(&[(105, "a", &[]), (6, "c", &[])]);
    let plan = matches(&base, &[CREATE_X], &[(105, "x", &[]), (101, "a", &[])]).unwrap();
    assert_eq!(origins(&plan), [None, Some(105)]);
}

/// A table that goes on has, in the cluster, the id of a new one and its new name's old owner. (SIM_SEED=42
/// of the simulation with incremental backups.)
#[test]
fn a_table_goes_on_although_a_new_one_has_its_id_and_name() {
    // In the source `a` was 101 and became `b`, and then 105 was made as `a`.
    let create_a = CREATE_X.replace(r#""x""#, r#""a""#);
    let base = base(&[(105, "a", &[])]);
    let jobs = [RENAME_A_TO_B, &create_a];
    let plan = matches(&base, &jobs, &[(101, "b", &[]), (105, "a", &[])]).unwrap();
    assert_eq!(origins(&plan), [Some(105), None]);
    assert!(plan.dropped.is_empty());
}

#[test]
fn what_was_restored_goes_on_as_it_is() {
    let create_a = CREATE_X.replace(r#""x""#, r#""a""#);
    let base = base(&[(101, "b", &[]), (105, "a", &[])]);
    let jobs = [RENAME_A_TO_B, &create_a];
    let plan = matches(&base, &jobs, &[(101, "b", &[]), (105, "a", &[])]).unwrap();
    assert_eq!(origins(&plan), [Some(101), Some(105)]);
    assert!(plan.dropped.is_empty());
}

#[test]
fn a_table_dropped_under_its_new_name_is_dropped() {
    let drop_b = r#"{"type":4,"table_id":101,"schema_name":"s","table_name":"b",
        "binlog":{"FinishedTS":3,"TableInfo":{"id":101}}}"#;
    let base = base(&[(7, "a", &[]), (9, "c", &[])]);
    let plan = matches(&base, &[RENAME_A_TO_B, drop_b], &[(103, "c", &[])]).unwrap();
    let dropped: Vec<_> = plan.dropped.iter().map(|table| table.id).collect();
    assert_eq!(dropped, [TableId(7)]);
}

#[test]
fn rows_of_a_truncated_table_or_partition_do_not_stay() {
    let truncate = r#"{"type":11,"table_id":101,"schema_name":"s","table_name":"a",
        "binlog":{"FinishedTS":2,"TableInfo":{"id":110}}}"#;
    let truncate_p0 = r#"{"type":23,"table_id":103,"schema_name":"s","table_name":"b",
        "raw_args":{"new_partition_ids":[111]},"binlog":{"FinishedTS":3,"TableInfo":{"id":103}}}"#;
    let base = base(&[(7, "a", &[]), (9, "b", &[(10, "p0"), (11, "p1")])]);
    let plan = matches(
        &base,
        &[truncate, truncate_p0],
        &[(110, "a", &[]), (103, "b", &[(111, "p0"), (104, "p1")])],
    );
    let plan = plan.unwrap();
    assert_eq!(origins(&plan), [None, Some(9)]);
    assert_eq!(plan.dropped[0].id, TableId(7));
    let ids = &plan.tables[1].existing.as_ref().unwrap().ids;
    assert_eq!(ids.get(&TableId(111)), None);
    assert_eq!(ids[&TableId(104)], TableId(11));
}

#[test]
fn a_changed_table_without_its_past_is_refused() {
    let base = base(&[(9, "c", &[])]);
    let error = matches(&base, &[RENAME_A_TO_B], &[(101, "b", &[])]).unwrap_err();
    assert!(matches!(error, RestoreError::NoBase { .. }), "{error}");
}
