//! The log that the official tools made of a real cluster under load, restored to marked points: all
//! rows have to be those that SQL gave at that time.
//!
//! The log is too large for this repository: the tests look for it in the folder that
//! `HOLDFAST_GOLDEN` names, and are ignored without it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use br_cluster::Snapshot;
use br_format::{backupmeta::Compatibility, crypter::Crypter};
use br_inspect::export::{ExportOptions, Format, Layer, export};
use br_log::{
    compact::{CompactOptions, CompactTarget, compact},
    restore::{Method, PointOptions, PointSummary, PointTarget, restore},
};
use br_rt::{CancellationToken, Progress, Rt, Silent};

use br_storage::{SendCredentials, Storage};
use br_tidb::{
    row::IndexEncoder,
    schema::TableInfo,
    table_key::{RECORD_PREFIX_LEN, index_range, record_range},
};
use br_types::{Classify, IndexId, Kind, TableId, TimeStamp};

use crate::{
    points::{copy, point_options, point_target, sst_files},
    site::{Place, Site, back_up_tables, filter, options},
};

fn golden() -> PathBuf {
    let folder = option_env!("GOLDEN_TIDB_1").map(PathBuf::from);
    folder.unwrap_or_else(|| panic!("tests are ignored without it"))
}

/// Databases of users.
const ALL: &[&str] = &["*.*", "!mysql.*", "!sys.*", "!test.*", "!workload_schema.*"];

async fn target(site: &Site, log: &Path) -> PointTarget {
    let full = Place::existing(golden().join("full"));
    point_target(site, &full, &Place::existing(golden().join(log))).await
}

/// A copy of a log that may be written to.
fn copy_of(log: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden().join(log), folder.path());
    folder
}

async fn start() -> Site {
    let mut options = options();
    options.region_split_keys = 2000;
    Site::start(options).await
}

/// Restores, backs the cluster up, exports that backup and compares the rows.
async fn check(log: &Path, options: &PointOptions, mark: &str) -> PointSummary {
    let site = start().await;
    let target = target(&site, log).await;
    let done = Box::pin(restore(&target, options)).await;
    let done = done.unwrap_or_else(|error| panic!("{mark}: {error}: {error:?}"));
    compare(&site, mark).await;
    check_indexes(&site).await;
    site.stop().await;
    done
}

/// Every index has an entry for each row and no other; where entries can be made from rows, those.
async fn check_indexes(site: &Site) {
    let snapshot = site.cluster.snapshot(site.now().await);
    for db in br_catalog::databases(&snapshot).await.unwrap() {
        let mut tables = Vec::new();
        br_catalog::tables(&snapshot, db.info.id(), |table| {
            tables.push(table.info);
            Ok(())
        })
        .await
        .unwrap();
        for table in tables {
            check_indexes_of(&snapshot, &table).await;
        }
    }
}

async fn check_indexes_of(snapshot: &Snapshot, table: &TableInfo) {
    let mut rows = Vec::new();
    for id in table.physical_ids() {
        let mut scan = snapshot.scan(&record_range(id));
        while let Some((raw, row)) = scan.next().await.unwrap() {
            rows.push((id, raw.as_bytes()[RECORD_PREFIX_LEN..].to_vec(), row));
        }
    }
    for index in &table.indexes {
        if table.is_common_handle && index.is_primary {
            continue;
        }
        let mut found = BTreeMap::new();
        for id in table.physical_ids() {
            let mut scan = snapshot.scan(&index_range(id, IndexId(index.id)));
            while let Some((raw, value)) = scan.next().await.unwrap() {
                found.insert(raw.into_bytes(), value);
            }
        }
        let name = format!("{} of {}", index.name.original, table.name.original);
        assert_eq!(found.len(), rows.len(), "{name}");
        if let Ok(encoder) = IndexEncoder::new(table, index, true) {
            let entry = |(id, handle, row): &(TableId, Vec<u8>, Vec<u8>)| {
                encoder.entry(*id, handle, row).unwrap()
            };
            let made: BTreeMap<_, _> = rows.iter().map(entry).collect();
            assert!(made == found, "{name}");
        }
    }
}

async fn compare(site: &Site, mark: &str) {
    let backup = Place::temporary();
    site.back_up(&backup, &back_up_tables(ALL, Crypter::plaintext()))
        .await;
    let rt = Rt::real();
    let layer = Layer {
        storage: Storage::open(&rt, &backup.backend).await.unwrap(),
        crypter: Crypter::plaintext(),
        compatibility: Compatibility::Strict,
    };
    let rows = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        filter: filter(ALL),
        at: None,
        log: None,
        format: Format::Jsonl,
        output: rows.path().to_owned(),
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let cancel = CancellationToken::new();
    let layers = std::slice::from_ref(&layer);
    export(&rt, layers, &options, &progress, &cancel)
        .await
        .unwrap();
    let golden = golden();
    let compared = Command::new("python3")
        .arg(golden.join("../compare-rows"))
        .arg(golden.join("expected").join(mark))
        .arg(rows.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compared.stdout);
    assert!(compared.status.success(), "{mark}: {said}");
}

/// The marks of the golden data, by name.
fn mark(name: &str) -> TimeStamp {
    let summary = golden().join("expected").join(name).join("summary.json");
    let text = std::fs::read(summary).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&text).unwrap();
    TimeStamp(
        summary["ts"]
            .as_u64()
            .unwrap_or_else(|| panic!("{summary}")),
    )
}

async fn every_mark(log: &str) {
    let log = copy_of(log);
    for name in ["mark2", "mark5", "mark7", "ts1"] {
        let options = point_options(ALL, mark(name));
        let done = check(log.path(), &options, name).await;
        assert!(done.ingest.records > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn log_of_the_official_stores() {
    every_mark("log").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn log_that_the_official_tool_compacted() {
    every_mark("log-compacted").await;
}

/// The stores write the log key by key.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn stores_apply_the_log() {
    let log = copy_of("log");
    let mut options = point_options(ALL, mark("mark5"));
    options.method = Method::Apply {
        batch_files: 8,
        batch_bytes: 16 << 20,
        concurrency: 16,
        send_credentials: SendCredentials::Yes,
    };
    check(log.path(), &options, "mark5").await;
}

/// From one point to the next: what is there goes on, what is new is made, what is gone goes.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn one_restore_goes_on_from_another() {
    let log = copy_of("log");
    let site = start().await;
    // Ids of the log are taken: tables get others.
    let others = br_workload::Kinds::Wide { tables: 2 };
    br_workload::Workload::create(&site.cluster, others, 1, "test", None)
        .await
        .unwrap();
    let mut target = target(&site, log.path()).await;
    let first = point_options(ALL, mark("mark2"));
    Box::pin(restore(&target, &first)).await.unwrap();
    compare(&site, "mark2").await;
    target.full = None;
    let mut last = mark("mark2");
    for name in ["mark5", "mark7", "ts1"] {
        let mut next = point_options(ALL, mark(name));
        next.start_ts = Some(last);
        last = mark(name);
        Box::pin(restore(&target, &next))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}: {error:?}"));
        compare(&site, name).await;
        check_indexes(&site).await;
        // Twice is once too often.
        let again = Box::pin(restore(&target, &next)).await.unwrap_err();
        assert_eq!(again.kind(), Kind::Invalid, "{again}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn an_incremental_backup_is_no_beginning() {
    let site = start().await;
    let increment = Place::existing(golden().join("incremental"));
    let log = Place::existing(golden().join("log"));
    let target = point_target(&site, &increment, &log).await;
    let refused = Box::pin(restore(&target, &point_options(ALL, mark("mark7")))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    let text = refused.to_string();
    assert!(text.contains("only what changed since"), "{text}");
    site.stop().await;
}

/// What we compact ourselves restores to the same rows, in two steps and whatever the point.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn log_that_is_compacted_here() {
    let (log, temp) = (copy_of("log"), tempfile::tempdir().unwrap());
    let rt = Rt::real();
    let place = Place::existing(log.path().to_owned());
    let target = CompactTarget {
        rt: rt.clone(),
        cancel: CancellationToken::new(),
        storage: Storage::open(&rt, &place.backend).await.unwrap(),
        ssts: sst_files(),
        progress: Arc::new(Silent),
        temp_dir: temp.path().to_owned(),
    };
    let mut options = CompactOptions {
        from_ts: TimeStamp::ZERO,
        until_ts: Some(mark("mark2")),
        name: "first".to_owned(),
        shifts: false,
        shard: None,
        minimal_bytes: 1,
        concurrency: 4,
    };
    let first = compact(&target, &options).await.unwrap();
    options.until_ts = None;
    options.name = "second".to_owned();
    let second = compact(&target, &options).await.unwrap();
    assert!(first.output_files > 0 && second.output_files > 0);
    let third = compact(&target, &options).await.unwrap();
    assert_eq!(third.output_files, 0, "nothing is left");
    for name in ["mark2", "mark7"] {
        let done = check(log.path(), &point_options(ALL, mark(name)), name).await;
        assert!(done.plan.compacted_files > 0);
    }
}

/// Next to no memory: everything goes through runs on disk.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn sorting_on_disk_changes_nothing() {
    let (log, temp) = (copy_of("log"), tempfile::tempdir().unwrap());
    let mut options = point_options(ALL, mark("mark7"));
    options.temp_dir = temp.path().to_owned();
    options.sort_memory_bytes = 64 << 10;
    options.newest_only = true;
    check(log.path(), &options, "mark7").await;
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

/// No file of the log is held in memory: each is found again by its metadata.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn files_that_are_not_held_are_restored_too() {
    let log = copy_of("log-compacted");
    let mut options = point_options(ALL, mark("mark5"));
    options.files_held_max = 0;
    check(log.path(), &options, "mark5").await;
    options.method = Method::Apply {
        batch_files: 8,
        batch_bytes: 16 << 20,
        concurrency: 16,
        send_credentials: SendCredentials::Yes,
    };
    let log = copy_of("log");
    check(log.path(), &options, "mark5").await;
}
