//! `br operator`: for those who run clusters. What is here concerns log backup.

use br_cluster::Cluster;
use br_log::{
    Operator, flush_now,
    migrate::{self, MergeUntil},
    read::LogStorage,
    storage_lock::LockRequest,
    task::{Task, name_seal_keys, task_at},
};
use br_storage::{Backend, SealKeys, Storage, rotate_seal_keys};
use br_types::{Code, Kind};
use clap::{Args, Subcommand};
use regex::Regex;

use super::{
    global_flags::GlobalFlags,
    not_built,
    session::Session,
    storage_flags::{CloudFlags, Holds, seal_keys},
};
use crate::{
    edge::{CommandError, Outcome},
    prompt::confirm,
    summary,
    value::Switch,
};

/// `br operator`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct OperatorCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Let stores upload now what they have of the log.
    ForceFlush(ForceFlushFlags),
    /// Show the migrations of a log.
    ListMigrations(ListFlags),
    /// Merge migrations of a log, and delete what they took out of it.
    #[command(alias = "unsafe-migrate-to")]
    MigrateTo(MigrateFlags),
    /// Put a sealed storage under other master keys; nothing is written anew but its keyring.
    RotateSealKeys(Box<RotateFlags>),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Args)]
struct ForceFlushFlags {
    /// Which stores: a regular expression for their addresses.
    #[arg(long, default_value = ".*", value_name = "REGEX")]
    stores: String,
}

#[derive(Args)]
struct ListFlags {
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct MigrateFlags {
    /// Merge all migrations that there are.
    #[arg(long, default_value = "true")]
    recent: Switch,
    /// Merge up to the migration of this number.
    #[arg(long, default_value = "0", hide_default_value = true, value_name = "N")]
    to: u32,
    /// Merge none; carry out only what was merged before.
    #[arg(long, default_value = "false")]
    base: Switch,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
struct RotateFlags {
    /// URLs of the master keys that open the storage from now on, separated by commas; others, those of
    /// --seal-key too, no longer do.
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL")]
    new_seal_key: Vec<String>,
    /// Seal objects from now on under a new data key.
    #[arg(long)]
    new_data_key: bool,
    /// Do not ask the cluster for the task of a log that lies there. A task that runs names the old master
    /// keys then, and its stores cannot open the storage once they are started again.
    #[arg(long)]
    without_cluster: bool,
    #[command(flatten)]
    cloud: CloudFlags,
}

impl OperatorCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        match &self.what {
            What::ForceFlush(flags) => flags.run(global, session).await,
            What::ListMigrations(flags) => flags.run(global, session).await,
            What::MigrateTo(flags) => Box::pin(flags.run(global, session)).await,
            What::RotateSealKeys(flags) => flags.run(global, session).await,
            What::Other(words) => {
                let name = words.first().map_or("", String::as_str);
                Err(not_built::refusal(&format!("operator {name}")))
            }
        }
    }
}

impl ForceFlushFlags {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let stores = Regex::new(&self.stores).map_err(|error| {
            CommandError::invalid(
                format!("--stores is no regular expression: {error}"),
                "pass one for addresses, such as '10\\.0\\..*'",
            )
        })?;
        let cluster = global.cluster.connect(session).await?;
        let flushes = flush_now(&cluster, |address| stores.is_match(address)).await?;
        if flushes.is_empty() {
            return Err(CommandError::invalid(
                "no live store has such an address",
                "see the addresses with `pd-ctl store`",
            ));
        }
        match summary::flushes(&flushes) {
            0 => Ok(()),
            failed => Err(CommandError {
                kind: Kind::Retry,
                code: Code::KV_STORAGE,
                cause: format!("{failed} of {} stores did not flush", flushes.len()),
                next_step: Some("See their logs, then run again".into()),
            }),
        }
    }
}

impl RotateFlags {
    /// The task whose log lies there, if a log does. Asked before anything is changed, as nothing is to be
    /// changed that the task cannot follow.
    async fn task(
        &self,
        global: &GlobalFlags,
        session: &Session,
        backend: &Backend,
        to: &SealKeys,
    ) -> Outcome<Option<(Cluster, Task)>> {
        // After a rotation that was interrupted, either opens it.
        let either = global.storage.seal_keys()?.and(to);
        let storage = Storage::open(&session.rt, &backend.clone().sealed(either)).await?;
        if !LogStorage::new(storage).exists().await? {
            return Ok(None);
        }
        let asked = async {
            let cluster = global.cluster.connect(session).await?;
            let task = task_at(&cluster, backend).await?;
            Outcome::Ok(task.map(|task| (cluster, task)))
        };
        let task = asked.await.map_err(|error| CommandError {
            next_step: Some(
                "A log lies there: pass --pd, so that its task names the new master keys, or \
                 --without-cluster if no task is left"
                    .to_owned(),
            ),
            ..error
        })?;
        if task.is_some() && to.have_credentials() {
            return Err(CommandError::invalid(
                "--new-seal-key has credentials, which would lie in etcd as long as the log runs",
                "give them to this command and to the stores by the environment: \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        Ok(task)
    }

    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        if !backend.is_sealed() {
            return Err(CommandError::invalid(
                "--seal-key is missing",
                "pass the master keys that open the storage now",
            ));
        }
        let to = seal_keys(&self.new_seal_key)?;
        let task = match self.without_cluster {
            true => None,
            false => self.task(global, session, &backend, &to).await?,
        };
        let done = rotate_seal_keys(&session.rt, &backend, &to, self.new_data_key).await?;
        summary::rotated(&done);
        if let Some((cluster, task)) = &task {
            if name_seal_keys(cluster, task, &to).await? {
                summary::renamed_keys(task.name());
            }
        } else if self.without_cluster {
            summary::keys_in_tasks();
        }
        Ok(())
    }
}

impl ListFlags {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let backend = global.storage.log_backend()?;
        let storage = Storage::open(&session.rt, &backend).await?;
        summary::migrations(&migrate::load(&storage).await?, self.json);
        Ok(())
    }
}

impl MigrateFlags {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let until = match (self.to, self.base.0) {
            (0, true) => MergeUntil::Base,
            (0, false) => MergeUntil::Newest,
            (number, false) => MergeUntil::Number(number),
            (_, true) => {
                return Err(CommandError::invalid(
                    "--to and --base are both given",
                    "pass one of them",
                ));
            }
        };
        if !self.recent.0 && until == MergeUntil::Newest {
            return Err(CommandError::invalid(
                "nothing says up to which migration",
                "pass --recent, --to N or --base",
            ));
        }
        let backend = global.storage.log_backend()?;
        let storage = Storage::open(&session.rt, &backend).await?;
        summary::merge_plan(&migrate::plan_merge(&storage, until).await?);
        if self.dry_run {
            return Ok(());
        }
        if !self.yes && !confirm(session, "Continue?").await? {
            return Ok(());
        }
        let operator = Operator::this();
        let request = LockRequest {
            storage: &storage,
            rt: &session.rt,
            cancel: &session.cancel,
            operator: &operator,
            hint: "migrations are being merged by br operator migrate-to",
        };
        let done = migrate::merge(&request, until)
            .await
            .inspect_err(|error| summary::log_failure("migrate-to", error))?;
        summary::print(&format_args!(
            "{} migrations are merged into the base.",
            done.layers.len()
        ));
        Ok(())
    }
}
