//! `br log` on the log that the official tools made of a real cluster, without a cluster.

use std::{fs, path::Path};

use crate::{br, dir};

/// A copy of the golden log, to be changed.
fn golden_log(to: &Path) -> String {
    let from = "../../tests/golden/tidb-1/log";
    copy(Path::new(from), to);
    format!("local://{}", to.display())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a copy")),
        }
    }
}

fn files(below: &Path) -> usize {
    let entries = fs::read_dir(below).expect("a folder");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path) } else { 1 }
        })
        .sum()
}

const START: u64 = 470_613_951_373_377_538;
const END: u64 = 470_613_990_642_548_738;

#[test]
fn metadata_says_what_the_official_tool_said() {
    let dir = dir();
    let url = golden_log(&dir.path().join("log"));
    let (code, stdout, stderr) = br(dir.path(), &["log", "metadata", "-s", &url]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains(&format!(
            "[\"log metadata\"] [log-min-ts={START}] [log-min-date=\"2026-11-21 08:29:13.469 +0000\"] \
             [log-max-ts={END}] [log-max-date=\"2026-11-21 08:31:43.269 +0000\"]"
        )),
        "{stdout}"
    );
    assert!(
        stdout.contains("[\"log metadata success summary\"] [total-ranges=0]"),
        "{stdout}"
    );
    let (code, stdout, _) = br(dir.path(), &["log", "metadata", "-s", &url, "--json"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains(&format!("\"log_min_ts\":{START}")),
        "{stdout}"
    );
}

#[test]
fn a_full_backup_is_no_log() {
    let dir = dir();
    let full = fs::canonicalize("../../tests/golden/tidb-1/full").expect("golden data");
    let full = full.to_str().expect("a name in UTF-8");
    for args in [
        &["log", "metadata", "-s", full][..],
        &["log", "truncate", "-s", full, "--until", "5", "--yes"],
    ] {
        let (code, _, stderr) = br(dir.path(), args);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("full backup"), "{stderr}");
    }
}

#[test]
fn truncation_asks_plans_and_does_it_once() {
    let dir = dir();
    let log = dir.path().join("log");
    let url = golden_log(&log);
    let until = ((START + END) / 2).to_string();
    let truncate = |more: &[&str]| {
        let args = [
            &["log", "truncate", "-s", &url, "--until", &until][..],
            more,
        ]
        .concat();
        br(dir.path(), &args)
    };
    let before = files(&log);
    let (code, _, stderr) = truncate(&[]);
    assert_eq!(code, 2, "nobody can confirm: {stderr}");
    assert!(stderr.contains("--yes"), "{stderr}");
    let (code, planned, stderr) = truncate(&["--dry-run"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(files(&log), before, "neither lock nor change");
    let (code, done, stderr) = truncate(&["--yes"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(done.starts_with(planned.trim_end()), "{planned}\n{done}");
    assert!(files(&log) < before);
    assert!(!log.join("truncating.lock").exists());
    let safe_point = fs::read_to_string(log.join("v1_stream_trancate_safepoint.txt"));
    assert_eq!(safe_point.expect("the safe point"), until);
    let after = files(&log);
    let (code, again, _) = truncate(&["--yes"]);
    assert_eq!((code, files(&log)), (0, after));
    assert!(again.contains("0 files"), "{again}");
    let (code, stdout, _) = br(dir.path(), &["log", "metadata", "-s", &url]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains(&format!("[log-min-ts={until}]")),
        "{stdout}"
    );
    let beyond = (END + 1).to_string();
    let args = ["log", "truncate", "-s", &url, "--until", &beyond, "--yes"];
    let (code, _, stderr) = br(dir.path(), &args);
    assert_eq!(code, 2);
    assert!(stderr.contains("goes up to"), "{stderr}");
}

#[test]
fn a_lock_that_was_left_behind_is_explained() {
    let dir = dir();
    let log = dir.path().join("log");
    let url = golden_log(&log);
    let lock = r#"{"locked_at":"2026-11-21T10:00:00Z","locker_host":"box","locker_pid":7,"txn_id":"AAECAwQFBgcICQoLDA0ODw==","hint":"x"}"#;
    fs::write(log.join("truncating.lock"), lock).expect("a lock");
    let until = END.to_string();
    let args = ["log", "truncate", "-s", &url, "--until", &until, "--yes"];
    let (code, _, stderr) = br(dir.path(), &args);
    assert_eq!(code, 4, "{stderr}");
    for part in [
        "process 7 on box",
        "2026-11-21T10:00:00Z",
        "delete the object truncating.lock",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn migrations_of_a_compacted_log_are_listed_and_merged() {
    let dir = dir();
    let log = dir.path().join("log");
    let from = "../../tests/golden/tidb-1/log-compacted";
    copy(Path::new(from), &log);
    let url = format!("local://{}", log.display());
    let (code, stdout, stderr) = br(dir.path(), &["operator", "list-migrations", "-s", &url]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("1 compactions"), "{stdout}");
    let args = ["operator", "migrate-to", "-s", &url, "--yes"];
    let (code, _, stderr) = br(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let args = ["operator", "list-migrations", "-s", &url, "--json"];
    let (code, stdout, _) = br(dir.path(), &args);
    assert_eq!(code, 0);
    assert!(stdout.contains("\"layers\":[]"), "{stdout}");
}
