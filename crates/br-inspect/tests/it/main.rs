//! Exports of the golden backups and logs, which the official tools made, against the rows that
//! SQL showed.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod export;
mod export_log;
mod folders;
#[cfg(golden)]
mod rows;
mod show;
