//! Exports of the golden backups, which the official tool made, against the rows that SQL showed.

mod export;
