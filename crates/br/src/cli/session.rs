use br_rt::{CancellationToken, Rt};

use super::global_flags::GlobalFlags;
use crate::{edge::Outcome, log, progress::Display, signals};

/// What every running command has.
pub(crate) struct Session {
    pub(crate) rt: Rt,
    /// Set by Ctrl-C and SIGTERM.
    pub(crate) cancel: CancellationToken,
    pub(super) display: Display,
}

impl Session {
    /// Starts log, signals and progress.
    pub(super) fn start(global: &GlobalFlags) -> Outcome<Session> {
        let rt = Rt::real();
        log::start(&rt, &global.log_options())?;
        let cancel = CancellationToken::new();
        signals::listen(&rt, cancel.clone())?;
        Ok(Session {
            display: Display::new(&rt),
            rt,
            cancel,
        })
    }
}
