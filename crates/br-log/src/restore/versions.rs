//! # What it does
//! From sorted versions of a log to what a store gets: of each key the committed records of the
//! window, and the values that those records need and no others.
//!
//! # Ordering and invariants
//! A record whose value is neither short nor in the log is an error: both column families agree in
//! all that comes out of here, or nothing is restored.

use std::ops::Range;

use br_codec::{WriteKind, WriteRef};
use br_types::{Cf, RawKey, TimeStamp};

use super::{
    error::PointError,
    sort::{Merge, Sorted, Version},
};

/// The commits that are restored: after `start`, up to and including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// What is there already.
    pub(crate) start: TimeStamp,
    /// The point that is restored.
    pub(crate) end: TimeStamp,
}

impl Window {
    /// Whether a version can matter. Values are judged by the time their transaction began only:
    /// which of them belong to a record of the window is not known before both are together.
    ///
    /// # Errors
    /// A record is damaged.
    pub(crate) fn wants(
        &self,
        cf: Cf,
        ts: TimeStamp,
        value: &[u8],
    ) -> Result<bool, br_codec::DecodeError> {
        Ok(match cf {
            Cf::Write if ts <= self.start || ts > self.end => false,
            Cf::Write => matches!(
                WriteRef::parse(value)?.kind,
                WriteKind::Put | WriteKind::Delete
            ),
            Cf::Default => ts <= self.end,
            Cf::Lock => false,
        })
    }
}

/// All versions of one key that are restored.
#[derive(Default)]
pub(crate) struct KeyVersions {
    /// The memcomparable key.
    pub(crate) key: Vec<u8>,
    bytes: Vec<u8>,
    records: Vec<(TimeStamp, Range<usize>)>,
    values: Vec<(TimeStamp, Range<usize>)>,
    /// When the transactions began whose values are still to come, oldest first.
    missing: Vec<TimeStamp>,
}

impl KeyVersions {
    /// The records, newest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = (TimeStamp, &[u8])> {
        self.of(&self.records)
    }

    /// The values, newest first.
    pub(crate) fn values(&self) -> impl Iterator<Item = (TimeStamp, &[u8])> {
        self.of(&self.values)
    }

    /// Both, as they go into their column families.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Cf, TimeStamp, &[u8])> {
        let records = self.records().map(|(ts, value)| (Cf::Write, ts, value));
        let values = self.values().map(|(ts, value)| (Cf::Default, ts, value));
        records.chain(values)
    }

    fn of<'k>(
        &'k self,
        list: &'k [(TimeStamp, Range<usize>)],
    ) -> impl Iterator<Item = (TimeStamp, &'k [u8])> {
        list.iter()
            .map(|(ts, place)| (*ts, self.bytes.get(place.clone()).unwrap_or_default()))
    }

    fn clear(&mut self) {
        self.key.clear();
        self.bytes.clear();
        self.records.clear();
        self.values.clear();
        self.missing.clear();
    }

    fn keep(&mut self, value: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        start..self.bytes.len()
    }
}

/// Reads keys with their versions in order.
pub(crate) struct VersionReader {
    merge: Merge,
    newest_only: bool,
}

impl VersionReader {
    /// The keys from an encoded one on; of each key all versions of the log, or the newest only.
    ///
    /// # Errors
    /// A local file cannot be read.
    pub(crate) fn new(
        sorted: &Sorted,
        from: &[u8],
        newest_only: bool,
    ) -> Result<VersionReader, PointError> {
        Ok(VersionReader {
            merge: sorted.from(from)?,
            newest_only,
        })
    }

    /// The next key, which may turn out to have nothing to restore.
    pub(crate) fn peek_key(&self) -> Option<&[u8]> {
        self.merge.peek().map(|version| version.key)
    }

    /// The next key that is before `end` (empty: no bound); `false` if there is none.
    ///
    /// # Errors
    /// A value is missing, or a local file cannot be read.
    pub(crate) fn next(&mut self, end: &[u8], out: &mut KeyVersions) -> Result<bool, PointError> {
        loop {
            out.clear();
            let Some(first) = self.merge.peek() else {
                return Ok(false);
            };
            if !end.is_empty() && first.key >= end {
                return Ok(false);
            }
            out.key.extend_from_slice(first.key);
            while let Some(version) = self.merge.peek()
                && version.key == out.key
            {
                take(&version, self.newest_only, out)?;
                self.merge.advance()?;
            }
            if let Some(start_ts) = out.missing.first() {
                return Err(PointError::MissingValue {
                    key: raw(&out.key),
                    start_ts: *start_ts,
                });
            }
            // Values of transactions that did not commit in the window leave nothing.
            if !out.records.is_empty() {
                return Ok(true);
            }
        }
    }
}

fn take(version: &Version<'_>, newest_only: bool, out: &mut KeyVersions) -> Result<(), PointError> {
    match version.cf {
        Cf::Write => {
            if newest_only && !out.records.is_empty() {
                return Ok(());
            }
            let record = WriteRef::parse(version.value).map_err(|source| PointError::Record {
                key: raw(version.key),
                source,
            })?;
            if record.kind == WriteKind::Put && record.short_value.is_none() {
                let place = out.missing.binary_search(&record.start_ts);
                if let Err(place) = place {
                    out.missing.insert(place, record.start_ts);
                }
            }
            let place = out.keep(version.value);
            out.records.push((version.ts, place));
        }
        _ => {
            if let Ok(place) = out.missing.binary_search(&version.ts) {
                out.missing.remove(place);
                let place = out.keep(version.value);
                out.values.push((version.ts, place));
            }
        }
    }
    Ok(())
}

fn raw(encoded: &[u8]) -> RawKey {
    br_codec::key::decode(encoded).unwrap_or_else(|_| RawKey::from(encoded))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use br_codec::{Write, key};

    use super::*;
    use crate::{
        restore::sort::{Buffer, Sorter},
        scratch::ScratchDir,
    };

    fn sorted(versions: &[(Cf, u64, Vec<u8>)]) -> (tempfile::TempDir, Sorted) {
        let dir = tempfile::tempdir().unwrap();
        let scratch = ScratchDir::create(&br_rt::Rt::real(), dir.path()).unwrap();
        let sorter = Sorter::new(Arc::new(scratch), 1 << 20);
        let key = key::encode(b"t12345678_r1");
        let mut buffer = Buffer::default();
        for (cf, ts, value) in versions {
            buffer.push(&Version {
                key: key.as_bytes(),
                cf: *cf,
                ts: TimeStamp(*ts),
                value,
            });
        }
        sorter.add(buffer).unwrap();
        (dir, sorter.finish())
    }

    fn put(start: u64, short: Option<&str>) -> Vec<u8> {
        let short = short.map(|value| value.as_bytes().to_vec());
        Write::new(WriteKind::Put, TimeStamp(start), short).to_bytes()
    }

    fn read(sorted: &Sorted, newest_only: bool) -> Result<(Vec<u64>, Vec<u64>), PointError> {
        let mut reader = VersionReader::new(sorted, &[], newest_only)?;
        let mut versions = KeyVersions::default();
        if !reader.next(&[], &mut versions)? {
            return Ok(Default::default());
        }
        let records = versions.records().map(|(ts, _)| ts.0).collect();
        let values = versions.values().map(|(ts, _)| ts.0).collect();
        Ok((records, values))
    }

    #[test]
    fn only_values_that_records_need_come_along() {
        let (_dir, sorted) = sorted(&[
            (Cf::Write, 20, put(15, None)),
            (Cf::Default, 15, b"long".to_vec()),
            (Cf::Default, 17, b"rolled back".to_vec()),
            (Cf::Write, 30, put(25, Some("short"))),
            (Cf::Write, 20, put(15, None)),
        ]);
        assert_eq!(read(&sorted, false).unwrap(), (vec![30, 20], vec![15]));
        assert_eq!(read(&sorted, true).unwrap(), (vec![30], vec![]));
    }

    #[test]
    fn a_value_that_is_nowhere_is_an_error() {
        let (_dir, sorted) = sorted(&[
            (Cf::Write, 20, put(15, None)),
            (Cf::Default, 14, b"another's".to_vec()),
        ]);
        let error = read(&sorted, false).unwrap_err();
        assert!(
            matches!(error, PointError::MissingValue { start_ts, .. } if start_ts == TimeStamp(15))
        );
    }

    #[test]
    fn values_alone_are_nothing() {
        let (_dir, sorted) = sorted(&[(Cf::Default, 14, b"rolled back".to_vec())]);
        assert_eq!(read(&sorted, false).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_window_takes_commits_after_its_start_up_to_its_end() {
        let window = Window {
            start: TimeStamp(10),
            end: TimeStamp(20),
        };
        let wants = |cf, ts, value: &[u8]| window.wants(cf, TimeStamp(ts), value).unwrap();
        assert!(!wants(Cf::Write, 10, &put(5, Some("a"))));
        assert!(wants(Cf::Write, 11, &put(5, Some("a"))));
        assert!(wants(Cf::Write, 20, &put(5, Some("a"))));
        assert!(!wants(Cf::Write, 21, &put(5, Some("a"))));
        assert!(!wants(
            Cf::Write,
            15,
            &Write::rollback(TimeStamp(15), true).to_bytes()
        ));
        assert!(wants(Cf::Default, 5, b"v"));
        assert!(!wants(Cf::Default, 21, b"v"));
        assert!(window.wants(Cf::Write, TimeStamp(15), b"?").is_err());
    }
}
