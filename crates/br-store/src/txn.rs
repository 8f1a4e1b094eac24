//! Transactional commands: what each request of the protocol does to locks and versions.
//!
//! # Objects it reads and writes
//! The three column families of `mvcc`, under the latches of the keys.
//!
//! # Retries
//! Each command can be sent again after an answer was lost: a second prewrite finds its own lock
//! or commit, a second commit its own commit, a second rollback its own rollback record.

mod commit;
mod destroy;
mod gc;
mod heart_beat;
mod pessimistic_lock;
mod prewrite;
mod read;
mod resolve_lock;
mod rollback;
mod scan_lock;
mod secondary_locks;
mod status;
mod waits;

pub use gc::GcSummary;
pub(crate) use waits::LockWaits;

use br_codec::{Write, WriteKind, key};
use br_types::{EncodedKey, TimeStamp};

use crate::mvcc::{MvccError, WriteTxn};

/// The memcomparable keys of a request, each once, in order.
fn unique_keys(raw_keys: &[Vec<u8>]) -> Vec<EncodedKey> {
    let mut keys: Vec<_> = raw_keys.iter().map(|raw| key::encode(raw)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn raw_key(key: &EncodedKey) -> Result<Vec<u8>, MvccError> {
    Ok(key::decode(key.as_bytes())?.into_bytes())
}

/// Whether a write record shows that the transaction which began at its commit timestamp was
/// rolled back.
fn is_rollback_of(write: &Write, commit_ts: TimeStamp, start_ts: TimeStamp) -> bool {
    commit_ts == start_ts && (write.kind == WriteKind::Rollback || write.has_overlapped_rollback)
}

/// That the key has no value, seen from its newest record that counts for an insert.
fn check_not_exist(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    commit_ts: TimeStamp,
    write: &Write,
) -> Result<(), MvccError> {
    if write.gc_fence.is_some_and(|fence| !fence.is_zero()) {
        return Ok(());
    }
    let exists = match write.kind {
        WriteKind::Put => true,
        WriteKind::Delete => false,
        WriteKind::Lock | WriteKind::Rollback => {
            txn.reader.get_write(key, commit_ts.prev())?.is_some()
        }
    };
    if exists {
        Err(MvccError::AlreadyExist { key: raw_key(key)? })
    } else {
        Ok(())
    }
}

/// Whether a lock with that time to live has run out.
fn is_expired(start_ts: TimeStamp, ttl_ms: u64, now: TimeStamp) -> bool {
    start_ts.physical_ms().saturating_add(ttl_ms) < now.physical_ms()
}

#[cfg(test)]
mod tests;
