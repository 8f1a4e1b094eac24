//! `br log`: tasks of log backup, their log on storage, and their coordinator.

mod advancer;
mod change;
mod compact;
mod start;
mod status;
mod truncate;

use clap::{Args, Subcommand};

use super::{global_flags::GlobalFlags, session::Session};
use crate::edge::{CommandError, Outcome};

/// `br log`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct LogCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Start to back up the log of changes.
    Start(start::StartFlags),
    /// Stop the log backup; what it wrote stays.
    Stop(change::StopFlags),
    /// Pause the log backup.
    Pause(change::PauseFlags),
    /// Let a paused log backup go on.
    Resume(change::ResumeFlags),
    /// Show how log backup is doing, and what holds it back.
    Status(status::StatusFlags),
    /// Delete the log before a timestamp.
    Truncate(truncate::TruncateFlags),
    /// Turn files of a log into SST files, which restore faster.
    Compact(compact::CompactFlags),
    /// Show which timestamps a log covers.
    Metadata(status::MetadataFlags),
    /// Coordinate log backup, for clusters without TiDB servers.
    Advancer(advancer::AdvancerFlags),
}

impl LogCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        match &self.what {
            What::Start(flags) => Box::pin(flags.run(global, session)).await,
            What::Stop(flags) => flags.run(global, session).await,
            What::Pause(flags) => flags.run(global, session).await,
            What::Resume(flags) => flags.run(global, session).await,
            What::Status(flags) => Box::pin(flags.run(global, session)).await,
            What::Truncate(flags) => Box::pin(flags.run(global, session)).await,
            What::Compact(flags) => Box::pin(flags.run(global, session)).await,
            What::Metadata(flags) => flags.run(global, session).await,
            What::Advancer(flags) => Box::pin(flags.run(global, session)).await,
        }
    }
}

/// `--task-name`.
#[derive(Args)]
struct TaskFlags {
    /// The name of the task.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    task_name: String,
}

impl TaskFlags {
    fn name(&self) -> Outcome<&str> {
        match self.task_name.as_str() {
            "" => Err(CommandError::invalid(
                "--task-name is missing",
                "pass --task-name NAME",
            )),
            name => Ok(name),
        }
    }
}
