//! Whole clusters over loopback. What they are compared with is a model or what the official tools
//! made, never themselves.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]
#![allow(clippy::print_stdout, reason = "seeds, for replaying a failure")]

mod anywhere;
mod golden;
mod keys;
mod log_backup;
mod log_history;
mod log_tasks;
mod pitr_choices;
mod pitr_golden;
mod points;
mod resume;
mod site;
mod snapshot_history;
mod system_tables;
mod tidb_servers;
mod tikv_client_raw;
mod tikv_client_txn;
