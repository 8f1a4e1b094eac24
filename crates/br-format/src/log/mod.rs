//! The log: everything of a log backup that lies on external storage or in etcd, as bytes and as
//! types.
//!
//! # What it does
//! Pure, as the rest of this crate. `docs/formats/log.md` describes the layouts.
//! - [`names`]: names of objects, and what a name proves;
//! - [`metadata`]: the index of one flush, of [`file::LogFile`]s in objects;
//! - [`record`], [`content`]: the files themselves, down to records;
//! - [`seal`]: what shows that nothing is missing and nothing has changed;
//! - [`checkpoint`], [`marker`]: where a log begins, and how far it goes;
//! - [`task`]: keys and values in etcd;
//! - [`migration`], [`compaction`], [`ingested`]: edits of a log;
//! - [`lock`], [`blocklist`], [`id_map`]: what tools leave for each other.
//!
//! # Writing
//! A store tallies the records of each file ([`content::Tally`]), seals it ([`content::seal`]), puts
//! files into objects ([`content::split_into_groups`], [`content::lay_out`], [`names::DataName`]),
//! and last writes [`metadata::LogMeta`].

pub mod blocklist;
pub mod checkpoint;
pub mod compaction;
pub mod content;
pub mod encryption;
mod error;
pub mod file;
pub mod id_map;
pub mod ingested;
pub mod lock;
pub mod marker;
pub mod metadata;
pub mod migration;
pub mod names;
pub mod record;
pub mod seal;
pub mod task;
#[cfg(test)]
mod tests;
mod time;

pub use error::LogFormatError;
pub use time::rfc3339;
