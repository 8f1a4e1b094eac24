//! External storage by URL: local directories, S3, GCS, Azure, memory, nothing.
//!
//! A URL and the flags beside it are parsed into a [`Backend`]; [`Storage::open`] makes a
//! [`Storage`] of it, which reads and writes whole objects, ranges and streams. The store side
//! gets its backend in a request ([`Backend::from_proto`]) and opens it in the same way.

mod adopt;
mod aws;
mod azure_identity;
mod backend;
mod call;
mod command;
mod environment;
mod error;
mod fault;
mod google_credentials;
mod http;
mod list;
mod master_keys;
mod open;
mod read_again;
mod renewed;
mod sealed;
mod secret;
mod storage;
mod tls;
mod token_file;
mod url;
mod wire;
mod writer;

pub use aws::{Kms, KmsDataKey, KmsError};
pub use backend::{AzureOptions, Backend, GcsOptions, NameLayout, S3Options, StorageOptions};
/// The newest form of sealed objects that is read and written here.
pub use br_format::sealed::object::FORM as SEALED_FORM;
pub use error::{Failure, Operation, StorageError};
pub use fault::{CrashPoint, Faults, Outage};
pub use http::{Traffic, traffic_of_process};
pub use list::Entry;
pub use master_keys::{MasterKeys, MasterKeysError, parse_master_key};
pub use open::{forget_memory, memory_objects, set_memory_faults};
pub use read_again::{READS_OF_DAMAGED, read_again};
pub use sealed::{Rotation, SealKeys, rotate_seal_keys};
pub use secret::Secret;
pub use storage::{READ_BYTES_MAX, Storage};
pub use tls::install_tls_provider;
pub use url::UrlError;
pub use wire::{BackendError, SendCredentials};
pub use writer::{PART_BYTES, PARTS_IN_FLIGHT_MAX, Writer, Written};
