use std::sync::Arc;

use br_cluster::RegionLabel;
use br_codec::{key::split_data_key, write_record::WriteRef};
use br_format::{
    backupmeta::{BackupMeta, Compatibility},
    crypter::Crypter,
    names::MetaKind,
};
use br_tidb::{
    filter::TableFilter,
    meta_key::{db_key, table_key},
};
use br_types::DbId;
use bytes::Bytes;

use super::*;
use crate::schema::tests::{FakeMeta, db_json, meta, table_json};

fn schemas() -> Schemas<FakeMeta> {
    meta([
        (db_key(DbId(1)), db_json(1, "mysql")),
        (db_key(DbId(2)), db_json(2, "Shop")),
        (db_key(DbId(3)), db_json(3, "empty")),
        (table_key(DbId(1), TableId(90)), table_json(90, "user")),
        (table_key(DbId(2), TableId(20)), table_json(20, "Orders")),
        (table_key(DbId(2), TableId(7)), table_json(7, "items")),
    ])
}

fn names(selection: &Selection) -> Result<(Vec<String>, Vec<String>), BackupError> {
    let schemas = schemas();
    futures::executor::block_on(async {
        let found = find(&schemas, selection, KeyPrefix::default()).await?;
        assert!(
            found
                .ranges
                .windows(2)
                .all(|pair| pair[0].end <= pair[1].start)
        );
        // Rows and the public index; the other one is not public.
        let tables: usize = found.databases.iter().map(|db| db.tables.len()).sum();
        assert_eq!(found.ranges.len(), 2 * tables);
        let first = found.databases.into_iter().flat_map(|db| {
            let name = db.name;
            let empty = db.tables.is_empty().then(|| name.clone());
            let tables = db
                .tables
                .into_iter()
                .map(move |table| format!("{name}.{table}"));
            empty.into_iter().chain(tables).collect::<Vec<_>>()
        });
        let second = selected(&schemas, selection).map_ok(|item| {
            let db = item.database.info.name.original;
            item.table
                .map_or(db.clone(), |t| format!("{db}.{}", t.info.name.original))
        });
        Ok((first.collect(), second.try_collect().await?))
    })
}

#[test]
fn both_passes_find_the_same() {
    let (first, second) = names(&Selection::Filter(TableFilter::all())).expect("found");
    assert_eq!(first, ["mysql.user", "Shop.Orders", "Shop.items", "empty"]);
    assert_eq!(first, second);
    let (first, second) = names(&Selection::Database("shop".to_owned())).expect("found");
    assert_eq!(first, ["Shop.Orders", "Shop.items"]);
    assert_eq!(first, second);
    let table = Selection::Table("shop".to_owned(), "orders".to_owned());
    assert_eq!(names(&table).expect("found").1, ["Shop.Orders"]);
}

#[test]
fn nothing_found_is_an_error() {
    let missing = names(&Selection::Database("nowhere".to_owned()));
    assert!(matches!(missing, Err(BackupError::NoDatabase { .. })));
    let missing = names(&Selection::Table("shop".to_owned(), "nothing".to_owned()));
    assert!(matches!(missing, Err(BackupError::NoTable { name }) if name == "shop.nothing"));
    let filter = TableFilter::parse(&["nowhere.*"], false, &mut |_| Ok(String::new()));
    let missing = names(&Selection::Filter(filter.expect("a filter")));
    assert!(matches!(missing, Err(BackupError::NothingToBackUp)));
}

#[test]
fn system_databases_are_stored_under_another_name() {
    let databases = futures::executor::block_on(schemas().databases()).expect("databases");
    let json = |at: usize| {
        let json = stored_db_json(&databases[at], true).expect("json");
        String::from_utf8(json).expect("text")
    };
    assert!(
        json(0).contains(r#""O":"__TiDB_BR_Temporary_mysql""#),
        "{}",
        json(0)
    );
    assert_eq!(json(1), db_json(2, "Shop"));
}

#[test]
fn merge_rules_of_tables_and_partitions() {
    let rule = |id: &str, key: &str, value: &str| LabelRule {
        id: id.to_owned(),
        index: 0,
        labels: vec![RegionLabel {
            key: key.into(),
            value: value.into(),
            ttl: String::new(),
        }],
        rule_type: "key-range".to_owned(),
        data: Vec::new(),
    };
    let rules = vec![
        rule("schema/shop/orders", "merge_option", "allow"),
        rule("schema/shop/items", "merge_option", "deny"),
        rule("schema/shop/items/p0", "merge_option", "allow"),
        rule("keyspace/5/schema/shop/users", "merge_option", "allow"),
    ];
    let rules = MergeRules::of(rules, KeyPrefix::default());
    assert!(rules.allow(&["shop", "orders"]));
    assert!(!rules.allow(&["shop", "items"]));
    assert!(rules.allow(&["shop", "items", "p0"]));
    assert!(!rules.allow(&["shop", "users"]));
}

/// The meta keys of the golden cluster, out of the backup of all its transactional keys.
fn golden_cluster() -> Schemas<FakeMeta> {
    const STEM: &str = "txn/1/44_11_e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855_1795249776345";
    let mut long_values = BTreeMap::new();
    for_each_entry(&format!("{STEM}_default.sst"), |key, ts, value| {
        long_values.insert((key, ts), value.to_vec());
    });
    let mut pairs = BTreeMap::new();
    for_each_entry(&format!("{STEM}_write.sst"), |key, _, value| {
        let write = WriteRef::parse(value).expect("a write record");
        let value = match write.short_value {
            Some(short) => short.to_vec(),
            None => long_values
                .remove(&(key.clone(), write.start_ts))
                .expect("a long value"),
        };
        pairs.insert(key, value);
    });
    Schemas::new(FakeMeta(Arc::new(pairs)))
}

fn for_each_entry(path: &str, mut take: impl FnMut(RawKey, TimeStamp, &[u8])) {
    let table = br_sst::Table::open(golden(path)).expect("an SST");
    let mut iter = table.iter();
    while let Some(entry) = iter.next().expect("an entry") {
        let (encoded, ts) = split_data_key(entry.user_key).expect("a data key");
        take(
            br_codec::key::decode(encoded).expect("a raw key"),
            ts,
            entry.value,
        );
    }
}

fn golden(path: &str) -> Bytes {
    let root = "../../tests/golden/tidb-1/";
    std::fs::read(format!("{root}{path}"))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into()
}

/// What the official tool stored of the databases and tables, by their ids.
fn golden_schemas(folder: &str) -> BTreeMap<(i64, i64), SchemaEntry> {
    let bytes = golden(&format!("{folder}/backupmeta"));
    let meta = BackupMeta::decode(bytes, &Crypter::plaintext(), Compatibility::Strict)
        .expect("a backupmeta");
    let mut walk = meta.walk(MetaKind::Schema).expect("an index");
    let mut entries = BTreeMap::new();
    while let Some(object) = walk.next_object() {
        let bytes = golden(&format!("{folder}/{}", object.name()));
        for entry in walk.open(bytes).expect("a meta file").schemas() {
            let entry = entry.expect("a schema");
            let db = entry.db_name("test").expect("a database").id.0;
            let table = entry
                .table_name("test")
                .expect("a table")
                .map_or(0, |table| table.id.0);
            entries.insert((db, table), entry);
        }
    }
    entries
}

#[test]
fn schemas_and_ranges_are_those_of_the_official_tool() {
    let schemas = golden_cluster();
    let selection = Selection::Filter(TableFilter::all());
    let found = futures::executor::block_on(find(&schemas, &selection, KeyPrefix::default()))
        .expect("found");
    // Its summary says backup-total-ranges=198: it also asks for the rows of three views and a
    // sequence, which have none.
    assert_eq!(found.ranges.len(), 198 - 4);

    let mut expected = golden_schemas("full");
    let items: Vec<SelectedTable> =
        futures::executor::block_on(selected(&schemas, &selection).try_collect()).expect("found");
    assert_eq!(items.len(), expected.len());
    for item in items {
        let table_id = item.table.as_ref().map_or(0, |table| table.info.id);
        let entry = expected
            .remove(&(item.database.info.id, table_id))
            .expect("is there");
        let text = |json: Vec<u8>| String::from_utf8(json).expect("text");
        let db_json = stored_db_json(&item.database, true).expect("a database");
        assert_eq!(text(db_json), text(entry.db_json));
        let Some(table) = item.table else { continue };
        let json = for_backup(&table.json, &table.counters, true).expect("a table");
        assert_eq!(
            Some(json),
            entry.table_json.map(text),
            "{}",
            table.info.name.original
        );
    }
}

#[test]
fn the_golden_cluster_has_the_new_collations() {
    // Only meta keys are in the file: the table is found, and has no rows there.
    let schemas = golden_cluster();
    let table = futures::executor::block_on(schemas.table_named("mysql", "tidb"));
    assert!(table.expect("readable").is_some());
    let enabled = crate::backup::collation::new_collations_enabled(&schemas);
    assert_eq!(
        futures::executor::block_on(enabled).expect("readable"),
        None
    );
}
