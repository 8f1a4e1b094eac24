use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use br_format::{
    backupmeta::Compatibility,
    crypter::{Crypter, Method},
};
use br_inspect::export::{ExportError, ExportOptions, ExportReport, Format, Layer, export};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::{Backend, Storage};
use br_tidb::filter::TableFilter;
use br_types::{Classify, Kind, TimeStamp};
use sha2::{Digest, Sha256};

use crate::folders::{copy, golden};

const TS0: TimeStamp = TimeStamp(470_613_951_976_046_597);
const USERS: [&str; 4] = ["*.*", "!mysql.*", "!sys.*", "!workload_schema.*"];

fn options(filter: &[&str], output: &Path) -> ExportOptions {
    let mut no_files = |path: &str| Err(format!("no file {path}"));
    ExportOptions {
        filter: TableFilter::parse(filter, false, &mut no_files).unwrap(),
        at: None,
        log: None,
        format: Format::Jsonl,
        output: output.to_owned(),
    }
}

async fn layer(rt: &Rt, backup: &str, crypter: Crypter) -> Layer {
    let backend = Backend::Local {
        path: golden(backup),
    };
    Layer {
        storage: Storage::open(rt, &backend).await.unwrap(),
        crypter,
        compatibility: Compatibility::Strict,
    }
}

async fn run(
    backups: &[(&str, Crypter)],
    options: &ExportOptions,
) -> Result<ExportReport, ExportError> {
    let rt = Rt::real();
    let mut layers = Vec::new();
    for (backup, crypter) in backups {
        layers.push(layer(&rt, backup, crypter.clone()).await);
    }
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    export(&rt, &layers, options, &progress, &CancellationToken::new()).await
}

/// File name, and then rows, SHA-256 of the sorted rows, and header.
type Tables = BTreeMap<String, (usize, String, String)>;

fn expected(ts: &str, wanted: impl Fn(&str) -> bool) -> Tables {
    let text = std::fs::read_to_string(golden("expected").join(ts).join("rows.tsv")).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let rows = fields[1].parse().unwrap();
            (
                fields[0].to_owned(),
                (rows, fields[2].to_owned(), fields[3].to_owned()),
            )
        })
        .filter(|(name, _)| wanted(name))
        .collect()
}

fn actual(folder: &Path) -> Tables {
    let mut tables = Tables::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let (header, rows) = text.split_once('\n').unwrap();
        let mut rows: Vec<&str> = rows.lines().collect();
        rows.sort_unstable();
        let mut hash = Sha256::new();
        for row in &rows {
            hash.update(row.as_bytes());
            hash.update(b"\n");
        }
        let hash: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = entry.file_name().into_string().unwrap();
        tables.insert(name, (rows.len(), hash, header.to_owned()));
    }
    tables
}

async fn check(
    backups: &[(&str, Crypter)],
    filter: &[&str],
    ts: &str,
    wanted: impl Fn(&str) -> bool,
) {
    let output = tempfile::tempdir().unwrap();
    let report = run(backups, &options(filter, output.path())).await.unwrap();
    let expected = expected(ts, wanted);
    assert!(!expected.is_empty());
    assert_eq!(actual(output.path()), expected);
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    assert_eq!(
        rows,
        expected
            .values()
            .map(|(rows, ..)| *rows as u64)
            .sum::<u64>()
    );
}

#[tokio::test]
async fn full_backup_with_every_type() {
    check(&[("full", Crypter::plaintext())], &USERS, "ts0", |_| true).await;
}

#[tokio::test]
async fn incremental_backup_on_top() {
    let chain = [
        ("full", Crypter::plaintext()),
        ("incremental", Crypter::plaintext()),
    ];
    check(&chain, &USERS, "ts1", |_| true).await;
}

#[tokio::test]
async fn lz4_database_and_snappy_table() {
    let types = |name: &str| name.starts_with("types.");
    check(&[("db-lz4", Crypter::plaintext())], &["*.*"], "ts0", types).await;
    let accounts = |name: &str| name == "bank.accounts.jsonl";
    check(
        &[("table-snappy", Crypter::plaintext())],
        &["*.*"],
        "ts0",
        accounts,
    )
    .await;
}

#[tokio::test]
async fn encrypted_backup() {
    let key: Vec<u8> = (0..32).collect();
    let crypter = Crypter::new(Method::Aes256Ctr, &key).unwrap();
    let shop = |name: &str| name.starts_with("shop.");
    check(&[("db-aes256", crypter)], &["*.*"], "ts0", shop).await;
}

#[tokio::test]
async fn a_filter_takes_tables() {
    let wanted = |name: &str| name == "shop.events.jsonl" || name.starts_with("we%60ird-Name");
    let filter = ["shop.ev*", "`we``ird-Name`.*"];
    check(&[("full", Crypter::plaintext())], &filter, "ts0", wanted).await;
}

#[tokio::test]
async fn csv_has_the_same_values() {
    let output = tempfile::tempdir().unwrap();
    let mut options = options(&["types.vec", "types.empty_table"], output.path());
    options.format = Format::Csv;
    run(&[("full", Crypter::plaintext())], &options)
        .await
        .unwrap();
    let text = std::fs::read_to_string(output.path().join("types.vec.csv")).unwrap();
    let mut lines = text.split("\r\n");
    assert_eq!(lines.next(), Some("id,v"));
    assert_eq!(lines.next(), Some("0,\"[0.972895,0.270452,0.296111]\""));
    let empty = std::fs::read_to_string(output.path().join("types.empty_table.csv")).unwrap();
    assert_eq!(empty, "id,v\r\n");
}

#[tokio::test]
async fn only_the_backups_timestamps_can_be_shown() {
    let output = tempfile::tempdir().unwrap();
    let mut options = options(&["bank.*"], output.path());
    options.at = Some(TimeStamp(TS0.0 - 1));
    let error = run(&[("full", Crypter::plaintext())], &options)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(
        error.to_string(),
        format!("the backups cannot show {}; they can show {TS0}", TS0.0 - 1)
    );
    // The first of two backups.
    options.at = Some(TS0);
    let chain = [
        ("full", Crypter::plaintext()),
        ("incremental", Crypter::plaintext()),
    ];
    let report = run(&chain, &options).await.unwrap();
    assert_eq!(report.at, TS0);
    assert_eq!(
        actual(output.path()),
        expected("ts0", |name| name.starts_with("bank."))
    );
}

#[tokio::test]
async fn an_incremental_backup_alone_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let alone = [("incremental", Crypter::plaintext())];
    let error = run(&alone, &options(&["*.*"], output.path()))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, ExportError::Chain { position: 1, .. }),
        "{error}"
    );
    let other = [
        ("full", Crypter::plaintext()),
        ("full", Crypter::plaintext()),
    ];
    let error = run(&other, &options(&["*.*"], output.path()))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, ExportError::Chain { position: 2, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn damaged_files_are_named_and_leave_nothing() {
    let backup = tempfile::tempdir().unwrap();
    copy(&golden("table-snappy"), backup.path());
    let file = find_sst(backup.path()).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let output = tempfile::tempdir().unwrap();
    let path = backup.path().to_str().unwrap();
    let error = run(
        &[(path, Crypter::plaintext())],
        &options(&["*.*"], output.path()),
    )
    .await;
    let error = error.err().unwrap();
    assert!(matches!(error, ExportError::Checksum { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Data);
    assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 0);
}

/// The record file of the rows: the folder's largest, for the table has one index of numbers.
fn find_sst(folder: &Path) -> Option<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sst") {
                files.push((path.metadata().unwrap().len(), path));
            }
        }
    }
    files.into_iter().max().map(|(_, path)| path)
}
