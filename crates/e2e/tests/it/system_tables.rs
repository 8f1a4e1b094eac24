//! Rows of TiDB's own tables and placement policies, restored into a cluster that has such tables:
//! no TiDB server is here, so they are made of what the golden backup has of them.

use std::collections::BTreeMap;

use br_catalog::{NewDatabase, NewTable, SchemaChange};
use br_format::{backupmeta::Compatibility, crypter::Crypter};
use br_snapshot::restore::{PlannedTable, RestoreSummary, Source};
use br_storage::Storage;
use br_tidb::{
    meta_key::{self, Counter},
    row::{RowDecoder, RowEncoder},
    schema::{self, DbInfo, TableInfo, patch::DbPatch, strip_temporary_prefix},
    table_key,
};
use br_types::{DbId, TableId, TimeStamp};

use crate::{
    golden::{exported_of, golden},
    site::{Place, Site, options, restore_tables},
};

/// Rows as text, sorted, by table.
type Texts = BTreeMap<String, Vec<Vec<Option<String>>>>;

fn backup() -> Place {
    Place::existing(golden().join("full"))
}

/// The tables of `mysql` that the backup has.
async fn tables_of_mysql() -> Vec<(TableInfo, String)> {
    let rt = br_rt::Rt::real();
    let storage = Storage::open(&rt, &backup().backend).await.unwrap();
    let source = Source::open(storage, &restore_tables(None)).await.unwrap();
    let mut tables = Vec::new();
    source
        .schemas(async |entry| {
            let db = DbInfo::parse(&entry.db_json).unwrap();
            if let Some(json) = entry.table_json
                && strip_temporary_prefix(&db.name.original) == "mysql"
            {
                let info = TableInfo::parse(&json).unwrap();
                tables.push((info, String::from_utf8(json).unwrap()));
            }
            Ok::<(), br_snapshot::restore::RestoreError>(())
        })
        .await
        .unwrap();
    tables
}

/// A cluster with empty tables of that name in `mysql`.
async fn bootstrapped(wanted: &[&str]) -> Site {
    const MYSQL: DbId = DbId(1);
    let site = Site::start(options()).await;
    let mut change = SchemaChange::default();
    let mut db = DbPatch::new(r#"{"id":0,"db_name":{"O":"","L":""},"state":5}"#).unwrap();
    db.set_id(MYSQL).unwrap();
    db.set_name("mysql").unwrap();
    change.databases.push(NewDatabase {
        id: MYSQL,
        name: "mysql".to_owned(),
        json: db.finish(),
    });
    let patch_options = schema::RestoreOptions {
        name: None,
        keep_placement: false,
        update_ts: TimeStamp(1),
    };
    for (info, json) in tables_of_mysql().await {
        if wanted.contains(&info.name.lower.as_str()) {
            let same = |id: TableId| Some(id);
            let patch = schema::for_restore(&json, &same, &patch_options).unwrap();
            change.tables.push(NewTable {
                db: MYSQL,
                id: info.id(),
                name: info.name.original.clone(),
                json: patch.finish().unwrap(),
                counters: Vec::new(),
                replaces: None,
            });
        }
    }
    br_catalog::apply(&site.cluster, &change).await.unwrap();
    // Beyond what was given out, as TiDB has it.
    let last = change.tables.iter().map(|table| table.id.0).max();
    br_catalog::raise_last_id(&site.cluster, 0, last.unwrap_or(1))
        .await
        .unwrap();
    site
}

/// The rows of the cluster's tables. Each has the entries that belong to it, and there are no others.
async fn rows(site: &Site, wanted: &[&str]) -> Texts {
    let snapshot = site.cluster.snapshot(site.now().await);
    let mut all = Texts::new();
    for (info, _) in tables_of_mysql().await {
        if !wanted.contains(&info.name.lower.as_str()) {
            continue;
        }
        let decoder = RowDecoder::new(&info).unwrap();
        let encoder = RowEncoder::new(&info, true).unwrap();
        let prefix = table_key::record_prefix(info.id());
        let pairs = snapshot
            .scan_all(&table_key::table_range(info.id()), usize::MAX)
            .await
            .unwrap();
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        let (mut texts, mut seen) = (Vec::new(), 0);
        for (key, value) in &pairs {
            let Some(handle) = key.as_bytes().strip_prefix(prefix.as_bytes()) else {
                continue;
            };
            let mut text = Vec::new();
            decoder.decode(handle, value, &mut text).unwrap();
            texts.push(text);
            for entry in encoder.entries(handle, value).unwrap() {
                assert_eq!(pairs.get(&entry.key), Some(&entry.value));
                seen += 1;
            }
        }
        assert_eq!(pairs.len(), texts.len() + seen, "{}", info.name.original);
        texts.sort();
        all.insert(info.name.lower, texts);
    }
    all
}

/// The rows of the backup, as the export reads them.
async fn rows_of_backup(table: &str) -> Vec<Vec<Option<String>>> {
    let layer = br_inspect::export::Layer {
        storage: Storage::open(&br_rt::Rt::real(), &backup().backend)
            .await
            .unwrap(),
        crypter: Crypter::plaintext(),
        compatibility: Compatibility::Strict,
    };
    let files = exported_of(&layer, &[&format!("mysql.{table}")]).await;
    let (_, text) = files.into_iter().next().unwrap();
    let rows = text.lines().skip(1);
    let mut rows: Vec<_> = rows.map(|row| serde_json::from_str(row).unwrap()).collect();
    rows.sort();
    rows
}

fn restored_ids(done: &RestoreSummary) -> BTreeMap<String, String> {
    let tables = done.plan.tables.iter().filter(|table| table.has_rows);
    let ids = tables.flat_map(|table| table.old_physical_ids.iter());
    ids.map(|old| {
        (
            old.to_string(),
            done.plan.ids.get(*old).unwrap().to_string(),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_bindings_and_statistics_come_over_once() {
    let taken = ["user", "db", "bind_info"];
    let statistics = ["stats_meta", "stats_histograms"];
    let all = [&taken[..], &statistics].concat();
    let site = bootstrapped(&all).await;
    let options = restore_tables(Some(&[
        "shop.*",
        "mysql.user",
        "mysql.db",
        "mysql.bind_info",
    ]));
    let done = site.restore(&backup(), &options).await;
    assert_eq!(done.plan.system_tables_left_out, 0);
    assert_eq!(done.plan.system.len(), 5);
    let first = rows(&site, &all).await;
    for table in taken {
        assert_eq!(first[table], rows_of_backup(table).await, "{table}");
    }
    assert_eq!(first["user"].len(), 1);

    // Of restored tables only, with their new ids and timestamps.
    let ids = restored_ids(&done);
    let mut wanted: Vec<_> = rows_of_backup("stats_histograms").await;
    wanted.retain(|row| ids.contains_key(row[0].as_deref().unwrap()));
    assert!(wanted.len() > 5, "{wanted:?}");
    for row in &mut wanted {
        row[0] = row[0].take().map(|old| ids[&old].clone());
        row[7] = None;
    }
    let mut found = first["stats_histograms"].clone();
    for row in &mut found {
        assert!(row[7].take().unwrap().parse::<u64>().unwrap() > done.plan.backup_ts.0);
    }
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    // Each table and partition with rows is known, with or without statistics.
    let known: Vec<_> = first["stats_meta"]
        .iter()
        .map(|row| row[1].clone())
        .collect();
    let with_rows = |table: &&PlannedTable| table.has_rows && table.sums.total_kvs > 0;
    for table in done.plan.tables.iter().filter(with_rows) {
        let id = Some(done.plan.ids.get(table.old_id).unwrap().to_string());
        assert!(known.contains(&id), "{}", table.name);
    }

    // Nothing of what was brought in for it is left.
    let snapshot = site.cluster.snapshot(site.now().await);
    for table in &done.plan.system {
        let id = done.plan.ids.get(table.old_id).unwrap();
        let left = snapshot.scan_all(&table_key::table_range(id), 1).await;
        assert_eq!(left.unwrap(), [], "{}", table.name);
    }

    let options = restore_tables(Some(&["mysql.user", "mysql.db", "mysql.bind_info"]));
    let again = site.restore(&backup(), &options).await;
    assert_eq!(again.system_rows, done.system_rows);
    assert_eq!(rows(&site, &all).await, first);
    site.stop().await;
}

/// As the official tool leaves it, which moves system tables between databases and drops the one
/// under which the counter is.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_overwritten_where_the_counter_is_lost() {
    let site = bootstrapped(&["bind_info"]).await;
    let options = restore_tables(Some(&["mysql.bind_info"]));
    site.restore(&backup(), &options).await;
    let tables = tables_of_mysql().await;
    let (info, _) = tables
        .iter()
        .find(|(info, _)| info.name.lower == "bind_info")
        .unwrap();
    let range = table_key::record_range(info.id());
    let rows = async || {
        let snapshot = site.cluster.snapshot(site.now().await);
        snapshot.scan_all(&range, 10).await.unwrap()
    };
    let [(key, mut value)] = rows().await.try_into().unwrap();
    // Another binding in its place.
    let at = value.windows(7).position(|text| text == b"builtin");
    value[at.unwrap()] = b'x';
    let mut txn = site.cluster.begin().await.unwrap();
    txn.put(key.clone(), value.clone()).unwrap();
    txn.delete(meta_key::counter_key(DbId(1), info.id(), Counter::RowId))
        .unwrap();
    txn.commit().await.unwrap();

    site.restore(&backup(), &options).await;
    let rows = rows().await;
    assert_eq!(rows.len(), 2);
    assert!(rows.contains(&(key, value)));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_or_left_behind() {
    // No user without its privileges.
    let site = bootstrapped(&["user"]).await;
    let options = restore_tables(Some(&["shop.*", "mysql.user", "mysql.db"]));
    let refused = br_snapshot::restore::plan(&site.target(&backup()).await, &options).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("mysql.db"), "{refused}");

    let mut without = options;
    without.with_system_tables = false;
    without.load_stats = false;
    let done = site.restore(&backup(), &without).await;
    assert_eq!(done.plan.system_tables_left_out, 2);
    assert_eq!(done.system_rows, 0);
    assert_eq!(rows(&site, &["user"]).await["user"], Vec::<Vec<_>>::new());
    site.stop().await;
}
