//! A whole cluster in one process: PD and stores on loopback.

pub mod cluster;
pub mod pd;
mod server;

pub use cluster::{Cluster, ClusterError, Options, Parts};
