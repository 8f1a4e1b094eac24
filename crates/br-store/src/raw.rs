//! Raw key-value commands, in the layout of the store's API version.
//!
//! # Objects it reads and writes
//! V1 and V1TTL: keys as they are, in any column family. V2: memcomparable keys with a timestamp,
//! in the default column family; the newest version counts, a removal is a version too.
//!
//! # Ordering and invariants
//! Writes meant to be mixed with compare-and-swap (`for_cas`) take the latches of their keys, as
//! it does; others go straight to the engine. Expired values are not seen; they are left to be
//! overwritten.

mod compare_and_swap;
mod keys;
mod read;
mod scan;
mod write;

pub(crate) use keys::RawError;

#[cfg(test)]
mod tests;
