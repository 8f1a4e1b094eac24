//! How a log backup is doing, and what holds it back: `br log status`.
//!
//! # What it does
//! Reads the tasks in etcd, the speed from the stores' metrics, and, for a task that lags, asks the
//! leaders of all its regions how far they are and looks for the lock, the store, the upload or the
//! coordinator that is to blame. It changes nothing, and knows only what anybody can ask: it works
//! the same whoever coordinates.

mod holdups;
mod report;
mod speed;

pub use holdups::Holdup;
pub use report::{StatusRequest, TaskStatus, Word, status};
