//! Cutting off a log: `br log truncate`.
//!
//! # What it does
//! Deletes what no restore needs any more that begins from a full backup at or after a timestamp.
//!
//! # Objects it reads and writes
//! `v1_stream_trancate_safepoint.txt`, `v1/backupmeta/*`, the events that those name,
//! `v1/log_restore_tables_blocklists/*`, and with compactions `v1/migrations/*` and
//! `v1/compactions/*`; under `truncating.lock` and the writer's lock of migrations, so that no
//! restore reads what is being deleted.
//!
//! # Ordering and invariants
//! 1. The safe point is written: from now on no restore begins before it.
//! 2. Objects are deleted, and only then the metadata that names them is written anew.
//!
//! For every restore that begins at the safe point or after it, the log is the same before and
//! after each step. Values are kept that were written before the cut, by transactions that commit
//! after it.
//!
//! # After a crash
//! Metadata may name objects that are gone; no restore after the safe point asks for them. The next
//! run finishes. The locks stay: on the same machine the next run takes them away, elsewhere it says
//! whose they are.

mod error;
mod run;
mod shift;
#[cfg(test)]
mod tests;

pub use error::TruncateError;
pub use run::{TruncateOptions, TruncatePlan, Truncated, Truncation, plan};
pub(crate) use shift::find_cut;
