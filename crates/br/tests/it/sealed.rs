//! Sealed storages by whole commands: log, backup, compaction, rotation of keys, restore to a point; and
//! what is said of wrong keys and of changed objects.

use std::{
    fs,
    path::{Path, PathBuf},
};

use test_servers::Moto;

use crate::{
    br, dir,
    playground::Playground,
    storages::{load, log_end, run},
};

/// A master key in a file: its URL.
fn master_key(dir: &Path, name: &str, digits: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("{}\n", digits.repeat(32))).expect("a key");
    format!("local://{}", file.display())
}

/// All files below a folder but keyrings, and their bytes.
fn objects(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if !path.is_dir() {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        } else if !path.ends_with("holdfast.keys") {
            found.extend(objects(&path));
        }
    }
    found.sort();
    found
}

/// Ends with this status, and says this.
fn refused(dir: &Path, args: &[&str], status: i32, said: &str) {
    let (code, stdout, stderr) = br(dir, args);
    assert_eq!(code, status, "{args:?}\n{stdout}\n{stderr}");
    let all = format!("{stdout}\n{stderr}");
    assert!(all.contains(said), "{args:?} does not say {said:?}:\n{all}");
}

/// A cluster with a log and a full backup, and where its log ends.
fn write(dir: &Path, log: &str, full: &str, seal: &[&str]) -> String {
    let cluster = Playground::start(dir);
    let pd = cluster.pd.as_str();
    let start = ["log", "start", "-u", pd, "--task-name", "t", "-s", log];
    run(dir, &[&start, seal].concat());
    load(dir, pd, "before");
    let backup = ["backup", "full", "-u", pd, "-s", full, "--checksum"];
    run(dir, &[&backup, seal].concat());
    let last = load(dir, pd, "after");
    log_end(dir, pd, log, last, seal).to_string()
}

fn restore_to(dir: &Path, log: &str, full: &str, end: &str, seal: &[&str]) {
    let cluster = Playground::start(dir);
    let pd = cluster.pd.as_str();
    let point = [
        "restore",
        "point",
        "-u",
        pd,
        "-s",
        log,
        "--restored-ts",
        end,
    ];
    run(
        dir,
        &[&point, &["--full-backup-storage", full][..], seal].concat(),
    );
    for database in ["before", "after"] {
        let history = dir.join(database);
        let history = history.to_str().expect("a name in UTF-8");
        let check = ["workload", "check", "-u", pd, "--history", history];
        run(dir, &[&check, &["--at", end][..]].concat());
    }
}

#[test]
fn the_main_job() {
    let home = dir();
    let dir = home.path();
    let place = |name: &str| dir.join(name).display().to_string();
    let (log, full) = (&place("log"), &place("full"));
    let (old, new) = (master_key(dir, "old", "5c"), master_key(dir, "new", "c5"));
    let (with_old, with_new) = (["--seal-key", &old], ["--seal-key", &new]);
    let end = write(dir, log, full, &with_old);

    for (path, bytes) in [objects(Path::new(log)), objects(Path::new(full))].concat() {
        assert!(bytes.starts_with(b"\x07sealed\x01"), "{}", path.display());
    }
    let verify = ["verify", "-s", full, "--log-storage", log];
    let show = ["show", "-s", full];
    run(dir, &[&verify[..], &with_old].concat());
    run(dir, &[&show[..], &with_old].concat());
    let compact = ["log", "compact", "-s", log, "--until", &end];
    run(
        dir,
        &[&compact[..], &["--minimal-compaction-size", "0"], &with_old].concat(),
    );
    run(dir, &[&verify[..], &with_old].concat());

    // Without a key and with a wrong one.
    refused(dir, &verify, 2, "--seal-key");
    refused(
        dir,
        &[&verify[..], &with_new].concat(),
        2,
        "another master key",
    );
    let elsewhere = [&["backup", "full", "-s", log, "--dry-run"][..], &with_new].concat();
    refused(dir, &elsewhere, 2, "another master key");

    // Under another master key, and another data key for what is written from now on.
    for storage in [log, full] {
        let rotate = rotate(storage, &new);
        if storage == log {
            // Its task would have to follow, and there is nobody to ask.
            let asked = [&rotate[..], &["-u", "127.0.0.1:1"], &with_old].concat();
            refused(dir, &asked, 5, "--without-cluster");
        }
        let flags = ["--new-data-key", "--without-cluster"];
        let said = run(dir, &[&rotate[..], &flags, &with_old].concat());
        assert!(said.contains("keyring 2 with 2 data keys"), "{said}");
    }
    refused(
        dir,
        &[&verify[..], &with_old].concat(),
        2,
        "another master key",
    );
    run(dir, &[&verify[..], &with_new].concat());
    restore_to(dir, log, full, &end, &with_new);

    damaged(dir, full, &with_new);
}

fn rotate<'a>(storage: &'a str, new: &'a str) -> [&'a str; 6] {
    let command = ["operator", "rotate-seal-keys"];
    [command[0], command[1], "-s", storage, "--new-seal-key", new]
}

/// A log whose keys are rotated while it is written, and whose data keys too: its task follows, and so do
/// its stores. Then all other commands that read or change a log or a backup; raw and transactional
/// backups; and a backup that is given up.
#[test]
fn rotation_under_way_and_the_other_commands() {
    let home = dir();
    let dir = home.path();
    let place = |name: &str| dir.join(name).display().to_string();
    let (log, full) = (&place("log"), &place("full"));
    let (old, new) = (master_key(dir, "old", "5c"), master_key(dir, "new", "c5"));
    let (with_old, with_new) = (["--seal-key", &old], ["--seal-key", &new]);
    let cluster = Playground::start(dir);
    let pd = cluster.pd.as_str();
    let start = ["log", "start", "-u", pd, "--task-name", "t", "-s", log];
    run(dir, &[&start[..], &with_old].concat());
    let before = load(dir, pd, "before");
    log_end(dir, pd, log, before, &with_old);
    let rotate_log = [&rotate(log, &new)[..], &["-u", pd], &with_old].concat();
    let said = run(dir, &rotate_log);
    assert!(said.contains("the task t names them"), "{said}");
    // Once more, as after an interruption: all is done.
    let said = run(dir, &rotate_log);
    assert!(
        said.contains("before") && !said.contains("the task"),
        "{said}"
    );
    let backup = ["backup", "full", "-u", pd, "-s", full];
    run(dir, &[&backup[..], &with_new].concat());
    let after = load(dir, pd, "after");
    let end = log_end(dir, pd, log, after, &with_new).to_string();
    let status = run(dir, &["log", "status", "-u", pd, "--json"]);
    assert!(!status.contains("PAUSE"), "{status}");

    let tables = place("tables");
    let export = ["export", "-s", full, "-f", "before.*", "-o", &tables];
    run(dir, &[&export[..], &with_new].concat());
    let drill = ["drill", "-s", full, "--log-storage", log];
    let said = run(dir, &[&drill[..], &with_new].concat());
    assert!(!said.is_empty());

    raw_and_txn(dir, pd, &with_new);
    given_up(dir, pd, &with_new);

    run(dir, &["log", "stop", "-u", pd, "--task-name", "t"]);
    // A tool without keys copies the checkpoint: neither believed nor in the way.
    let copy = dir.join("log/v1/global_checkpoint/central_global.ts");
    let own = fs::read(&copy).ok();
    fs::write(&copy, u64::MAX.to_le_bytes()).expect("a copy");
    let metadata = ["log", "metadata", "-s", log, "--json"];
    let said = run(dir, &[&metadata[..], &with_new].concat());
    assert!(!said.contains(&u64::MAX.to_string()), "{said}");
    let verify = ["verify", "-s", full, "--log-storage", log];
    let said = run(dir, &[&verify[..], &with_new].concat());
    assert!(said.contains("not believed"), "{said}");
    match own {
        Some(own) => fs::write(&copy, own),
        None => fs::remove_file(&copy),
    }
    .expect("as it was");

    let truncate = ["log", "truncate", "-s", log, "--until", &end, "--yes"];
    run(dir, &[&truncate[..], &with_new].concat());
    run(dir, &[&["verify", "-s", full][..], &with_new].concat());
    for (path, bytes) in objects(Path::new(log)) {
        assert!(bytes.starts_with(b"\x07sealed\x01"), "{}", path.display());
    }
}

fn raw_and_txn(dir: &Path, pd: &str, seal: &[&str]) {
    for kind in ["txn", "raw"] {
        let place = dir.join(kind);
        let url = place.display().to_string();
        let backup = ["backup", kind, "-u", pd, "-s", &url];
        run(dir, &[&backup[..], seal].concat());
        for (path, bytes) in objects(&place) {
            assert!(bytes.starts_with(b"\x07sealed\x01"), "{}", path.display());
        }
        refused(
            dir,
            &["restore", kind, "-u", pd, "-s", &url],
            2,
            "--seal-key",
        );
        run(dir, &[&["verify", "-s", &url][..], seal].concat());
    }
}

/// Nothing is left of a place that was to become a backup.
fn given_up(dir: &Path, pd: &str, seal: &[&str]) {
    let place = dir.join("given-up");
    let url = place.display().to_string();
    let backup = [&["backup", "full", "-u", pd, "-s", &url][..], seal].concat();
    let mut command = assert_cmd::Command::cargo_bin("br").expect("the binary");
    let killed = command
        .current_dir(dir)
        .env("HOLDFAST_KILL_AT", "backup.before_backupmeta")
        .args(&backup)
        .args(["--log-file", "br.log"])
        .output()
        .expect("it runs");
    assert!(!killed.status.success());
    assert!(place.join("holdfast.keys").exists());
    run(
        dir,
        &[&["abort", "backup", "-u", pd, "-s", &url][..], seal].concat(),
    );
    let left: Vec<_> = fs::read_dir(&place).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    // It is as free as any other.
    run(dir, &["backup", "full", "-u", pd, "-s", &url]);
}

/// Two data files change places; then one loses its end.
fn damaged(dir: &Path, full: &str, seal: &[&str]) {
    let mut files = objects(Path::new(full));
    files.retain(|(path, _)| path.extension().is_some_and(|end| end == "sst"));
    let (first, last) = (&files[0], &files[files.len() - 1]);
    let states: [&[(&Path, &[u8])]; 2] = [
        &[(&first.0, &last.1), (&last.0, &first.1)],
        &[
            (&first.0, &first.1),
            (&last.0, &last.1[..last.1.len() - 20]),
        ],
    ];
    let cluster = Playground::start(dir);
    for state in states {
        for (path, bytes) in state {
            fs::write(path, bytes).expect("written");
        }
        refused(
            dir,
            &[&["verify", "-s", full][..], seal].concat(),
            3,
            "DAMAGED",
        );
        let restore = ["restore", "full", "-u", &cluster.pd, "-s", full];
        refused(dir, &[&restore[..], seal].concat(), 3, "[BR:");
    }
}

/// On a server of S3, under a key of the key management service whose credentials the stores get.
#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn under_a_key_of_the_service() {
    let server = Moto::start();
    server.create_bucket("bucket-1");
    let home = dir();
    let dir = home.path();
    let endpoint = server.endpoint();
    let full = format!(
        "s3://bucket-1/full?endpoint={endpoint}&access-key=k&secret-access-key=secret-of-the-test"
    );
    let key = format!(
        "aws-kms:///{}?REGION=us-east-1&ENDPOINT={endpoint}&AWS_ACCESS_KEY_ID=kms-id\
         &AWS_SECRET_ACCESS_KEY=kms-secret-of-the-test",
        server.create_kms_key(),
    );
    let seal = ["--seal-key", &key];
    let mut said = String::new();
    let first = Playground::start(dir);
    let ts = load(dir, &first.pd, "rows").to_string();
    let backup = ["backup", "full", "-u", &first.pd, "-s", &full];
    said += &run(dir, &[&backup[..], &seal].concat());
    // Its credentials would lie in etcd.
    let start = [
        "log",
        "start",
        "-u",
        &first.pd,
        "--task-name",
        "t",
        "-s",
        &full,
    ];
    refused(dir, &[&start[..], &seal].concat(), 2, "etcd");
    drop(first);
    said += &run(dir, &[&["verify", "-s", &full][..], &seal].concat());
    let second = Playground::start(dir);
    let restore = ["restore", "full", "-u", &second.pd, "-s", &full];
    said += &run(dir, &[&restore[..], &seal].concat());
    let history = dir.join("rows");
    let history = history.to_str().expect("a name in UTF-8");
    let check = ["workload", "check", "-u", &second.pd, "--history", history];
    said += &run(dir, &[&check[..], &["--at", &ts]].concat());
    drop(second);
    for log in ["br.log", "playground.log"] {
        said += &fs::read_to_string(dir.join(log)).expect("a log");
    }
    for secret in ["kms-secret-of-the-test", "secret-of-the-test"] {
        assert!(!said.contains(secret), "a secret in output or logs");
    }
}
