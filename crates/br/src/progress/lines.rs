use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_rt::{Monotonic, PhaseId, Progress, Rt, Unit};

use crate::value::{go_duration, human_size};

/// Often enough to see that it moves, seldom enough not to fill the log of a job.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A line for each phase under way every few seconds, on stderr and in the log.
pub(super) struct Lines {
    rt: Rt,
    next: AtomicU64,
    phases: Mutex<BTreeMap<u64, State>>,
}

struct State {
    title: String,
    unit: Unit,
    total: u64,
    done: u64,
    bytes: u64,
    started: Monotonic,
}

pub(super) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Ranges => "ranges",
        Unit::Files => "files",
        Unit::Tables => "tables",
        Unit::Bytes => "bytes",
    }
}

impl Lines {
    pub(super) fn new(rt: Rt) -> Lines {
        Lines {
            rt,
            next: AtomicU64::new(1),
            phases: Mutex::default(),
        }
    }

    /// Writes lines for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            self.rt.sleep(LINE_INTERVAL).await;
            let lines: Vec<_> = {
                let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
                phases.values().map(|state| state.line(&self.rt)).collect()
            };
            lines.iter().for_each(|line| write_line(line));
        }
    }

    fn with(&self, phase: PhaseId, change: impl FnOnce(&mut State)) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = phases.get_mut(&phase.0) {
            change(state);
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress is for stderr")]
fn write_line(line: &str) {
    eprintln!("{line}");
    tracing::info!("{line}");
}

impl State {
    /// `Full Backup: 42 / 100 ranges (42.0%), 270MB/s, 12s, 17s left`.
    fn line(&self, rt: &Rt) -> String {
        let spent = rt.now().since(self.started);
        let seconds = spent.as_secs_f64();
        let unit = unit_name(self.unit);
        let mut line = match self.total {
            0 => format!("{}: {} {unit}", self.title, self.done),
            total => format!(
                "{}: {} / {total} {unit} ({:.1}%)",
                self.title,
                self.done,
                self.done as f64 * 100.0 / total as f64
            ),
        };
        if self.bytes > 0 && seconds > 0.0 {
            let rate = (self.bytes as f64 / seconds) as u64;
            line.push_str(&format!(", {}/s", human_size(rate)));
        }
        line.push_str(&format!(", {}", whole_seconds(spent)));
        if self.done > 0 && self.done < self.total {
            let left = seconds * (self.total - self.done) as f64 / self.done as f64;
            if let Ok(left) = Duration::try_from_secs_f64(left) {
                line.push_str(&format!(", {} left", whole_seconds(left)));
            }
        }
        line
    }
}

fn whole_seconds(duration: Duration) -> String {
    go_duration(Duration::from_secs(duration.as_secs()))
}

impl Progress for Lines {
    fn start(&self, title: &str, unit: Unit, total: u64) -> PhaseId {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let started = self.rt.now();
        let state = State {
            title: title.into(),
            unit,
            total,
            done: 0,
            bytes: 0,
            started,
        };
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, state);
        PhaseId(id)
    }

    fn advance(&self, phase: PhaseId, units: u64, bytes: u64) {
        self.with(phase, |state| {
            state.done += units;
            state.bytes += bytes;
        });
    }

    fn set_total(&self, phase: PhaseId, total: u64) {
        self.with(phase, |state| state.total = total);
    }

    fn finish(&self, phase: PhaseId) {
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&phase.0);
    }
}

#[cfg(test)]
mod tests {
    use br_rt::UnixMillis;

    use super::*;

    #[test]
    fn a_line_has_rate_and_rest() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let rt = Rt::simulated(1, UnixMillis(0));
            let lines = Lines::new(rt.clone());
            let phase = lines.start("Full Backup", Unit::Ranges, 0);
            let line = || {
                let phases = lines.phases.lock().unwrap();
                phases.values().next().map(|state| state.line(&rt))
            };
            assert_eq!(line().unwrap(), "Full Backup: 0 ranges, 0s");
            lines.set_total(phase, 100);
            lines.advance(phase, 40, 20_000_000);
            rt.sleep(Duration::from_secs(10)).await;
            assert_eq!(
                line().unwrap(),
                "Full Backup: 40 / 100 ranges (40.0%), 2MB/s, 10s, 15s left"
            );
            lines.finish(phase);
            assert!(line().is_none());
        });
    }
}
