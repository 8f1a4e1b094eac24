//! `kill -9` at each step of what is done with a log: restores to a point, truncation, compaction.
//!
//! The log in this repository is whole up to a point only; with the one that `HOLDFAST_GOLDEN` names
//! all of it is restored, in many parts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    COMPLETE, Playground, br, cases, check_state, dir, golden, killed_at, point_of, rows_with,
    state,
};

/// Steps that a log of any size has.
const POINT: &[&str] = &[
    "lock.intent:1",
    "lock.taken:1",
    "point.opened:1",
    "restore.registered:1",
    "restore.planned:1",
    "restore.protected:1",
    "restore.ids_written:1",
    "restore.record:1",
    "restore.paused:1",
    "restore.group:5",
    "restore.files:1",
    "restore.compared:1",
    "point.sorted:1",
    "point.cut:1",
    "point.split:1",
    "point.piece:1",
    "point.part_in:1",
    "point.part:1",
    "point.log:1",
    "point.indexes:1",
    "point.complete:1",
    "restore.unpaused:1",
    "restore.data:1",
    "restore.schemas_part:1",
    "restore.schemas:1",
    "restore.finished:1",
    "restore.record_removed:1",
    "restore.unregistered:1",
];

/// Steps of a log that has many parts.
const POINT_OF_MANY: &[&str] = &[
    "point.piece:7",
    "point.part_in:4",
    "point.part:3",
    "point.part:6",
];

/// Steps of a restore that goes on from an earlier one.
const POINT_ON_EARLIER: &[&str] = &[
    "point.opened:1",
    "restore.ids_written:1",
    "restore.record:1",
    "point.cut:1",
    "point.part:2",
    "point.complete:1",
    "restore.data:1",
    "restore.journal:1",
    "restore.schemas_part:1",
    "restore.schemas:1",
    "restore.finished:1",
];

const APPLY: &[&str] = &["point.applied:1", "point.applied:2", "point.log:1"];

const POINT_ABORT: &[&str] = &[
    "restore.record:1",
    "point.part:1",
    "point.complete:1",
    "restore.schemas_part:1",
    "restore.finished:1",
];

const TRUNCATE: &[&str] = &[
    "lock.intent:1",
    "lock.taken:1",
    "lock.intent:2",
    "truncate.locked:1",
    "truncate.safe_point:1",
    "truncate.blocklists:1",
    "truncate.migrations:1",
    "truncate.empty:1",
    "truncate.object:1",
    "truncate.object:3",
    "truncate.meta:1",
    "truncate.meta:2",
    "truncate.done:1",
];

const TRUNCATE_COMPACTED: &[&str] = &[
    "migrate.base:1",
    "migrate.layer:1",
    "migrate.carried_out:1",
    "truncate.migrations:1",
];

const COMPACT: &[&str] = &[
    "lock.intent:1",
    "compact.locked:1",
    "compact.folder:1",
    "compact.sst:1",
    "compact.sst:3",
    "compact.ssts:1",
    "compact.index:1",
    "compact.prepared:1",
    "lock.taken:3",
    "compact.migration:1",
    "compact.unmarked:1",
];

/// Tables of users.
const FILTER: &[&str] = &[
    "-f",
    "*.*",
    "-f",
    "!mysql.*",
    "-f",
    "!sys.*",
    "-f",
    "!test.*",
    "-f",
    "!workload_schema.*",
];

/// Up to where the log of this repository is whole, and where all of it ends.
const WHOLE_UNTIL: &str = "470613957874548736";
const END: &str = "470613990642548738";

/// A log with its full backup, and a point that can be restored.
struct Golden {
    full: String,
    log: PathBuf,
    compacted: PathBuf,
    at: &'static str,
    is_all: bool,
}

impl Golden {
    fn find() -> Golden {
        let beside = Path::new("../../../shared/golden").to_owned();
        let all = std::env::var_os("HOLDFAST_GOLDEN").map_or(beside, PathBuf::from);
        let all = all.join("tidb-1").canonicalize().ok();
        let folder = |name: &str| match &all {
            Some(all) => all.join(name),
            None => golden(name),
        };
        Golden {
            full: format!("local://{}", golden("full").display()),
            log: folder("log"),
            compacted: folder("log-compacted"),
            at: if all.is_some() { END } else { WHOLE_UNTIL },
            is_all: all.is_some(),
        }
    }

    /// Rows at the point, read without a cluster.
    fn rows(&self, dir: &Path, log: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let at = ["--log-storage", log, "--at", self.at];
        rows_with(dir, &self.full, "expected", &[FILTER, &at].concat())
    }
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

/// The names of all files below a folder.
fn names(below: &Path) -> Vec<String> {
    contents(below).into_keys().collect()
}

fn contents(below: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(below).expect("below it");
            let content = fs::read(&path).expect("a file");
            found.insert(name.to_string_lossy().into_owned(), content);
        }
    }
    found
}

/// Locks, and scratch folders.
fn left_behind(names: &[String]) -> Vec<&String> {
    let parts = [
        "LOCK",
        "INTENT",
        "truncating.lock",
        "PREPARED",
        "br-scratch",
    ];
    let is_left = |name: &&String| parts.iter().any(|part| name.contains(part));
    names.iter().filter(is_left).collect()
}

/// A cluster, a log of its own, and the arguments of the restore.
struct Place {
    dir: tempfile::TempDir,
    playground: Playground,
    log: String,
    scratch: String,
}

impl Place {
    fn new(golden: &Golden) -> Place {
        let dir = dir();
        let log = dir.path().join("log");
        copy(&golden.log, &log);
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).expect("a folder");
        Place {
            playground: Playground::start(dir.path()),
            log: format!("local://{}", log.display()),
            scratch: scratch.to_string_lossy().into_owned(),
            dir,
        }
    }

    fn restore<'a>(&'a self, golden: &'a Golden, more: &[&'a str]) -> Vec<&'a str> {
        let args = [
            "restore",
            "point",
            "-u",
            &self.playground.pd,
            "-s",
            &self.log,
            "--full-backup-storage",
            &golden.full,
            "--restored-ts",
            golden.at,
            "--pause-lease",
            "5s",
            "--checksum",
            // Many groups of files, and many parts of the log.
            "--merge-region-key-count",
            "3000",
            "--merge-region-size-bytes",
            "200000",
            "--pitr-sort-memory",
            "1",
            "--pitr-temp-dir",
            &self.scratch,
        ];
        [&args[..], more].concat()
    }

    /// Compares the rows in the cluster.
    fn check_rows(&self, case: &str, expected: &BTreeMap<PathBuf, Vec<u8>>) {
        let (dir, pd) = (self.dir.path(), self.playground.pd.as_str());
        let again = ["backup", "full", "-u", pd, "-s", "local://again"];
        let (code, _, stderr) = br(dir, &again);
        assert_eq!(code, 0, "{case}: {stderr}");
        let found = rows_with(dir, "local://again", "found", FILTER);
        let of =
            |rows: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> { rows.keys().cloned().collect() };
        assert_eq!(of(&found), of(expected), "{case}: other files");
        assert!(found == *expected, "{case}: other rows than in the log");
    }

    fn check_nothing_left(&self, case: &str) {
        let names = names(self.dir.path());
        assert_eq!(left_behind(&names), Vec::<&String>::new(), "{case}");
        let abort = ["abort", "restore", "point", "-u", &self.playground.pd];
        let (code, _, stderr) = br(self.dir.path(), &abort);
        assert_eq!(code, 2, "{case}: {stderr}");
        assert!(!stderr.contains("there is:"), "{case}: {stderr}");
    }
}

fn killed_and_again(
    case: &str,
    golden: &Golden,
    expected: &BTreeMap<PathBuf, Vec<u8>>,
    more: &[&str],
) {
    let place = Place::new(golden);
    let dir = place.dir.path();
    let before = state(&place.playground);
    let restore = place.restore(golden, more);
    killed_at(dir, case, &restore);
    let (code, stdout, stderr) = br(dir, &[&restore[..], &["--json"]].concat());
    if COMPLETE.contains(&point_of(case)) {
        assert_eq!(code, 4, "{case}: {stderr}");
        assert!(stderr.contains("is not fresh"), "{case}: {stderr}");
    } else {
        assert_eq!(code, 0, "{case}: {stderr}");
        if point_of(case) == "restore.data" {
            let done: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
            assert_eq!(done["log_files_read"].as_u64(), Some(0), "{case}: {done}");
        }
    }
    check_state(case, &place.playground, &before);
    place.check_rows(case, expected);
    place.check_nothing_left(case);
    let maps = names(&dir.join("log/pitr_id_maps"));
    assert_eq!(maps.len(), 1, "{case}: {maps:?}");
}

#[test]
fn restores_to_a_point_that_are_killed_go_on() {
    let golden = Golden::find();
    let base = dir();
    let log = format!("local://{}", golden.log.display());
    let expected = golden.rows(base.path(), &log);
    assert!(expected.len() > 10, "{:?}", expected.keys());
    for case in cases(POINT) {
        killed_and_again(case, &golden, &expected, &[]);
    }
    if golden.is_all {
        for case in cases(POINT_OF_MANY) {
            killed_and_again(case, &golden, &expected, &[]);
        }
    }
    for case in cases(APPLY) {
        killed_and_again(case, &golden, &expected, &["--pitr-apply"]);
    }
}

/// From one point to another, which has tables that were altered, renamed, made and dropped.
#[test]
fn restores_that_go_on_from_a_point_and_are_killed_go_on() {
    let golden = Golden::find();
    if !golden.is_all {
        return;
    }
    let base = dir();
    let log = format!("local://{}", golden.log.display());
    let expected = golden.rows(base.path(), &log);
    let middle = Golden {
        at: "470613970000000000",
        ..Golden::find()
    };
    for case in cases(POINT_ON_EARLIER) {
        let place = Place::new(&golden);
        let dir = place.dir.path();
        let before = state(&place.playground);
        let (code, _, stderr) = br(dir, &place.restore(&middle, &[]));
        assert_eq!(code, 0, "{case}: {stderr}");
        let restore: Vec<&str> = place
            .restore(&golden, &[])
            .into_iter()
            .map(|arg| match arg {
                "--full-backup-storage" => "--start-ts",
                arg if arg == golden.full => middle.at,
                arg => arg,
            })
            .filter(|arg| *arg != "--checksum")
            .collect();
        killed_at(dir, case, &restore);
        let (code, _, stderr) = br(dir, &restore);
        assert_eq!(code, 0, "{case}: {stderr}");
        check_state(case, &place.playground, &before);
        place.check_rows(case, &expected);
        place.check_nothing_left(case);
        let maps = names(&dir.join("log/pitr_id_maps"));
        assert_eq!(maps.len(), 2, "{case}: {maps:?}");
    }
}

#[test]
fn restores_to_a_point_are_given_up_whenever() {
    let golden = Golden::find();
    let base = dir();
    let log = format!("local://{}", golden.log.display());
    let expected = golden.rows(base.path(), &log);
    for case in cases(POINT_ABORT) {
        let place = Place::new(&golden);
        let (dir, pd) = (place.dir.path(), place.playground.pd.as_str());
        let before = state(&place.playground);
        let restore = place.restore(&golden, &[]);
        killed_at(dir, case, &restore);
        // Another point is another restore, and the message says so.
        let mut other = restore.clone();
        for arg in &mut other {
            if *arg == golden.at {
                *arg = "470613955000000000";
            }
        }
        let (code, _, stderr) = br(dir, &other);
        assert_eq!(code, 4, "{case}: {stderr}");
        let said = format!("--restored-ts {}, not 470613955000000000", golden.at);
        assert!(stderr.contains(&said), "{case}: {stderr}");
        let abort = ["abort", "restore", "point", "-u", pd, "-s", &place.log];
        let (code, stdout, stderr) = br(dir, &abort);
        assert_eq!(code, 0, "{case}: {stderr}");
        assert!(stdout.contains("is given up"), "{case}: {stdout}");
        check_state(case, &place.playground, &before);
        place.check_nothing_left_but_lock(case);
        let backup = ["backup", "txn", "-u", pd, "-s", "local://left", "--json"];
        let (code, stdout, stderr) = br(dir, &backup);
        assert_eq!(code, 0, "{case}: {stderr}");
        let left: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        // TiDB's meta keys are left: the counters of ids and of the schema version.
        assert!(left["kvs"].as_u64() < Some(100), "{case}: {left}");
        let (code, _, stderr) = br(dir, &restore);
        assert_eq!(code, 0, "{case}: {stderr}");
        place.check_rows(case, &expected);
        place.check_nothing_left(case);
    }
}

impl Place {
    /// The ids that it kept are gone; the lock on the log goes with its next user.
    fn check_nothing_left_but_lock(&self, case: &str) {
        let maps = self.dir.path().join("log/pitr_id_maps");
        if maps.exists() {
            assert_eq!(names(&maps), Vec::<String>::new(), "{case}");
        }
    }
}

/// What a log is after a command that nobody killed, and after one that was.
fn compare_with_unkilled(case: &str, golden_log: &[&Path], args: &[&str]) {
    let run = |is_killed: bool| {
        let dir = dir();
        let log = dir.path().join("log");
        for from in golden_log {
            copy(from, &log);
        }
        let url = format!("local://{}", log.display());
        let args = [args, &["-s", &url]].concat();
        if is_killed {
            killed_at(dir.path(), case, &args);
        }
        let (code, _, stderr) = br(dir.path(), &args);
        assert_eq!(code, 0, "{case}: {stderr}");
        contents(&log)
    };
    let (killed, expected) = (run(true), run(false));
    let names = |of: &BTreeMap<String, Vec<u8>>| -> Vec<String> { of.keys().cloned().collect() };
    assert_eq!(names(&killed), names(&expected), "{case}");
    for (name, content) in &killed {
        assert!(expected.get(name) == Some(content), "{case}: {name}");
    }
}

#[test]
fn truncations_that_are_killed_go_on() {
    let golden = Golden::find();
    let until = "470613970000000000";
    let truncate = ["log", "truncate", "--until", until, "--yes"];
    for case in cases(TRUNCATE) {
        compare_with_unkilled(case, &[&golden.log], &truncate);
    }
    let clean = [&truncate[..], &["--clean-up-compactions"]].concat();
    for case in cases(TRUNCATE_COMPACTED) {
        compare_with_unkilled(case, &[&golden.log, &golden.compacted], &clean);
    }
}

#[test]
fn compactions_that_are_killed_go_on() {
    let golden = Golden::find();
    let base = dir();
    let log = format!("local://{}", golden.log.display());
    let expected = golden.rows(base.path(), &log);
    for case in cases(COMPACT) {
        let run = |is_killed: bool| {
            let dir = dir();
            let log = dir.path().join("log");
            copy(&golden.log, &log);
            let url = format!("local://{}", log.display());
            let compact = [
                "log",
                "compact",
                "-s",
                &url,
                "--until",
                golden.at,
                "--minimal-compaction-size",
                "0",
                "-N",
                "1",
            ];
            if is_killed {
                killed_at(dir.path(), case, &compact);
                let found = golden.rows(dir.path(), &url);
                assert!(found == expected, "{case}: other rows after the kill");
            }
            let (code, _, stderr) = br(dir.path(), &compact);
            assert_eq!(code, 0, "{case}: {stderr}");
            let found = golden.rows(dir.path(), &url);
            assert!(found == expected, "{case}: other rows");
            names(&log)
        };
        let (killed, unkilled) = (run(true), run(false));
        assert_eq!(left_behind(&killed), Vec::<&String>::new(), "{case}");
        for kind in [".sst", ".cmeta", ".mgrt"] {
            let of = |names: &[String]| names.iter().filter(|name| name.ends_with(kind)).count();
            assert!(of(&unkilled) > 0, "{kind}");
            assert_eq!(of(&killed), of(&unkilled), "{case}: {kind}");
        }
        assert_eq!(killed.len(), unkilled.len(), "{case}");
    }
}
