//! `br restore point` and `br log compact`.

use super::*;

/// Official flags of `restore point`, with their defaults.
const OFFICIAL: &[(&str, &str)] = &[
    ("full-backup-storage", ""),
    ("start-ts", ""),
    ("restored-ts", ""),
    ("pitr-add-index-sql-storage", ""),
    ("pitr-batch-count", "8"),
    ("pitr-batch-size", "16777216"),
    ("pitr-concurrency", "16"),
    ("retain-latest-mvcc-version", "false"),
    ("metadata-download-batch-size", "128"),
    ("log.crypter.method", "plaintext"),
    ("log.crypter.key", ""),
    ("log.crypter.key-file", ""),
    ("case-sensitive", "false"),
    ("storage", ""),
    ("crypter.method", "plaintext"),
    ("checksum", "false"),
    ("online", "false"),
    ("tikv-max-restore-concurrency", "128"),
];

#[test]
fn official_flags_are_known_with_their_defaults() {
    let mut tree = command();
    tree.build();
    let restore = tree.find_subcommand("restore").unwrap();
    let point = restore.find_subcommand("point").unwrap();
    for (flag, default) in OFFICIAL {
        let arg = find(point, flag).unwrap_or_else(|| panic!("no --{flag}"));
        let found = arg.get_default_values().first();
        let found = found.map(|value| value.to_string_lossy().into_owned());
        assert_eq!(found.unwrap_or_default(), *default, "--{flag}");
    }
}

#[test]
fn a_line_of_the_official_tool_parses() {
    for line in [
        "br restore point -s local:///log --full-backup-storage local:///full --restored-ts 5",
        "br restore point -u a:1 -s s3://b/log --start-ts 4 -f shop.* --log.crypter.method aes256-ctr",
        "br log compact -s local:///log --from 1 --until 2 -n c --shard 1/2 --cal-shift-ts -N 8",
    ] {
        assert_eq!(refused(line), None, "{line}");
    }
    let error = refused("br restore point -s local:///log --restore-phase 1").unwrap();
    assert!(error.contains("--restore-phase"), "{error}");
}
