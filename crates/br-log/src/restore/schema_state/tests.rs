use std::collections::BTreeMap;

use br_tidb::{
    meta_key::Counter,
    schema::{DbInfo, TableInfo},
};

use super::*;
use crate::restore::schema_changes::TableChange;

fn db_json(id: i64, name: &str) -> String {
    format!(r#"{{"id":{id},"db_name":{{"O":"{name}","L":"{name}"}},"state":5}}"#)
}

/// A table; `parts` are ids of partitions, `indexes` ids and states.
fn table_json(id: i64, name: &str, parts: &[i64], indexes: &[(i64, u8)]) -> String {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| format!(r#"{{"id":{part},"name":{{"O":"p{part}","L":"p{part}"}}}}"#))
        .collect();
    let partition = match parts.is_empty() {
        true => "null".to_owned(),
        false => format!(r#"{{"enable":true,"definitions":[{}]}}"#, parts.join(",")),
    };
    let indexes: Vec<_> = indexes
        .iter()
        .map(|(id, state)| {
            format!(r#"{{"id":{id},"idx_name":{{"O":"i{id}","L":"i{id}"}},"idx_cols":[],"state":{state}}}"#)
        })
        .collect();
    format!(
        r#"{{"id":{id},"name":{{"O":"{name}","L":"{name}"}},"cols":[],"index_info":[{}],"state":5,"auto_inc_id":11,"auto_rand_id":0,"partition":{partition},"version":5}}"#,
        indexes.join(",")
    )
}

fn entry(db: (i64, &str), table: Option<String>) -> SchemaEntry {
    SchemaEntry {
        db_json: db_json(db.0, db.1).into_bytes(),
        table_json: table.map(String::into_bytes),
        ..SchemaEntry::default()
    }
}

fn changes(dbs: &[(i64, Option<&str>)], tables: &[((i64, i64), Option<String>)]) -> SchemaChanges {
    let databases = dbs
        .iter()
        .map(|(id, name)| (DbId(*id), name.map(|name| db_json(*id, name))));
    let tables = tables.iter().map(|((db, id), json)| {
        let change = TableChange { json: json.clone() };
        ((DbId(*db), TableId(*id)), change)
    });
    SchemaChanges {
        databases: databases.collect(),
        tables: tables.collect(),
        ..SchemaChanges::default()
    }
}

/// Databases with their tables and the ids of each, in the end.
fn end(
    changes: &SchemaChanges,
    backup: Vec<SchemaEntry>,
) -> BTreeMap<String, BTreeMap<String, Vec<i64>>> {
    let mut state = SchemaState::new(changes);
    let mut found: BTreeMap<String, BTreeMap<String, Vec<i64>>> = BTreeMap::new();
    let mut add = |entry: &SchemaEntry| {
        let db = DbInfo::parse(&entry.db_json).unwrap().name.original;
        let tables = found.entry(db).or_default();
        if let Some(json) = &entry.table_json {
            let info = TableInfo::parse(json).unwrap();
            let ids = info.all_ids().iter().map(|id| id.0).collect();
            let before = tables.insert(info.name.original.clone(), ids);
            assert_eq!(before, None, "{} comes twice", info.name.original);
        }
    };
    for entry in backup {
        if let Some(table) = state.entry_of_backup(entry).unwrap() {
            add(&table.entry);
        }
    }
    let databases = state
        .rest(|table| {
            add(&table.entry);
            Ok(())
        })
        .unwrap();
    databases.iter().for_each(&mut add);
    found
}

fn tables(of: &[(&str, &[i64])]) -> BTreeMap<String, Vec<i64>> {
    of.iter()
        .map(|(name, ids)| ((*name).to_owned(), ids.to_vec()))
        .collect()
}

#[test]
fn a_database_dropped_and_made_again_under_its_name_is_another_one() {
    let changes = changes(
        &[(1, None), (9, Some("shop"))],
        &[
            ((1, 2), None),
            ((9, 10), Some(table_json(10, "t", &[], &[]))),
        ],
    );
    let backup = vec![
        entry((1, "shop"), Some(table_json(2, "t", &[], &[]))),
        // Its key was cleared with the database, without one of its own.
        entry((1, "shop"), Some(table_json(3, "u", &[], &[]))),
    ];
    assert_eq!(
        end(&changes, backup),
        BTreeMap::from([("shop".to_owned(), tables(&[("t", &[10])]))])
    );
}

#[test]
fn two_databases_of_one_log_keep_their_tables() {
    let changes = changes(
        &[(5, Some("a")), (6, Some("b"))],
        &[
            ((5, 50), Some(table_json(50, "t", &[], &[]))),
            ((6, 60), Some(table_json(60, "t", &[], &[]))),
        ],
    );
    let expected = BTreeMap::from([
        ("a".to_owned(), tables(&[("t", &[50])])),
        ("b".to_owned(), tables(&[("t", &[60])])),
    ]);
    assert_eq!(end(&changes, Vec::new()), expected);
}

#[test]
fn renames_in_a_circle_follow_ids() {
    let changes = changes(
        &[],
        &[
            ((1, 2), Some(table_json(2, "b", &[], &[]))),
            ((1, 3), Some(table_json(3, "a", &[], &[]))),
        ],
    );
    let backup = vec![
        entry((1, "d"), Some(table_json(2, "a", &[], &[]))),
        entry((1, "d"), Some(table_json(3, "b", &[], &[]))),
    ];
    assert_eq!(
        end(&changes, backup),
        BTreeMap::from([("d".to_owned(), tables(&[("a", &[3]), ("b", &[2])]))])
    );
}

#[test]
fn a_moved_table_keeps_its_id_and_counters() {
    let mut changes = changes(
        &[],
        &[
            ((1, 7), None),
            ((2, 7), Some(table_json(7, "moved", &[], &[]))),
        ],
    );
    changes.set_counter(DbId(1), TableId(7), Counter::RowId, 500);
    let backup = vec![
        entry((1, "from"), Some(table_json(7, "t", &[], &[]))),
        entry((2, "to"), None),
    ];
    let mut state = SchemaState::new(&changes);
    for entry in backup {
        assert!(state.entry_of_backup(entry).unwrap().is_none());
    }
    let mut moved = Vec::new();
    let empty = state
        .rest(|table| {
            moved.push(table);
            Ok(())
        })
        .unwrap();
    let [table] = moved.as_slice() else {
        panic!("{} tables", moved.len());
    };
    assert_eq!(
        (table.info.id, table.info.name.original.as_str()),
        (7, "moved")
    );
    assert_eq!(table.info.auto_inc_id, 501);
    assert_eq!(empty.len(), 1, "the database that it left is empty");
}

#[test]
fn exchanged_and_truncated_partitions_have_their_new_ids() {
    let changes = changes(
        &[],
        &[
            // Partition 21 and table 30 changed places; partition 22 was truncated.
            ((1, 20), Some(table_json(20, "parted", &[30, 23], &[]))),
            ((1, 30), None),
            ((1, 21), Some(table_json(21, "plain", &[], &[]))),
        ],
    );
    let backup = vec![
        entry((1, "d"), Some(table_json(20, "parted", &[21, 22], &[]))),
        entry((1, "d"), Some(table_json(30, "plain", &[], &[]))),
    ];
    assert_eq!(
        end(&changes, backup),
        BTreeMap::from([(
            "d".to_owned(),
            tables(&[("parted", &[20, 30, 23]), ("plain", &[21])])
        )])
    );
}

#[test]
fn counters_alone_change_a_table() {
    let mut changes = changes(&[], &[]);
    changes.set_counter(DbId(1), TableId(2), Counter::RowId, 4000);
    let mut state = SchemaState::new(&changes);
    let backup = entry((1, "d"), Some(table_json(2, "t", &[], &[])));
    let table = state.entry_of_backup(backup).unwrap().unwrap();
    assert!(table.is_changed);
    assert_eq!(table.info.auto_inc_id, 4001);
}

#[test]
fn added_indexes_are_those_that_the_backup_and_the_first_schema_lack() {
    let altered = table_json(2, "t", &[], &[(1, 5), (2, 5), (3, 4)]);
    let mut changes = changes(&[], &[((1, 2), Some(altered))]);
    let made = table_json(8, "new", &[], &[(1, 5), (2, 5)]);
    changes
        .tables
        .insert((DbId(1), TableId(8)), TableChange { json: Some(made) });
    changes.set_first_indexes(TableId(8), [IndexId(1)]);
    let mut state = SchemaState::new(&changes);
    let backup = entry((1, "d"), Some(table_json(2, "t", &[], &[(1, 5)])));
    let table = state.entry_of_backup(backup).unwrap().unwrap();
    assert_eq!(table.added_indexes, HashSet::from([IndexId(2)]));
    let kept: Vec<_> = table.info.indexes.iter().map(|index| index.id).collect();
    assert_eq!(kept, [1, 2], "an index that is not complete does not count");
    let mut added = HashSet::new();
    state
        .rest(|table| {
            added = table.added_indexes;
            Ok(())
        })
        .unwrap();
    assert_eq!(added, HashSet::from([IndexId(2)]));
}
