//! The timestamp oracle.
//!
//! # What it does
//! Gives out timestamps, each greater than all before: Unix milliseconds and a counter of 18 bits.
//!
//! # Objects it reads and writes
//! The key `tso`: milliseconds that no timestamp has reached yet.
//!
//! # Ordering and invariants
//! A timestamp is given out only below the stored bound, so nothing goes back when the clock does,
//! nor over a restart. When the counter of a millisecond is used up while the clock stands or runs
//! behind, the oracle counts milliseconds of its own, one per millisecond that passes.
//!
//! # After a crash
//! The first timestamp lies at the stored bound, at most [`WINDOW`] ahead of the last one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};
use br_types::{Classify, Kind, TimeStamp};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_u64};

#[cfg(test)]
mod tests;

/// How far ahead the stored bound lies: one write to the store in this time, and the most that
/// timestamps jump at a restart.
pub const WINDOW: Duration = Duration::from_secs(3);
/// Timestamps in a millisecond; also the most that one request may ask for.
pub const COUNT_MAX: u32 = (1 << 18) - 1;
/// `reset-ts` refuses to jump further than this without force.
pub const RESET_GAP_MAX: Duration = Duration::from_secs(24 * 3600);

const KEY: &[u8] = b"tso";
const TICK: Duration = Duration::from_millis(1);

/// Why there is no timestamp.
#[derive(Debug, thiserror::Error)]
pub enum TsoError {
    /// A request for no timestamps or for too many at once.
    #[error("a request for {0} timestamps; between 1 and {COUNT_MAX} are possible")]
    Count(u32),
    /// `reset-ts` to the past.
    #[error("the timestamp {asked} is not greater than the current one, {current}")]
    ResetBack {
        /// Asked for.
        asked: TimeStamp,
        /// The last one given out.
        current: TimeStamp,
    },
    /// `reset-ts` too far into the future.
    #[error(
        "the timestamp {asked} lies more than {RESET_GAP_MAX:?} ahead of the current one, {current}"
    )]
    ResetAhead {
        /// Asked for.
        asked: TimeStamp,
        /// The last one given out.
        current: TimeStamp,
    },
    /// The bound could not be stored.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for TsoError {
    fn kind(&self) -> Kind {
        match self {
            TsoError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

/// The oracle.
pub struct Tso {
    rt: Rt,
    kv: Arc<dyn MetaKv>,
    state: Mutex<State>,
}

struct State {
    physical_ms: u64,
    /// The counter of the last timestamp given out; 0: none in this millisecond yet.
    logical: u32,
    /// No timestamp at or after this millisecond may be given out before a greater one is stored.
    bound_ms: u64,
    /// When `physical_ms` last moved.
    moved: Monotonic,
}

impl Tso {
    /// Goes on after every timestamp that was ever given out of this store.
    ///
    /// # Errors
    /// [`TsoError::Meta`].
    pub fn open(rt: Rt, kv: Arc<dyn MetaKv>) -> Result<Tso, TsoError> {
        let bound_ms = get_u64(kv.as_ref(), KEY)?;
        let state = State {
            physical_ms: rt.wall().0.max(bound_ms),
            logical: 0,
            bound_ms,
            moved: rt.now(),
        };
        Ok(Tso {
            rt,
            kv,
            state: Mutex::new(state),
        })
    }

    /// The last of `count` successive timestamps; the first is `count - 1` before it.
    ///
    /// Waits when the counter of this millisecond is used up.
    ///
    /// # Errors
    /// [`TsoError::Count`], [`TsoError::Meta`].
    pub async fn get(&self, count: u32) -> Result<TimeStamp, TsoError> {
        loop {
            if let Some(last) = self.try_get(count, false)? {
                return Ok(last);
            }
            self.rt.sleep(TICK).await;
        }
    }

    /// One timestamp at once: runs a millisecond ahead of the clock rather than waiting.
    ///
    /// # Errors
    /// [`TsoError::Meta`].
    pub fn now(&self) -> Result<TimeStamp, TsoError> {
        loop {
            if let Some(last) = self.try_get(1, true)? {
                return Ok(last);
            }
        }
    }

    /// The last timestamp given out.
    pub fn last(&self) -> TimeStamp {
        let state = self.state();
        TimeStamp::compose(state.physical_ms, u64::from(state.logical))
    }

    /// Makes every further timestamp greater than `target`.
    ///
    /// `force` takes a target in the past as done already, and any distance into the future.
    ///
    /// # Errors
    /// [`TsoError::ResetBack`] and [`TsoError::ResetAhead`] without `force`; [`TsoError::Meta`].
    pub fn reset(&self, target: TimeStamp, force: bool) -> Result<(), TsoError> {
        let mut state = self.state();
        self.follow_clock(&mut state);
        let current = TimeStamp::compose(state.physical_ms, u64::from(state.logical));
        if target <= current {
            return if force {
                Ok(())
            } else {
                Err(TsoError::ResetBack {
                    asked: target,
                    current,
                })
            };
        }
        let gap = target.physical_ms().saturating_sub(current.physical_ms());
        if !force && u128::from(gap) > RESET_GAP_MAX.as_millis() {
            return Err(TsoError::ResetAhead {
                asked: target,
                current,
            });
        }
        self.store_bound(&mut state, target.physical_ms())?;
        state.physical_ms = target.physical_ms();
        // 18 bits.
        state.logical = u32::try_from(target.logical()).unwrap_or(COUNT_MAX);
        state.moved = self.rt.now();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow_clock(&self, state: &mut State) {
        let wall = self.rt.wall().0;
        if wall > state.physical_ms {
            state.physical_ms = wall;
            state.logical = 0;
            state.moved = self.rt.now();
        }
    }

    fn try_get(&self, count: u32, ahead: bool) -> Result<Option<TimeStamp>, TsoError> {
        if count == 0 || count > COUNT_MAX {
            return Err(TsoError::Count(count));
        }
        let mut state = self.state();
        let before = (state.physical_ms, state.logical);
        self.follow_clock(&mut state);
        if state.logical + count > COUNT_MAX {
            if !ahead && self.rt.now().since(state.moved) < TICK {
                return Ok(None);
            }
            state.physical_ms += 1;
            state.logical = 0;
            state.moved = self.rt.now();
        }
        if state.physical_ms >= state.bound_ms {
            let physical_ms = state.physical_ms;
            if let Err(error) = self.store_bound(&mut state, physical_ms) {
                // Below the old bound there may be room yet.
                (state.physical_ms, state.logical) = before;
                if state.physical_ms >= state.bound_ms || state.logical + count > COUNT_MAX {
                    return Err(error.into());
                }
            }
        }
        state.logical += count;
        Ok(Some(TimeStamp::compose(
            state.physical_ms,
            u64::from(state.logical),
        )))
    }

    fn store_bound(&self, state: &mut State, physical_ms: u64) -> Result<(), MetaError> {
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        // The top 18 bits of a timestamp hold no milliseconds.
        let bound = physical_ms.saturating_add(window).min(u64::MAX >> 18);
        let bound = bound.max(state.bound_ms);
        let mut batch = MetaBatch::default();
        batch.put(KEY, bound.to_be_bytes());
        self.kv.write(batch)?;
        state.bound_ms = bound;
        Ok(())
    }
}
