//! The governor against a model of a machine: commands take longer by what background work takes
//! from them.

use std::time::Duration;

use br_rt::{Monotonic, Rt, UnixMillis};

use super::governor::Governor;
use super::{Courtesy, SHARE_MIN, SLICE};

/// A machine on which commands come at a rate and take a time of their own.
struct Machine {
    governor: Governor,
    now: Monotonic,
    random: u64,
    /// Commands in a millisecond.
    rate: u32,
    own: Duration,
    /// By how much they take longer when background work has all of the time.
    harm: f64,
    slice: Duration,
    pause: Duration,
    /// The share that background work had lately.
    load: f64,
}

impl Machine {
    fn new(rate: u32, own: Duration, harm: f64) -> Machine {
        let now = Rt::simulated(1, UnixMillis(0)).now();
        Machine {
            governor: Governor::new(now),
            now,
            random: 7,
            rate,
            own,
            harm,
            slice: Duration::ZERO,
            pause: Duration::ZERO,
            load: 0.0,
        }
    }

    fn random(&mut self) -> f64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        (self.random >> 40) as f64 / f64::from(1 << 24)
    }

    /// Lets it go on, a millisecond at a time; gives the share that background work had, and the mean
    /// time of commands relative to their own.
    fn run(&mut self, time: Duration, is_busy: bool) -> (f64, f64) {
        let (mut worked, mut took, mut commands) = (0.0, 0.0, 0);
        let steps = time.as_millis() as u32;
        for _ in 0..steps {
            self.now = self.now.plus(STEP);
            let works = is_busy && self.pause.is_zero();
            self.pause = self.pause.saturating_sub(STEP);
            if works {
                worked += 1.0;
                self.slice += STEP;
                if self.slice >= SLICE {
                    self.pause = self.governor.pause(self.now, self.slice, SHARE_MIN);
                    self.slice = Duration::ZERO;
                }
            }
            self.load += (f64::from(u8::from(works)) - self.load) / 20.0;
            for _ in 0..self.rate {
                let slower = 1.0 + self.harm * self.load;
                let spread = 0.8 + 0.4 * self.random();
                let time = self.own.mul_f64(slower * spread);
                self.governor.command(self.now, time);
                took += slower;
                commands += 1;
            }
        }
        let took = if commands == 0 {
            1.0
        } else {
            took / f64::from(commands)
        };
        (worked / f64::from(steps), took)
    }
}

const STEP: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn work_that_harms_gets_as_much_as_it_may() {
    for (own, harm) in [(5, 2.0), (5, 10.0), (20, 15.0)] {
        let mut machine = Machine::new(1, Duration::from_millis(own), harm);
        machine.run(Duration::from_secs(5), false);
        machine.governor.begin(machine.now);
        machine.run(LONG, true);
        let (share, slower) = machine.run(LONG, true);
        // Commands may take twice as long at a share of one part of the harm.
        let fair = 1.0 / harm;
        assert!(slower < 2.2, "{own} {harm}: {slower}");
        assert!(
            share > fair * 0.5 && share < fair * 1.3,
            "{own} {harm}: {share}"
        );
    }
}

#[test]
fn work_that_harms_nobody_gets_all() {
    let mut machine = Machine::new(1, Duration::from_millis(5), 0.5);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.95, "{share}");
    // Less than a millisecond is noise.
    let mut machine = Machine::new(1, Duration::from_micros(100), 5.0);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.95, "{share}");
}

#[test]
fn an_idle_cluster_gives_all() {
    let mut machine = Machine::new(1, Duration::from_millis(5), 10.0);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    let (share, _) = machine.run(LONG, true);
    assert!(share < 0.3, "{share}");
    machine.rate = 0;
    machine.run(Duration::from_secs(5), true);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.99, "{share}");
}

/// Commands that become slower by themselves are no reason to starve the backup.
#[test]
fn it_learns_what_commands_take_meanwhile() {
    let mut machine = Machine::new(1, Duration::from_millis(2), 0.7);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    machine.run(LONG, true);
    machine.own = Duration::from_millis(40);
    machine.run(LONG * 2, true);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.8, "{share}");
}

/// Nobody knows what commands take without it when it begins in the midst of them.
#[test]
fn it_learns_from_a_first_probe() {
    let mut machine = Machine::new(1, Duration::from_millis(5), 10.0);
    machine.governor.begin(machine.now);
    machine.run(LONG, true);
    let (_, slower) = machine.run(LONG, true);
    assert!(slower < 2.2, "{slower}");
}

#[test]
fn the_least_share_is_kept_and_it_can_be_turned_off() {
    let mut machine = Machine::new(1, Duration::from_millis(5), 1000.0);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    machine.run(LONG, true);
    let (share, _) = machine.run(LONG, true);
    assert!(share > SHARE_MIN * 0.9, "{share}");
    machine.governor.set_on(false);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.99, "{share}");
    machine.governor.end(machine.now);
    assert!(!machine.governor.is_on());
}

#[tokio::test(start_paused = true)]
async fn workers_come_and_go() {
    let courtesy = Courtesy::new(Rt::simulated(1, UnixMillis(0)));
    assert!((courtesy.share() - 1.0).abs() < f64::EPSILON && courtesy.is_on());
    let mut flush = courtesy.flush();
    let backup = courtesy.backup();
    flush.give_way().await;
    drop((flush, backup));
    courtesy.foreground(Duration::from_millis(1));
    courtesy.turn(false);
    assert!(!courtesy.is_on());
}
