//! The governor against a model of a machine: commands take longer by what background work takes
//! from them.

use std::time::Duration;

use br_rt::{Monotonic, Rt, UnixMillis};

use super::governor::Governor;
use super::{Background, Courtesy, SHARE_MIN, SLICE};

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

/// A machine on which a backup has gone on for a while.
fn settled(rate: u32, own: Duration, harm: f64) -> Machine {
    let mut machine = Machine::new(rate, own, harm);
    machine.run(Duration::from_secs(5), false);
    machine.governor.begin(machine.now);
    machine.run(LONG, true);
    machine
}

const STEP: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn work_that_harms_gets_as_much_as_it_may() {
    for (own, harm) in [(5, 2.0), (5, 10.0), (20, 15.0)] {
        let mut machine = settled(1, Duration::from_millis(own), harm);
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
    let mut machine = settled(1, Duration::from_millis(5), 0.5);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.95, "{share}");
    // Less than a millisecond is noise.
    let mut machine = settled(1, Duration::from_micros(100), 5.0);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.95, "{share}");
}

#[test]
fn an_idle_cluster_gives_all() {
    let mut machine = settled(1, Duration::from_millis(5), 10.0);
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
    let mut machine = settled(1, Duration::from_millis(2), 0.7);
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
    let mut machine = settled(1, Duration::from_millis(5), 1000.0);
    let (share, _) = machine.run(LONG, true);
    assert!(share > SHARE_MIN * 0.9, "{share}");
    machine.governor.set_on(false);
    let (share, _) = machine.run(LONG, true);
    assert!(share > 0.99, "{share}");
    machine.governor.end(machine.now);
    assert!(!machine.governor.is_on());
}

/// A thousand slow commands within the next second.
async fn a_second_of_commands(courtesy: &Courtesy, took: Duration) {
    for _ in 0..1000 {
        courtesy.foreground(took);
        courtesy.rt.sleep(STEP).await;
    }
}

/// How long a worker that worked for a slice has to pause.
async fn pause_after_a_slice(courtesy: &Courtesy, worker: &mut Background) -> Duration {
    courtesy.rt.sleep(SLICE).await;
    let began = courtesy.rt.now();
    worker.give_way().await;
    courtesy.rt.now().since(began)
}

#[tokio::test(start_paused = true)]
async fn workers_pause_while_commands_are_slow() {
    let courtesy = Courtesy::new(Rt::simulated(1, UnixMillis(0)));
    a_second_of_commands(&courtesy, Duration::from_millis(5)).await;
    let mut flush = courtesy.flush();
    let mut backup = courtesy.backup();
    assert_eq!(
        pause_after_a_slice(&courtesy, &mut backup).await,
        Duration::ZERO
    );

    // The next probe is ten seconds away.
    for _ in 0..5 {
        a_second_of_commands(&courtesy, Duration::from_millis(50)).await;
    }
    let share = courtesy.share();
    assert!(share < SHARE_MIN, "{share}");
    backup.slice_began = courtesy.rt.now();
    flush.slice_began = courtesy.rt.now();
    let of_backup = pause_after_a_slice(&courtesy, &mut backup).await;
    assert_eq!(of_backup.as_millis(), 76, "nineteen times a slice");
    flush.slice_began = courtesy.rt.now();
    let of_flush = pause_after_a_slice(&courtesy, &mut flush).await;
    assert_eq!(of_flush.as_millis(), 12, "three times a slice");

    courtesy.turn(false);
    assert!(!courtesy.is_on());
    let off = pause_after_a_slice(&courtesy, &mut backup).await;
    assert_eq!(off, Duration::ZERO);
    drop((flush, backup));
}

/// Time in which there was nothing to pause for is not made up for later.
#[tokio::test(start_paused = true)]
async fn a_slice_without_a_pause_is_over() {
    let courtesy = Courtesy::new(Rt::simulated(1, UnixMillis(0)));
    let mut backup = courtesy.backup();
    let none = pause_after_a_slice(&courtesy, &mut backup).await;
    assert_eq!(none, Duration::ZERO);
    assert_eq!(backup.slice_began, courtesy.rt.now());
}
