use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};

/// Longest suspension that one request gets; a caller that needs more asks again.
const SUSPEND_MAX: Duration = Duration::from_secs(24 * 3600);

/// Until when ingests are refused: a volume snapshot or another observer of all writes asks for it.
#[derive(Debug)]
pub(super) struct Suspension {
    rt: Rt,
    until: Mutex<Option<Monotonic>>,
}

impl Suspension {
    pub(super) fn new(rt: Rt) -> Suspension {
        Suspension {
            rt,
            until: Mutex::new(None),
        }
    }

    /// Suspends for a time, or with `None` allows again. Gives whether it was suspended before.
    pub(super) fn set(&self, duration: Option<Duration>) -> bool {
        let now = self.rt.now();
        let until = duration.map(|duration| now.plus(duration.min(SUSPEND_MAX)));
        let mut slot = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *slot, until);
        before.is_some_and(|before| now < before)
    }

    /// How long it still lasts; `None` if ingests are allowed.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.since(self.rt.now());
        (!left.is_zero()).then_some(left)
    }
}
