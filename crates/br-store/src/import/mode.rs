use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use br_proto::import_sstpb::SwitchMode;
use br_rt::{Monotonic, Rt};

/// Import mode ends by itself this long after the last request for it, as in TiKV, so that a
/// client that died leaves nothing behind.
pub(super) const IMPORT_MODE_FOR: Duration = Duration::from_secs(600);

/// Whether the store is in import mode: an engine that is never stalled has nothing to tune, so
/// the mode is kept only for those who ask.
#[derive(Debug)]
pub(super) struct ImportMode {
    rt: Rt,
    until: Mutex<Option<Monotonic>>,
}

impl ImportMode {
    pub(super) fn new(rt: Rt) -> ImportMode {
        ImportMode {
            rt,
            until: Mutex::new(None),
        }
    }

    /// Switches; import mode starts its time anew.
    pub(super) fn switch(&self, mode: SwitchMode) {
        let until = match mode {
            SwitchMode::Normal => None,
            SwitchMode::Import => Some(self.rt.now().plus(IMPORT_MODE_FOR)),
        };
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// The mode now.
    pub(super) fn current(&self) -> SwitchMode {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) if self.rt.now() < until => SwitchMode::Import,
            _ => SwitchMode::Normal,
        }
    }
}
