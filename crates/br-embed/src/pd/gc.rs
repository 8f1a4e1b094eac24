//! Safe points and GC barriers.
//!
//! # What it does
//! Keeps two timestamps, the transaction safe point (no read below it may start) and the GC safe
//! point (versions below it may be gone), and the barriers that hold the first one back.
//!
//! # Objects it reads and writes
//! The key `gc`: both safe points and every barrier, as JSON.
//!
//! # Ordering and invariants
//! Neither safe point goes back; GC safe point ≤ transaction safe point; the transaction safe point
//! does not pass a barrier that has not expired. A barrier below the transaction safe point is
//! never installed.
//!
//! Source: `pdpb.proto` and the behaviour of PD 9 (service safe points are barriers there).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_rt::UnixMillis;
use br_types::{Classify, Kind, TimeStamp};
use serde::{Deserialize, Serialize};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_json, to_json};

#[cfg(test)]
mod tests;

/// The service that advances the transaction safe point; no barrier may bear its name.
pub const GC_WORKER: &str = "gc_worker";
/// A time to live that never ends.
pub const TTL_FOREVER: i64 = i64::MAX;
/// How the ids of the barriers begin that restores hold, on a lease.
const OF_RESTORES: &str = "br-restore-";
/// Barriers at one time; far more than there can be tools at work.
pub const BARRIERS_MAX: usize = 10_000;

const KEY: &[u8] = b"gc";

/// Why a safe point or barrier was not changed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The name is reserved or empty.
    #[error("{0:?} cannot be the id of a GC barrier")]
    BarrierId(String),
    /// The versions that the barrier should keep may be gone.
    #[error("the GC barrier at {barrier} lies behind the transaction safe point {safe_point}")]
    BarrierBehind {
        /// Where the barrier was to stand.
        barrier: TimeStamp,
        /// Where reads may start.
        safe_point: TimeStamp,
    },
    /// A safe point would go back.
    #[error("the safe point {current} cannot go back to {asked}")]
    Decreasing {
        /// Where it is.
        current: TimeStamp,
        /// Asked for.
        asked: TimeStamp,
    },
    /// The GC safe point would pass the transaction safe point.
    #[error("the GC safe point cannot pass the transaction safe point {safe_point} to {asked}")]
    BeyondTxn {
        /// Where reads may start.
        safe_point: TimeStamp,
        /// Asked for.
        asked: TimeStamp,
    },
    /// The GC worker's safe point with an end.
    #[error("the safe point of gc_worker must have an endless time to live, not {0} seconds")]
    WorkerTtl(i64),
    /// A time to live that is not positive.
    #[error("a GC barrier must live for at least a second, not {0}")]
    Ttl(i64),
    /// Too many barriers.
    #[error("there are {BARRIERS_MAX} GC barriers already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for GcError {
    fn kind(&self) -> Kind {
        match self {
            GcError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

/// A barrier, as it is told to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Whose it is.
    pub id: String,
    /// The transaction safe point does not pass it.
    pub ts: TimeStamp,
    /// Seconds that it still lives, rounded up; [`TTL_FOREVER`] without end.
    pub ttl_seconds: i64,
}

/// Both safe points and the living barriers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcState {
    /// No read below it may start.
    pub txn_safe_point: TimeStamp,
    /// Versions that a newer one at or below it hides may be gone.
    pub gc_safe_point: TimeStamp,
    /// What holds the transaction safe point back.
    pub barriers: Vec<Barrier>,
}

/// What came of moving the transaction safe point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Where it was.
    pub old: TimeStamp,
    /// Where it is now.
    pub new: TimeStamp,
    /// The barrier that kept it from the target.
    pub blocker: Option<Barrier>,
}

/// The answer to an update of a service safe point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSafePoint {
    /// Whose the least safe point is.
    pub service_id: String,
    /// Seconds that it still lives.
    pub ttl_seconds: i64,
    /// The least safe point; greater than the one asked for if that came too late.
    pub min_safe_point: TimeStamp,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    txn_safe_point: u64,
    gc_safe_point: u64,
    barriers: BTreeMap<String, StoredBarrier>,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredBarrier {
    ts: u64,
    /// `None`: lives without end.
    expires_ms: Option<u64>,
}

impl StoredBarrier {
    fn is_expired(&self, now: UnixMillis) -> bool {
        self.expires_ms.is_some_and(|end| end <= now.0)
    }

    fn shown(&self, id: &str, now: UnixMillis) -> Barrier {
        let ttl_seconds = match self.expires_ms {
            None => TTL_FOREVER,
            Some(end) => {
                i64::try_from(end.saturating_sub(now.0).div_ceil(1000)).unwrap_or(TTL_FOREVER)
            }
        };
        Barrier {
            id: id.to_owned(),
            ts: TimeStamp(self.ts),
            ttl_seconds,
        }
    }
}

/// Safe points and barriers of the cluster.
///
/// `now` in every call is the clock that barriers expire by: the physical part of a fresh
/// timestamp, so that it never goes back.
pub struct Gc {
    kv: Arc<dyn MetaKv>,
    state: Mutex<Stored>,
}

impl Gc {
    /// Loads what is stored.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(kv: Arc<dyn MetaKv>) -> Result<Gc, MetaError> {
        let state = get_json(kv.as_ref(), KEY)?.unwrap_or_default();
        Ok(Gc {
            kv,
            state: Mutex::new(state),
        })
    }

    /// Everything as it is.
    pub fn state(&self, now: UnixMillis) -> GcState {
        let state = self.lock();
        GcState {
            txn_safe_point: TimeStamp(state.txn_safe_point),
            gc_safe_point: TimeStamp(state.gc_safe_point),
            barriers: state
                .barriers
                .iter()
                .filter(|(_, barrier)| !barrier.is_expired(now))
                .map(|(id, barrier)| barrier.shown(id, now))
                .collect(),
        }
    }

    /// Versions hidden at or below it may be gone.
    pub fn gc_safe_point(&self) -> TimeStamp {
        TimeStamp(self.lock().gc_safe_point)
    }

    /// Whether a restore is under way: it may write old versions after those that hide them.
    pub fn is_held(&self, now: UnixMillis) -> bool {
        let state = self.lock();
        let mut barriers = state.barriers.iter();
        barriers.any(|(id, barrier)| id.starts_with(OF_RESTORES) && !barrier.is_expired(now))
    }

    /// Sets a barrier, or moves the one with this id.
    ///
    /// # Errors
    /// [`GcError::BarrierId`], [`GcError::BarrierBehind`], [`GcError::Ttl`], [`GcError::TooMany`],
    /// [`GcError::Meta`].
    pub fn set_barrier(
        &self,
        id: &str,
        ts: TimeStamp,
        ttl_seconds: i64,
        now: UnixMillis,
    ) -> Result<Barrier, GcError> {
        check_id(id)?;
        let ttl = u64::try_from(ttl_seconds).ok().filter(|&ttl| ttl > 0);
        let ttl = ttl.ok_or(GcError::Ttl(ttl_seconds))?;
        let expires_ms =
            (ttl_seconds != TTL_FOREVER).then(|| now.0.saturating_add(ttl.saturating_mul(1000)));
        self.change(|state| {
            let safe_point = TimeStamp(state.txn_safe_point);
            if ts < safe_point {
                return Err(GcError::BarrierBehind {
                    barrier: ts,
                    safe_point,
                });
            }
            state.barriers.retain(|_, barrier| !barrier.is_expired(now));
            if state.barriers.len() >= BARRIERS_MAX && !state.barriers.contains_key(id) {
                return Err(GcError::TooMany);
            }
            let barrier = StoredBarrier {
                ts: ts.0,
                expires_ms,
            };
            let shown = barrier.shown(id, now);
            state.barriers.insert(id.to_owned(), barrier);
            Ok(shown)
        })
    }

    /// Removes a barrier; gives it if it was there.
    ///
    /// # Errors
    /// [`GcError::BarrierId`], [`GcError::Meta`].
    pub fn delete_barrier(&self, id: &str, now: UnixMillis) -> Result<Option<Barrier>, GcError> {
        check_id(id)?;
        self.change(|state| {
            Ok(state
                .barriers
                .remove(id)
                .map(|barrier| barrier.shown(id, now)))
        })
    }

    /// Moves the transaction safe point towards `target`, as far as the barriers allow.
    ///
    /// # Errors
    /// [`GcError::Decreasing`], [`GcError::Meta`].
    pub fn advance_txn_safe_point(
        &self,
        target: TimeStamp,
        now: UnixMillis,
    ) -> Result<Advanced, GcError> {
        self.change(|state| {
            let old = TimeStamp(state.txn_safe_point);
            if target < old {
                return Err(GcError::Decreasing {
                    current: old,
                    asked: target,
                });
            }
            state.barriers.retain(|_, barrier| !barrier.is_expired(now));
            let blocker = state
                .barriers
                .iter()
                .filter(|(_, barrier)| barrier.ts < target.0)
                .min_by_key(|(_, barrier)| barrier.ts)
                .map(|(id, barrier)| barrier.shown(id, now));
            let new = blocker
                .as_ref()
                .map_or(target, |barrier| barrier.ts)
                .max(old);
            state.txn_safe_point = new.0;
            Ok(Advanced { old, new, blocker })
        })
    }

    /// Moves the GC safe point; gives the one before and the one after.
    ///
    /// # Errors
    /// [`GcError::Decreasing`], [`GcError::BeyondTxn`], [`GcError::Meta`].
    pub fn advance_gc_safe_point(
        &self,
        target: TimeStamp,
    ) -> Result<(TimeStamp, TimeStamp), GcError> {
        self.change(|state| {
            let old = TimeStamp(state.gc_safe_point);
            let safe_point = TimeStamp(state.txn_safe_point);
            if target < old {
                return Err(GcError::Decreasing {
                    current: old,
                    asked: target,
                });
            }
            if target > safe_point {
                return Err(GcError::BeyondTxn {
                    safe_point,
                    asked: target,
                });
            }
            state.gc_safe_point = target.0;
            Ok((old, target))
        })
    }

    /// The older call for the same: a target in the past changes nothing. Gives the safe point.
    ///
    /// # Errors
    /// [`GcError::BeyondTxn`], [`GcError::Meta`].
    pub fn update_gc_safe_point(&self, target: TimeStamp) -> Result<TimeStamp, GcError> {
        match self.advance_gc_safe_point(target) {
            Ok((_, new)) => Ok(new),
            Err(GcError::Decreasing { current, .. }) => Ok(current),
            Err(error) => Err(error),
        }
    }

    /// The older call for barriers and the transaction safe point. A barrier that comes too late
    /// is not installed, and that is no error: the caller compares `min_safe_point`.
    ///
    /// # Errors
    /// [`GcError::WorkerTtl`], [`GcError::BarrierId`], [`GcError::Decreasing`],
    /// [`GcError::TooMany`], [`GcError::Meta`].
    pub fn update_service_safe_point(
        &self,
        service_id: &str,
        ts: TimeStamp,
        ttl_seconds: i64,
        now: UnixMillis,
    ) -> Result<ServiceSafePoint, GcError> {
        let worker = |min_safe_point, service_id: &str| ServiceSafePoint {
            service_id: service_id.to_owned(),
            ttl_seconds: TTL_FOREVER - i64::try_from(now.0 / 1000).unwrap_or(0),
            min_safe_point,
        };
        if service_id == GC_WORKER {
            if ttl_seconds != TTL_FOREVER {
                return Err(GcError::WorkerTtl(ttl_seconds));
            }
            let moved = self.advance_txn_safe_point(ts, now)?;
            let holder = match &moved.blocker {
                Some(barrier) if moved.new != ts => barrier.id.as_str(),
                _ => GC_WORKER,
            };
            return Ok(worker(moved.new, holder));
        }
        let done = if ttl_seconds > 0 {
            self.set_barrier(service_id, ts, ttl_seconds, now)
                .map(|_| ())
        } else {
            self.delete_barrier(service_id, now).map(|_| ())
        };
        match done {
            Ok(()) | Err(GcError::BarrierBehind { .. }) => {
                Ok(worker(TimeStamp(self.lock().txn_safe_point), GC_WORKER))
            }
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what `apply` makes of the state, then shows it.
    fn change<T>(
        &self,
        apply: impl FnOnce(&mut Stored) -> Result<T, GcError>,
    ) -> Result<T, GcError> {
        let mut state = self.lock();
        let mut next = state.clone();
        let value = apply(&mut next)?;
        let mut batch = MetaBatch::default();
        batch.put(KEY, to_json(&next)?);
        self.kv.write(batch)?;
        *state = next;
        Ok(value)
    }
}

fn check_id(id: &str) -> Result<(), GcError> {
    if id.is_empty() || id == GC_WORKER {
        return Err(GcError::BarrierId(id.to_owned()));
    }
    Ok(())
}
