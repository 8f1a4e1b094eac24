//! Backups that the official tools made of a real cluster: restored, summed by the stores, backed up
//! again, exported, and restored again. Sums and rows have to be those that SQL gave.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use br_format::{
    backupmeta::Compatibility,
    crypter::{Crypter, Method},
    kv_stats::KvStats,
};
use br_inspect::export::{ExportOptions, Format, Layer, export};
use br_rt::{CancellationToken, Silent};
use br_snapshot::{
    checksum::{ChecksumRange, PrefixRewrite, checksum},
    restore::{RestoreOptions, RestoreSummary, Scope},
};
use br_storage::Storage;
use br_tidb::table_key;
use br_types::TableId;
use sha2::{Digest, Sha256};

use crate::site::{Place, Site, back_up_tables, filter, options, restore_tables};

/// Physical ids of each table, its own and those of its partitions, in the order of its schema.
type Ids = BTreeMap<String, Vec<TableId>>;
/// Of each table that holds rows.
type Sums = BTreeMap<String, KvStats>;
/// Rows, SHA-256 of the sorted rows, and the header, by file name.
type Rows = BTreeMap<String, (usize, String, String)>;

pub(crate) fn golden() -> PathBuf {
    Path::new("../../tests/golden/tidb-1")
        .canonicalize()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_backup() {
    let names = |_: &str| true;
    round_trip("full", restore_tables(None), names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn database_with_lz4() {
    let db = Scope::Database {
        db: "types".to_owned(),
    };
    round_trip("db-lz4", with_checksum(db), |name| {
        name.starts_with("types.")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_snappy() {
    let table = Scope::Table {
        db: "bank".to_owned(),
        table: "accounts".to_owned(),
    };
    round_trip("table-snappy", with_checksum(table), |name| {
        name == "bank.accounts"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_database() {
    let key: Vec<u8> = (0..32).collect();
    let options = RestoreOptions {
        crypter: Crypter::new(Method::Aes256Ctr, &key).unwrap(),
        ..restore_tables(Some(&["shop.*"]))
    };
    round_trip("db-aes256", options, |name| name.starts_with("shop.")).await;
}

fn with_checksum(scope: Scope) -> RestoreOptions {
    RestoreOptions {
        checksum: true,
        ..RestoreOptions::new(scope)
    }
}

/// `wanted`: which tables of the golden data the backup holds.
async fn round_trip(backup: &str, options: RestoreOptions, wanted: impl Fn(&str) -> bool) {
    let expected = expected_sums(&wanted);
    assert!(!expected.is_empty());

    let site = start().await;
    let restored = site
        .restore(&Place::existing(golden().join(backup)), &options)
        .await;
    let original = old_ids(&restored);
    let first = new_ids(&restored);
    assert_eq!(sums(&site, &original, &first).await, expected);
    assert_eq!(restored.checked_tables, expected.len());

    let again = Place::temporary();
    let backup_options = back_up_tables(&["*.*"], options.crypter.clone());
    site.back_up(&again, &backup_options).await;
    site.stop().await;
    assert_eq!(
        exported(&site_layer(&again, &options).await).await,
        expected_rows(&wanted)
    );

    // Elsewhere, with other ids than before.
    let site = start().await;
    let others = br_workload::Kinds::Wide { tables: 3 };
    br_workload::Workload::create(&site.cluster, others, 1, "others", None)
        .await
        .unwrap();
    let options = RestoreOptions {
        crypter: options.crypter,
        ..restore_tables(Some(&["*.*"]))
    };
    let restored = site.restore(&again, &options).await;
    assert_eq!(old_ids(&restored), first);
    let second = new_ids(&restored);
    assert_eq!(sums(&site, &original, &second).await, expected);
    site.stop().await;
}

/// Small regions, so that a table has several.
async fn start() -> Site {
    let mut options = options();
    options.region_split_keys = 500;
    Site::start(options).await
}

fn expected_sums(wanted: &impl Fn(&str) -> bool) -> Sums {
    let text = std::fs::read(golden().join("expected/ts0/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let tables = summary["tables"].as_object().unwrap();
    tables
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, table)| {
            let number = |field: &str| table["admin_checksum"][field].as_u64().unwrap();
            let sums = KvStats {
                crc64_xor: number("crc64_xor"),
                total_kvs: number("total_kvs"),
                total_bytes: number("total_bytes"),
            };
            (name.clone(), sums)
        })
        .collect()
}

fn old_ids(restored: &RestoreSummary) -> Ids {
    let tables = restored.plan.tables.iter().filter(|table| table.has_rows);
    tables
        .map(|table| {
            (
                restored.plan.full_name(table),
                table.old_physical_ids.clone(),
            )
        })
        .collect()
}

fn new_ids(restored: &RestoreSummary) -> Ids {
    let new = |old: &TableId| restored.plan.ids.get(*old).unwrap();
    old_ids(restored)
        .into_iter()
        .map(|(name, ids)| (name, ids.iter().map(new).collect()))
        .collect()
}

/// What the stores compute over each table, as if it had its original ids.
async fn sums(site: &Site, original: &Ids, current: &Ids) -> Sums {
    assert!(original.keys().eq(current.keys()));
    let now = site.now().await;
    let mut all = Sums::new();
    for (name, ids) in current {
        let ranges: Vec<_> = original[name]
            .iter()
            .zip(ids)
            .map(|(old, new)| ChecksumRange {
                range: table_key::table_range(*new),
                rewrite: Some(PrefixRewrite {
                    old: table_key::table_prefix(*old),
                    new: table_key::table_prefix(*new),
                }),
            })
            .collect();
        let sum = checksum(&site.cluster, &ranges, now, 4).await.unwrap();
        all.insert(name.clone(), sum);
    }
    all
}

async fn site_layer(place: &Place, options: &RestoreOptions) -> Layer {
    let rt = br_rt::Rt::real();
    Layer {
        storage: Storage::open(&rt, &place.backend).await.unwrap(),
        crypter: options.crypter.clone(),
        compatibility: Compatibility::Strict,
    }
}

/// The files that the export makes of what the filter takes, by name.
pub(crate) async fn exported_of(layer: &Layer, rules: &[&str]) -> BTreeMap<String, String> {
    let output = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        filter: filter(rules),
        at: None,
        log: None,
        format: Format::Jsonl,
        output: output.path().to_owned(),
    };
    let layers = std::slice::from_ref(layer);
    let progress: Arc<dyn br_rt::Progress> = Arc::new(Silent);
    let cancel = CancellationToken::new();
    export(&br_rt::Rt::real(), layers, &options, &progress, &cancel)
        .await
        .unwrap();
    let entries = std::fs::read_dir(output.path()).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect()
}

async fn exported(layer: &Layer) -> Rows {
    let files = exported_of(layer, &["*.*"]).await;
    files
        .into_iter()
        .map(|(name, text)| {
            let (header, rows) = text.split_once('\n').unwrap();
            let mut rows: Vec<&str> = rows.lines().collect();
            rows.sort_unstable();
            let mut hash = Sha256::new();
            for row in &rows {
                hash.update(row.as_bytes());
                hash.update(b"\n");
            }
            let hash = hex::encode(hash.finalize());
            (name, (rows.len(), hash, header.to_owned()))
        })
        .collect()
}

fn expected_rows(wanted: &impl Fn(&str) -> bool) -> Rows {
    let text = std::fs::read_to_string(golden().join("expected/ts0/rows.tsv")).unwrap();
    let mut all = Rows::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let header: serde_json::Value = serde_json::from_str(fields[3]).unwrap();
        let part = |name: &str| header[name].as_str().unwrap().to_owned();
        if wanted(&format!("{}.{}", part("db"), part("table"))) {
            let rows = fields[1].parse().unwrap();
            all.insert(
                fields[0].to_owned(),
                (rows, fields[2].to_owned(), fields[3].to_owned()),
            );
        }
    }
    all
}
