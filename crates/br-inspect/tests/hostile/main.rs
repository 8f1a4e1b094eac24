//! Every parser of bytes from outside, with golden objects, and with thousands of damaged ones: an
//! error or a value, never a panic, and no memory that the bytes do not have.
//!
//! `HOSTILE_SEED=n` takes other damage, `HOSTILE_ROUNDS=n` more of it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod entries;
mod mutate;
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutate::Mutator;

/// Damaged inputs for each parser.
const ROUNDS: u64 = 3_000;
/// Inputs are cut to this: damage is found as well in small ones, and faster.
const INPUT_BYTES_MAX: usize = 256 << 10;
/// What the process may take in addition, address space included: far more than any input needs,
/// and far less than a length of four bytes can ask for.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The greatest address space that the process has had.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmPeak:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[test]
fn no_bytes_make_a_parser_panic_or_take_memory() {
    let (seed, rounds) = (number("HOSTILE_SEED", 1), number("HOSTILE_ROUNDS", ROUNDS));
    for (name, entry) in entries::ENTRIES {
        let seeds = seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let before = peak_bytes();
        for bytes in &seeds {
            run(name, *entry, bytes);
        }
        let mut mutator = Mutator::new(seed, name);
        for _ in 0..rounds {
            let bytes = mutator.damage(&seeds, INPUT_BYTES_MAX);
            run(name, *entry, &bytes);
        }
        if let (Some(before), Some(after)) = (before, peak_bytes()) {
            let grown = after.saturating_sub(before);
            assert!(grown < MEMORY_BYTES_MAX, "{name} took {grown} bytes");
        }
    }
}

/// On a panic the input is kept, to become a regression test.
fn run(name: &str, entry: fn(&[u8]), bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| entry(bytes))).is_err() {
        let path = std::env::temp_dir().join(format!("hostile-{name}.bin"));
        std::fs::write(&path, bytes).unwrap();
        panic!("{name} panics on {}", path.display());
    }
}

/// Inputs that once did harm.
#[test]
fn what_once_did_harm_does_none() {
    let folder = std::path::Path::new("tests/hostile/regressions");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        for (parser, entry) in entries::ENTRIES {
            if name.starts_with(parser) {
                run(parser, *entry, &bytes);
            }
        }
    }
}
