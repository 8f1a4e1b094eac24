//! The main job on servers of S3, Azure and GCS on loopback: log, backup, look, restore to a point.

use std::{fs, path::Path, thread, time::Duration};

use br_rt::Rt;
use br_storage::{Backend, Storage, StorageOptions};
use futures::TryStreamExt;
use test_servers::{Azurite, FakeGcs, Moto};

use crate::{br, dir, playground::Playground};

const BUCKET: &str = "bucket-1";

/// A place on a server.
struct Place<'a> {
    /// Scheme, bucket and the first folder.
    base: String,
    /// What stands behind the question mark.
    settings: String,
    /// What must not be seen anywhere.
    secrets: Vec<&'a str>,
    /// Whether each store has a folder for its files.
    has_folders: bool,
}

impl Place<'_> {
    fn url(&self, folder: &str) -> String {
        format!("{}/{folder}?{}", self.base, self.settings)
    }

    /// Names and contents of all objects.
    fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let url = format!("{}?{}", self.base, self.settings);
            let backend = Backend::parse(&url, &StorageOptions::default()).expect("a backend");
            let storage = Storage::open(&Rt::real(), &backend)
                .await
                .expect("it opens");
            let names: Vec<_> = storage.list("").try_collect().await.expect("a listing");
            let mut objects = Vec::new();
            for entry in names {
                let bytes = storage.read(&entry.name).await.expect("an object");
                objects.push((entry.name, bytes.to_vec()));
            }
            objects
        })
    }
}

/// Runs `br`, which has to succeed; what it said.
pub(crate) fn run(dir: &Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = br(dir, args);
    assert_eq!(code, 0, "{args:?}\n{stdout}\n{stderr}");
    format!("{stdout}\n{stderr}")
}

/// The number of the last such field in lines of JSON.
fn number(text: &str, field: &str) -> u64 {
    let (_, after) = text
        .rsplit_once(&format!("\"{field}\":"))
        .expect("the field");
    let after = after.trim_start_matches([' ', '"']);
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Transactions for two seconds; the timestamp of the last.
pub(crate) fn load(dir: &Path, pd: &str, database: &str) -> u64 {
    let history = dir.join(database);
    let path = history.to_str().expect("a name in UTF-8");
    let args = [
        "workload",
        "run",
        "-u",
        pd,
        "--size",
        "200",
        "--duration",
        "2s",
        "--database",
        database,
        "--history",
        path,
    ];
    run(dir, &args);
    number(
        &fs::read_to_string(&history).expect("a history"),
        "commit_ts",
    )
}

/// Waits until the log has everything up to `until`; its end.
#[expect(clippy::disallowed_methods, reason = "another process is waited for")]
pub(crate) fn log_end(dir: &Path, pd: &str, log: &str, until: u64, flags: &[&str]) -> u64 {
    for _ in 0..120 {
        run(dir, &["operator", "force-flush", "-u", pd]);
        let end = number(
            &run(
                dir,
                &[&["log", "metadata", "-s", log, "--json"], flags].concat(),
            ),
            "log_max_ts",
        );
        if end >= until {
            return end;
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("the log does not get as far as {until}");
}

/// What the main job says, and leaves in logs.
fn main_job(place: &Place<'_>, log_start: &[&str], log_read: &[&str]) -> String {
    let dir = dir();
    let dir = dir.path();
    let (log, full) = (&place.url("log"), &place.url("full"));
    let mut said = String::new();
    let mut run = |args: &[&str]| said += &run(dir, args);
    let first = Playground::start(dir);
    let pd = first.pd.clone();
    let start = ["log", "start", "-u", &pd, "--task-name", "t", "-s", log];
    run(&[&start, log_start].concat());
    load(dir, &pd, "before");
    run(&["backup", "full", "-u", &pd, "-s", full, "--checksum"]);
    let last = load(dir, &pd, "after");
    let end = log_end(dir, &pd, log, last, &[]).to_string();
    drop(first);
    run(&["show", "-s", &place.url("")]);
    run(&[&["verify", "-s", full, "--log-storage", log][..], log_read].concat());

    let second = Playground::start(dir);
    let pd = &second.pd;
    let point = [
        "restore",
        "point",
        "-u",
        pd,
        "-s",
        log,
        "--full-backup-storage",
        full,
        "--restored-ts",
        &end,
    ];
    run(&[&point, log_read].concat());
    for database in ["before", "after"] {
        let history = dir.join(database);
        let history = history.to_str().expect("a name in UTF-8");
        run(&[
            "workload",
            "check",
            "-u",
            pd,
            "--history",
            history,
            "--at",
            &end,
        ]);
    }
    drop(second);
    for log in ["br.log", "playground.log"] {
        said += &fs::read_to_string(dir.join(log)).expect("a log");
    }
    said
}

fn check(place: &Place<'_>) {
    let said = main_job(place, &[], &[]);
    let objects = place.objects();
    let files: Vec<_> = objects
        .iter()
        .filter_map(|(name, _)| name.strip_prefix("full/"))
        .filter(|name| name.ends_with(".sst"))
        .collect();
    assert!(!files.is_empty());
    for name in files {
        assert_eq!(name.contains('/'), place.has_folders, "{name}");
    }
    for secret in &place.secrets {
        assert!(!said.contains(secret), "a secret in output or logs");
        for (name, bytes) in &objects {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "a secret in {name}");
        }
    }
}

#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn s3() {
    let (server, key) = Moto::start_strict(BUCKET);
    check(&Place {
        base: format!("s3://{BUCKET}/a/b"),
        settings: format!(
            "endpoint={}&access-key={}&secret-access-key={}",
            server.endpoint(),
            key.id,
            key.secret.replace('&', "%26")
        ),
        secrets: vec![&key.secret],
        has_folders: true,
    });
}

#[test]
#[cfg_attr(not(azurite), ignore = "needs Azurite: scripts/install-test-servers")]
fn azure() {
    let server = Azurite::start();
    server.create_container(BUCKET);
    let (account, key) = (Azurite::ACCOUNT, Azurite::KEY);
    check(&Place {
        base: format!("azure://{BUCKET}/a/b"),
        settings: format!(
            "endpoint={}&account-name={account}&account-key={key}",
            server.endpoint()
        ),
        secrets: vec![key],
        has_folders: false,
    });
}

#[test]
#[cfg_attr(
    not(fake_gcs),
    ignore = "needs fake-gcs-server: scripts/install-test-servers"
)]
fn gcs() {
    let server = FakeGcs::start();
    server.create_bucket(BUCKET);
    check(&Place {
        base: format!("gcs://{BUCKET}/a/b"),
        settings: format!("endpoint={}", server.endpoint()),
        secrets: Vec::new(),
        has_folders: false,
    });
}

/// Keys under master keys: of a file, and of the key management service.
#[test]
#[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
fn logs_under_master_keys() {
    let server = Moto::start();
    server.create_bucket(BUCKET);
    let keys = dir();
    let file = keys.path().join("master.key");
    fs::write(&file, format!("{}\n", "5c".repeat(32))).expect("a key");
    let of_file = format!("local://{}", file.display());
    let of_service = format!(
        "aws-kms:///{}?REGION=us-east-1&ENDPOINT={}&AWS_ACCESS_KEY_ID=kms-id\
         &AWS_SECRET_ACCESS_KEY=kms-secret-of-the-test",
        server.create_kms_key(),
        server.endpoint()
    );
    for (folder, url) in [("file", &of_file), ("kms", &of_service)] {
        let place = Place {
            base: format!("s3://{BUCKET}/{folder}"),
            settings: format!(
                "endpoint={}&access-key=k&secret-access-key=secret-of-the-test",
                server.endpoint()
            ),
            secrets: vec!["secret-of-the-test", "kms-secret-of-the-test"],
            has_folders: true,
        };
        let flags = [
            "--master-key",
            url,
            "--master-key-crypter-method",
            "aes256-ctr",
        ];
        let said = main_job(&place, &flags, &flags);
        for secret in &place.secrets {
            assert!(!said.contains(secret), "a secret in output or logs");
        }
        refuses_without_the_right_key(&place);
    }
}

/// Said before anything is restored.
fn refuses_without_the_right_key(place: &Place<'_>) {
    let dir = dir();
    let dir = dir.path();
    let wrong = dir.join("wrong.key");
    fs::write(&wrong, format!("{}\n", "c5".repeat(32))).expect("a key");
    let wrong = format!("local://{}", wrong.display());
    let (log, full) = (&place.url("log"), &place.url("full"));
    let playground = Playground::start(dir);
    let point = [
        "restore",
        "point",
        "-u",
        &playground.pd,
        "-s",
        log,
        "--full-backup-storage",
        full,
    ];
    let verify = [
        "verify",
        "-s",
        full,
        "--log-storage",
        log,
        "--depth",
        "checksums",
    ];
    let with_wrong = [
        "--master-key",
        &wrong,
        "--master-key-crypter-method",
        "aes256-ctr",
    ];
    for (flags, expected) in [(&[][..], "master key"), (&with_wrong, "another master key")] {
        for args in [&point[..], &verify[..]] {
            let (code, stdout, stderr) = br(dir, &[args, flags].concat());
            assert_eq!(code, 2, "{stdout}\n{stderr}");
            assert!(stderr.contains(expected), "{stderr}");
        }
    }
    // Nothing of the full backup is there either.
    let args = ["restore", "full", "-u", &playground.pd, "-s", full];
    run(dir, &args);
}
