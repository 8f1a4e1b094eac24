//! Reads a log on external storage.
//!
//! # What it does
//! | question | where |
//! |---|---|
//! | whose log is it, where does it begin and end | [`LogBounds`] |
//! | which edits were made to it | [`LogStorage::migrations`], [`Removed`] |
//! | what does a restore of a window need | [`LogStorage::select`], [`LogFiles`] |
//! | is everything there | [`LogStorage::survey`], [`LogSurvey`] |
//! | what does a file hold | [`LogStorage::read_file`] |
//!
//! # Ordering and invariants
//! - Names of metadata filter only what their content would have filtered as well; in doubt an
//!   object is read.
//! - A flush that is gone with its index is missed, if the log has seals ([`Chain`]).
//! - What a compaction took out of the log is in its SSTs: whatever the window, either is read.
//!   Compactions are chosen one by one, never a migration as a whole.
//! - Values may be older than the window: `shift_ts` is the least `start_ts` of a transaction that
//!   committed in it. Names or metadata say it; for compactions whose metadata is gone, the records
//!   in their SSTs do.
//!
//! # Retries
//! Those of the storage.
//!
//! # After a crash
//! Nothing is written. Objects that no metadata names are left over from a store that died; they
//! count for nothing.

mod bounds;
mod chain;
mod compacted;
mod error;
mod file;
mod ingested;
mod metas;
mod migrations;
mod select;
mod storage;
mod survey;
#[cfg(test)]
mod tests;

pub use bounds::{LogBounds, StoredCheckpoint};
pub use chain::{Chain, LostFlush};
pub use error::LogReadError;
pub use ingested::IngestedGroup;
pub use migrations::Removed;
pub use select::{FILES_HELD_MAX, LogFiles, LogObject, LogPart, PartFiles};
pub use storage::{LogStorage, META_READS_DEFAULT};
pub use survey::{
    ContentCheck, LogSurvey, MissingObject, Quiet, StoreFlushes, TableEvents, restorable_until,
};
