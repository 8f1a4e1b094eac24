//! # What it does
//! Bounds the requests under way on one storage by what the server bears: each throttled or late
//! answer halves the bound, at most once in [`COOL_DOWN`]; each good one raises it a little, by one
//! in as many good answers as the bound has. A server that says when to come again is left alone until
//! then.
//!
//! # Ordering and invariants
//! The bound stays between 1 and [`IN_FLIGHT_MAX`]. Whoever waits goes on as others leave.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};
use tokio::sync::Notify;

/// More requests at once fill no line and open too many connections.
const IN_FLIGHT_MAX: f64 = 128.0;

/// Answers to requests that were under way together are one sign, not many.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// Nobody stays away for longer, whatever a server says: operations end after a minute.
const AWAY_MAX: Duration = Duration::from_secs(20);

/// The bound, shared by the clients of one storage.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    rt: Rt,
    state: Mutex<State>,
    left: Notify,
}

struct State {
    in_flight: u32,
    bound: f64,
    lowered: Option<Monotonic>,
    /// Nobody goes in before.
    closed_until: Option<Monotonic>,
}

/// What an answer says about the pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server keeps up.
    Fine,
    /// It does not.
    Slower,
    /// Nothing.
    Unknown,
}

/// A place among the requests under way, until it is dropped.
pub(crate) struct Pass(Gate);

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pass")
    }
}

impl Gate {
    pub(crate) fn new(rt: &Rt) -> Gate {
        Gate(Arc::new(Inner {
            rt: rt.clone(),
            state: Mutex::new(State {
                in_flight: 0,
                bound: IN_FLIGHT_MAX,
                lowered: None,
                closed_until: None,
            }),
            left: Notify::new(),
        }))
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Pass {
        loop {
            let now = self.0.rt.now();
            let closed_until = self.lock().closed_until.filter(|until| *until > now);
            if let Some(until) = closed_until {
                self.0.rt.sleep(until.since(now)).await;
                continue;
            }
            {
                let mut state = self.lock();
                if f64::from(state.in_flight) < state.bound {
                    state.in_flight += 1;
                    return Pass(self.clone());
                }
            }
            // One who leaves in between leaves a notice behind.
            self.0.left.notified().await;
        }
    }

    /// The server wants to be left alone for so long.
    pub(crate) fn close_for(&self, duration: Duration) {
        let until = self.0.rt.now().plus(duration.min(AWAY_MAX));
        let mut state = self.lock();
        state.closed_until = state.closed_until.max(Some(until));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn bound(&self) -> f64 {
        self.lock().bound
    }
}

impl Pass {
    /// Tells what the answer said.
    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        let gate = &self.0;
        let now = gate.0.rt.now();
        let mut state = gate.lock();
        match verdict {
            Verdict::Unknown => {}
            Verdict::Fine => {
                state.bound = (state.bound + 1.0 / state.bound).min(IN_FLIGHT_MAX);
                drop(state);
                gate.0.left.notify_one();
            }
            Verdict::Slower => {
                let is_hot = state
                    .lowered
                    .is_some_and(|then| now.since(then) < COOL_DOWN);
                if !is_hot {
                    state.bound = (state.bound / 2.0).max(1.0);
                    state.lowered = Some(now);
                    let bound = state.bound;
                    drop(state);
                    tracing::info!(bound, "the storage asks for fewer requests at once");
                }
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
        self.0.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use br_rt::UnixMillis;
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_bound_follows_the_answers() {
        let rt = Rt::simulated(1, UnixMillis(0));
        let gate = Gate::new(&rt);
        let mut pass = gate.enter().await;
        pass.verdict(Verdict::Slower);
        pass.verdict(Verdict::Slower);
        assert_eq!(gate.bound(), 64.0, "lowered once for answers of one moment");
        for halvings in 1..9_i32 {
            rt.sleep(COOL_DOWN).await;
            pass.verdict(Verdict::Slower);
            assert_eq!(gate.bound(), (64.0 / 2_f64.powi(halvings)).max(1.0));
        }
        // With a bound of one, the second waits until the first has left.
        let second = gate.enter();
        futures::pin_mut!(second);
        assert!(second.as_mut().now_or_never().is_none());
        drop(pass);
        let mut second = second.await;
        for _ in 0..3 {
            second.verdict(Verdict::Fine);
        }
        assert!(gate.bound() > 2.0);
        let third = gate.enter().now_or_never().expect("a place of its own");
        drop((second, third));
        assert_eq!(gate.lock().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_left_alone_as_it_asks() {
        let rt = Rt::simulated(1, UnixMillis(0));
        let gate = Gate::new(&rt);
        gate.close_for(Duration::from_secs(7));
        gate.close_for(Duration::from_secs(3));
        let begun = rt.now();
        drop(gate.enter().await);
        assert_eq!(rt.now().since(begun).as_secs(), 7);
        gate.close_for(Duration::from_secs(86_400));
        let begun = rt.now();
        drop(gate.enter().await);
        assert_eq!(rt.now().since(begun), AWAY_MAX);
    }
}
