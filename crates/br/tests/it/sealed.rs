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
        let rotate = [
            "operator",
            "rotate-seal-keys",
            "-s",
            storage,
            "--new-seal-key",
            &new,
        ];
        let said = run(dir, &[&rotate[..], &["--new-data-key"], &with_old].concat());
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
