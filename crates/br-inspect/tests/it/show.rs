//! What the golden folders hold.

use std::path::Path;
use std::sync::Arc;

use br_format::backupmeta::Compatibility;
use br_format::crypter::{Crypter, Method};
use br_inspect::show::{Place, RestoreWindow, ShowError, ShowOptions, Shown, What, show};
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::Backend;
use br_types::{Classify, Kind, TimeStamp};

use crate::folders::{copy, golden};

const TS0: TimeStamp = TimeStamp(470_613_951_976_046_597);
const TS1: TimeStamp = TimeStamp(470_613_984_875_380_738);

async fn look(path: &Path, crypter: Crypter, check_contents: bool) -> Result<Shown, ShowError> {
    let backend = Backend::Local {
        path: path.to_owned(),
    };
    let options = ShowOptions {
        crypter,
        log_crypter: Crypter::plaintext(),
        log_master_keys: None,
        compatibility: Compatibility::Strict,
        check_contents,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    show(
        &Rt::real(),
        &backend,
        &options,
        &progress,
        &CancellationToken::new(),
    )
    .await
}

fn place<'a>(shown: &'a Shown, folder: &str) -> &'a Place {
    shown
        .places
        .iter()
        .find(|place| place.folder == folder)
        .unwrap()
}

fn window(
    full: &str,
    incrementals: &[&str],
    log: Option<&str>,
    until: (TimeStamp, TimeStamp),
) -> RestoreWindow {
    RestoreWindow {
        full: full.to_owned(),
        incrementals: incrementals
            .iter()
            .map(|folder| (*folder).to_owned())
            .collect(),
        log: log.map(str::to_owned),
        from_ts: until.0,
        until_ts: until.1,
        ended_by: None,
    }
}

/// A folder with a full backup, an incremental one, and in a folder of its own a database.
fn chain() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("full"), &folder.path().join("2026/full"));
    copy(&golden("incremental"), &folder.path().join("2026/monday"));
    copy(&golden("db-aes256"), &folder.path().join("secret"));
    folder
}

#[tokio::test]
async fn backups_in_folders_and_their_chain() {
    let folder = chain();
    let shown = look(folder.path(), Crypter::plaintext(), false)
        .await
        .unwrap();
    let folders: Vec<_> = shown
        .places
        .iter()
        .map(|place| place.folder.as_str())
        .collect();
    assert_eq!(folders, ["2026/full", "2026/monday", "secret"]);
    let What::Backup(full) = &place(&shown, "2026/full").what else {
        panic!()
    };
    assert_eq!((full.files, full.kvs), (60, 68_742));
    assert_eq!(
        full.kvs,
        full.tables.iter().map(|table| table.kvs).sum::<u64>()
    );
    let accounts = full
        .tables
        .iter()
        .find(|table| table.table.as_deref() == Some("accounts"));
    // Rows, and the entries of one index.
    assert_eq!(accounts.unwrap().kvs, 4000);
    assert!(
        matches!(&place(&shown, "secret").what, What::Unreadable { next_step: Some(step), .. } if step.contains("--crypter.method"))
    );
    assert_eq!(shown.problems(), 1);
    let expected = [
        window("2026/full", &[], None, (TS0, TS0)),
        window("2026/full", &["2026/monday"], None, (TS1, TS1)),
    ];
    assert_eq!(shown.windows, expected);
}

#[tokio::test]
async fn a_key_opens_what_is_encrypted_and_the_rest_stays_readable() {
    let folder = chain();
    let key: Vec<u8> = (0..32).collect();
    let key = Crypter::new(Method::Aes256Ctr, &key).unwrap();
    let shown = look(folder.path(), key, true).await.unwrap();
    assert_eq!(shown.problems(), 0);
    assert_eq!(shown.windows.len(), 3);
}

#[tokio::test]
async fn a_missing_file_and_a_flipped_bit_show() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("table-snappy"), folder.path());
    let mut files = Vec::new();
    for store in std::fs::read_dir(folder.path()).unwrap() {
        let store = store.unwrap().path();
        if store.is_dir() {
            let found = std::fs::read_dir(store).unwrap();
            files.extend(found.map(|file| file.unwrap().path()));
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sst"));
    files.sort();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    // Sizes do not tell.
    let shown = look(folder.path(), Crypter::plaintext(), false)
        .await
        .unwrap();
    assert_eq!((shown.problems(), shown.windows.len()), (0, 1));
    let shown = look(folder.path(), Crypter::plaintext(), true)
        .await
        .unwrap();
    assert_eq!((shown.problems(), shown.windows.len()), (1, 0));
    std::fs::remove_file(&files[0]).unwrap();
    let shown = look(folder.path(), Crypter::plaintext(), false)
        .await
        .unwrap();
    let What::Backup(backup) = &place(&shown, "").what else {
        panic!()
    };
    assert_eq!(backup.missing[0].problem, "it is not there");
    assert!(shown.windows.is_empty());
}

#[tokio::test]
async fn a_log_with_holes_ends_the_window_before_them() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("full"), &folder.path().join("full"));
    copy(&golden("log"), &folder.path().join("log"));
    let shown = look(folder.path(), Crypter::plaintext(), false)
        .await
        .unwrap();
    let What::Log(log) = &place(&shown, "log").what else {
        panic!()
    };
    assert_eq!(log.missing.len(), 8);
    let [window] = shown.windows.as_slice() else {
        panic!("{:?}", shown.windows)
    };
    assert_eq!((window.from_ts, window.log.as_deref()), (TS0, Some("log")));
    // The least timestamp of a missing object, less one.
    assert_eq!(window.until_ts, TimeStamp(470_613_957_874_548_736));
    assert!(
        window
            .ended_by
            .as_deref()
            .unwrap()
            .contains("470613957874548737-")
    );
}

#[tokio::test]
async fn nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = look(folder.path(), Crypter::plaintext(), false)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(
        error
            .to_string()
            .starts_with("there is no backup and no log in local:///")
    );
}

#[cfg(golden)]
#[tokio::test]
async fn whole_logs_are_restorable_to_their_end() {
    let root = Path::new(env!("GOLDEN_TIDB_1"));
    let shown = look(root, Crypter::plaintext(), true).await.unwrap();
    let end = TimeStamp(0x0687_f4ee_5a94_0002);
    for log in ["log", "log-compacted"] {
        let What::Log(survey) = &place(&shown, log).what else {
            panic!()
        };
        assert_eq!(
            (survey.missing.len(), survey.leftover, survey.checked),
            (0, (0, 0), true)
        );
        let expected = window("full", &[], Some(log), (TS0, end));
        assert!(shown.windows.contains(&expected), "{log}");
    }
}
