//! Seeds of the simulation. `SIM_SEED` runs a single one and shows its trace, `SIM_SEEDS` is the
//! number of seeds, `SIM_FIRST` the first of them, `SIM_LOG` shows log lines, such as
//! `SIM_LOG=br_log=debug,br_rt=trace`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails says where, and shows the trace"
)]

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use sim::Tally;

/// In `make test`.
const SEEDS_DEFAULT: u64 = 200;
/// Seeds that found something, and what: flushes that were compacted beyond the range which was asked
/// for, and then truncated, counted as lost.
const FOUND: [u64; 4] = [2_000_015, 2_000_094, 2_000_096, 2_000_256];
/// The end of a trace that a failure shows; all of it with `SIM_SEED`.
const LINES_SHOWN: usize = 15;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

#[test]
fn everything_holds() {
    let one = number("SIM_SEED");
    let first = one.or(number("SIM_FIRST")).unwrap_or(0);
    let count = one.map_or(number("SIM_SEEDS").unwrap_or(SEEDS_DEFAULT), |_| 1);
    let found: &[u64] = if one.is_some() { &[] } else { &FOUND };
    let seeds: Vec<u64> = found.iter().copied().chain(first..first + count).collect();
    let next = AtomicUsize::new(0);
    if let Ok(filter) = std::env::var("SIM_LOG") {
        let lines = tracing_subscriber::fmt().with_env_filter(filter);
        lines.without_time().with_ansi(false).init();
    }
    let tally = Mutex::new(Tally::default());
    // Each run has one thread; they know nothing of each other.
    let failed = std::thread::scope(|scope| {
        let runs = (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| {
            scope.spawn(|| {
                let mut failed = Vec::new();
                let mut done = Tally::default();
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        tally.lock().unwrap().join(done);
                        return failed;
                    };
                    if !holds(seed, one.is_some(), &mut done) {
                        failed.push(seed);
                    }
                }
            })
        });
        let runs: Vec<_> = runs.collect();
        let failed = runs.into_iter().flat_map(|run| run.join().unwrap());
        failed.collect::<Vec<_>>()
    });
    println!("{}", tally.into_inner().unwrap());
    assert!(failed.is_empty(), "failed: SIM_SEED={failed:?}");
}

fn holds(seed: u64, is_shown: bool, tally: &mut Tally) -> bool {
    let told = sim::run(seed).unwrap();
    tally.add(&told.trace);
    let is_good = told.outcome.is_ok();
    if is_shown || !is_good {
        let from = match is_shown {
            true => 0,
            false => told.trace.len().saturating_sub(LINES_SHOWN),
        };
        println!("SIM_SEED={seed}\n{}", told.trace[from..].join("\n"));
    }
    is_good
}

#[test]
fn a_seed_tells_one_story() {
    // Of its own: a seed names its storages, and the other test runs at the same time.
    for seed in 1_000_000..1_000_010 {
        let (a, b) = (sim::run(seed).unwrap(), sim::run(seed).unwrap());
        for (a, b) in a.trace.iter().zip(&b.trace) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(a.trace.len(), b.trace.len());
    }
}
