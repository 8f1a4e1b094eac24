//! # What it does
//! Gives out time, randomness, sleep and tasks; connections are in `net`.
//!
//! # Ordering and invariants
//! A simulated `Rt` lives on one current-thread tokio runtime with paused time: its clock moves
//! only when every task waits, blocking work runs inline, and each random number comes from one
//! seeded generator, so that a seed gives one run.
#![allow(clippy::disallowed_methods, reason = "this is the seam")]

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use crate::Network;

/// Time since the `Rt` was made; never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The time from `earlier` to now; zero if it is later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This point and `after` more.
    #[must_use]
    pub fn plus(self, after: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(after))
    }
}

/// Wall-clock time in milliseconds since 1970; may go back when somebody sets the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

/// A wait that took longer than it may.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

/// Where time, randomness, sleep and tasks come from. Cheap to clone.
#[derive(Clone)]
pub struct Rt(Arc<Inner>);

struct Inner {
    start: tokio::time::Instant,
    /// Wall-clock time at `start`; `None` asks the system each time.
    virtual_start: Option<UnixMillis>,
    rng: Mutex<StdRng>,
    /// In simulation.
    network: Option<Network>,
}

impl fmt::Debug for Rt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_simulated() {
            "Rt(simulated)"
        } else {
            "Rt(real)"
        })
    }
}

impl Rt {
    /// The system's clock, its randomness, tokio's timers and tasks.
    pub fn real() -> Rt {
        Rt(Arc::new(Inner {
            start: tokio::time::Instant::now(),
            virtual_start: None,
            rng: Mutex::new(StdRng::from_rng(&mut rand::rng())),
            network: None,
        }))
    }

    /// Virtual time that starts at `start`, and randomness from `seed`.
    ///
    /// Only inside a current-thread tokio runtime with paused time
    /// (`Builder::new_current_thread().enable_time().start_paused(true)`).
    pub fn simulated(seed: u64, start: UnixMillis) -> Rt {
        Rt(Arc::new(Inner {
            start: tokio::time::Instant::now(),
            virtual_start: Some(start),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            network: Some(Network::new()),
        }))
    }

    /// Whether time is virtual and randomness seeded.
    pub fn is_simulated(&self) -> bool {
        self.0.virtual_start.is_some()
    }

    /// The network, if this is a simulation.
    pub fn network(&self) -> Option<&Network> {
        self.0.network.as_ref()
    }

    /// Now, on a clock that never goes back.
    pub fn now(&self) -> Monotonic {
        Monotonic(self.0.start.elapsed())
    }

    /// Now, by the wall clock.
    pub fn wall(&self) -> UnixMillis {
        let millis = match self.0.virtual_start {
            Some(start) => u128::from(start.0) + self.0.start.elapsed().as_millis(),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis(),
        };
        UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Holds the thread, which must be one of [`Rt::blocking`]; in simulation not at all.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn pause_thread(&self, duration: Duration) {
        if !self.is_simulated() {
            std::thread::sleep(duration);
        }
    }

    /// Waits for `future`, but no longer than `limit`; it is dropped then.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit came first.
    pub async fn timeout<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(limit, future)
            .await
            .map_err(|_| Elapsed(limit))
    }

    /// Starts a task on the runtime. It is aborted when the [`Task`] is dropped, unless
    /// [`Task::detach`]ed.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task(Some(tokio::spawn(future)))
    }

    /// Runs work that blocks or computes for long, off the async threads; inline in simulation.
    ///
    /// A panic of the work goes on in the caller. The work is not stopped when the caller is
    /// dropped.
    pub async fn blocking<F, T>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.is_simulated() {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: nobody waits for this any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// A random number, all 64 bits of it.
    pub fn random_u64(&self) -> u64 {
        self.rng(|rng| rng.next_u64())
    }

    /// A random number in `0..bound`; 0 for a bound of 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        // The bias of the remainder is below 2^-32 for every bound in use.
        self.random_u64().checked_rem(bound).unwrap_or(0)
    }

    /// Random bytes, good enough for keys and initialisation vectors unless simulated.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng(|rng| rng.fill_bytes(&mut bytes));
        bytes
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.random_bytes()).into_uuid()
    }

    fn rng<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running task; awaiting it gives its result, dropping it aborts it.
#[must_use = "a dropped task is aborted"]
pub struct Task<T>(Option<tokio::task::JoinHandle<T>>);

impl<T> Task<T> {
    /// Lets the task run on by itself.
    pub fn detach(mut self) {
        self.0.take();
    }

    /// Stops the task at its next await point.
    pub fn abort(&self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|handle| handle.is_finished())
    }
}

/// Awaiting gives the task's result; a panic goes on in the caller. Pending for ever when the task
/// was aborted.
impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(handle) = self.0.as_mut() else {
            return Poll::Pending;
        };
        match Pin::new(handle).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => {
                self.0 = None;
                Poll::Ready(value)
            }
            Poll::Ready(Err(error)) => {
                self.0 = None;
                match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Poll::Pending,
                }
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate<T>(seed: u64, run: impl AsyncFnOnce(Rt) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async { run(Rt::simulated(seed, UnixMillis(1_000))).await })
    }

    #[test]
    fn virtual_time_moves_only_with_sleep() {
        let (before, after) = simulate(1, async |rt| {
            let before = rt.wall();
            rt.sleep(Duration::from_secs(3600)).await;
            (before, rt.wall())
        });
        assert_eq!(before, UnixMillis(1_000));
        assert_eq!(after, UnixMillis(1_000 + 3_600_000));
    }

    #[test]
    fn a_seed_gives_one_sequence() {
        let draw = |seed| simulate(seed, async |rt| (rt.random_u64(), rt.uuid()));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_dropped_task_stops_and_a_detached_one_goes_on() {
        let (dropped, detached) = simulate(1, async |rt| {
            let flag = |value: &Arc<Mutex<bool>>, rt: &Rt| {
                let (value, rt2) = (value.clone(), rt.clone());
                rt.spawn(async move {
                    rt2.sleep(Duration::from_secs(1)).await;
                    *value.lock().unwrap() = true;
                })
            };
            let (a, b) = (Arc::default(), Arc::default());
            drop(flag(&a, &rt));
            flag(&b, &rt).detach();
            rt.sleep(Duration::from_secs(2)).await;
            let read = |value: &Arc<Mutex<bool>>| *value.lock().unwrap();
            (read(&a), read(&b))
        });
        assert!(!dropped);
        assert!(detached);
    }
}
