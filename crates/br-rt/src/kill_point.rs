//! # What it does
//! Names the steps of an operation, so that a test can end the process in the middle of each and see
//! whether the next run puts things right.
//!
//! # Ordering and invariants
//! A point stands after the step that it is named for. Nothing happens at it unless the command
//! armed it, which it does only in builds with debug assertions.
#![allow(
    clippy::print_stderr,
    reason = "the last words of a process that a test kills"
)]

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Matches every point.
const ANY: &str = "*";

struct Armed {
    name: String,
    /// Passes that are left, the deadly one included.
    left: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Has the process die when it passes a point for the n-th time: `NAME:N`, or `*:N` for all points
/// counted together. Later calls change nothing.
///
/// # Errors
/// What is wrong with the text.
pub fn arm_kill_point(spec: &str) -> Result<(), String> {
    let (name, times) = spec.rsplit_once(':').unwrap_or((spec, "1"));
    let left = match times.parse() {
        Ok(0) | Err(_) => return Err(format!("{times:?} is not a number of passes")),
        Ok(left) => AtomicU64::new(left),
    };
    ARMED.get_or_init(|| Armed {
        name: name.to_owned(),
        left,
    });
    Ok(())
}

/// A step has been done.
pub fn kill_point(name: &'static str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(armed) = ARMED.get() else { return };
    if armed.name != name && armed.name != ANY {
        return;
    }
    if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        eprintln!("killed at {name}");
        // No destructor runs, as with `kill -9`.
        std::process::abort();
    }
}
