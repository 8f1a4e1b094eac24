//! Ctrl-C in the middle: exit code 130, nothing that looks complete, nothing left paused.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{Playground, bad_input::golden, br, dir};

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
    let code = interrupt(dir, &backup, || guards(&playground) > no_guards);
    assert_eq!(code, Some(130));
    assert_eq!(guards(&playground), no_guards);
    assert_eq!(rules(&playground), no_rules);
    assert!(!dir.join("backup/backupmeta").exists());
    let restore = ["restore", "full", "-u", pd, "-s", "local://backup"];
    let (code, _, stderr) = br(dir, &restore);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("no finished backup"), "{stderr}");
}
