//! How background work gives way to the commands of clients.
//!
//! # What it does
//! Commands of clients tell how long they took ([`Courtesy::foreground`]). Backup scans and log
//! flushes work in slices of a few milliseconds and pause after each ([`Background`]), so long that
//! the time which they work is the `share` that they have now; [`Governor`] finds it.
//!
//! **Target:** the 95th percentile of commands stays within twice what it is without background work,
//! or within a millisecond of it. Every quarter of a second in which it does not, the share falls by
//! 30 %; in which it does, it rises by a twentieth of all time; without commands, by a quarter of it a
//! second. To know what commands take without background work while there is some, all of it stops
//! for a moment every ten seconds, if there are commands.
//!
//! # Ordering and invariants
//! Backup always has [`SHARE_MIN`] of the time, flushes [`FLUSH_SHARE_MIN`]: both end, whatever
//! commands do. Limits on bytes a second hold besides.
//!
//! # After a crash
//! It learns anew.

mod governor;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};

use governor::Governor;

/// Background work looks whether to pause after working for so long: far below what a client
/// notices.
const SLICE: Duration = Duration::from_millis(4);
/// Of a longer slice (a worker that waited for something) only so much is made up for.
const SLICE_MAX: Duration = Duration::from_millis(40);
/// Share of the time that a backup has at least.
const SHARE_MIN: f64 = 0.05;
/// Share of the time that a flush has at least: the log must not fall behind.
const FLUSH_SHARE_MIN: f64 = 0.25;

/// Shared by all that one process does for its stores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Courtesy {
    rt: Rt,
    governor: Arc<Mutex<Governor>>,
}

impl Courtesy {
    pub(crate) fn new(rt: Rt) -> Courtesy {
        let governor = Governor::new(rt.now());
        Courtesy {
            rt,
            governor: Arc::new(Mutex::new(governor)),
        }
    }

    fn governor(&self) -> MutexGuard<'_, Governor> {
        self.governor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether background work gives way; from the start it does.
    pub fn is_on(&self) -> bool {
        self.governor().is_on()
    }

    /// Turns it on or off, for work under way as well.
    pub fn turn(&self, is_on: bool) {
        self.governor().set_on(is_on);
    }

    /// The share of the time that background work has now, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.governor().share()
    }

    /// A command of a client took so long.
    pub(crate) fn foreground(&self, took: Duration) {
        let now = self.rt.now();
        self.governor().command(now, took);
    }

    /// A worker of a backup begins.
    pub(crate) fn backup(&self) -> Background {
        self.begin(SHARE_MIN)
    }

    /// A flush begins.
    pub(crate) fn flush(&self) -> Background {
        self.begin(FLUSH_SHARE_MIN)
    }

    fn begin(&self, share_min: f64) -> Background {
        let now = self.rt.now();
        self.governor().begin(now);
        Background {
            courtesy: self.clone(),
            share_min,
            slice_began: now,
        }
    }
}

/// A worker in the background, until it is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    courtesy: Courtesy,
    share_min: f64,
    slice_began: Monotonic,
}

impl Background {
    /// How long to pause now; mostly not at all. A slice that is over begins anew.
    fn due(&mut self) -> Duration {
        let now = self.courtesy.rt.now();
        let worked = now.since(self.slice_began);
        if worked < SLICE {
            return Duration::ZERO;
        }
        self.slice_began = now;
        let worked = worked.min(SLICE_MAX);
        self.courtesy.governor().pause(now, worked, self.share_min)
    }

    /// Holds the thread for as long as is due. Blocking.
    pub(crate) fn give_way_blocking(&mut self) {
        let due = self.due();
        if !due.is_zero() {
            self.courtesy.rt.pause_thread(due);
            self.slice_began = self.courtesy.rt.now();
        }
    }

    /// Waits for as long as is due.
    pub(crate) async fn give_way(&mut self) {
        let due = self.due();
        if !due.is_zero() {
            self.courtesy.rt.sleep(due).await;
            self.slice_began = self.courtesy.rt.now();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let now = self.courtesy.rt.now();
        self.courtesy.governor().end(now);
    }
}
