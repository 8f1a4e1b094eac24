//! `kill -9` at each step of a backup, of a restore, of giving one up, and of what is done to a log,
//! then the same command again: the result is what it would have been, and PD is as it was before.
//!
//! Each case names a point (`HOLDFAST_KILL_AT`) and the pass at which the process dies. `make test`
//! takes some of them; `HOLDFAST_KILL_MATRIX=all` takes all, `HOLDFAST_KILL_MATRIX=NAME` those of one
//! point. `HOLDFAST_KILL_SEED` chooses others.

mod log;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{Playground, bad_input::golden, br, dir};

/// Cases of each kind without `HOLDFAST_KILL_MATRIX`.
const SAMPLE: usize = 6;

const RESTORE: &[&str] = &[
    "restore.registered:1",
    "restore.planned:1",
    "restore.protected:1",
    "restore.ts_reset:1",
    "restore.ids_reserved:1",
    "restore.ids_written:1",
    "restore.record:1",
    "restore.paused_scheduler:1",
    "restore.paused_scheduler:2",
    "restore.paused_scheduler:3",
    "restore.paused_pd:1",
    "restore.paused:1",
    "restore.split:1",
    "restore.group_in:1",
    "restore.group_in:7",
    "restore.group_in:19",
    "restore.group:1",
    "restore.group:2",
    "restore.group:10",
    "restore.group:20",
    "restore.progress:1",
    "restore.files:1",
    "restore.checksum:1",
    "restore.checksum:9",
    "restore.checksum:18",
    "restore.unpaused_stores:1",
    "restore.unpaused:1",
    "restore.data:1",
    "restore.schemas_part:1",
    "restore.schemas:1",
    "restore.finished:1",
    "restore.record_removed:1",
    "restore.unregistered:1",
];

/// Steps of a restore that changes tables which are there.
const INCREMENTAL: &[&str] = &[
    "restore.registered:1",
    "restore.ids_written:1",
    "restore.record:1",
    "restore.paused:1",
    "restore.group_in:2",
    "restore.group:4",
    "restore.files:1",
    "restore.data:1",
    "restore.journal:1",
    "restore.schemas_part:1",
    "restore.schemas:1",
    "restore.finished:1",
];

const BACKUP: &[&str] = &[
    "backup.locked:1",
    "backup.protected:1",
    "backup.planned:1",
    "backup.claimed:1",
    "backup.resume_meta:1",
    "backup.piece:1",
    "backup.piece:2",
    "backup.piece:13",
    "backup.piece:30",
    "backup.piece:44",
    "backup.resume_data:1",
    "backup.resume_data:2",
    "backup.meta_object:1",
    "backup.meta_object:2",
    "backup.schema:1",
    "backup.schema:10",
    "backup.schema:20",
    "backup.before_backupmeta:1",
    "backup.backupmeta:1",
    "backup.resume_removing:1",
    "backup.resume_removing:2",
    "backup.resume_closed:1",
    "backup.unprotected:1",
    "backup.unlocked:1",
];

const ABORT: &[&str] = &[
    "abort.tables:1",
    "abort.data:1",
    "abort.pause:1",
    "abort.tables_part:1",
];

/// After these the operation is complete, and says so when it is asked for again.
const COMPLETE: &[&str] = &[
    "restore.record_removed",
    "restore.unregistered",
    "backup.backupmeta",
    "backup.resume_removing",
    "backup.resume_closed",
    "backup.unprotected",
    "backup.unlocked",
];

/// The cases that are wanted, of `all`.
fn cases(all: &'static [&'static str]) -> Vec<&'static str> {
    let wanted = std::env::var("HOLDFAST_KILL_MATRIX").unwrap_or_default();
    let seed: u64 = std::env::var("HOLDFAST_KILL_SEED").map_or(11, |seed| {
        seed.parse().expect("HOLDFAST_KILL_SEED is a number")
    });
    match wanted.as_str() {
        "all" => all.to_vec(),
        "" => {
            // Spread over the steps, each seed at other ones.
            let step = all.len().div_ceil(SAMPLE);
            let first = usize::try_from(seed).expect("a small seed") % step;
            all.iter().copied().skip(first).step_by(step).collect()
        }
        name => all
            .iter()
            .copied()
            .filter(|case| case.starts_with(name))
            .collect(),
    }
}

fn point_of(case: &str) -> &str {
    case.split_once(':').expect("NAME:N").0
}

/// Runs `br` until it dies at the point; panics if it ends otherwise.
fn killed_at(dir: &Path, case: &str, args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_br"))
        .current_dir(dir)
        .env("HOLDFAST_KILL_AT", case)
        .args(args)
        .args(["--log-file", &dir.join("killed.log").to_string_lossy()])
        .stdout(Stdio::null())
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code().is_none() && stderr.contains("killed at"),
        "{case}: {} {stderr}",
        output.status
    );
}

/// What PD holds: schedulers that are paused, settings, label rules, GC barriers.
fn state(playground: &Playground) -> BTreeMap<&'static str, String> {
    let safe_points = playground.ask_pd("/pd/api/v1/gc/safepoint");
    let safe_points: serde_json::Value = serde_json::from_str(&safe_points).expect("JSON");
    BTreeMap::from([
        (
            "paused schedulers",
            playground.ask_pd("/pd/api/v1/schedulers?status=paused"),
        ),
        ("settings", playground.ask_pd("/pd/api/v1/config/schedule")),
        (
            "label rules",
            playground.ask_pd("/pd/api/v1/config/region-label/rules"),
        ),
        (
            "barriers",
            safe_points["service_gc_safe_points"].to_string(),
        ),
    ])
}

/// Waits until PD is as it was: what a killed process left lapses with its lease.
#[allow(clippy::disallowed_methods, reason = "processes live in real time")]
fn check_state(case: &str, playground: &Playground, before: &BTreeMap<&'static str, String>) {
    // Leases of the cases are 5 s.
    for _ in 0..100 {
        if state(playground) == *before {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(state(playground), *before, "{case}: PD is not as before");
}

/// Every row of a backup, by file.
fn rows(dir: &Path, backup: &str, out: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    rows_with(dir, backup, out, &["-f", "*.*", "-f", "!mysql.*"])
}

/// Rows of a backup, by file, with more arguments of the export.
fn rows_with(dir: &Path, backup: &str, out: &str, more: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let export = ["export", "-s", backup, "-o", out];
    let (code, _, stderr) = br(dir, &[&export[..], more].concat());
    assert_eq!(code, 0, "{stderr}");
    let mut rows = BTreeMap::new();
    let mut folders = vec![dir.join(out)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir.join(out)).expect("below it");
                rows.insert(name.to_owned(), fs::read(&path).expect("a file"));
            }
        }
    }
    fs::remove_dir_all(dir.join(out)).expect("removed");
    rows
}

#[test]
fn restores_that_are_killed_go_on() {
    let full = format!("local://{}", golden("full").display());
    let base = dir();
    let expected = rows(base.path(), &full, "expected");
    assert!(expected.len() > 10, "{:?}", expected.keys());
    for case in cases(RESTORE) {
        let dir = dir();
        let dir = dir.path();
        let playground = Playground::start(dir);
        let before = state(&playground);
        let restore = [
            "restore",
            "full",
            "-u",
            &playground.pd,
            "-s",
            &full,
            // Many groups of files.
            "--merge-region-key-count",
            "3000",
            "--pause-lease",
            "5s",
            "--checksum",
        ];
        // So that progress is written down before the end.
        let slowly = [&restore[..], &["--ratelimit", "1"]].concat();
        let is_slow = point_of(case) == "restore.progress";
        killed_at(dir, case, if is_slow { &slowly } else { &restore });
        let (code, _, stderr) = br(dir, &restore);
        if COMPLETE.contains(&point_of(case)) {
            assert_eq!(code, 4, "{case}: {stderr}");
            assert!(stderr.contains("is not fresh"), "{case}: {stderr}");
        } else {
            assert_eq!(code, 0, "{case}: {stderr}");
        }
        check_state(case, &playground, &before);
        let again = [
            "backup",
            "full",
            "-u",
            &playground.pd,
            "-s",
            "local://again",
        ];
        let (code, _, stderr) = br(dir, &again);
        assert_eq!(code, 0, "{case}: {stderr}");
        let found = rows(dir, "local://again", "found");
        assert!(found == expected, "{case}: other rows than in the backup");
    }
}

#[test]
fn incremental_restores_that_are_killed_go_on() {
    let full = format!("local://{}", golden("full").display());
    let incremental = format!("local://{}", golden("incremental").display());
    let base = dir();
    let filter = ["-f", "*.*", "-f", "!mysql.*"];
    let both = [&filter[..], &["--incremental", &incremental]].concat();
    let expected = rows_with(base.path(), &full, "expected", &both);
    assert!(expected.len() > 10, "{:?}", expected.keys());
    for case in cases(INCREMENTAL) {
        let dir = dir();
        let dir = dir.path();
        let playground = Playground::start(dir);
        let pd = playground.pd.as_str();
        let before = state(&playground);
        let restore = |of| ["restore", "full", "-u", pd, "-s", of, "--pause-lease", "5s"];
        let (code, _, stderr) = br(dir, &restore(&full));
        assert_eq!(code, 0, "{stderr}");
        let more = ["--merge-region-key-count", "500"];
        let restore = [&restore(&incremental)[..], &more].concat();
        killed_at(dir, case, &restore);
        let (code, _, stderr) = br(dir, &restore);
        assert_eq!(code, 0, "{case}: {stderr}");
        check_state(case, &playground, &before);
        let again = ["backup", "full", "-u", pd, "-s", "local://again"];
        let (code, _, stderr) = br(dir, &again);
        assert_eq!(code, 0, "{case}: {stderr}");
        let found = rows(dir, "local://again", "found");
        assert!(found == expected, "{case}: other rows than in the backups");
        let (code, _, stderr) = br(dir, &["abort", "restore", "full", "-u", pd]);
        assert_eq!(code, 2, "{case}: {stderr}");
        assert!(!stderr.contains("there is:"), "{case}: {stderr}");
    }
}

#[test]
fn backups_that_are_killed_go_on() {
    let dir = dir();
    let dir = dir.path();
    let full = format!("local://{}", golden("full").display());
    let expected = rows(dir, &full, "expected");
    let playground = Playground::start(dir);
    let pd = playground.pd.as_str();
    let before = state(&playground);
    let (code, _, stderr) = br(
        dir,
        &[
            "restore",
            "full",
            "-u",
            pd,
            "-s",
            &full,
            "--merge-region-key-count",
            "3000",
        ],
    );
    assert_eq!(code, 0, "{stderr}");
    for case in cases(BACKUP) {
        let name = format!("backup-{}", case.replace(':', "-"));
        let place = format!("local://{name}");
        let backup = [
            "backup",
            "full",
            "-u",
            pd,
            "-s",
            &place,
            "--gcttl",
            "5",
            "--checksum",
        ];
        let slowly = [
            &backup[..],
            &["--ratelimit", "256", "--ratelimit-unit", "1024"],
        ]
        .concat();
        let is_slow = point_of(case) == "backup.resume_data";
        killed_at(dir, case, if is_slow { &slowly } else { &backup });
        let (code, stdout, stderr) = br(dir, &[&backup[..], &["--json"]].concat());
        if COMPLETE.contains(&point_of(case)) {
            assert_eq!(code, 4, "{case}: {stderr}");
            assert!(stderr.contains("backupmeta exists"), "{case}: {stderr}");
        } else {
            assert_eq!(code, 0, "{case}: {stderr}");
        }
        if is_slow {
            let done: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
            assert!(done["resumed_pieces"].as_u64() > Some(0), "{case}: {done}");
        }
        assert!(!dir.join(&name).join("checkpoints").exists(), "{case}");
        check_state(case, &playground, &before);
        let found = rows(dir, &place, "found");
        assert!(found == expected, "{case}: other rows than in the cluster");
    }
}

#[test]
fn restores_are_given_up_whenever() {
    let full = format!("local://{}", golden("full").display());
    for case in cases(ABORT) {
        let dir = dir();
        let dir = dir.path();
        let playground = Playground::start(dir);
        let before = state(&playground);
        let restore = ["restore", "full", "-u", &playground.pd, "-s", &full];
        let with_lease = [&restore[..], &["--pause-lease", "5s"]].concat();
        // Some have visible tables by then, others only data.
        let at = match point_of(case) {
            "abort.tables_part" => "restore.schemas_part:1",
            _ => "restore.files:1",
        };
        killed_at(dir, at, &with_lease);
        let abort = ["abort", "restore", "full", "-u", &playground.pd];
        killed_at(dir, case, &abort);
        let (code, stdout, stderr) = br(dir, &abort);
        assert_eq!(code, 0, "{case}: {stderr}");
        assert!(stdout.contains("is given up"), "{case}: {stdout}");
        let (code, _, stderr) = br(dir, &abort);
        assert_eq!(code, 2, "{case}: {stderr}");
        assert!(
            stderr.contains("no interrupted restore"),
            "{case}: {stderr}"
        );
        check_state(case, &playground, &before);
        // Nothing is in the way, and no key is left: a transactional restore wants none.
        let (code, stdout, stderr) = br(
            dir,
            &[
                "backup",
                "txn",
                "-u",
                &playground.pd,
                "-s",
                "local://left",
                "--json",
            ],
        );
        assert_eq!(code, 0, "{case}: {stderr}");
        let left: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        // TiDB's meta keys are left: the counters of ids and of the schema version.
        assert!(left["kvs"].as_u64() < Some(100), "{case}: {left}");
        let (code, _, stderr) = br(dir, &restore);
        assert_eq!(code, 0, "{case}: {stderr}");
    }
}

/// Without another run, what a killed process changed in PD lapses with its leases.
#[test]
fn leases_of_the_killed_lapse() {
    let full = format!("local://{}", golden("full").display());
    let dir = dir();
    let dir = dir.path();
    let playground = Playground::start(dir);
    let pd = playground.pd.as_str();
    let before = state(&playground);
    let restore = [
        "restore",
        "full",
        "-u",
        pd,
        "-s",
        &full,
        "--pause-lease",
        "5s",
    ];
    killed_at(dir, "restore.files:1", &restore);
    assert_ne!(state(&playground), before, "something is paused");
    check_state("restore.files", &playground, &before);
    let (code, _, stderr) = br(dir, &restore);
    assert_eq!(code, 0, "{stderr}");
    let backup = [
        "backup",
        "full",
        "-u",
        pd,
        "-s",
        "local://backup",
        "--gcttl",
        "5",
    ];
    killed_at(dir, "backup.piece:3", &backup);
    assert_ne!(state(&playground), before, "a barrier stands");
    check_state("backup.piece", &playground, &before);
}
