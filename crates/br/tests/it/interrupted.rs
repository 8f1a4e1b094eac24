//! Ctrl-C in the middle: exit code 130, nothing that looks complete, nothing left paused, and the same
//! command goes on.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{Playground, bad_input::golden, br, dir};

/// From then on a backup can be resumed.
const META: &str = "checkpoints/backup/checkpoint.meta";

/// Starts `br` and sends SIGINT when `when` is true; the exit code.
#[allow(clippy::disallowed_methods, reason = "processes live in real time")]
fn interrupt(dir: &Path, args: &[&str], when: impl Fn() -> bool) -> Option<i32> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_br"))
        .current_dir(dir)
        .args(args)
        .args(["--log-file", &dir.join("interrupted.log").to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    while !when() {
        let ended = process.try_wait().expect("a process");
        assert_eq!(ended, None, "{args:?} ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = process.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status();
    assert!(sent.expect("kill runs").success());
    process.wait().expect("it ends").code()
}

fn rules(playground: &Playground) -> String {
    let rules = playground.ask_pd("/pd/api/v1/config/region-label/rules");
    rules.trim().to_owned()
}

fn guards(playground: &Playground) -> usize {
    let answer = playground.ask_pd("/pd/api/v1/gc/safepoint");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let guards = answer["service_gc_safe_points"].as_array();
    guards.map_or(0, Vec::len)
}

#[test]
fn ctrl_c_leaves_nothing_paused() {
    let dir = dir();
    let dir = dir.path();
    let playground = Playground::start(dir);
    let pd = playground.pd.as_str();
    let full = format!("local://{}", golden("full").display());
    let schedule = playground.ask_pd("/pd/api/v1/config/schedule");
    let (no_rules, no_guards) = (rules(&playground), guards(&playground));

    // 1 MiB/s makes it last for seconds.
    let restore = ["restore", "db", "--db", "shop", "-u", pd, "-s", &full];
    let slowly = [&restore[..], &["--ratelimit", "1"]].concat();
    let code = interrupt(dir, &slowly, || rules(&playground) != no_rules);
    assert_eq!(code, Some(130));
    assert_eq!(rules(&playground), no_rules);
    assert_eq!(playground.ask_pd("/pd/api/v1/config/schedule"), schedule);
    assert_eq!(guards(&playground), no_guards);
    // Nothing of it is in the way.
    let (code, _, stderr) = br(dir, &restore);
    assert_eq!(code, 0, "{stderr}");

    let backup = [
        "backup",
        "full",
        "-u",
        pd,
        "-s",
        "local://backup",
        "--ratelimit",
        "1",
    ];
    let code = interrupt(dir, &backup, || dir.join(format!("backup/{META}")).exists());
    assert_eq!(code, Some(130));
    // For whoever goes on, the data stays.
    assert_eq!(guards(&playground), no_guards + 1);
    assert_eq!(rules(&playground), no_rules);
    assert!(!dir.join("backup/backupmeta").exists());
    let restore = ["restore", "full", "-u", pd, "-s", "local://backup"];
    let (code, _, stderr) = br(dir, &restore);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("no finished backup"), "{stderr}");
    let (code, _, stderr) = br(dir, &backup);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(guards(&playground), no_guards);
    assert!(dir.join("backup/backupmeta").exists());
}

/// Starts `br`, to be killed.
fn start(dir: &Path, args: &[&str]) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_br"))
        .current_dir(dir)
        .args(args)
        .args(["--log-file", &dir.join("started.log").to_string_lossy()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

#[allow(clippy::disallowed_methods, reason = "processes live in real time")]
fn wait_until(process: &mut std::process::Child, when: impl Fn() -> bool) {
    while !when() {
        let ended = process.try_wait().expect("a process");
        assert_eq!(ended, None, "it ended too early");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(mut process: std::process::Child) {
    process.kill().expect("it runs");
    process.wait().expect("it ends");
}

/// `br` is refused with exit code 4, and its sentence has all of these.
fn is_refused(dir: &Path, args: &[&str], said: &[&str]) {
    let (code, _, stderr) = br(dir, args);
    assert_eq!(code, 4, "{args:?}: {stderr}");
    for said in said {
        assert!(stderr.contains(said), "{args:?}: {said}: {stderr}");
    }
}

#[test]
fn one_at_a_time_and_the_same_options() {
    let dir = dir();
    let dir = dir.path();
    let playground = Playground::start(dir);
    let pd = playground.pd.as_str();
    let full = format!("local://{}", golden("full").display());
    let no_rules = rules(&playground);
    let slow = ["--ratelimit", "1"];

    let shop = ["restore", "db", "--db", "shop", "-u", pd, "-s", &full];
    let mut process = start(dir, &[&shop[..], &slow].concat());
    wait_until(&mut process, || rules(&playground) != no_rules);
    let id = process.id().to_string();
    is_refused(dir, &shop, &["is running on the cluster since 20", &id]);
    kill(process);
    // Others may have their part; this one may not.
    let orders = ["restore", "table", "--db", "shop", "--table", "orders"];
    let orders = [&orders[..], &["-u", pd, "-s", &full]].concat();
    let said = "an interrupted DataBase Restore, begun at";
    is_refused(dir, &orders, &[said, "shop.orders", "br abort restore"]);
    let bank = ["restore", "db", "--db", "bank", "-u", pd, "-s", &full];
    let (code, _, stderr) = br(dir, &bank);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = br(dir, &[&shop[..], &["--checksum", "--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let done: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert!(done["checked_tables"].as_u64() > Some(0), "{done}");

    let backup = ["backup", "full", "-u", pd, "-s", "local://backup"];
    let mut process = start(dir, &[&backup[..], &slow].concat());
    wait_until(&mut process, || dir.join("backup").join(META).exists());
    let id = process.id().to_string();
    is_refused(dir, &backup, &["is running since 20", &id]);
    kill(process);
    let other = [&backup[..], &["-f", "shop.*"]].concat();
    is_refused(dir, &other, &["--filter was *.*, and is shop.* now"]);
    let other = [&backup[..], &["--use-checkpoint=false"]].concat();
    is_refused(dir, &other, &["an interrupted backup"]);
    let (code, stdout, stderr) = br(dir, &["abort", "backup", "-u", pd, "-s", "local://backup"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("is given up"), "{stdout}");
    let left = std::fs::read_dir(dir.join("backup")).expect("a directory");
    let left: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    // Folders of stores may be left.
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().contains("backup")),
        "{left:?}"
    );
    let (code, _, stderr) = br(dir, &other);
    assert_eq!(code, 0, "{stderr}");
}
