//! A cluster over real sockets: PD's two protocols on one port, and what stores serve.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

mod batch_commands;
mod client;
mod cluster;
mod etcd;
mod import;
mod pessimistic_locks;
