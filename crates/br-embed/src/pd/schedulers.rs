//! The names of the schedulers, and which of them pause.
//!
//! Of these only `balance-leader-scheduler` does anything here (see `balance`). Pauses end by
//! themselves and, as after a change of PD's leader, with the process.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};

/// The one that spreads leaders over the stores.
pub const BALANCE_LEADER: &str = "balance-leader-scheduler";

/// What a cluster has from the start.
const DEFAULTS: [&str; 5] = [
    "balance-region-scheduler",
    BALANCE_LEADER,
    "balance-hot-region-scheduler",
    "evict-slow-store-scheduler",
    "evict-stopping-store-scheduler",
];
/// Schedulers at one time.
const COUNT_MAX: usize = 100;

/// No scheduler of that name.
#[derive(Debug, thiserror::Error)]
#[error("[PD:scheduler:ErrSchedulerNotFound]scheduler not found")]
pub struct SchedulerNotFound;

/// The schedulers.
pub struct Schedulers {
    rt: Rt,
    state: Mutex<Vec<(String, Option<Monotonic>)>>,
}

impl Schedulers {
    /// The default ones, all at work.
    pub fn new(rt: Rt) -> Schedulers {
        let state = DEFAULTS
            .iter()
            .map(|name| ((*name).to_owned(), None))
            .collect();
        Schedulers {
            rt,
            state: Mutex::new(state),
        }
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The names of those that pause.
    pub fn paused(&self) -> Vec<String> {
        let now = self.rt.now();
        let state = self.lock();
        let paused = state
            .iter()
            .filter(|(_, until)| until.is_some_and(|until| until > now));
        paused.map(|(name, _)| name.clone()).collect()
    }

    /// Whether one is there and does not pause.
    pub fn is_at_work(&self, name: &str) -> bool {
        let now = self.rt.now();
        let state = self.lock();
        state
            .iter()
            .any(|(other, until)| other == name && until.is_none_or(|until| until <= now))
    }

    /// Pauses one, or `all`, for a time; zero resumes.
    ///
    /// # Errors
    /// [`SchedulerNotFound`].
    pub fn pause(&self, name: &str, delay: Duration) -> Result<(), SchedulerNotFound> {
        let until = (!delay.is_zero()).then(|| self.rt.now().plus(delay));
        let mut state = self.lock();
        let mut found = name == "all";
        for (other, pause) in state.iter_mut() {
            if name == "all" || other == name {
                *pause = until;
                found = true;
            }
        }
        if found {
            Ok(())
        } else {
            Err(SchedulerNotFound)
        }
    }

    /// Adds one, unless it is there or there are too many.
    pub fn add(&self, name: &str) {
        let mut state = self.lock();
        if state.len() < COUNT_MAX && state.iter().all(|(other, _)| other != name) {
            state.push((name.to_owned(), None));
        }
    }

    /// Removes one.
    ///
    /// # Errors
    /// [`SchedulerNotFound`].
    pub fn remove(&self, name: &str) -> Result<(), SchedulerNotFound> {
        let mut state = self.lock();
        let before = state.len();
        state.retain(|(other, _)| other != name);
        if state.len() < before {
            Ok(())
        } else {
            Err(SchedulerNotFound)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Option<Monotonic>)>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pd::simulate;

    #[test]
    fn a_pause_ends_by_itself_or_on_request() {
        simulate(1_000, async |rt| {
            let schedulers = Schedulers::new(rt.clone());
            schedulers
                .pause(BALANCE_LEADER, Duration::from_secs(300))
                .unwrap();
            assert_eq!(schedulers.paused(), [BALANCE_LEADER]);
            assert!(!schedulers.is_at_work(BALANCE_LEADER));
            rt.sleep(Duration::from_secs(300)).await;
            assert!(schedulers.is_at_work(BALANCE_LEADER));
            schedulers.pause("all", Duration::from_secs(300)).unwrap();
            assert_eq!(schedulers.paused().len(), 5);
            schedulers.pause("all", Duration::ZERO).unwrap();
            assert!(schedulers.paused().is_empty());
            assert!(schedulers.pause("no-such", Duration::ZERO).is_err());
        });
    }
}
