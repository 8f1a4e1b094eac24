//! The record of the lock column family: a transaction that is under way on a key.
//!
//! ```text
//! 'P' 'D' 'L' or 'S'   kind
//! varint bytes         primary key, raw
//! varint               start_ts
//! varint               time to live, milliseconds
//! then, each optional, in this order:
//! 'v' u8 bytes         short value
//! 'f' BE8              for_update_ts
//! 't' BE8              number of keys of the transaction
//! 'c' BE8              min_commit_ts
//! 'a' varint n bytes…  async commit, with the secondary keys
//! 'r' varint n BE8…    transactions on this key that were rolled back
//! 'l' BE8 varint       last change
//! 's' varint           source of the transaction
//! 'F'                  locked with conflict
//! 'g' BE8              generation
//! ```
//! An unknown tag ends the record. Shared locks (kind 'H') are refused: none can be read by a
//! store that does not grant them.

use br_types::TimeStamp;

use crate::{
    DecodeError, LastChange, SHORT_VALUE_LEN_MAX,
    bytes::{read_compact, write_compact},
    number::{read_slice, read_u8, read_u64, read_var_u64, write_u64, write_var_u64},
};

const WHAT: &str = "lock record";
const SHORT_VALUE: u8 = b'v';
const FOR_UPDATE_TS: u8 = b'f';
const TXN_SIZE: u8 = b't';
const MIN_COMMIT_TS: u8 = b'c';
const ASYNC_COMMIT: u8 = b'a';
const ROLLBACK_TS: u8 = b'r';
const LAST_CHANGE: u8 = b'l';
const TXN_SOURCE: u8 = b's';
const WITH_CONFLICT: u8 = b'F';
const GENERATION: u8 = b'g';

/// What the transaction is about to do to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Give it a value.
    Put,
    /// Remove it.
    Delete,
    /// Nothing; it only wants it unchanged.
    Lock,
    /// Not known yet: a pessimistic lock, before prewrite.
    Pessimistic,
}

impl LockKind {
    const fn tag(self) -> u8 {
        match self {
            LockKind::Put => b'P',
            LockKind::Delete => b'D',
            LockKind::Lock => b'L',
            LockKind::Pessimistic => b'S',
        }
    }

    const fn of_tag(tag: u8) -> Option<Self> {
        match tag {
            b'P' => Some(LockKind::Put),
            b'D' => Some(LockKind::Delete),
            b'L' => Some(LockKind::Lock),
            b'S' => Some(LockKind::Pessimistic),
            _ => None,
        }
    }
}

/// A lock record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What the transaction is about to do.
    pub kind: LockKind,
    /// The raw key whose lock decides the transaction.
    pub primary: Vec<u8>,
    /// When the transaction began.
    pub start_ts: TimeStamp,
    /// How long after `start_ts` others must leave it alone.
    pub ttl_ms: u64,
    /// The value, if it is short.
    pub short_value: Option<Vec<u8>>,
    /// Of a pessimistic transaction, the timestamp that it locked the key at; else zero.
    pub for_update_ts: TimeStamp,
    /// About how many keys the transaction has; 0: unknown.
    pub txn_size: u64,
    /// It cannot commit before; zero: no promise.
    pub min_commit_ts: TimeStamp,
    /// The other keys of an async-commit transaction, in the primary's lock; `None`: two phases.
    pub async_commit: Option<Vec<Vec<u8>>>,
    /// Transactions on this key that were rolled back while it was locked.
    pub rollback_ts: Vec<TimeStamp>,
    /// Where the newest put or delete below is.
    pub last_change: LastChange,
    /// Which tool made the transaction; 0: none in particular.
    pub txn_source: u64,
    /// Whether a pessimistic lock was granted although a newer version exists.
    pub is_locked_with_conflict: bool,
    /// The order of writes of a pipelined transaction; 0: not one.
    pub generation: u64,
}

impl Lock {
    /// A lock with nothing but the basics.
    pub fn new(kind: LockKind, primary: Vec<u8>, start_ts: TimeStamp, ttl_ms: u64) -> Self {
        Self {
            kind,
            primary,
            start_ts,
            ttl_ms,
            short_value: None,
            for_update_ts: TimeStamp::ZERO,
            txn_size: 0,
            min_commit_ts: TimeStamp::ZERO,
            async_commit: None,
            rollback_ts: Vec::new(),
            last_change: LastChange::Unknown,
            txn_source: 0,
            is_locked_with_conflict: false,
            generation: 0,
        }
    }

    /// Whether the transaction locks keys before it writes them.
    pub fn is_pessimistic_txn(&self) -> bool {
        !self.for_update_ts.is_zero()
    }

    /// The record as it is stored.
    ///
    /// # Panics
    /// The short value is longer than [`SHORT_VALUE_LEN_MAX`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.primary.len());
        out.push(self.kind.tag());
        write_compact(&mut out, &self.primary);
        write_var_u64(&mut out, self.start_ts.0);
        write_var_u64(&mut out, self.ttl_ms);
        if let Some(value) = &self.short_value {
            assert!(
                value.len() <= SHORT_VALUE_LEN_MAX,
                "a short value of {} bytes",
                value.len()
            );
            out.push(SHORT_VALUE);
            out.push(value.len() as u8);
            out.extend_from_slice(value);
        }
        let mut fixed = |tag: u8, value: u64| {
            if value != 0 {
                out.push(tag);
                write_u64(&mut out, value);
            }
        };
        fixed(FOR_UPDATE_TS, self.for_update_ts.0);
        fixed(TXN_SIZE, self.txn_size);
        fixed(MIN_COMMIT_TS, self.min_commit_ts.0);
        if let Some(secondaries) = &self.async_commit {
            out.push(ASYNC_COMMIT);
            write_var_u64(&mut out, secondaries.len() as u64);
            secondaries
                .iter()
                .for_each(|key| write_compact(&mut out, key));
        }
        if !self.rollback_ts.is_empty() {
            out.push(ROLLBACK_TS);
            write_var_u64(&mut out, self.rollback_ts.len() as u64);
            self.rollback_ts
                .iter()
                .for_each(|ts| write_u64(&mut out, ts.0));
        }
        self.last_change.write(&mut out);
        if self.txn_source != 0 {
            out.push(TXN_SOURCE);
            write_var_u64(&mut out, self.txn_source);
        }
        if self.is_locked_with_conflict {
            out.push(WITH_CONFLICT);
        }
        if self.generation != 0 {
            out.push(GENERATION);
            write_u64(&mut out, self.generation);
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The record is damaged or a shared lock.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = bytes;
        let kind = match read_u8(&mut input) {
            Ok(b'H') => return Err(DecodeError::new(WHAT, "it is a shared lock")),
            tag => tag.ok().and_then(LockKind::of_tag),
        };
        let kind = kind.ok_or(DecodeError::new(
            WHAT,
            "it does not begin with P, D, L or S",
        ))?;
        let primary = read_compact(&mut input)?.to_vec();
        let start_ts = TimeStamp(read_var_u64(&mut input)?);
        // Records of the earliest versions end here.
        let ttl_ms = if input.is_empty() {
            0
        } else {
            read_var_u64(&mut input)?
        };
        let mut lock = Lock::new(kind, primary, start_ts, ttl_ms);
        while let Ok(tag) = read_u8(&mut input) {
            if !lock.read_field(tag, &mut input)? {
                break;
            }
        }
        Ok(lock)
    }

    /// Reads the field with this tag; `false` if it is not known.
    fn read_field(&mut self, tag: u8, input: &mut &[u8]) -> Result<bool, DecodeError> {
        match tag {
            SHORT_VALUE => {
                let len = read_u8(input)?;
                self.short_value = Some(read_slice(input, usize::from(len))?.to_vec());
            }
            FOR_UPDATE_TS => self.for_update_ts = TimeStamp(read_u64(input)?),
            TXN_SIZE => self.txn_size = read_u64(input)?,
            MIN_COMMIT_TS => self.min_commit_ts = TimeStamp(read_u64(input)?),
            ASYNC_COMMIT => {
                let count = read_var_u64(input)?;
                let keys = (0..count).map(|_| read_compact(input).map(<[u8]>::to_vec));
                self.async_commit = Some(keys.collect::<Result<_, _>>()?);
            }
            ROLLBACK_TS => {
                let count = read_var_u64(input)?;
                self.rollback_ts = (0..count)
                    .map(|_| read_u64(input).map(TimeStamp))
                    .collect::<Result<_, _>>()?;
            }
            LAST_CHANGE => self.last_change = LastChange::read(input)?,
            TXN_SOURCE => self.txn_source = read_var_u64(input)?,
            WITH_CONFLICT => self.is_locked_with_conflict = true,
            GENERATION => self.generation = read_u64(input)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_lock() -> impl Strategy<Value = Lock> {
        let kind = prop_oneof![
            Just(LockKind::Put),
            Just(LockKind::Delete),
            Just(LockKind::Lock),
            Just(LockKind::Pessimistic)
        ];
        let short = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255));
        let key = || proptest::collection::vec(any::<u8>(), 0..20);
        let numbers = proptest::array::uniform7(prop_oneof![Just(0_u64), any::<u64>()]);
        let secondaries = proptest::option::of(proptest::collection::vec(key(), 0..4));
        let rolled_back = proptest::collection::vec(any::<u64>().prop_map(TimeStamp), 0..4);
        (
            kind,
            key(),
            short,
            numbers,
            secondaries,
            rolled_back,
            any::<bool>(),
        )
            .prop_map(
                |(kind, primary, short_value, numbers, async_commit, rollback_ts, conflict)| {
                    let [
                        start,
                        ttl_ms,
                        update,
                        txn_size,
                        min_commit,
                        txn_source,
                        generation,
                    ] = numbers;
                    Lock {
                        short_value,
                        for_update_ts: TimeStamp(update),
                        txn_size,
                        min_commit_ts: TimeStamp(min_commit),
                        async_commit,
                        rollback_ts,
                        last_change: LastChange::NotExist,
                        txn_source,
                        is_locked_with_conflict: conflict,
                        generation,
                        ..Lock::new(kind, primary, TimeStamp(start), ttl_ms)
                    }
                },
            )
    }

    #[test]
    fn known_bytes() {
        let mut lock = Lock::new(LockKind::Put, b"pk".to_vec(), TimeStamp(1), 5);
        lock.short_value = Some(b"v".to_vec());
        lock.min_commit_ts = TimeStamp(2);
        lock.async_commit = Some(vec![b"s".to_vec()]);
        assert_eq!(
            lock.to_bytes(),
            b"P\x04pk\x01\x05v\x01vc\0\0\0\0\0\0\0\x02a\x01\x02s"
        );
    }

    #[test]
    fn records_of_old_versions_have_no_ttl() {
        let lock = Lock::parse(b"D\x04pk\x07").unwrap();
        assert_eq!(
            lock,
            Lock::new(LockKind::Delete, b"pk".to_vec(), TimeStamp(7), 0)
        );
    }

    #[test]
    fn damage_is_found() {
        for bytes in [
            &b""[..],
            b"H\0\0",
            b"P",
            b"P\x08ab",
            b"P\x02a",
            b"P\x02a\x01\x05v\x09a",
            b"P\x02a\x01\x05a\xFF\xFF\xFF\xFF\x0F",
            b"P\x02a\x01\x05r\xFF\xFF\xFF\xFF\x0F",
        ] {
            assert!(Lock::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn records_come_back(lock in any_lock()) {
            prop_assert_eq!(Lock::parse(&lock.to_bytes()), Ok(lock));
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = Lock::parse(&noise);
        }
    }
}
