//! The tree of commands: a file for each family, with its flags, what they are resolved to, and
//! the call of the operation.

mod abort;
mod backup;
mod cluster_flags;
mod common_flags;
mod completion;
mod drill;
mod export;
mod global_flags;
mod keys;
mod log_backup;
mod master_key_flags;
mod not_built;
mod operator;
mod playground;
mod point;
mod restore;
mod session;
mod show;
mod storage_flags;
mod tables;
mod verify;
mod version;
mod workload;

use std::any::TypeId;

use br_types::Kind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    edge::{CommandError, Outcome},
    value::Switch,
};
pub(crate) use session::Session;
pub(crate) use verify::judge;

/// Threads for async work beside the blocking ones: requests are handled, not computed, here.
const STACK_BYTES: usize = 4 << 20;

/// Back up and restore TiKV and TiDB clusters.
#[derive(Parser)]
#[command(
    name = "br",
    disable_version_flag = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: global_flags::GlobalFlags,
    #[command(subcommand)]
    command: Option<Top>,
}

#[derive(Subcommand)]
enum Top {
    /// Back up a cluster, a database, a table, or keys.
    Backup(backup::BackupCommand),
    /// Restore a cluster, a database, a table, or keys from a backup.
    Restore(restore::RestoreCommand),
    /// Back up the log of changes.
    Log(log_backup::LogCommand),
    /// Show the backups and logs of a storage, and the points that can be restored from them.
    Show(show::ShowCommand),
    /// Find out whether a backup and the log on top of it are whole.
    Verify(verify::VerifyCommand),
    /// Rehearse a recovery: restore a random point into a cluster of its own, compare, measure.
    Drill(drill::DrillCommand),
    /// Read tables out of a backup into files, without a cluster.
    Export(export::ExportCommand),
    /// Run a whole cluster in this process until it is stopped.
    Playground(playground::PlaygroundCommand),
    /// Load a cluster with transactions whose outcome is known, and compare.
    Workload(workload::WorkloadCommand),
    /// Write a completion script for a shell.
    Completion(completion::CompletionCommand),
    /// Tools for developers.
    #[command(hide = true, alias = "validate")]
    Debug(not_built::NotBuiltCommand),
    /// Tools for operators.
    Operator(operator::OperatorCommand),
    /// Give up a backup or restore that was interrupted, and undo what it did.
    Abort(abort::AbortCommand),
}

/// The whole tree, with the official flags that are refused.
fn command() -> Command {
    accept_switches(not_built::add_flags(Cli::command()))
}

/// Boolean flags take a value only after `=`, and mean true without one.
fn accept_switches(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if arg.get_value_parser().type_id() != TypeId::of::<Switch>() {
            return arg;
        }
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
    });
    command.mut_subcommands(accept_switches)
}

/// Reads the command line and runs the command.
pub(crate) fn run() -> Outcome {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if cli.global.version {
        version::print();
        return Ok(());
    }
    let Some(top) = cli.command else {
        let error = command().error(
            clap::error::ErrorKind::MissingSubcommand,
            "a command is missing, such as backup or restore",
        );
        error.exit()
    };
    not_built::refuse_flags(&matches)?;
    dispatch(cli.global, top, &path_of(&matches))
}

fn dispatch(global: global_flags::GlobalFlags, top: Top, path: &str) -> Outcome {
    match top {
        Top::Completion(command) => {
            completion::run(&command);
            Ok(())
        }
        Top::Debug(_) => Err(not_built::refusal(path)),
        Top::Abort(command) => {
            let run = async |session: &_| Box::pin(command.run(&global, session)).await;
            block_on(run, &global)
        }
        Top::Backup(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Restore(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Operator(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Log(command) => block_on(async |session| command.run(&global, session).await, &global),
        Top::Export(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Show(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Verify(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Drill(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Workload(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
        Top::Playground(command) => {
            block_on(async |session| command.run(&global, session).await, &global)
        }
    }
}

/// Runs a command on a runtime of its own, with log, signals and progress.
fn block_on(
    run: impl AsyncFnOnce(&Session) -> Outcome,
    global: &global_flags::GlobalFlags,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(|error| CommandError::system("cannot start threads", &error))?;
    let result = runtime.block_on(async {
        let session = Session::start(global)?;
        let result = run(&session).await;
        // Whatever failed because of Ctrl-C failed because of Ctrl-C.
        match result {
            Err(error) if session.cancel.is_cancelled() => Err(CommandError {
                next_step: error.next_step.filter(|_| error.kind == Kind::Cancelled),
                ..CommandError::cancelled()
            }),
            result => result,
        }
    });
    runtime.shutdown_background();
    result
}

/// The names of the commands that were given, such as `backup full`.
fn path_of(matches: &ArgMatches) -> String {
    let mut path = Vec::new();
    let mut current = matches;
    while let Some((name, below)) = current.subcommand() {
        path.push(name);
        current = below;
    }
    path.join(" ")
}

#[cfg(test)]
mod tests;
