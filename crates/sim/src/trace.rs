//! What happened, line by line, so that two runs of a seed can be compared and a failure be read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use br_rt::{Monotonic, Rt};

/// The events of one run. Clones share them.
#[derive(Clone)]
pub(crate) struct Trace {
    rt: Rt,
    start: Monotonic,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(crate) fn new(rt: &Rt) -> Trace {
        Trace {
            rt: rt.clone(),
            start: rt.now(),
            lines: Arc::default(),
        }
    }

    /// Something has happened now. Besides the time, each line has the number of pieces of data
    /// that have travelled so far: two runs that differ anywhere soon differ there.
    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        let at = self.rt.now().since(self.start).as_millis();
        let pieces = self.rt.network().map_or(0, br_rt::Network::pieces);
        self.lock().push(format!("{at:>8} ms {pieces:>8}  {what}"));
    }

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
