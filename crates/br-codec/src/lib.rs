//! Memcomparable keys and MVCC records, as TiKV stores them.
//!
//! Pure functions over bytes. Everything that reads bytes treats them as damaged until proven
//! otherwise: it answers with [`DecodeError`], never panics, and allocates no more than the input
//! is long.

pub mod api_version;
pub mod bytes;
pub mod checksum;
mod error;
pub mod key;
pub mod lock_record;
pub mod number;
pub mod write_record;

pub use api_version::{ApiVersion, RawValue};
pub use checksum::Crc64;
pub use error::DecodeError;
pub use lock_record::{Lock, LockKind};
pub use write_record::{LastChange, Write, WriteKind, WriteRecord, WriteRef};

/// A value of at most so many bytes lies in the lock and write record itself; a longer one in the
/// default column family at its `start_ts`.
pub const SHORT_VALUE_LEN_MAX: usize = 255;
