//! A whole cluster in one process: PD and stores on loopback.

pub mod pd;
mod server;
