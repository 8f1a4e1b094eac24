//! How a download changes keys and records: another prefix, another timestamp, fewer versions, and
//! only what lies in the wanted range.
//!
//! Source: `import_sstpb.RewriteRule`; TiKV `sst_importer.rs` and `keys/src/rewrite.rs`.

use std::{borrow::Cow, ops::Bound};

use br_codec::{
    DecodeError, WriteRef, bytes,
    key::{DATA_PREFIX, TS_LEN, append_ts, split_ts},
};
use br_proto::import_sstpb::{DownloadRequestType, RewriteRule, SstMeta};
use br_types::{Cf, RawKey, TimeStamp};

/// Bytes of a group of a memcomparable key: 8 of data and a marker.
const GROUP: usize = 8;
const MARKER_FULL: u8 = 0xFF;

/// A file that does not fit its rewrite rule.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RewriteError {
    /// A bound or a key has another prefix.
    #[error("{what} has wrong prefix: key {key} does not start with {prefix}")]
    WrongPrefix {
        /// What has it.
        what: &'static str,
        /// The key.
        key: RawKey,
        /// What it should start with.
        prefix: RawKey,
    },
    /// A key or record that cannot be read.
    #[error("bad format of {what}: {source}")]
    Format {
        /// What it is.
        what: &'static str,
        /// Why.
        source: DecodeError,
    },
}

/// A rewrite rule, ready to be applied to entries.
#[derive(Clone, Debug)]
pub(super) struct Rewrite {
    /// Prefixes are raw and keys memcomparable; otherwise both are compared as they stand.
    decodes: bool,
    old_prefix: Vec<u8>,
    new_prefix: Vec<u8>,
    /// Zero: timestamps stay.
    new_ts: TimeStamp,
    /// Newer versions are left out; zero: none.
    ignore_after: TimeStamp,
    /// Older versions are left out; zero: none.
    ignore_before: TimeStamp,
}

/// The wanted part of a file: engine keys without `z`, before the rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clip {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl Clip {
    /// Whether the key lies before the wanted part.
    pub(super) fn is_before(&self, key: &[u8]) -> bool {
        match &self.start {
            Bound::Unbounded => false,
            Bound::Included(start) => key < start.as_slice(),
            Bound::Excluded(start) => key <= start.as_slice(),
        }
    }

    /// Whether the key lies after the wanted part.
    pub(super) fn is_after(&self, key: &[u8]) -> bool {
        match &self.end {
            Bound::Unbounded => false,
            Bound::Included(end) => key > end.as_slice(),
            Bound::Excluded(end) => key >= end.as_slice(),
        }
    }

    /// The data key to begin at.
    pub(super) fn seek_key(&self) -> Vec<u8> {
        let mut key = vec![DATA_PREFIX];
        match &self.start {
            Bound::Unbounded => {}
            Bound::Included(start) | Bound::Excluded(start) => key.extend_from_slice(start),
        }
        key
    }
}

impl Rewrite {
    /// The rule of a download; no rule changes nothing.
    pub(super) fn new(rule: Option<&RewriteRule>, request_type: DownloadRequestType) -> Rewrite {
        let none = RewriteRule::default();
        let rule = rule.unwrap_or(&none);
        Rewrite {
            decodes: request_type == DownloadRequestType::Keyspace,
            old_prefix: rule.old_key_prefix.clone(),
            new_prefix: rule.new_key_prefix.clone(),
            new_ts: TimeStamp(rule.new_timestamp),
            ignore_after: TimeStamp(rule.ignore_after_timestamp),
            ignore_before: TimeStamp(rule.ignore_before_timestamp),
        }
    }

    /// Whether entries stay as they are.
    pub(super) fn is_identity(&self) -> bool {
        self.old_prefix == self.new_prefix
            && self.new_ts.is_zero()
            && self.ignore_after.is_zero()
            && self.ignore_before.is_zero()
    }

    /// The wanted part of a file: the range of the request is one of new keys, inclusive unless it
    /// says otherwise, raw if the prefixes are.
    ///
    /// # Errors
    /// A bound has another prefix than the rule's new one.
    pub(super) fn clip(&self, meta: &SstMeta) -> Result<Clip, RewriteError> {
        let empty = Default::default();
        let range = meta.range.as_ref().unwrap_or(&empty);
        let start = match range.start.as_slice() {
            [] if self.new_prefix.is_empty() => non_empty(self.old_prefix.clone(), Bound::Included),
            [] => Bound::Unbounded,
            start => Bound::Included(self.undo("SST start range", start)?),
        };
        let end = match range.end.as_slice() {
            [] if self.new_prefix.is_empty() => non_empty(self.old_prefix_end(), Bound::Excluded),
            [] => Bound::Unbounded,
            end if meta.end_key_exclusive => self.undo_end(end)?,
            end => Bound::Included(self.undo("SST end range", end)?),
        };
        let encode = |bound: Bound<Vec<u8>>| {
            if self.decodes {
                bound.map(|key| bytes::encode(&key))
            } else {
                bound
            }
        };
        Ok(Clip {
            start: encode(start),
            end: encode(end),
        })
    }

    fn old_prefix_end(&self) -> Vec<u8> {
        RawKey::new(self.old_prefix.clone())
            .prefix_end()
            .into_bytes()
    }

    /// A new key as it was before.
    fn undo(&self, what: &'static str, key: &[u8]) -> Result<Vec<u8>, RewriteError> {
        match key.strip_prefix(self.new_prefix.as_slice()) {
            Some(rest) => Ok([self.old_prefix.as_slice(), rest].concat()),
            None => Err(wrong_prefix(what, key, &self.new_prefix)),
        }
    }

    /// An exclusive end: it may be the first key after all with the prefix.
    fn undo_end(&self, end: &[u8]) -> Result<Bound<Vec<u8>>, RewriteError> {
        if !end.starts_with(&self.new_prefix)
            && end == RawKey::new(self.new_prefix.clone()).prefix_end().as_bytes()
        {
            return Ok(non_empty(self.old_prefix_end(), Bound::Excluded));
        }
        Ok(Bound::Excluded(self.undo("SST end range", end)?))
    }

    /// Puts the new data key of an old data key into `out`; `false` if the entry is left out.
    ///
    /// # Errors
    /// The key has another prefix or cannot be read.
    pub(super) fn key(&self, old: &[u8], out: &mut Vec<u8>) -> Result<bool, RewriteError> {
        let format = |source| RewriteError::Format {
            what: "a key",
            source,
        };
        let old = br_codec::key::strip_data_prefix(old).map_err(format)?;
        out.clear();
        out.push(DATA_PREFIX);
        if self.decodes {
            let (encoded, _) = split_ts(old).map_err(format)?;
            if self.old_prefix.len() == self.new_prefix.len() {
                out.extend_from_slice(encoded);
                let key = out.get_mut(1..).unwrap_or_default();
                replace_prefix(key, &self.old_prefix, &self.new_prefix)
                    .ok_or_else(|| wrong_prefix("Key in SST", old, &self.old_prefix))?;
            } else {
                let raw = br_codec::key::decode(encoded).map_err(format)?;
                let new = self.redo(raw.as_bytes())?;
                bytes::encode_into(out, &new);
            }
            out.extend_from_slice(old.get(encoded.len()..).unwrap_or_default());
        } else {
            let rest = old
                .strip_prefix(self.old_prefix.as_slice())
                .ok_or_else(|| wrong_prefix("Key in SST", old, &self.old_prefix))?;
            out.extend_from_slice(&self.new_prefix);
            out.extend_from_slice(rest);
        }
        if self.new_ts.is_zero() && self.ignore_after.is_zero() && self.ignore_before.is_zero() {
            return Ok(true);
        }
        let (_, ts) = split_ts(old).map_err(format)?;
        let too_new = !self.ignore_after.is_zero() && ts > self.ignore_after;
        let too_old = !self.ignore_before.is_zero() && ts < self.ignore_before;
        if !self.new_ts.is_zero() {
            out.truncate(out.len().saturating_sub(TS_LEN));
            append_ts(out, self.new_ts);
        }
        Ok(!too_new && !too_old)
    }

    fn redo(&self, raw: &[u8]) -> Result<Vec<u8>, RewriteError> {
        match raw.strip_prefix(self.old_prefix.as_slice()) {
            Some(rest) => Ok([self.new_prefix.as_slice(), rest].concat()),
            None => Err(wrong_prefix("Key in SST", raw, &self.old_prefix)),
        }
    }

    /// The new value of an entry: a write record names the new timestamp as its start.
    ///
    /// # Errors
    /// The write record cannot be read.
    pub(super) fn value<'v>(&self, cf: Cf, old: &'v [u8]) -> Result<Cow<'v, [u8]>, RewriteError> {
        if self.new_ts.is_zero() || cf != Cf::Write {
            return Ok(Cow::Borrowed(old));
        }
        let mut record = WriteRef::parse(old).map_err(|source| RewriteError::Format {
            what: "a write record",
            source,
        })?;
        record.start_ts = self.new_ts;
        Ok(Cow::Owned(record.to_bytes()))
    }
}

fn wrong_prefix(what: &'static str, key: &[u8], prefix: &[u8]) -> RewriteError {
    RewriteError::WrongPrefix {
        what,
        key: RawKey::from(key),
        prefix: RawKey::from(prefix),
    }
}

fn non_empty(key: Vec<u8>, bound: impl FnOnce(Vec<u8>) -> Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    if key.is_empty() {
        Bound::Unbounded
    } else {
        bound(key)
    }
}

/// Replaces the first bytes of a memcomparable key where it stands, for prefixes of one length;
/// `None` if the key does not begin with the old one. Saves decoding and encoding each key.
fn replace_prefix(encoded: &mut [u8], old: &[u8], new: &[u8]) -> Option<()> {
    for (group, (old, new)) in encoded
        .chunks_mut(GROUP + 1)
        .zip(old.chunks(GROUP).zip(new.chunks(GROUP)))
    {
        let (marker, data) = group.split_last_mut()?;
        let len = GROUP.checked_sub(usize::from(MARKER_FULL - *marker))?;
        if len < old.len() || data.len() != GROUP {
            return None;
        }
        let place = data.get_mut(..old.len())?;
        if place != old {
            return None;
        }
        place.copy_from_slice(new);
    }
    // Every byte of the prefix had a place.
    (encoded.len() / (GROUP + 1) >= old.len().div_ceil(GROUP)).then_some(())
}

#[cfg(test)]
mod tests;
