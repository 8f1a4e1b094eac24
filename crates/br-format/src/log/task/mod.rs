//! What etcd holds of a log backup task, below [`PREFIX`].
//!
//! Stores reach it through PD's `meta_storage` service, everybody else through etcd itself.

mod error;
mod info;
mod key;
mod pause;
#[cfg(test)]
mod tests;

pub use error::TaskError;
pub use info::{TaskEncryption, TaskInfo};
pub use key::{PREFIX, TaskKey, TaskName, prefixes};
pub use pause::{Pause, PauseReason, PauseV2, Severity};

/// The end of a task that has none, as the official tool writes it.
pub const END_TS_NONE: br_types::TimeStamp = br_types::TimeStamp(999_999_999_999_999_999);
