//! Exports of the golden backups, which the official tool made, against the rows that SQL showed.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod export;
