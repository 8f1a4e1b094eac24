use std::{future::Future, time::Duration};

use br_types::{Classify, Kind};
use tokio_util::sync::CancellationToken;

use crate::Rt;

/// How often, how long and with which pauses something is tried again.
///
/// Both bounds are visible at the call: there is no unbounded retry and no silent giving up.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The pause after the first failure; each further one doubles.
    pub pause_min: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// Attempts in all, the first included; at least 1.
    pub attempts_max: u32,
    /// No further attempt starts once this much time has passed.
    pub elapsed_max: Duration,
}

impl RetryPolicy {
    /// Runs `attempt` until it succeeds, fails with a kind other than [`Kind::Retry`], or the
    /// policy is used up; the last error is returned then. `attempt` gets its number, from 0.
    ///
    /// Cancellation ends a pause at once and returns the last error; within an attempt it is the
    /// attempt's own business.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, E, F>(
        self,
        rt: &Rt,
        cancel: &CancellationToken,
        mut attempt: impl FnMut(u32) -> F,
    ) -> Result<T, E>
    where
        E: Classify,
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::new(self, rt);
        let mut number = 0;
        loop {
            let error = match attempt(number).await {
                Ok(value) => return Ok(value),
                Err(error) if error.kind() != Kind::Retry => return Err(error),
                Err(error) => error,
            };
            number += 1;
            if !backoff.pause(rt, cancel).await {
                return Err(error);
            }
            tracing::debug!(attempt = number, %error, "trying again");
        }
    }
}

/// The pauses of one operation that is tried again, for loops that decide by themselves.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    started: crate::Monotonic,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(policy: RetryPolicy, rt: &Rt) -> Backoff {
        Backoff {
            policy,
            started: rt.now(),
            failures: 0,
        }
    }

    /// Forgets the failures so far: there was progress.
    pub fn reset(&mut self, rt: &Rt) {
        self.failures = 0;
        self.started = rt.now();
    }

    /// Failures since the start or the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and waits before the next attempt, between half and all of the pause.
    /// `false`: the policy is used up or `cancel` was set; do not try again.
    pub async fn pause(&mut self, rt: &Rt, cancel: &CancellationToken) -> bool {
        self.failures += 1;
        let spent = rt.now().since(self.started);
        if self.failures >= self.policy.attempts_max || spent >= self.policy.elapsed_max {
            return false;
        }
        let doublings = (self.failures - 1).min(20);
        let full = self
            .policy
            .pause_min
            .saturating_mul(1 << doublings)
            .min(self.policy.pause_max);
        let half = full / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let pause = half + Duration::from_micros(rt.random_below(micros.saturating_add(1)));
        tokio::select! {
            biased;
            () = rt.sleep(pause) => !cancel.is_cancelled(),
            () = cancel.cancelled() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::UnixMillis;

    #[derive(Debug, thiserror::Error)]
    #[error("failed")]
    struct Failed(Kind);

    impl Classify for Failed {
        fn kind(&self) -> Kind {
            self.0
        }
    }

    const POLICY: RetryPolicy = RetryPolicy {
        pause_min: Duration::from_millis(100),
        pause_max: Duration::from_secs(1),
        attempts_max: 5,
        elapsed_max: Duration::from_secs(60),
    };

    /// Attempts made and virtual milliseconds spent.
    fn run(kind: Kind, succeed_at: u32) -> (u32, u64, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let rt = Rt::simulated(3, UnixMillis(0));
            let made = Cell::new(0);
            let result = POLICY
                .run(&rt, &CancellationToken::new(), |number| {
                    made.set(made.get() + 1);
                    async move {
                        if number == succeed_at {
                            Ok(())
                        } else {
                            Err(Failed(kind))
                        }
                    }
                })
                .await;
            (made.get(), rt.wall().0, result.is_ok())
        })
    }

    #[test]
    fn only_retry_is_tried_again() {
        assert_eq!(run(Kind::Invalid, 9), (1, 0, false));
        let (made, _, ok) = run(Kind::Retry, 2);
        assert_eq!((made, ok), (3, true));
    }

    #[test]
    fn attempts_and_pauses_are_bounded() {
        let (made, spent, ok) = run(Kind::Retry, 99);
        assert_eq!((made, ok), (5, false));
        // 100 + 200 + 400 + 800 ms, each between half and all of it.
        assert!((750..=1500).contains(&spent), "{spent}");
    }
}
