//! The command as its users see it: output, messages, exit codes.

mod bad_input;
mod credentials;
mod interrupted;
mod kill_matrix;
mod log_storage;
mod playground;
mod sealed;
mod storages;
mod tls;
mod verify;

use std::path::Path;

use assert_cmd::Command;
use playground::Playground;

/// Runs `br` with a log file in `dir`; exit code, stdout, stderr.
fn br(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("br")
        .expect("the binary")
        .current_dir(dir)
        .env_remove("BR_LOG_TO_TERM")
        .env("TZ", "UTC")
        .args(args)
        .args(["--log-file", &dir.join("br.log").to_string_lossy()])
        .output()
        .expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code().expect("an exit code"),
        text(output.stdout),
        text(output.stderr),
    )
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn wrong_use_ends_with_2_and_one_sentence() {
    let dir = dir();
    for (args, said) in [
        (&["backup", "full"][..], "no external storage is given"),
        (&["backup", "full", "-s", "ftp://x/y"], "ftp://"),
        (&["backup", "full", "-s", "hdfs://x/y"], "HDFS"),
        (&["backup", "full", "-s", "s3:///prefix"], "names no bucket"),
        (
            &["backup", "full", "-s", "local:///x", "--backupts", "soon"],
            "--backupts \"soon\"",
        ),
        (
            &["backup", "full", "-s", "local:///x", "--concurrency", "300"],
            "300",
        ),
        (&["backup", "db", "-s", "local:///x"], "--db is missing"),
        (
            &["backup", "table", "-s", "local:///x", "--db", "a"],
            "--table is missing",
        ),
        (&["backup", "full", "-s", "local:///x", "-f", "a.["], "a.["),
        (
            &[
                "backup",
                "raw",
                "-s",
                "local:///x",
                "--start",
                "61",
                "--end",
                "60",
            ],
            "range",
        ),
        (
            &[
                "backup",
                "full",
                "-s",
                "local:///x",
                "--crypter.method",
                "aes128-ctr",
            ],
            "needs a key",
        ),
        (
            &["backup", "full", "-s", "local:///x", "--cert", "a"],
            "--cert",
        ),
        (
            &["backup", "full", "-L", "loud", "-s", "local:///x"],
            "loud",
        ),
        (&["restore", "full", "-s", "none-here"], "NotFound"),
        (&["export", "-s", "none-here", "-o", "out"], "NotFound"),
        (
            &["log", "start", "-s", "local:///x"],
            "--task-name is missing",
        ),
        (
            &["log", "start", "--task-name", "a/b", "-s", "local:///x"],
            "is no name of a task",
        ),
        (
            &["log", "start", "--task-name", "a", "--start-ts", "soon"],
            "--start-ts \"soon\"",
        ),
        (&["log", "start", "--task-name", "a"], "no external storage"),
        (&["log", "stop"], "--task-name is missing"),
        (
            &["log", "truncate", "-s", "none-here"],
            "--until is missing",
        ),
        (
            &["log", "truncate", "-s", "none-here", "--until", "5"],
            "NotFound",
        ),
        (&["log", "metadata", "-s", "none-here"], "NotFound"),
        (
            &["log", "advancer", "--ownership-cycle-interval", "5s"],
            "--ownership-cycle-interval",
        ),
    ] {
        let (code, stdout, stderr) = br(dir.path(), args);
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert_eq!(stdout, "", "{args:?}");
        let error = stderr
            .lines()
            .find(|line| line.starts_with("Error: "))
            .unwrap_or_default();
        assert!(
            error.contains(said) && error.contains("[BR:"),
            "{args:?}: {stderr}"
        );
    }
    // Nothing was made by those that failed before they began.
    assert!(!Path::new("/x").exists());
}

#[test]
fn unknown_flags_and_commands_end_with_2() {
    let dir = dir();
    for args in [&["backup", "full", "--what"][..], &["bakcup"], &["backup"]] {
        assert_eq!(br(dir.path(), args).0, 2, "{args:?}");
    }
}

#[test]
fn official_commands_that_are_not_built_say_so() {
    for args in [
        &["operator", "base64ify"][..],
        &["debug", "checksum"],
        &["validate", "checksum"],
    ] {
        let output = Command::cargo_bin("br")
            .expect("the binary")
            .args(args)
            .output();
        let output = output.expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains("is not supported yet"),
            "{args:?}: {stderr}"
        );
        assert!(
            stderr.contains("[BR:Common:ErrUnsupportedOperation]"),
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn version_and_completion_are_data() {
    let dir = dir();
    for flag in ["-V", "--version"] {
        let (code, stdout, _) = br(dir.path(), &[flag]);
        assert_eq!(code, 0);
        assert!(stdout.starts_with("Release Version: v"), "{stdout}");
    }
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let (code, stdout, stderr) = br(dir.path(), &["completion", shell]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("playground"), "{shell}");
    }
}

#[test]
fn the_log_goes_to_its_file_and_secrets_do_not() {
    let dir = dir();
    let url = "s3://bucket/p?access-key=AAAA&secret-access-key=BBBB&role-arn=x&what=CCCC";
    let (code, _, stderr) = br(dir.path(), &["export", "-s", url, "-o", "out"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.starts_with("Detail BR log in "), "{stderr}");
    let log = std::fs::read_to_string(dir.path().join("br.log")).expect("a log");
    assert!(
        log.contains("[WARN]") && log.contains("[setting=what]"),
        "{log}"
    );
    assert!(log.contains("[ERROR]"), "{log}");
    for secret in ["AAAA", "BBBB", "CCCC"] {
        assert!(
            !log.contains(secret) && !stderr.contains(secret),
            "{secret}: {log}{stderr}"
        );
    }
}

#[test]
fn a_cluster_is_run_backed_up_and_stopped() {
    let dir = dir();
    let playground = Playground::start(dir.path());
    let pd = playground.pd.clone();

    let backup = ["backup", "txn", "-u", &pd, "-s", "local://backup"];
    let (code, plan, stderr) = br(dir.path(), &[&backup[..], &["--dry-run"]].concat());
    assert_eq!((code, plan.is_empty()), (0, false), "{stderr}");
    assert!(
        !dir.path().join("backup").exists(),
        "a plan changes nothing"
    );
    let (code, stdout, stderr) = br(dir.path(), &backup);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stdout.contains("[\"Txn Backup success summary\"] [total-ranges="),
        "{stdout}"
    );
    let log = std::fs::read_to_string(dir.path().join("br.log")).expect("a log");
    assert!(
        log.contains("] [\"Txn Backup success summary\"] [total-ranges="),
        "{log}"
    );

    // The same place again: somebody's backup is there.
    let (code, _, stderr) = br(dir.path(), &backup);
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("backupmeta exists"), "{stderr}");

    let restore = ["restore", "full", "-u", &pd, "-s", "local://backup/nothing"];
    assert_eq!(br(dir.path(), &restore).0, 2);
    std::fs::create_dir(dir.path().join("empty")).expect("a directory");
    let restore = ["restore", "full", "-u", &pd, "-s", "local://empty"];
    let (code, _, stderr) = br(dir.path(), &restore);
    assert!(code == 2 || code == 3, "{code}: {stderr}");
    assert!(stderr.contains("backupmeta"), "{stderr}");

    assert_eq!(playground.stop(), Some(0));
}

#[test]
fn a_cluster_out_of_reach_ends_with_5() {
    let dir = dir();
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let pd = free.local_addr().expect("an address").to_string();
    drop(free);
    let (code, _, stderr) = br(
        dir.path(),
        &["backup", "txn", "-u", &pd, "-s", "local://backup"],
    );
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("[BR:"), "{stderr}");
}
