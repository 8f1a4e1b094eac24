//! The record of the write column family: what a transaction did to a key when it committed.
//!
//! ```text
//! 'P' 'D' 'L' or 'R'   kind
//! varint               start_ts
//! then, each optional, in this order:
//! 'v' u8 bytes         short value
//! 'R'                  the transaction that began at this commit_ts was rolled back
//! 'F' BE8              GC fence
//! 'l' BE8 varint       last change: commit_ts and how many versions away
//! 'S' varint           source of the transaction
//! ```
//! An unknown tag ends the record: fields of later versions follow, which this one does not need.

use br_types::TimeStamp;

use crate::{
    DecodeError, SHORT_VALUE_LEN_MAX,
    number::{
        VARINT_LEN_MAX, read_slice, read_u8, read_u64, read_var_u64, write_u64, write_var_u64,
    },
};

const WHAT: &str = "write record";
const SHORT_VALUE: u8 = b'v';
const OVERLAPPED_ROLLBACK: u8 = b'R';
const GC_FENCE: u8 = b'F';
const LAST_CHANGE: u8 = b'l';
const TXN_SOURCE: u8 = b'S';
/// The short value of a rollback that must not be collapsed.
const PROTECTED: &[u8] = b"p";

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// It got a value.
    Put,
    /// It was removed.
    Delete,
    /// It was only locked; older versions stay visible.
    Lock,
    /// The transaction was rolled back; `start_ts` and commit_ts are the same.
    Rollback,
}

impl WriteKind {
    const fn tag(self) -> u8 {
        match self {
            WriteKind::Put => b'P',
            WriteKind::Delete => b'D',
            WriteKind::Lock => b'L',
            WriteKind::Rollback => b'R',
        }
    }

    const fn of_tag(tag: u8) -> Option<Self> {
        match tag {
            b'P' => Some(WriteKind::Put),
            b'D' => Some(WriteKind::Delete),
            b'L' => Some(WriteKind::Lock),
            b'R' => Some(WriteKind::Rollback),
            _ => None,
        }
    }
}

/// Where the newest put or delete below a lock or rollback record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastChange {
    /// Not recorded.
    #[default]
    Unknown,
    /// There is none, or it is a delete.
    NotExist,
    /// At this commit timestamp.
    At {
        /// Its commit timestamp; not zero.
        commit_ts: TimeStamp,
        /// About how many versions lie between; at least 1.
        versions: u64,
    },
}

impl LastChange {
    /// Appends tag and parts; nothing if unknown.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (ts, versions) = match self {
            LastChange::Unknown => return,
            LastChange::NotExist => (TimeStamp::ZERO, 1),
            LastChange::At {
                commit_ts,
                versions,
            } => (commit_ts, versions),
        };
        out.push(LAST_CHANGE);
        write_u64(out, ts.0);
        write_var_u64(out, versions);
    }

    /// Reads the parts after the tag.
    pub(crate) fn read(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let commit_ts = TimeStamp(read_u64(input)?);
        let versions = read_var_u64(input)?;
        match (commit_ts.is_zero(), versions) {
            (true, 0) => Ok(LastChange::Unknown),
            (true, _) => Ok(LastChange::NotExist),
            (false, 0) => Err(DecodeError::new("last change", "its distance is zero")),
            (false, versions) => Ok(LastChange::At {
                commit_ts,
                versions,
            }),
        }
    }
}

/// A write record; `V` is what holds the short value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteRecord<V> {
    /// What happened to the key.
    pub kind: WriteKind,
    /// When the transaction began. A long value lies in the default column family at it.
    pub start_ts: TimeStamp,
    /// The value, if it is short; of a rollback, whether it is protected.
    pub short_value: Option<V>,
    /// Whether another transaction, which began at this record's commit timestamp, was rolled back.
    pub has_overlapped_rollback: bool,
    /// `None`: never rewritten. Zero: rewritten for an overlapped rollback, no newer version was
    /// there. Otherwise the next newer version's commit timestamp: if that version is gone, garbage
    /// collection has taken it, and this record does not count either.
    pub gc_fence: Option<TimeStamp>,
    /// Of lock and rollback records: how to skip them quickly.
    pub last_change: LastChange,
    /// Which tool made the transaction; 0: none in particular.
    pub txn_source: u64,
}

/// A write record that borrows its short value: parsing it does not allocate.
pub type WriteRef<'a> = WriteRecord<&'a [u8]>;
/// A write record with a short value of its own.
pub type Write = WriteRecord<Vec<u8>>;

impl<V: AsRef<[u8]>> WriteRecord<V> {
    /// A record with nothing but the basics.
    pub fn new(kind: WriteKind, start_ts: TimeStamp, short_value: Option<V>) -> Self {
        Self {
            kind,
            start_ts,
            short_value,
            has_overlapped_rollback: false,
            gc_fence: None,
            last_change: LastChange::Unknown,
            txn_source: 0,
        }
    }

    /// The record as it is stored.
    ///
    /// # Panics
    /// The short value is longer than [`SHORT_VALUE_LEN_MAX`]; such values belong into the
    /// default column family.
    pub fn to_bytes(&self) -> Vec<u8> {
        let short = self.short_value.as_ref().map(AsRef::as_ref);
        let short_len = short.map_or(0, |value| 2 + value.len());
        let mut out = Vec::with_capacity(1 + VARINT_LEN_MAX + short_len);
        out.push(self.kind.tag());
        write_var_u64(&mut out, self.start_ts.0);
        if let Some(value) = short {
            assert!(
                value.len() <= SHORT_VALUE_LEN_MAX,
                "a short value of {} bytes",
                value.len()
            );
            out.push(SHORT_VALUE);
            out.push(value.len() as u8);
            out.extend_from_slice(value);
        }
        if self.has_overlapped_rollback {
            out.push(OVERLAPPED_ROLLBACK);
        }
        if let Some(ts) = self.gc_fence {
            out.push(GC_FENCE);
            write_u64(&mut out, ts.0);
        }
        self.last_change.write(&mut out);
        if self.txn_source != 0 {
            out.push(TXN_SOURCE);
            write_var_u64(&mut out, self.txn_source);
        }
        out
    }

    /// Whether it counts when it is the newest record that a read at `read_ts` finds: not if its
    /// GC fence names a version that should have been found instead.
    pub fn is_valid_as_newest(&self, read_ts: TimeStamp) -> bool {
        self.gc_fence
            .is_none_or(|fence| fence.is_zero() || fence > read_ts)
    }

    /// Whether it is a rollback that must stay when others of the key are collapsed.
    pub fn is_protected_rollback(&self) -> bool {
        self.kind == WriteKind::Rollback
            && self
                .short_value
                .as_ref()
                .is_some_and(|value| value.as_ref() == PROTECTED)
    }

    /// The same, borrowing the short value.
    pub fn as_ref(&self) -> WriteRef<'_> {
        self.with_short_value(self.short_value.as_ref().map(AsRef::as_ref))
    }

    /// The same with a short value of its own.
    pub fn to_write(&self) -> Write {
        self.with_short_value(
            self.short_value
                .as_ref()
                .map(|value| value.as_ref().to_vec()),
        )
    }

    fn with_short_value<W>(&self, short_value: Option<W>) -> WriteRecord<W> {
        WriteRecord {
            kind: self.kind,
            start_ts: self.start_ts,
            short_value,
            has_overlapped_rollback: self.has_overlapped_rollback,
            gc_fence: self.gc_fence,
            last_change: self.last_change,
            txn_source: self.txn_source,
        }
    }
}

impl Write {
    /// The record of a rolled back transaction.
    pub fn rollback(start_ts: TimeStamp, is_protected: bool) -> Self {
        Self::new(
            WriteKind::Rollback,
            start_ts,
            is_protected.then(|| PROTECTED.to_vec()),
        )
    }
}

impl<'a> WriteRef<'a> {
    /// Reads a record without copying.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = bytes;
        let kind = read_u8(&mut input)
            .ok()
            .and_then(WriteKind::of_tag)
            .ok_or(DecodeError::new(
                WHAT,
                "it does not begin with P, D, L or R",
            ))?;
        let start_ts = TimeStamp(read_var_u64(&mut input)?);
        let mut record = WriteRef::new(kind, start_ts, None);
        while let Ok(tag) = read_u8(&mut input) {
            match tag {
                SHORT_VALUE => {
                    let len = read_u8(&mut input)?;
                    record.short_value = Some(read_slice(&mut input, usize::from(len))?);
                }
                OVERLAPPED_ROLLBACK => record.has_overlapped_rollback = true,
                GC_FENCE => record.gc_fence = Some(TimeStamp(read_u64(&mut input)?)),
                LAST_CHANGE => record.last_change = LastChange::read(&mut input)?,
                TXN_SOURCE => record.txn_source = read_var_u64(&mut input)?,
                _ => break,
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Write> {
        let kind = prop_oneof![
            Just(WriteKind::Put),
            Just(WriteKind::Delete),
            Just(WriteKind::Lock),
            Just(WriteKind::Rollback)
        ];
        let last_change = prop_oneof![
            Just(LastChange::Unknown),
            Just(LastChange::NotExist),
            (1_u64.., 1_u64..).prop_map(|(ts, versions)| LastChange::At {
                commit_ts: TimeStamp(ts),
                versions
            }),
        ];
        let short = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=255));
        let fence = proptest::option::of(any::<u64>().prop_map(TimeStamp));
        (
            kind,
            any::<u64>(),
            short,
            any::<bool>(),
            fence,
            last_change,
            any::<u64>(),
        )
            .prop_map(
                |(
                    kind,
                    start_ts,
                    short_value,
                    has_overlapped_rollback,
                    gc_fence,
                    last_change,
                    source,
                )| {
                    Write {
                        kind,
                        start_ts: TimeStamp(start_ts),
                        short_value,
                        has_overlapped_rollback,
                        gc_fence,
                        last_change,
                        txn_source: source,
                    }
                },
            )
    }

    #[test]
    fn known_bytes() {
        let mut record = Write::new(WriteKind::Put, TimeStamp(1), Some(b"ab".to_vec()));
        assert_eq!(record.to_bytes(), b"P\x01v\x02ab");
        record.has_overlapped_rollback = true;
        record.gc_fence = Some(TimeStamp(3));
        assert_eq!(record.to_bytes(), b"P\x01v\x02abRF\0\0\0\0\0\0\0\x03");
        assert_eq!(
            Write::rollback(TimeStamp(200), true).to_bytes(),
            b"R\xC8\x01v\x01p"
        );
    }

    #[test]
    fn a_fence_hides_only_from_later_reads() {
        let mut record = Write::new(WriteKind::Put, TimeStamp(1), None);
        assert!(record.is_valid_as_newest(TimeStamp(9)));
        record.gc_fence = Some(TimeStamp::ZERO);
        assert!(record.is_valid_as_newest(TimeStamp(9)));
        record.gc_fence = Some(TimeStamp(9));
        assert!(record.is_valid_as_newest(TimeStamp(8)));
        assert!(!record.is_valid_as_newest(TimeStamp(9)));
    }

    #[test]
    fn damage_is_found() {
        for bytes in [
            &b""[..],
            b"X\x01",
            b"P",
            b"P\x80",
            b"P\x01v\x02a",
            b"P\x01F\0",
            b"P\x01S",
        ] {
            assert!(WriteRef::parse(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn records_come_back(record in any_record(), later: Vec<u8>) {
            let mut bytes = record.to_bytes();
            let parsed = WriteRef::parse(&bytes).unwrap();
            prop_assert_eq!(parsed, record.as_ref());
            prop_assert_eq!(&parsed.to_write(), &record);
            // Fields of a later version after an unknown tag.
            bytes.push(b'?');
            bytes.extend_from_slice(&later);
            prop_assert_eq!(WriteRef::parse(&bytes).unwrap(), record.as_ref());
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = WriteRef::parse(&noise);
        }
    }
}
