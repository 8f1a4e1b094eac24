//! Servers that tests start on loopback, each on a free port and gone with the test's process:
//! [`Moto`] for S3, STS and KMS, [`Azurite`] for Azure, [`FakeGcs`] for GCS; and [`Proxy`], which
//! stands before one of them and makes faults. [`Answers`] stands for services of machines that no package
//! brings, [`S3Folder`] is for measurements.
//!
//! `scripts/install-test-servers` installs the servers. A test crate that uses them names
//! `tests/servers/find.rs` as its build script, which sets `cfg(moto)`, `cfg(azurite)` and
//! `cfg(fake_gcs)` for what is installed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "for tests only, and outside of what a simulation runs"
)]

mod answers;
mod azurite;
mod fake_gcs;
mod gcs_xml;
mod moto;
mod process;
mod proxy;
mod request;
mod s3_folder;
mod serve;

pub use answers::{Answers, Asked};
pub use azurite::Azurite;
pub use fake_gcs::FakeGcs;
pub use moto::{AccessKey, Moto};
pub use proxy::{Fault, Proxy};
pub use s3_folder::S3Folder;
