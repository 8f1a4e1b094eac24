//! Migrations: how a log is edited whose objects other readers rely on.
//!
//! # What it does
//! [`append()`] adds an edit; [`load()`] reads all; [`merge()`] makes one of them and removes what they
//! took out of the log.
//!
//! # Objects it reads and writes
//! `v1/migrations/*`, under the locks of [`crate::storage_lock`]; and when edits are carried out,
//! metadata, events, SSTs and indices of compactions and restores.
//!
//! # Ordering and invariants
//! What a restore reads is the same before and after each step of a merge.
//!
//! # After a crash
//! The lock stays, and the next one is told so. Running the same again finishes it.

mod append;
mod carry_out;
mod error;
mod load;
mod merge;
#[cfg(test)]
mod tests;

pub use append::{append, append_beside_readers};
pub(crate) use carry_out::write_or_delete;
pub use error::MigrateError;
pub(crate) use load::truncate_safe_point;
pub use load::{Loaded, load};
pub use merge::{Merge, MergeUntil, merge, plan_merge};
pub(crate) use merge::{apply, fold};
