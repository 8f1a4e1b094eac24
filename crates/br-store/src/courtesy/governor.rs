use std::time::Duration;

use br_rt::Monotonic;

/// A window of this length without background work teaches what commands take.
const QUIET_WINDOW: Duration = Duration::from_secs(1);
/// How often the share is judged.
const BUSY_WINDOW: Duration = Duration::from_millis(250);
/// A window in which there were too few commands goes on for so long; then there are next to none.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// A stop of all background work, to see what commands take without.
const PROBE: Duration = Duration::from_millis(200);
/// Its beginning, in which commands still wait for what was under way.
const SETTLE: Duration = Duration::from_millis(80);
/// It is longer when there are few commands.
const PROBE_MAX: Duration = Duration::from_millis(600);
/// Between two of them.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Commands of a window that say something about the slowest of them.
const ENOUGH: u32 = 40;
/// The percentile that is held.
const PERCENTILE: f64 = 0.95;
/// It may rise by this factor,
const FACTOR: u32 = 2;
/// or by this: less is noise.
const MARGIN: Duration = Duration::from_millis(1);
/// Weight of a new window in what commands take without background work.
const NEWS: f64 = 0.3;
/// A share never falls below this: it could not be told from none.
const FLOOR: f64 = 0.01;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// No background work.
    Quiet,
    /// Background work at its share.
    Busy,
    /// Background work waits.
    Probe,
}

/// Finds the share of the time that background work may have.
#[derive(Debug)]
pub(super) struct Governor {
    is_on: bool,
    workers: usize,
    mode: Mode,
    window: Window,
    probed_at: Monotonic,
    /// The percentile without background work.
    quiet: Option<Duration>,
    share: f64,
}

impl Governor {
    pub(super) fn new(now: Monotonic) -> Governor {
        Governor {
            is_on: true,
            workers: 0,
            mode: Mode::Quiet,
            window: Window::new(now),
            probed_at: now,
            quiet: None,
            share: 1.0,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    pub(super) fn set_on(&mut self, is_on: bool) {
        self.is_on = is_on;
        self.share = 1.0;
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// A command took so long.
    pub(super) fn command(&mut self, now: Monotonic, took: Duration) {
        let settles = self.mode == Mode::Probe && self.window.age(now) < SETTLE;
        if !settles {
            self.window.add(took);
        }
        self.turn(now);
    }

    /// A worker begins.
    pub(super) fn begin(&mut self, now: Monotonic) {
        self.workers += 1;
        if self.mode == Mode::Quiet {
            self.learn();
            self.enter(Mode::Busy, now);
            // What was learned just now is as good as a probe.
            self.probed_at = now;
        }
    }

    /// A worker ends.
    pub(super) fn end(&mut self, now: Monotonic) {
        self.workers = self.workers.saturating_sub(1);
        if self.workers == 0 {
            self.enter(Mode::Quiet, now);
        }
    }

    /// How long a worker pauses that has worked for so long.
    pub(super) fn pause(&mut self, now: Monotonic, worked: Duration, share_min: f64) -> Duration {
        self.turn(now);
        if !self.is_on {
            return Duration::ZERO;
        }
        if self.mode == Mode::Probe {
            let left = PROBE.saturating_sub(self.window.age(now));
            return left.max(Duration::from_millis(1));
        }
        let share = self.share.max(share_min);
        worked.mul_f64((1.0 - share) / share)
    }

    fn enter(&mut self, mode: Mode, now: Monotonic) {
        self.mode = mode;
        self.window = Window::new(now);
    }

    fn turn(&mut self, now: Monotonic) {
        let (age, is_enough) = (self.window.age(now), self.window.count >= ENOUGH);
        match self.mode {
            Mode::Quiet if age >= QUIET_WINDOW => {
                self.learn();
                self.enter(Mode::Quiet, now);
            }
            Mode::Probe if age >= PROBE && (is_enough || age >= PROBE_MAX) => {
                self.learn();
                self.enter(Mode::Busy, now);
                self.probed_at = now;
            }
            Mode::Busy if age >= BUSY_WINDOW && (is_enough || age >= WINDOW_MAX) => {
                let is_due = self.quiet.is_none() || now.since(self.probed_at) >= PROBE_INTERVAL;
                self.judge();
                let probe = is_due && is_enough && self.is_on;
                self.enter(if probe { Mode::Probe } else { Mode::Busy }, now);
            }
            _ => {}
        }
    }

    /// The window was one without background work.
    fn learn(&mut self) {
        if self.window.count < ENOUGH {
            return;
        }
        let found = self.window.percentile();
        self.quiet = Some(match self.quiet {
            Some(known) => known.mul_f64(1.0 - NEWS) + found.mul_f64(NEWS),
            None => found,
        });
    }

    /// The window was one with background work.
    fn judge(&mut self) {
        if self.window.count < ENOUGH {
            self.share = (self.share + 0.25).min(1.0);
            return;
        }
        let Some(quiet) = self.quiet else { return };
        let allowed = (quiet * FACTOR).max(quiet + MARGIN);
        self.share = match self.window.percentile() > allowed {
            true => (self.share * 0.7).max(FLOOR),
            false => (self.share + 0.05).min(1.0),
        };
    }
}

/// Buckets of a histogram: four for each doubling, from one microsecond to half an hour.
const BUCKETS: usize = 4 * 31;

/// What commands took since it began.
#[derive(Debug)]
struct Window {
    began: Monotonic,
    count: u32,
    buckets: [u32; BUCKETS],
}

impl Window {
    fn new(began: Monotonic) -> Window {
        Window {
            began,
            count: 0,
            buckets: [0; BUCKETS],
        }
    }

    fn age(&self, now: Monotonic) -> Duration {
        now.since(self.began)
    }

    fn add(&mut self, took: Duration) {
        let micros = took.as_micros().max(1) as f64;
        let bucket = (micros.log2() * 4.0) as usize;
        if let Some(bucket) = self.buckets.get_mut(bucket.min(BUCKETS - 1)) {
            *bucket = bucket.saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
    }

    /// At most a fifth too much.
    fn percentile(&self) -> Duration {
        let mut left = f64::from(self.count) * PERCENTILE;
        let found = self.buckets.iter().position(|bucket| {
            left -= f64::from(*bucket);
            left <= 0.0
        });
        let upper = (found.unwrap_or_default() + 1) as f64 / 4.0;
        Duration::from_secs_f64(upper.exp2() / 1e6)
    }
}
