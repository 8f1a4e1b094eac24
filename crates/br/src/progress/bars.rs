use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_rt::{PhaseId, Progress, Unit};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines::unit_name;
use crate::value::human_size;

/// Redraws while nothing advances, so that the time goes on.
const TICK: Duration = Duration::from_millis(200);

/// A bar for each phase, on stderr.
pub(super) struct Bars {
    all: MultiProgress,
    next: AtomicU64,
    phases: Mutex<HashMap<PhaseId, Bar>>,
}

struct Bar {
    bar: ProgressBar,
    bytes: u64,
}

impl Bars {
    pub(super) fn new() -> Bars {
        Bars {
            all: MultiProgress::new(),
            next: AtomicU64::new(1),
            phases: Mutex::default(),
        }
    }

    fn with(&self, phase: PhaseId, change: impl FnOnce(&mut Bar)) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = phases.get_mut(&phase) {
            change(bar);
        }
    }
}

fn style(total: u64) -> ProgressStyle {
    let template = match total {
        0 => "{prefix} {spinner} {human_pos} {elapsed} {msg}",
        _ => {
            "{prefix} [{bar:30}] {percent_precise}% {human_pos}/{human_len} {elapsed} eta {eta} {msg}"
        }
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=>-")
}

impl Progress for Bars {
    fn start(&self, title: &str, unit: Unit, total: u64) -> PhaseId {
        let id = PhaseId(self.next.fetch_add(1, Ordering::Relaxed));
        let bar = self
            .all
            .add(ProgressBar::new(total).with_style(style(total)));
        bar.set_prefix(format!("{title} ({})", unit_name(unit)));
        bar.enable_steady_tick(TICK);
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        phases.insert(id, Bar { bar, bytes: 0 });
        id
    }

    fn advance(&self, phase: PhaseId, units: u64, bytes: u64) {
        self.with(phase, |bar| {
            bar.bytes += bytes;
            bar.bar.inc(units);
            let seconds = bar.bar.elapsed().as_secs_f64();
            if bar.bytes > 0 && seconds > 0.0 {
                let rate = (bar.bytes as f64 / seconds) as u64;
                bar.bar.set_message(format!("{}/s", human_size(rate)));
            }
        });
    }

    fn set_total(&self, phase: PhaseId, total: u64) {
        self.with(phase, |bar| {
            bar.bar.set_style(style(total));
            bar.bar.set_length(total);
        });
    }

    fn finish(&self, phase: PhaseId) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = phases.remove(&phase) {
            bar.bar.abandon();
        }
    }
}
