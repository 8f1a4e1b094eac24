use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use br_tidb::meta_key::{
    DATABASES, DDL_JOB_HISTORY, POLICIES, SCHEMA_VERSION, counter_key, db_field, db_key, hash_key,
    job_field, policy_field, schema_diff_key, string_key, table_key,
};
use br_types::KeyRange;

use super::*;

/// Meta keys in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeMeta(pub(crate) Arc<BTreeMap<RawKey, Vec<u8>>>);

pub(crate) struct FakeScan(VecDeque<(RawKey, Vec<u8>)>);

impl FakeMeta {
    fn pairs(
        &self,
        range: &KeyRange<RawKey>,
    ) -> impl DoubleEndedIterator<Item = (RawKey, Vec<u8>)> {
        let range = range.clone();
        self.0
            .iter()
            .filter(move |(key, _)| range.contains(key))
            .map(|(key, value)| (key.clone(), value.clone()))
    }
}

impl MetaRead for FakeMeta {
    type Scan = FakeScan;

    async fn get(&self, key: &RawKey) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange<RawKey>) -> FakeScan {
        FakeScan(self.pairs(range).collect())
    }

    fn scan_reverse(&self, range: &KeyRange<RawKey>) -> FakeScan {
        FakeScan(self.pairs(range).rev().collect())
    }
}

impl MetaScan for FakeScan {
    async fn next(&mut self) -> Result<Option<(RawKey, Vec<u8>)>, KvError> {
        Ok(self.0.pop_front())
    }
}

pub(crate) fn meta(pairs: impl IntoIterator<Item = (RawKey, String)>) -> Schemas<FakeMeta> {
    let pairs = pairs
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()))
        .collect();
    Schemas::new(FakeMeta(Arc::new(pairs)))
}

pub(crate) fn db_json(id: i64, name: &str) -> String {
    let lower = name.to_lowercase();
    format!(
        r#"{{"id":{id},"db_name":{{"O":"{name}","L":"{lower}"}},"charset":"utf8mb4","collate":"utf8mb4_bin","state":5,"policy_ref_info":null}}"#
    )
}

pub(crate) fn table_json(id: i64, name: &str) -> String {
    let lower = name.to_lowercase();
    format!(
        r#"{{"id":{id},"name":{{"O":"{name}","L":"{lower}"}},"charset":"utf8mb4","collate":"utf8mb4_bin","cols":[{{"id":1,"name":{{"O":"a","L":"a"}},"offset":0,"type":{{"Tp":3,"Flag":3,"Flen":11,"Decimal":0,"Charset":"binary","Collate":"binary","Elems":null}},"state":5,"version":2}}],"index_info":[{{"id":1,"idx_name":{{"O":"i","L":"i"}},"tbl_name":{{"O":"","L":""}},"idx_cols":[],"state":5}},{{"id":2,"idx_name":{{"O":"j","L":"j"}},"tbl_name":{{"O":"","L":""}},"idx_cols":[],"state":3}}],"state":5,"pk_is_handle":false,"is_common_handle":false,"comment":"","auto_inc_id":0,"auto_rand_id":0,"max_col_id":1,"max_idx_id":2,"update_timestamp":1,"partition":null,"compression":"","view":null,"sequence":null,"version":5,"policy_ref_info":null,"cache_table_status":0}}"#
    )
}

fn run<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}

#[test]
fn tables_come_with_their_counters() {
    let (shop, mysql) = (DbId(2), DbId(1));
    let schemas = meta([
        (db_key(shop), db_json(2, "Shop")),
        (db_key(mysql), db_json(1, "mysql")),
        (db_key(DbId(9)), db_json(9, "information_schema")),
        (db_key(DbId(10)), db_json(10, "__TiDB_BR_Temporary_mysql")),
        (hash_key(DATABASES, b"other"), "1".to_owned()),
        (table_key(shop, TableId(100)), table_json(100, "Orders")),
        (table_key(shop, TableId(20)), table_json(20, "items")),
        (
            counter_key(shop, TableId(100), Counter::RowId),
            "4000".to_owned(),
        ),
        (
            counter_key(shop, TableId(100), Counter::AutoRandom),
            "7".to_owned(),
        ),
        (
            counter_key(shop, TableId(20), Counter::AutoIncrement),
            "5".to_owned(),
        ),
        (
            table_key(DbId(22), TableId(300)),
            table_json(300, "elsewhere"),
        ),
    ]);
    let databases = run(schemas.databases()).expect("databases");
    let names: Vec<_> = databases
        .iter()
        .map(|db| db.info.name.original.as_str())
        .collect();
    assert_eq!(names, ["mysql", "Shop"]);
    let mut tables = schemas.tables(shop);
    let mut found = Vec::new();
    while let Some(table) = run(tables.next()).expect("table") {
        found.push((table.info.id, table.counters));
    }
    let orders = Counters {
        row_id: Some(4000),
        auto_random: Some(7),
        ..Counters::default()
    };
    let items = Counters {
        auto_increment: Some(5),
        ..Counters::default()
    };
    assert_eq!(found, [(100, orders), (20, items)]);
    let named = run(schemas.table_named("shop", "orders"))
        .expect("table")
        .expect("is there");
    assert_eq!(named.json, table_json(100, "Orders"));
    assert!(
        run(schemas.table_named("shop", "nothing"))
            .expect("table")
            .is_none()
    );
}

#[test]
fn a_version_counts_once_its_diff_is_there() {
    let version = (string_key(SCHEMA_VERSION), "12".to_owned());
    assert_eq!(run(meta([version.clone()]).version()).expect("version"), 11);
    let diff = (schema_diff_key(12), "{}".to_owned());
    assert_eq!(run(meta([version, diff]).version()).expect("version"), 12);
    assert_eq!(run(meta([]).version()).expect("version"), 0);
    let damaged = meta([(string_key(SCHEMA_VERSION), "x".to_owned())]);
    assert!(matches!(
        run(damaged.version()),
        Err(SchemaReadError::Damaged { .. })
    ));
}

#[test]
fn policies_without_their_first_byte() {
    let schemas = meta([(
        hash_key(POLICIES, &policy_field(3)),
        "\0{\"id\":3}".to_owned(),
    )]);
    assert_eq!(
        run(schemas.policies()).expect("policies"),
        [b"{\"id\":3}".to_vec()]
    );
    let damaged = meta([(
        hash_key(POLICIES, &policy_field(3)),
        "{\"id\":3}".to_owned(),
    )]);
    assert!(run(damaged.policies()).is_err());
}

#[test]
fn damaged_schemas_name_their_key() {
    let schemas = meta([
        (db_key(DbId(1)), db_json(1, "a")),
        (hash_key(&db_field(DbId(1)), b"Table:7"), "{".to_owned()),
    ]);
    let error = run(schemas.tables(DbId(1)).next()).expect_err("damaged");
    assert!(error.to_string().contains("6D44423A31"), "{error}");
}

fn job(id: i64, kind: i64, state: i64, version: i64) -> (RawKey, String) {
    let json = format!(
        r#"{{"id":{id},"type":{kind},"raw_args":["<x>",12345678901234567890],"state":{state},"binlog":{{"SchemaVersion":{version},"DBInfo":null,"TableInfo":{{"id":5,"policy_ref_info":{{"id":1}},"partition":{{"definitions":[{{"id":6,"policy_ref_info":{{"id":1}}}}]}}}}}},"z":1,"a":2}}"#
    );
    (hash_key(DDL_JOB_HISTORY, &job_field(id)), json)
}

#[test]
fn jobs_of_the_versions_between() {
    let schemas = meta([
        job(70, 3, 6, 20), // the last backup saw it
        job(71, 3, 6, 23), // ended after the next one
        job(72, 3, 6, 21),
        job(73, 3, 5, 22),  // cancelled
        job(74, 51, 6, 24), // a placement policy
        job(75, 3, 4, 25),
        job(76, 3, 6, 26), // after the backup
    ]);
    let history = DdlHistory {
        after_version: 20,
        up_to_version: 25,
    };
    let jobs = run(history.jobs(schemas.read())).expect("jobs");
    let found: Vec<_> = jobs
        .iter()
        .map(|job| (job.id, job.schema_version))
        .collect();
    assert_eq!(found, [(71, 23), (72, 21), (75, 25)]);
    let expected = r#"{"id":71,"type":3,"raw_args":["<x>",12345678901234567890],"state":6,"binlog":{"SchemaVersion":23,"DBInfo":null,"TableInfo":{"id":5,"policy_ref_info":null,"partition":{"definitions":[{"id":6,"policy_ref_info":null}]}}},"z":1,"a":2}"#;
    assert_eq!(String::from_utf8_lossy(&jobs[0].json), expected);
    let nothing = DdlHistory {
        after_version: 25,
        up_to_version: 25,
    };
    assert!(run(nothing.jobs(schemas.read())).expect("jobs").is_empty());
}
