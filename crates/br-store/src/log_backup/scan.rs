//! The initial scan: what a region has above the task's checkpoint, as of one snapshot.
//!
//! # What it does
//! Gives all locks that are going to change data, with the long values that they have written, and
//! all puts and deletes committed above the checkpoint, with their long values. Rollbacks and
//! lock records are left out. Some of it may be on the storage already; a restore does not mind.
//!
//! # Ordering and invariants
//! The snapshot is taken after the region is observed, so each write is in it or comes as an event.

use std::sync::Arc;

use br_codec::{Lock, LockKind, WriteKind, WriteRef, key};
use br_types::{Cf, DataKey, EncodedKey, KeyRange, TimeStamp};

use crate::{engine::Snapshot, log_backup::collector::tracked_lock, mvcc::MvccError};

/// Bytes of records in one part: small beside the memory quota, large beside the cost of a cursor.
const PART_BYTES: usize = 1 << 20;
/// Bytes looked at for one part, so that a stop and the rate limit are minded in a region without
/// news, too.
const VISIT_BYTES: u64 = 16 << 20;
/// Steps over old versions before a seek is cheaper.
const STEPS_BEFORE_SEEK: usize = 8;

/// A part of what a scan finds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ScanBatch {
    /// Column family, engine key, value.
    pub(crate) records: Vec<(Cf, Vec<u8>, Vec<u8>)>,
    /// Encoded key and `start_ts`.
    pub(crate) locks: Vec<(Vec<u8>, TimeStamp)>,
    /// Bytes of records and locks.
    bytes: usize,
    /// Bytes of keys and values looked at.
    pub(crate) visited_bytes: u64,
}

/// A scan under way.
pub(crate) struct Scan {
    snapshot: Arc<dyn Snapshot>,
    checkpoint: TimeStamp,
    /// What is left, first to last: column family and range.
    rest: Vec<(Cf, KeyRange<DataKey>)>,
}

impl Scan {
    /// A scan of ranges in key order.
    pub(crate) fn new(
        snapshot: Arc<dyn Snapshot>,
        ranges: &[KeyRange<EncodedKey>],
        checkpoint: TimeStamp,
    ) -> Scan {
        let parts = [Cf::Lock, Cf::Write]
            .into_iter()
            .flat_map(|cf| ranges.iter().map(move |range| (cf, key::data_range(range))));
        let mut rest: Vec<_> = parts.collect();
        rest.reverse();
        Scan {
            snapshot,
            checkpoint,
            rest,
        }
    }

    /// The next part; `None` at the end. Blocking.
    ///
    /// # Errors
    /// [`MvccError`]: the engine failed, or what it holds is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<ScanBatch>, MvccError> {
        let mut batch = ScanBatch::default();
        while let Some((cf, range)) = self.rest.pop() {
            let left = match cf {
                Cf::Lock => self.locks(range, &mut batch)?,
                _ => self.writes(range, &mut batch)?,
            };
            if let Some(left) = left {
                self.rest.push((cf, left));
                return Ok(Some(batch));
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Gives what is left of the range, if the part is full before its end.
    fn locks(
        &self,
        range: KeyRange<DataKey>,
        batch: &mut ScanBatch,
    ) -> Result<Option<KeyRange<DataKey>>, MvccError> {
        let mut cursor = self.snapshot.iter(Cf::Lock, range.clone());
        let mut is_valid = cursor.seek_to_first()?;
        while is_valid {
            if batch.is_full() {
                return Ok(Some(from(cursor.key(), range)));
            }
            let (data_key, value) = (cursor.key(), cursor.value());
            batch.visit(data_key, value);
            if let Some(start_ts) = tracked_lock(value)? {
                let encoded = key::strip_data_prefix(data_key)?;
                let lock = Lock::parse(value)?;
                if lock.kind == LockKind::Put && lock.short_value.is_none() {
                    self.long_value(encoded, start_ts, batch)?;
                }
                batch.bytes += encoded.len();
                batch.locks.push((encoded.to_vec(), start_ts));
            }
            is_valid = cursor.next()?;
        }
        Ok(None)
    }

    fn writes(
        &self,
        range: KeyRange<DataKey>,
        batch: &mut ScanBatch,
    ) -> Result<Option<KeyRange<DataKey>>, MvccError> {
        let mut cursor = self.snapshot.iter(Cf::Write, range.clone());
        let mut is_valid = cursor.seek_to_first()?;
        let mut old = Vec::new();
        let mut steps = 0;
        while is_valid {
            if batch.is_full() {
                return Ok(Some(from(cursor.key(), range)));
            }
            let (data_key, value) = (cursor.key(), cursor.value());
            batch.visit(data_key, value);
            let (user_key, commit_ts) = key::split_ts(data_key)?;
            if commit_ts > self.checkpoint {
                let write = WriteRef::parse(value)?;
                if matches!(write.kind, WriteKind::Put | WriteKind::Delete) {
                    let encoded = key::strip_data_prefix(user_key)?;
                    if write.kind == WriteKind::Put && write.short_value.is_none() {
                        self.long_value(encoded, write.start_ts, batch)?;
                    }
                    batch.push(Cf::Write, key::strip_data_prefix(data_key)?, value);
                }
                steps = 0;
                is_valid = cursor.next()?;
                continue;
            }
            // This version and all below it are old; so are most keys, with one version each.
            if user_key != old.as_slice() {
                user_key.clone_into(&mut old);
                steps = 0;
            }
            steps += 1;
            is_valid = if steps < STEPS_BEFORE_SEEK {
                cursor.next()?
            } else {
                let mut beyond = old.clone();
                key::append_ts(&mut beyond, TimeStamp::ZERO);
                beyond.push(0);
                cursor.seek(&beyond)?
            };
        }
        Ok(None)
    }

    fn long_value(
        &self,
        encoded: &[u8],
        start_ts: TimeStamp,
        batch: &mut ScanBatch,
    ) -> Result<(), MvccError> {
        let data_key = key::data_key_at(encoded, start_ts);
        let value = self
            .snapshot
            .get(Cf::Default, data_key.as_bytes())?
            .ok_or(MvccError::ValueMissing { start_ts })?;
        batch.visit(data_key.as_bytes(), &value);
        let engine_key = key::strip_data_prefix(data_key.as_bytes())?;
        batch.push(Cf::Default, engine_key, &value);
        Ok(())
    }
}

/// The rest of a range from a key on.
fn from(data_key: &[u8], range: KeyRange<DataKey>) -> KeyRange<DataKey> {
    KeyRange {
        start: DataKey::from(data_key),
        end: range.end,
    }
}

impl ScanBatch {
    fn push(&mut self, cf: Cf, engine_key: &[u8], value: &[u8]) {
        self.bytes += engine_key.len() + value.len();
        self.records.push((cf, engine_key.to_vec(), value.to_vec()));
    }

    fn visit(&mut self, data_key: &[u8], value: &[u8]) {
        self.visited_bytes += (data_key.len() + value.len()) as u64;
    }

    fn is_full(&self) -> bool {
        self.bytes >= PART_BYTES || self.visited_bytes >= VISIT_BYTES
    }

    fn is_empty(&self) -> bool {
        self.visited_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use br_codec::Write;

    use super::*;
    use crate::engine::{Batch, Engine, memory::MemoryEngine};

    fn engine_key(raw: &[u8], ts: u64) -> Vec<u8> {
        let mut key = key::encode(raw).into_bytes();
        key::append_ts(&mut key, TimeStamp(ts));
        key
    }

    #[test]
    fn it_finds_all_versions_above_the_checkpoint_in_parts() {
        let engine = MemoryEngine::new("unused");
        let mut batch = Batch::default();
        let mut expected = BTreeMap::new();
        for n in 0..300_u32 {
            let raw = format!("t{n:05}");
            for ts in (2..40).step_by(2) {
                let (start_ts, commit_ts) = (ts - 1, ts);
                let kind = match (n + u32::try_from(ts).unwrap()) % 5 {
                    0 => WriteKind::Delete,
                    1 => WriteKind::Rollback,
                    2 => WriteKind::Lock,
                    _ => WriteKind::Put,
                };
                let is_long = kind == WriteKind::Put && n % 3 == 0;
                let short = (kind == WriteKind::Put && !is_long).then(|| vec![7]);
                let value = Write::new(kind, TimeStamp(start_ts), short).to_bytes();
                let write_key = engine_key(raw.as_bytes(), commit_ts);
                let value_key = engine_key(raw.as_bytes(), start_ts);
                let long = vec![n as u8; 600];
                if commit_ts > 20 && matches!(kind, WriteKind::Put | WriteKind::Delete) {
                    expected.insert((Cf::Write.name(), write_key.clone()), value.clone());
                    if is_long {
                        expected.insert((Cf::Default.name(), value_key.clone()), long.clone());
                    }
                }
                batch.put(Cf::Write, [b"z", &write_key[..]].concat(), value);
                if is_long {
                    batch.put(Cf::Default, [b"z", &value_key[..]].concat(), long);
                }
            }
        }
        let mut locks = Vec::new();
        for (n, kind) in [
            (1, LockKind::Put),
            (2, LockKind::Delete),
            (3, LockKind::Lock),
            (4, LockKind::Pessimistic),
        ] {
            let raw = format!("t{n:05}");
            let encoded = key::encode(raw.as_bytes()).into_bytes();
            let lock = Lock::new(kind, b"p".to_vec(), TimeStamp(50 + n), 10);
            batch.put(Cf::Lock, [b"z", &encoded[..]].concat(), lock.to_bytes());
            if matches!(kind, LockKind::Put | LockKind::Delete) {
                locks.push((encoded, TimeStamp(50 + n)));
            }
            if kind == LockKind::Put {
                let value_key = engine_key(raw.as_bytes(), 50 + n);
                expected.insert((Cf::Default.name(), value_key.clone()), vec![9; 300]);
                batch.put(Cf::Default, [b"z", &value_key[..]].concat(), vec![9; 300]);
            }
        }
        // Outside of the range.
        let outside = engine_key(b"u", 30);
        let record = Write::new(WriteKind::Delete, TimeStamp(29), None).to_bytes();
        batch.put(Cf::Write, [b"z", &outside[..]].concat(), record);
        engine.write(&batch).unwrap();

        let range = key::encode_range(&KeyRange::new(&b"t"[..], &b"u"[..]));
        let mut scan = Scan::new(engine.snapshot().into(), &[range], TimeStamp(20));
        let (mut found, mut found_locks, mut parts) = (BTreeMap::new(), Vec::new(), 0);
        while let Some(part) = scan.next().unwrap() {
            parts += 1;
            found_locks.extend(part.locks);
            for (cf, key, value) in part.records {
                found.insert((cf.name(), key), value);
            }
        }
        assert_eq!(found, expected);
        assert_eq!(found_locks, locks);
        assert!(parts > 0);
    }
}
