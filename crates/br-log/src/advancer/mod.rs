//! The coordinator of log backup, which the official tools call the advancer: one in the cluster,
//! elected, without a state of its own.
//!
//! | what | where |
//! |---|---|
//! | the process around it | [`run`] |
//! | who coordinates | [`Election`] |
//! | what it does | [`Coordinator`] |
//! | what it knows | [`SpanTree`] |
//! | the cluster, and a model of one in tests | [`Environment`], [`ClusterEnvironment`] |

mod cluster_environment;
mod config;
mod coordinator;
mod daemon;
mod election;
mod environment;
mod error;
pub(crate) mod old_locks;
mod polling;
mod span_tree;
mod stall;
mod subscriptions;
#[cfg(test)]
mod tests;

pub use cluster_environment::{ClusterEnvironment, SAFE_POINT_ID, SAFE_POINT_TTL};
pub use config::{AdvancerConfig, POLL_AFTER_DEFAULT};
pub use coordinator::{Coordinator, GRACE};
pub use daemon::run;
pub use election::{Election, Leadership, OWNER_PREFIX};
pub use environment::{
    Environment, Flushed, LocksResolved, Raised, RegionAt, RegionFlushed, StoreAt,
};
pub use error::AdvanceError;
pub use polling::{RegionProgress, Unknown, ask_leaders};
pub use span_tree::{Span, SpanTree};
