//! How long each phase of an operation takes, as it reports them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use br_rt::{Monotonic, PhaseId, Progress, Rt, Unit};

/// A phase and how long it took; phases of one title are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseTime {
    /// Its title.
    pub title: String,
    /// How long it took.
    pub took: Duration,
}

/// Hands reports on, and notes when phases begin and end.
pub(crate) struct PhaseClock {
    rt: Rt,
    on: Arc<dyn Progress>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Place in `phases`, and the beginning.
    open: HashMap<PhaseId, (usize, Monotonic)>,
    phases: Vec<PhaseTime>,
    next: u64,
    /// The ids of those that reports are handed on to.
    outer: HashMap<PhaseId, PhaseId>,
}

impl PhaseClock {
    pub(crate) fn new(rt: &Rt, on: &Arc<dyn Progress>) -> Arc<PhaseClock> {
        Arc::new(PhaseClock {
            rt: rt.clone(),
            on: on.clone(),
            seen: Mutex::default(),
        })
    }

    /// All phases, in the order in which they began.
    pub(crate) fn phases(&self) -> Vec<PhaseTime> {
        self.with(|seen| seen.phases.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn outer(&self, phase: PhaseId) -> PhaseId {
        self.with(|seen| seen.outer.get(&phase).copied())
            .unwrap_or(phase)
    }
}

impl Progress for PhaseClock {
    fn start(&self, title: &str, unit: Unit, total: u64) -> PhaseId {
        let outer = self.on.start(title, unit, total);
        let now = self.rt.now();
        self.with(|seen| {
            let known = seen.phases.iter().position(|phase| phase.title == title);
            let place = known.unwrap_or_else(|| {
                seen.phases.push(PhaseTime {
                    title: title.to_owned(),
                    took: Duration::ZERO,
                });
                seen.phases.len() - 1
            });
            let id = PhaseId(seen.next);
            seen.next += 1;
            seen.open.insert(id, (place, now));
            seen.outer.insert(id, outer);
            id
        })
    }

    fn advance(&self, phase: PhaseId, units: u64, bytes: u64) {
        self.on.advance(self.outer(phase), units, bytes);
    }

    fn set_total(&self, phase: PhaseId, total: u64) {
        self.on.set_total(self.outer(phase), total);
    }

    fn finish(&self, phase: PhaseId) {
        self.on.finish(self.outer(phase));
        let now = self.rt.now();
        self.with(|seen| {
            seen.outer.remove(&phase);
            if let Some((place, began)) = seen.open.remove(&phase)
                && let Some(known) = seen.phases.get_mut(place)
            {
                known.took += now.since(began);
            }
        });
    }
}
