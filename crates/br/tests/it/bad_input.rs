//! Damaged, wrong and missing input: one sentence, its exit code, and nothing left behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Playground, br, dir};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new("../../tests/golden/tidb-1")
        .join(name)
        .canonicalize()
        .expect("golden data")
}

/// A copy of a golden backup, for damaging it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let bytes = fs::read(entry.path()).expect("a file");
            fs::write(target, bytes).expect("a copy");
        }
    }
}

/// The largest file below a folder whose name ends so.
fn largest(folder: &Path, ending: &str) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    let mut found: Option<(u64, PathBuf)> = None;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            let size = fs::metadata(&path).expect("a file").len();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending)
                && found.as_ref().is_none_or(|(most, _)| size > *most)
            {
                found = Some((size, path));
            }
        }
    }
    found.expect("such a file").1
}

fn flip_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// What is paused or guarded in the cluster, as PD tells it.
fn traces(playground: &Playground) -> String {
    let safe_points = playground.ask_pd("/pd/api/v1/gc/safepoint");
    let safe_points: serde_json::Value = serde_json::from_str(&safe_points).expect("JSON");
    format!(
        "{} {} {}",
        playground
            .ask_pd("/pd/api/v1/config/region-label/rules")
            .trim(),
        safe_points["service_gc_safe_points"],
        playground.ask_pd("/pd/api/v1/config/schedule"),
    )
}

/// Arguments of the command, its exit code, and what its sentence says.
type Case<'a> = (&'a [&'a str], i32, &'a str);

fn check(dir: &Path, playground: &Playground, cases: &[Case<'_>]) {
    let before = traces(playground);
    for (args, code, said) in cases {
        let args = [&args[..], &["-u", &playground.pd]].concat();
        let (found, stdout, stderr) = br(dir, &args);
        assert_eq!(found, *code, "{args:?}: {stdout}{stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("Error: "));
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
        let error = errors.concat();
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(
            error.ends_with(']') && error.contains("[BR:"),
            "{args:?}: {error}"
        );
        assert_eq!(traces(playground), before, "{args:?}");
    }
}

#[test]
fn backups_that_cannot_be_restored() {
    let dir = dir();
    let dir = dir.path();
    let playground = Playground::start(dir);
    fs::create_dir(dir.join("empty")).expect("a directory");
    let full = golden("full");
    for name in ["short", "meta-bit", "sst-bit", "sst-short", "gone"] {
        copy(&full, &dir.join(name));
    }
    let meta = fs::read(dir.join("short/backupmeta")).expect("a file");
    fs::write(dir.join("short/backupmeta"), &meta[..meta.len() / 2]).expect("written");
    flip_bit(&largest(&dir.join("meta-bit"), ".schema.000000002"), 5000);
    flip_bit(&largest(&dir.join("sst-bit"), ".sst"), 3000);
    let sst = largest(&dir.join("sst-short"), ".sst");
    let bytes = fs::read(&sst).expect("a file");
    fs::write(&sst, &bytes[..bytes.len() - 10]).expect("written");
    fs::remove_file(largest(&dir.join("gone"), ".sst")).expect("removed");

    let url = |path: PathBuf| format!("local://{}", path.display());
    let (full, incremental) = (url(full), url(golden("incremental")));
    let (encrypted, txn) = (url(golden("db-aes256")), url(golden("txn")));
    let wrong_key = "00".repeat(32);
    let restore_full = ["restore", "full", "-s"];
    let case = |place: &'static str| [&restore_full[..], &[place]].concat();
    let wrong_key = [
        "restore",
        "db",
        "--db",
        "shop",
        "-s",
        &encrypted,
        "--crypter.method",
        "aes256-ctr",
        "--crypter.key",
        &wrong_key,
    ];
    check(
        dir,
        &playground,
        &[
            (&case("local://empty"), 2, "no backupmeta"),
            (&case("local://short"), 3, "backupmeta is damaged"),
            (&case("local://meta-bit"), 3, "its SHA-256 is"),
            (&case("local://sst-bit"), 3, "corrupted"),
            (&case("local://sst-short"), 3, "could not fetch"),
            (&case("local://gone"), 3, "NotFound"),
            (
                &["restore", "full", "-s", &encrypted],
                2,
                "is encrypted, and no key was given",
            ),
            (&wrong_key, 2, "cannot be decrypted with this key"),
            (&["restore", "txn", "-s", &full], 2, "Use `br restore full`"),
            (&["restore", "full", "-s", &txn], 2, "Use `br restore txn`"),
            (
                &["restore", "full", "-s", &incremental],
                2,
                "Restore the full backup",
            ),
            (
                &[
                    "restore", "table", "--db", "shop", "--table", "none", "-s", &full,
                ],
                2,
                "no table shop.none",
            ),
        ],
    );
    // What failed half-way is neither visible nor in the way.
    let (code, _, stderr) = br(
        dir,
        &[
            "restore",
            "full",
            "-s",
            &full,
            "-u",
            &playground.pd,
            "--checksum",
        ],
    );
    assert_eq!(code, 0, "{stderr}");
    check(
        dir,
        &playground,
        &[(&["restore", "full", "-s", &full], 4, "is not fresh")],
    );
}

#[test]
fn backups_that_cannot_be_made() {
    let dir = dir();
    let dir = dir.path();
    let playground = Playground::start(dir);
    check(
        dir,
        &playground,
        &[
            (
                &["backup", "full", "-s", "local://a"],
                2,
                "nothing to back up",
            ),
            (
                &["backup", "db", "--db", "none", "-s", "local://b"],
                2,
                "no database none",
            ),
            (
                &[
                    "backup",
                    "txn",
                    "-s",
                    "local://c",
                    "--backupts",
                    "999999999999999999",
                ],
                2,
                "lies in the future",
            ),
            (
                &["backup", "full", "-s", "local://d", "--ignore-stats=false"],
                2,
                "statistics cannot be backed up",
            ),
        ],
    );
    for place in ["a", "b", "c", "d"] {
        let left = fs::read_dir(dir.join(place)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{place} is as empty as before");
    }
}
