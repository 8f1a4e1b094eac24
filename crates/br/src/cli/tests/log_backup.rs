use super::*;

/// A flag of `br log` as the official help has it: name, shorthand, default, hidden, commands.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
);

const TASK: &[&str] = &["advancer", "pause", "resume", "start", "stop"];
const EVERY: &[&str] = &[
    "advancer", "metadata", "pause", "resume", "start", "status", "stop", "truncate",
];

#[rustfmt::skip]
const OFFICIAL: &[Row] = &[
    ("backoff-time", "", "5s", false, &["advancer"]),
    ("case-sensitive", "", "false", true, &["start"]),
    ("check-point-lag-limit", "", "48h0m0s", false, &["advancer"]),
    ("check-requirements", "", "true", false, EVERY),
    ("clean-up-compactions", "", "false", false, &["truncate"]),
    ("dry-run", "", "false", false, &["truncate"]),
    ("end-ts", "", "999999999999999999", true, &["start"]),
    ("filter", "f", "*.*", true, &["start"]),
    ("gc-ttl", "", "1800", true, &["start"]),
    ("gc-ttl", "", "86400", false, &["pause"]),
    ("json", "", "false", false, &["status"]),
    ("message", "", "", false, &["pause"]),
    ("metadata-download-batch-size", "", "128", true, EVERY),
    ("ownership-cycle-interval", "", "0s", true, &["advancer"]),
    ("pd", "u", "127.0.0.1:2379", false, EVERY),
    ("s3.region", "", "", false, EVERY),
    ("send-credentials-to-tikv", "c", "true", false, EVERY),
    ("start-ts", "", "", false, &["start"]),
    ("storage", "s", "", false, EVERY),
    ("task-name", "", "", false, TASK),
    ("task-name", "", "*", false, &["status"]),
    ("tick-interval", "", "12s", false, &["advancer"]),
    ("try-advance-threshold", "", "4m0s", false, &["advancer"]),
    ("until", "", "", false, &["truncate"]),
    ("yes", "y", "false", false, &["truncate"]),
];

#[test]
fn flags_of_log_commands_are_the_official_ones() {
    let mut tree = command();
    tree.build();
    let log = tree.find_subcommand("log").unwrap();
    for (flag, short, default, hidden, at) in OFFICIAL {
        for name in *at {
            let leaf = log.find_subcommand(name).unwrap();
            let arg = find(leaf, flag).unwrap_or_else(|| panic!("br log {name} has no --{flag}"));
            let found = arg.get_short().map(String::from).unwrap_or_default();
            assert_eq!(&found, short, "br log {name} --{flag}");
            assert!(
                !hidden || arg.is_hide_set(),
                "br log {name} --{flag} is shown"
            );
            let found = match not_built::default_of(&format!("log {name}"), flag) {
                Some(default) => default.to_owned(),
                None => arg
                    .get_default_values()
                    .first()
                    .map(|value| value.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            };
            let is_same = found == *default
                || matches!((parse_duration(&found), parse_duration(default)), (Ok(a), Ok(b)) if a == b);
            assert!(is_same, "br log {name} --{flag}: {found:?} for {default:?}");
        }
    }
}

#[test]
fn every_log_command_is_read() {
    for line in [
        "br log start --task-name a -s local:///x --log.crypter.method aes128-ctr --key k.pem",
        "br log stop --task-name a",
        "br log pause --task-name a --message x --gc-ttl 5",
        "br log resume --task-name a",
        "br log status --json --explain",
        "br log metadata -s local:///x",
        "br log truncate -s local:///x --until 5 -y --clean-up-compactions --dry-run",
        "br log advancer --tick-interval 3s --check-point-lag-limit 0",
        "br operator force-flush --stores 10.*",
        "br operator unsafe-migrate-to -s local:///x --to 3 -y",
        "br playground --log-coordinator=false",
    ] {
        let matches = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let read = Cli::from_arg_matches(&matches);
        assert!(read.is_ok(), "{line}");
    }
}
