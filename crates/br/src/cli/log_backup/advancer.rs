use std::time::Duration;

use br_log::{
    advancer::{self, AdvancerConfig, POLL_AFTER_DEFAULT},
    task::TaskStore,
};
use clap::Args;

use super::super::{global_flags::GlobalFlags, session::Session};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::parse_duration,
};

/// `br log advancer`.
#[derive(Args)]
pub(super) struct AdvancerFlags {
    /// The pause after something failed.
    #[arg(long, value_parser = parse_duration, default_value = "5s", value_name = "DURATION")]
    backoff_time: Duration,
    /// Time between two looks at everything.
    #[arg(long, value_parser = parse_duration, default_value = "12s", value_name = "DURATION")]
    tick_interval: Duration,
    /// Regions whose checkpoint is older than this are asked for it.
    #[arg(long, value_parser = parse_duration, default_value = "4m", value_name = "DURATION")]
    try_advance_threshold: Duration,
    /// The task is paused when it lags so far behind; 0 is never.
    #[arg(long, value_parser = parse_duration, default_value = "48h", value_name = "DURATION")]
    check_point_lag_limit: Duration,
    /// For tests of the official tool only.
    #[arg(long, value_parser = parse_duration, default_value = "0", hide = true, value_name = "DURATION")]
    ownership_cycle_interval: Duration,
    /// Refuse to start if there is no task of this name.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    task_name: String,
}

impl AdvancerFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        if !self.ownership_cycle_interval.is_zero() {
            return Err(CommandError::unsupported(
                "the flag --ownership-cycle-interval",
                "leave it out",
            ));
        }
        if self.tick_interval.is_zero() {
            return Err(CommandError::invalid(
                "--tick-interval is zero",
                "pass a duration such as 12s",
            ));
        }
        let cluster = global.cluster.connect(session).await?;
        if !self.task_name.is_empty() {
            let tasks = TaskStore::new(cluster.etcd().clone());
            tasks.get(&self.task_name).await?;
        }
        let config = AdvancerConfig {
            backoff: self.backoff_time,
            tick_interval: self.tick_interval,
            poll_after: (self.try_advance_threshold != POLL_AFTER_DEFAULT)
                .then_some(self.try_advance_threshold),
            lag_limit: self.check_point_lag_limit,
            ..AdvancerConfig::new(session.rt.uuid().to_string())
        };
        summary::print(&format_args!(
            "standing for election as the coordinator of log backup, as {}",
            config.id
        ));
        advancer::run(&cluster, config, &session.cancel).await;
        Ok(())
    }
}
