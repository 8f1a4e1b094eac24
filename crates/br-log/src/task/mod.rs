//! Tasks of log backup: what `br log start`, `stop`, `pause` and `resume` do.
//!
//! | what | where |
//! |---|---|
//! | a task at one moment | [`Task`] |
//! | the keys in etcd | [`TaskStore`] |
//! | start, with its checks | [`start()`] |
//! | stop, pause, resume | [`stop()`], [`pause()`], [`resume()`] |
//! | other master keys of a sealed log | [`task_at()`], [`name_seal_keys()`] |

mod change;
mod error;
mod place;
mod seal_keys;
mod start;
mod state;
mod store;
#[cfg(test)]
mod tests;

pub use change::{PauseRequest, pause, resume, stop};
pub use error::TaskError;
pub use seal_keys::{name_seal_keys, task_at};
pub use start::{StartRequest, Started, start};
pub use state::{Checkpoints, Task};
pub use store::{TaskStore, Tasks};

use br_format::log::task::{Pause, PauseReason, PauseV2, Severity};
use br_rt::Rt;

use crate::Operator;

/// The safe point of a paused task, named as the official one.
pub fn pause_safe_point_id(name: &str) -> String {
    format!("{name}_pause_safepoint")
}

/// A pause at this moment because of an error.
pub(crate) fn error_pause(rt: &Rt, operator: &Operator, why: &str) -> Pause {
    let reason = PauseReason::Text(why.to_owned());
    let who = (operator.host.clone(), operator.pid);
    Pause::V2(PauseV2::new(Severity::Error, who, rt.wall().0, reason))
}
