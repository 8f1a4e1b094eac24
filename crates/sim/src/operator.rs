//! Runs commands as an operator does: some die in the middle, some fail because of the weather, and
//! each is run again until it is done.

use std::time::Duration;

use anyhow::{Result, bail};
use br_rt::Rt;
use br_types::{Classify, Kind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::trace::Trace;

/// Runs of one command; in a storm every other request fails.
const ATTEMPTS_MAX: usize = 60;
/// Runs that may be killed, the first ones.
const KILLS_MAX: usize = 3;
/// A command that lives as long as this is not killed.
const KILLED_WITHIN: Duration = Duration::from_secs(4);
/// Above all numbers that processes can have.
const FIRST_PID: u32 = 1 << 30;
/// Between two runs; less than the leases of a command that died.
const PAUSE: Duration = Duration::from_secs(5);

/// Who runs the commands.
pub(crate) struct Operator<'a> {
    pub(crate) rt: &'a Rt,
    pub(crate) trace: &'a Trace,
    /// Whether commands are killed.
    pub(crate) kills: bool,
    /// Whether bytes are damaged on the way, so that whoever says so is run again.
    pub(crate) corruption: bool,
}

impl Operator<'_> {
    /// Runs a command until it succeeds; now and then somebody else runs it too, at the same time.
    pub(crate) async fn run_by_some<T, E>(
        &self,
        name: &str,
        rng: &mut StdRng,
        command: impl AsyncFn() -> Result<T, E>,
    ) -> Result<()>
    where
        E: Classify + std::fmt::Display + std::fmt::Debug,
    {
        if rng.random_bool(0.7) {
            return self.run(name, rng, command).await.map(drop);
        }
        self.trace.note(format_args!("{name}: by two at once"));
        let mut other_rng = StdRng::seed_from_u64(rng.random());
        let other_name = format!("{name} by another");
        let (one, other) = futures::join!(
            Box::pin(self.run(name, rng, &command)),
            Box::pin(self.run(&other_name, &mut other_rng, &command)),
        );
        one.and(other).map(drop)
    }

    /// Runs a command until it succeeds. A killed one is dropped where it stands, without a chance to
    /// tidy up.
    pub(crate) async fn run<T, E>(
        &self,
        name: &str,
        rng: &mut StdRng,
        command: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T>
    where
        E: Classify + std::fmt::Display + std::fmt::Debug,
    {
        for attempt in 1..=ATTEMPTS_MAX {
            let is_killed = self.kills && attempt <= KILLS_MAX && rng.random();
            let lives = match is_killed {
                true => KILLED_WITHIN.mul_f64(rng.random()),
                false => Duration::MAX,
            };
            // Another process each time: what the last one left is that of a dead one.
            let pid = u64::from(FIRST_PID) + self.rt.random_below(u64::from(FIRST_PID));
            let pid = u32::try_from(pid).unwrap_or(FIRST_PID);
            let life = br_rt::play_process(pid, Box::pin(command()));
            match self.rt.timeout(lives, life).await {
                Err(_) => self
                    .trace
                    .note(format_args!("{name}: killed in run {attempt}")),
                Ok(Ok(done)) => {
                    self.trace
                        .note(format_args!("{name}: done in run {attempt}"));
                    return Ok(done);
                }
                Ok(Err(error)) => {
                    let kind = error.kind();
                    self.trace
                        .note(format_args!("{name}: run {attempt}: {kind:?}: {error}"));
                    let is_passing = matches!(kind, Kind::Retry | Kind::Reroute | Kind::Conflict)
                        || (matches!(kind, Kind::Data | Kind::Invalid) && self.corruption);
                    if !is_passing {
                        bail!("{name} ended with {kind:?}: {error}: {error:?}");
                    }
                }
            }
            self.rt.sleep(PAUSE).await;
        }
        bail!("{name} was not done after {ATTEMPTS_MAX} runs")
    }
}
