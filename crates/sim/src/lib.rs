//! The whole system in one process on virtual time: PD, stores, log backup and its coordinator, the
//! flows of `br`, a network and external storage that fail. Everything follows from one seed.
//!
//! # What it does
//! [`run`] tells one [`story`]: transactions and changes of schemas while regions split, leaders
//! move, stores and whole clusters are lost; a backup and a log of it, made by commands that are
//! killed and repeated; restores of what was claimed into other clusters, under the same weather.
//! The oracle is the workload's model of every committed transaction.
//!
//! # Ordering and invariants
//! One thread, one runtime with paused time, one generator of random numbers: the same seed tells
//! the same story, event by event. The clock moves when everybody waits.

mod coordinator;
pub mod disturbance;
mod load;
mod operator;
mod place;
mod story;
mod tally;
mod trace;
mod traces_left;
mod weather;
mod world;

pub use coordinator::Coordinator;
pub use story::{Told, run};
pub use tally::Tally;
