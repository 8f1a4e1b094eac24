use std::time::Duration;

use br_log::{
    Operator,
    task::{self, PauseRequest},
};
use clap::Args;

use super::super::{global_flags::GlobalFlags, session::Session};
use super::TaskFlags;
use crate::{edge::Outcome, summary};

/// `br log stop`.
#[derive(Args)]
pub(super) struct StopFlags {
    #[command(flatten)]
    task: TaskFlags,
}

/// `br log pause`.
#[derive(Args)]
pub(super) struct PauseFlags {
    #[command(flatten)]
    task: TaskFlags,
    /// Seconds that the cluster keeps old data for; afterwards the task may not be resumed any more.
    #[arg(long, default_value = "86400", value_name = "SECONDS")]
    gc_ttl: u32,
    /// Why, for those who look at the status.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    message: String,
}

/// `br log resume`.
#[derive(Args)]
pub(super) struct ResumeFlags {
    #[command(flatten)]
    task: TaskFlags,
}

impl StopFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let began = session.rt.now();
        let name = self.task.name()?;
        let cluster = global.cluster.connect(session).await?;
        let stopped = task::stop(&cluster, name)
            .await
            .inspect_err(|error| summary::log_failure("log stop", error))?;
        let took = session.rt.now().since(began);
        summary::log_changed(&session.rt, "log stop", &stopped.info, took);
        Ok(())
    }
}

impl PauseFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let began = session.rt.now();
        let request = PauseRequest {
            name: self.task.name()?,
            gc_ttl: Duration::from_secs(self.gc_ttl.into()),
            message: &self.message,
            operator: &Operator::this(),
        };
        let cluster = global.cluster.connect(session).await?;
        let paused = task::pause(&cluster, &request)
            .await
            .inspect_err(|error| summary::log_failure("log pause", error))?;
        let took = session.rt.now().since(began);
        summary::log_changed(&session.rt, "log pause", &paused.info, took);
        Ok(())
    }
}

impl ResumeFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let began = session.rt.now();
        let name = self.task.name()?;
        let cluster = global.cluster.connect(session).await?;
        let resumed = task::resume(&cluster, name)
            .await
            .inspect_err(|error| summary::log_failure("log resume", error))?;
        let took = session.rt.now().since(began);
        summary::log_changed(&session.rt, "log resume", &resumed.info, took);
        Ok(())
    }
}
