//! Official commands and flags that are not built yet: they parse, and are refused by name.
//!
//! A flag with its default value changes nothing, so scripts that spell defaults out go on.

use clap::{Arg, ArgMatches, Args, Command, parser::ValueSource};

use crate::{
    edge::{CommandError, Outcome},
    value::{Switch, parse_duration},
};

/// An official command that is not built yet, with whatever follows it.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(super) struct NotBuiltCommand {
    /// Everything after the command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// That a command is not built.
pub(super) fn refusal(command: &str) -> CommandError {
    CommandError::unsupported(
        &format!("the command `br {command}`"),
        "use the official tool for it; both read the same files",
    )
}

/// How the value of a flag is compared with the default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Switch,
    /// A switch whose both values are what is done here.
    Inert,
    Text,
    Duration,
}

/// An official flag that is refused unless it has its default value.
struct Flag {
    name: &'static str,
    value: Value,
    default: &'static str,
    /// Commands that take it, with all below them; "" is every command.
    at: &'static [&'static str],
}

const ALL: &[&str] = &[""];
const BOTH: &[&str] = &["backup", "restore"];
/// All but `restore point`, which reads a log.
const NO_LOG: &[&str] = &[
    "backup",
    "restore full",
    "restore db",
    "restore table",
    "restore raw",
    "restore txn",
];
/// The same and those on logs, which read metadata in their own way.
const NO_POINT: &[&str] = &[
    "backup",
    "restore full",
    "restore db",
    "restore table",
    "restore raw",
    "restore txn",
    "log",
];
const RESTORE: &[&str] = &["restore"];
const BACKUP_FULL: &[&str] = &["backup full"];
const RESTORE_FULL: &[&str] = &["restore full"];
const FULL: &[&str] = &["backup full", "restore full"];

const fn flag(
    name: &'static str,
    value: Value,
    default: &'static str,
    at: &'static [&'static str],
) -> Flag {
    Flag {
        name,
        value,
        default,
        at,
    }
}

const FLAGS: &[Flag] = &[
    flag("status-addr", Value::Text, "", ALL),
    flag("enable-opentracing", Value::Switch, "false", ALL),
    flag("slow-log-file", Value::Text, "", ALL),
    flag("grpc-keepalive-time", Value::Duration, "10s", ALL),
    flag("grpc-keepalive-timeout", Value::Duration, "3s", ALL),
    flag("metadata-download-batch-size", Value::Text, "128", NO_POINT),
    flag("no-credentials", Value::Switch, "false", ALL),
    flag("skip-check-path", Value::Switch, "false", ALL),
    flag("log.crypter.method", Value::Text, "plaintext", NO_LOG),
    flag("log.crypter.key", Value::Text, "", NO_LOG),
    flag("log.crypter.key-file", Value::Text, "", NO_LOG),
    flag("master-key", Value::Text, "", NO_LOG),
    flag(
        "master-key-crypter-method",
        Value::Text,
        "plaintext",
        NO_LOG,
    ),
    flag("keyspace-name", Value::Text, "", BOTH),
    // It has had no effect in the official tool for long: any value is taken.
    flag("remove-tiflash", Value::Inert, "true", BOTH),
    flag("switch-mode-interval", Value::Duration, "5m", &["backup"]),
    // Its limit is on what a meta file holds before it is split; ours have their own.
    flag("range-limit", Value::Text, "30000000", &["backup"]),
    flag("remove-schedulers", Value::Switch, "false", &["backup"]),
    flag("start-version", Value::Text, "0", &["backup txn"]),
    flag("type", Value::Text, "kv", FULL),
    flag("skip-aws", Value::Switch, "false", FULL),
    flag("cloud-api-concurrency", Value::Text, "8", FULL),
    flag("progress-file", Value::Text, "progress.txt", FULL),
    flag(
        "operator-paused-gc-and-scheduler",
        Value::Switch,
        "false",
        BACKUP_FULL,
    ),
    flag("volume-file", Value::Text, "./backup.json", BACKUP_FULL),
    flag(
        "allow-pitr-from-incremental",
        Value::Switch,
        "true",
        RESTORE,
    ),
    flag("coarse-scatter", Value::Switch, "false", RESTORE),
    // Rows are always written one by one: what the official tool does with `false`.
    flag("fast-load-sys-tables", Value::Inert, "true", RESTORE),
    flag("granularity", Value::Text, "coarse-grained", RESTORE),
    flag("region-scan-concurrency", Value::Text, "256", RESTORE),
    flag("restore-phase", Value::Text, "0", RESTORE),
    flag("sys-check-collation", Value::Switch, "false", RESTORE),
    flag("txn-total-size-limit", Value::Text, "0", RESTORE),
    flag("wait-tiflash-ready", Value::Switch, "false", RESTORE),
    flag("batch-flush-interval", Value::Duration, "16s", RESTORE),
    flag("ddl-batch-size", Value::Text, "128", RESTORE),
    flag("no-schema", Value::Switch, "false", RESTORE),
    flag("pd-concurrency", Value::Text, "1", RESTORE),
    flag("reset-sys-users", Value::Text, "cloud_admin,root", RESTORE),
    flag("split-region-index-step", Value::Text, "128", RESTORE),
    flag("stats-concurrency", Value::Text, "12", RESTORE),
    flag("use-fsr", Value::Switch, "false", RESTORE),
    flag("output-file", Value::Text, "output.json", RESTORE_FULL),
    flag("prepare", Value::Switch, "false", RESTORE_FULL),
    flag("target-az", Value::Text, "", RESTORE_FULL),
    flag("volume-encrypted", Value::Switch, "false", RESTORE_FULL),
    flag("volume-iops", Value::Text, "0", RESTORE_FULL),
    flag("volume-throughput", Value::Text, "0", RESTORE_FULL),
    flag("volume-type", Value::Text, "gp3", RESTORE_FULL),
];

/// Adds the flags to the tree.
pub(super) fn add_flags(command: Command) -> Command {
    add_below(command, "")
}

fn add_below(command: Command, path: &str) -> Command {
    let mine = FLAGS.iter().filter(|flag| flag.at.contains(&path));
    let command = command.args(mine.map(|flag| flag.arg(path)));
    let is_leaf = command.get_subcommands().next().is_none();
    if is_leaf {
        return command;
    }
    command.mut_subcommands(|below| {
        let path = match path {
            "" => below.get_name().to_owned(),
            path => format!("{path} {}", below.get_name()),
        };
        add_below(below, &path)
    })
}

impl Flag {
    fn arg(&self, path: &str) -> Arg {
        let arg = Arg::new(self.name)
            .long(self.name)
            .help("Not supported yet")
            .hide(true)
            .global(path.split(' ').count() == 1);
        match self.value {
            Value::Switch | Value::Inert => arg.value_parser(clap::value_parser!(Switch)),
            Value::Text | Value::Duration => arg.allow_hyphen_values(true),
        }
    }

    /// Whether the value changes nothing.
    fn is_default(&self, matches: &ArgMatches) -> bool {
        match self.value {
            Value::Inert => true,
            Value::Switch => {
                let value = matches.get_one::<Switch>(self.name).copied();
                value.is_none_or(|value| self.default.parse() == Ok(value))
            }
            Value::Text => {
                let value = matches.get_one::<String>(self.name);
                value.is_none_or(|value| value == self.default)
            }
            Value::Duration => {
                let value = matches.get_one::<String>(self.name);
                value.is_none_or(|value| parse_duration(value) == parse_duration(self.default))
            }
        }
    }
}

/// Refuses the flags of this module that have another value than their default.
pub(super) fn refuse_flags(matches: &ArgMatches) -> Outcome {
    let mut leaf = matches;
    while let Some((_, below)) = leaf.subcommand() {
        leaf = below;
    }
    for flag in FLAGS {
        // Asking for a flag that the command does not have is no error here.
        let given = leaf.try_contains_id(flag.name).unwrap_or(false)
            && leaf.value_source(flag.name) == Some(ValueSource::CommandLine);
        if given && !flag.is_default(leaf) {
            return Err(CommandError::unsupported(
                &format!("the flag --{}", flag.name),
                "leave it out, or use the official tool",
            ));
        }
    }
    Ok(())
}

/// The default of a flag of this module that a command takes.
#[cfg(test)]
pub(super) fn default_of(path: &str, name: &str) -> Option<&'static str> {
    let takes = |at: &str| at.is_empty() || path == at || path.starts_with(&format!("{at} "));
    let flag = FLAGS
        .iter()
        .find(|flag| flag.name == name && flag.at.iter().any(|at| takes(at)))?;
    Some(flag.default)
}
