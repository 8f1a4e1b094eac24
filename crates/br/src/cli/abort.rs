//! `br abort`: what was interrupted and is not to go on.

use std::sync::Arc;

use br_cluster::KeyPrefix;
use br_log::restore::forget_ids;
use br_snapshot::{
    backup::{self, BackupContext},
    restore::{self, RestoreOptions},
};
use br_storage::Storage;
use clap::{Args, Subcommand};

use super::{
    common_flags::CommonFlags,
    global_flags::GlobalFlags,
    restore::{What as Restored, progress_storage},
    session::Session,
    storage_flags::{CloudFlags, Holds},
};
use crate::{edge::Outcome, summary};

/// `br abort`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct AbortCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Give up a restore: drop its tables, remove its data. Takes the options that it had; --storage
    /// only if there are several, and of a restore to a point to remove what it kept in the log's.
    Restore(Box<AbortRestore>),
    /// Give up a backup: remove its files, let garbage collection go on.
    Backup(Box<AbortBackup>),
}

#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct AbortRestore {
    /// The --checkpoint-storage of the restore.
    #[arg(
        long,
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    checkpoint_storage: String,
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    cloud: CloudFlags,
    #[command(subcommand)]
    what: Restored,
}

#[derive(Args)]
struct AbortBackup {
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cloud: CloudFlags,
}

impl AbortCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        match &self.what {
            What::Restore(command) => Box::pin(command.run(global, session)).await,
            What::Backup(command) => Box::pin(command.run(global, session)).await,
        }
    }
}

impl AbortRestore {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let options = RestoreOptions {
            crypter: self.common.crypter.crypter()?,
            filter_rules: self.what.filter_rules(),
            progress_storage: progress_storage(
                global,
                session,
                &self.cloud,
                &self.checkpoint_storage,
            )
            .await?,
            to_point: matches!(self.what, Restored::Point(_)),
            ..RestoreOptions::new(self.what.scope()?)
        };
        let storage = match global.storage.url() {
            "" => None,
            _ => {
                let holds = match &self.what {
                    Restored::Point(_) => Holds::Log,
                    _ => Holds::Backup,
                };
                let backend = global.storage.backend(&self.cloud, holds)?;
                Some(Storage::open(&session.rt, &backend).await?)
            }
        };
        // What --storage names is the log then.
        let (backup, log) = match &self.what {
            Restored::Point(point) => {
                let full = point.full_backup(global, session, &self.cloud).await?;
                (full.map(|(_, storage)| storage), storage)
            }
            _ => (storage, None),
        };
        let cluster = global.cluster.connect(session).await?;
        let done = restore::abort(&cluster, &options, backup.as_ref()).await?;
        if let (Some(log), Some(point)) = (&log, &done.point) {
            forget_ids(log, &cluster, point.restored_ts, &done.ids).await?;
        }
        summary::aborted_restore(&done, self.common.json);
        Ok(())
    }
}

impl AbortBackup {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        let context = BackupContext {
            storage: Storage::open(&session.rt, &backend).await?,
            cluster: global.cluster.connect(session).await?,
            key_prefix: KeyPrefix::default(),
            backend,
            progress: Arc::clone(session.display.progress()),
        };
        let done = backup::abort(&context).await?;
        summary::aborted_backup(&done, self.json);
        Ok(())
    }
}
