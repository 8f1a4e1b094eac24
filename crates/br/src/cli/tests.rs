use clap::Arg;

use super::*;
use crate::value::parse_duration;

mod log_backup;
mod official;
mod point;

/// Flags whose default differs on purpose: without a value the stores' own is taken.
const OTHER_DEFAULT: [&str; 2] = ["merge-region-size-bytes", "merge-region-key-count"];

/// The leaf commands of backup and restore.
fn leaves() -> Vec<(String, Command)> {
    let mut tree = command();
    tree.build();
    let mut leaves = Vec::new();
    for family in ["backup", "restore"] {
        for below in tree.find_subcommand(family).unwrap().get_subcommands() {
            let path = format!("{family} {}", below.get_name());
            if !["help", "point"].contains(&below.get_name()) {
                leaves.push((path, below.clone()));
            }
        }
    }
    assert_eq!(leaves.len(), 10);
    leaves
}

fn find<'c>(command: &'c Command, flag: &str) -> Option<&'c Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(flag))
}

fn is_at(path: &str, at: &[&str]) -> bool {
    at.iter()
        .any(|at| at.is_empty() || path == *at || path.starts_with(&format!("{at} ")))
}

#[test]
fn the_tree_is_sound() {
    command().debug_assert();
}

#[test]
fn every_official_flag_is_known_with_its_shorthand_and_default() {
    for (path, leaf) in leaves() {
        for (flag, short, default, hidden, at) in official::OFFICIAL {
            if !is_at(&path, at) {
                continue;
            }
            let arg = find(&leaf, flag).unwrap_or_else(|| panic!("br {path} has no --{flag}"));
            let found = arg.get_short().map(String::from).unwrap_or_default();
            assert_eq!(&found, short, "br {path} --{flag}");
            if *hidden {
                assert!(arg.is_hide_set(), "br {path} --{flag} is shown");
            }
            if !OTHER_DEFAULT.contains(flag) {
                let found = match not_built::default_of(&path, flag) {
                    Some(default) => default.to_owned(),
                    None => arg
                        .get_default_values()
                        .first()
                        .map(|value| value.to_string_lossy().into_owned())
                        .unwrap_or_default(),
                };
                let same = found == *default
                    || matches!((parse_duration(&found), parse_duration(default)), (Ok(a), Ok(b)) if a == b);
                assert!(same, "br {path} --{flag}: {found:?} for {default:?}");
            }
        }
    }
}

#[test]
fn flags_of_other_commands_are_not_taken() {
    for (path, leaf) in leaves() {
        for (flag, _, _, _, at) in official::OFFICIAL {
            let elsewhere = official::OFFICIAL
                .iter()
                .any(|(other, _, _, _, at)| other == flag && is_at(&path, at));
            // The official tool takes keys there in hexadecimal only.
            let is_ours = (path.as_str(), *flag) == ("backup txn", "format");
            if !is_at(&path, at) && !elsewhere && !is_ours {
                assert!(find(&leaf, flag).is_none(), "br {path} takes --{flag}");
            }
        }
    }
}

fn parse(line: &str) -> Result<ArgMatches, clap::Error> {
    command().try_get_matches_from(line.split(' '))
}

fn refused(line: &str) -> Option<String> {
    not_built::refuse_flags(&parse(line).unwrap())
        .err()
        .map(|error| error.to_string())
}

#[test]
fn flags_that_are_not_built_are_refused_by_name_unless_they_change_nothing() {
    for line in [
        "br backup full -s local:///x --switch-mode-interval=300s --enable-opentracing=false",
        "br backup full -s local:///x --remove-tiflash=false --keyspace-name=",
        "br restore db --granularity coarse-grained --load-stats --ddl-batch-size=128",
        "br backup --concurrency 8 full --type kv",
        "br restore full --with-sys-table=false --load-stats=false --fast-load-sys-tables=false",
        "br restore full --with-sys-table",
    ] {
        assert_eq!(refused(line), None, "{line}");
    }
    for (line, flag) in [
        ("br --status-addr :6060 backup full", "--status-addr"),
        (
            "br backup full --enable-opentracing",
            "--enable-opentracing",
        ),
        ("br backup full --type aws-ebs", "--type"),
        ("br backup txn --start-version 5", "--start-version"),
        (
            "br restore full --wait-tiflash-ready",
            "--wait-tiflash-ready",
        ),
    ] {
        let error = refused(line).unwrap_or_else(|| panic!("{line} is taken"));
        assert!(error.contains(flag), "{error}");
        assert!(
            error.ends_with("[BR:Common:ErrUnsupportedOperation]"),
            "{error}"
        );
    }
}

#[test]
fn switches_are_written_as_in_go() {
    assert!(parse("br backup full --checksum").is_ok());
    assert!(parse("br backup full --checksum=False -c=0").is_ok());
    assert!(parse("br backup full --checksum=maybe").is_err());
    // What follows a switch is not its value.
    assert!(parse("br backup --checksum full").is_ok());
}

#[test]
fn commands_have_their_path() {
    assert_eq!(
        path_of(&parse("br -s x backup full").unwrap()),
        "backup full"
    );
    assert_eq!(
        path_of(&parse("br log start --task-name x -s y").unwrap()),
        "log start"
    );
}
