//! Draws how far an operation is: bars on a terminal, a line every few seconds elsewhere.

mod bars;
mod lines;

use std::sync::Arc;

use br_rt::{Progress, Rt, Task};

use bars::Bars;
use lines::Lines;

/// Progress for one command; the drawing ends when it is dropped.
pub(crate) struct Display {
    progress: Arc<dyn Progress>,
    _ticker: Option<Task<()>>,
}

impl Display {
    /// Bars if stderr is a terminal and nothing else is written there.
    pub(crate) fn new(rt: &Rt) -> Display {
        if crate::log::terminal_is_free() {
            return Display {
                progress: Arc::new(Bars::new()),
                _ticker: None,
            };
        }
        let lines = Arc::new(Lines::new(rt.clone()));
        let ticker = rt.spawn(lines.clone().run());
        Display {
            progress: lines,
            _ticker: Some(ticker),
        }
    }

    /// What operations report to.
    pub(crate) fn progress(&self) -> &Arc<dyn Progress> {
        &self.progress
    }
}
