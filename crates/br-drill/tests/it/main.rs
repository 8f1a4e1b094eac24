//! Rehearsals of golden backups and logs, whole and damaged.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::path::Path;
use std::sync::Arc;

use br_drill::{DrillError, DrillOptions, Drilled, Place, RehearsalOptions, Sources, What, drill};
use br_format::backupmeta::Compatibility;
use br_format::crypter::{Crypter, Method};
use br_inspect::verify::Sample;
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::{Backend, Storage};
use br_types::{Classify, Kind, TimeStamp};

const TS0: TimeStamp = TimeStamp(470_613_951_976_046_597);
const TS1: TimeStamp = TimeStamp(470_613_984_875_380_738);

/// The golden log, which is not in the repository as a whole.
fn golden_log() -> std::path::PathBuf {
    let large = option_env!("GOLDEN_TIDB_1").unwrap_or_default();
    Path::new(large).join("log")
}

fn golden(folder: &str) -> std::path::PathBuf {
    let golden = Path::new("../../tests/golden/tidb-1").join(folder);
    golden.canonicalize().unwrap()
}

async fn place(path: &Path) -> Place {
    let backend = Backend::Local {
        path: path.to_owned(),
    };
    Place {
        storage: Storage::open(&Rt::real(), &backend).await.unwrap(),
        backend,
    }
}

fn options(temp_dir: &Path) -> DrillOptions {
    DrillOptions {
        rehearsal: RehearsalOptions {
            crypter: Crypter::plaintext(),
            log_crypter: Crypter::plaintext(),
            compatibility: Compatibility::Strict,
            at: None,
            sample: Sample::all(),
            temp_dir: temp_dir.to_owned(),
        },
        seed: 7,
    }
}

async fn run(
    backup: &Path,
    log: Option<&Path>,
    options: &DrillOptions,
) -> Result<Drilled, DrillError> {
    let sources = Sources {
        bases: Vec::new(),
        backup: place(backup).await,
        log: match log {
            Some(log) => Some(place(log).await),
            None => None,
        },
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let cancel = CancellationToken::new();
    Box::pin(drill(&Rt::real(), &sources, options, &progress, &cancel)).await
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn a_point_of_the_log_comes_out_with_its_rows_and_nothing_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let (full, log) = (golden("full"), golden_log());
    let before = files(&log);
    let drilled = run(&full, Some(&log), &options(temp.path())).await.unwrap();
    let (from_ts, until_ts) = drilled.window.unwrap();
    assert_eq!(from_ts, TS0);
    assert!(until_ts > TS1);
    let done = drilled.rehearsal.unwrap();
    let at = done.at.unwrap();
    assert!(from_ts <= at && at <= until_ts);
    assert_eq!(done.differences().count(), 0, "{:#?}", done.compared);
    assert!(done.compared.len() >= 18);
    let orders = done.compared.iter().find(|one| one.name == "shop.orders");
    let orders = orders.unwrap();
    assert_eq!(orders.what, What::Rows);
    assert!(orders.found.total_kvs > 1000);
    assert!(done.log_records > 1000 && done.kv_bytes > 0);
    assert!(is_empty(temp.path()));
    assert_eq!(files(&log), before, "the log is as it was");
    // The same seed is the same point.
    let at_again = run(&full, Some(&log), &options(temp.path())).await.unwrap();
    assert_eq!(at_again.rehearsal.unwrap().at, Some(at));
}

/// It has dropped, renamed, truncated and new tables.
#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_goes_on_from_its_base() {
    let temp = tempfile::tempdir().unwrap();
    let mut sources = Sources {
        bases: vec![place(&golden("full")).await],
        backup: place(&golden("incremental")).await,
        log: None,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let (rt, never) = (Rt::real(), CancellationToken::new());
    let options = options(temp.path());
    let drilled = Box::pin(drill(&rt, &sources, &options, &progress, &never)).await;
    let done = drilled.unwrap().rehearsal.unwrap();
    assert_eq!(done.at, Some(TS1));
    assert_eq!(done.differences().count(), 0, "{:#?}", done.compared);
    let is_of = |what: What| done.compared.iter().filter(move |one| one.what == what);
    let rows: u64 = is_of(What::Rows).map(|one| one.found.total_kvs).sum();
    assert!(rows > 1000 && is_of(What::IndexKeys).count() > 10, "{rows}");
    sources.backup = sources.bases[0].clone();
    let refused = Box::pin(drill(&rt, &sources, &options, &progress, &never)).await;
    assert!(matches!(refused, Err(DrillError::NotIncremental)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_alone_is_compared_with_all_its_keys() {
    let temp = tempfile::tempdir().unwrap();
    let key: Vec<u8> = (0..32).collect();
    let mut options = options(temp.path());
    options.rehearsal.crypter = Crypter::new(Method::Aes256Ctr, &key).unwrap();
    let drilled = run(&golden("db-aes256"), None, &options).await.unwrap();
    assert_eq!(drilled.window, Some((TS0, TS0)));
    let done = drilled.rehearsal.unwrap();
    assert_eq!(done.differences().count(), 0, "{:#?}", done.compared);
    assert!(done.compared.iter().all(|one| one.what == What::AllKeys));
    let kvs: u64 = done.compared.iter().map(|one| one.found.total_kvs).sum();
    assert_eq!(kvs, 48_600);
    options.rehearsal.crypter = Crypter::new(Method::Aes256Ctr, &[9; 32]).unwrap();
    let error = run(&golden("db-aes256"), None, &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
async fn what_cannot_be_restored_is_refused_and_damage_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let (full, log) = (golden("full"), golden_log());
    let mut at = options(temp.path());
    at.rehearsal.at = Some(TimeStamp(TS0.0 - 1));
    let error = run(&full, Some(&log), &at).await.unwrap_err();
    assert!(matches!(error, DrillError::NotProven { .. }), "{error}");
    let options = options(temp.path());
    let error = run(&golden("incremental"), None, &options)
        .await
        .unwrap_err();
    assert!(matches!(error, DrillError::Incremental { .. }), "{error}");
    let error = run(&log, None, &options).await.unwrap_err();
    assert!(matches!(error, DrillError::NoBackup), "{error}");

    let damaged = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&golden("table-snappy")) {
        let to = damaged
            .path()
            .join(path.strip_prefix(golden("table-snappy")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let is_rows = to.to_string_lossy().ends_with("_write.sst");
        std::fs::write(&to, if is_rows { &bytes[1..] } else { &bytes[..] }).unwrap();
    }
    let drilled = run(damaged.path(), None, &options).await.unwrap();
    assert!(drilled.rehearsal.is_none());
    assert_eq!(
        drilled.verified.restorable.damaged_tables,
        ["bank.accounts"]
    );
    assert!(is_empty(temp.path()));
}
