//! `br workload`: load with a known outcome, for demonstrations and tests of one's own cluster.

use std::{path::PathBuf, time::Duration};

use br_types::TimeStamp;
use br_workload::{Kinds, Workload, history};
use clap::{Args, Subcommand, ValueEnum};

use super::{global_flags::GlobalFlags, session::Session};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::parse_duration,
};

/// `br workload`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct WorkloadCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Make a database and change it until stopped, noting every committed transaction.
    Run(RunFlags),
    /// Compare the cluster with what was committed up to a timestamp.
    Check(CheckFlags),
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Transfers between accounts, whose sum never changes.
    Bank,
    /// Random changes in random tables.
    Wide,
}

#[derive(Args)]
struct RunFlags {
    /// What kind of transactions.
    #[arg(long, value_enum, default_value = "bank")]
    kind: Kind,
    /// The database to make.
    #[arg(long, default_value = "bank", value_name = "NAME")]
    database: String,
    /// Accounts of the bank, or random tables.
    #[arg(long, default_value = "1000", value_name = "N")]
    size: usize,
    /// Transactions at a time.
    #[arg(long, default_value = "4", value_name = "N")]
    workers: usize,
    /// Which random numbers.
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
    /// Stop by itself after so long.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    duration: Option<Duration>,
    /// Where committed transactions are noted.
    #[arg(long, value_name = "FILE")]
    history: PathBuf,
}

#[derive(Args)]
struct CheckFlags {
    /// Where committed transactions were noted.
    #[arg(long, value_name = "FILE")]
    history: PathBuf,
    /// Up to which timestamp (TSO) they count.
    #[arg(long, value_name = "TSO")]
    at: u64,
}

impl WorkloadCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        match &self.what {
            What::Run(flags) => flags.run(global, session).await,
            What::Check(flags) => flags.run(global, session).await,
        }
    }
}

impl RunFlags {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let cluster = global.cluster.connect(session).await?;
        let kinds = match self.kind {
            Kind::Bank => Kinds::Bank {
                accounts: self.size,
            },
            Kind::Wide => Kinds::Wide { tables: self.size },
        };
        let create = Workload::create(
            &cluster,
            kinds,
            self.seed,
            &self.database,
            Some(&self.history),
        );
        let workload = create.await?;
        summary::print(&format!("database {} is ready", self.database));
        let stop = session.cancel.child_token();
        let timer = self.duration.map(|duration| {
            let (rt, stop) = (session.rt.clone(), stop.clone());
            session.rt.spawn(async move {
                rt.sleep(duration).await;
                stop.cancel();
            })
        });
        let committed = workload.run(self.workers, &stop).await?;
        drop(timer);
        summary::print(&format!("{committed} transactions committed"));
        Ok(())
    }
}

impl CheckFlags {
    async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let (database, model) = history::read(&self.history).map_err(|error| {
            CommandError::invalid(
                error.to_string(),
                "pass the file that `br workload run` wrote",
            )
        })?;
        let cluster = global.cluster.connect(session).await?;
        let now = cluster.pd().tso().await?;
        let at = TimeStamp(self.at);
        let checked = br_workload::check(&cluster, &database, &model, at, now).await?;
        let commits = model.commits();
        let before = commits.iter().filter(|ts| **ts <= at).count();
        summary::print(&format!(
            "database {database} equals the model at {at}: {} tables, {} keys and values, \
             {before} of {} transactions",
            checked.tables,
            checked.entries,
            commits.len()
        ));
        Ok(())
    }
}
