use br_codec::{Lock, WriteKind, WriteRef, key};
use br_types::{Cf, DataKey, KeyRange, TimeStamp};

use super::{Direction, MvccError, ReadContext, Scanner, check_lock, versions::Versions};
use crate::engine::Snapshot;

/// A range at one moment, for one read.
pub struct RangeView {
    snapshot: Box<dyn Snapshot>,
    range: KeyRange<DataKey>,
    context: ReadContext,
}

impl RangeView {
    pub(crate) fn new(
        snapshot: Box<dyn Snapshot>,
        range: KeyRange<DataKey>,
        context: ReadContext,
    ) -> Self {
        Self {
            snapshot,
            range,
            context,
        }
    }

    /// The newest put or delete of each key with a commit timestamp above `after` and at or below
    /// the view's. Deletes are given only if `after` is not zero: without it, what is not there
    /// needs no mention.
    ///
    /// # Errors
    /// [`MvccError::KeyIsLocked`] if a lock anywhere in the range blocks the read.
    pub fn entries(&self, after: TimeStamp) -> Result<Entries<'_>, MvccError> {
        self.entries_from(&self.range.start, after)
    }

    /// As [`RangeView::entries`], but only from `start` on, a data key without timestamp: to go on
    /// where an earlier iteration stopped.
    ///
    /// # Errors
    /// As [`RangeView::entries`].
    pub fn entries_from(
        &self,
        start: &DataKey,
        after: TimeStamp,
    ) -> Result<Entries<'_>, MvccError> {
        self.check_locks()?;
        let start = start.max(&self.range.start).clone();
        let range = KeyRange {
            start,
            end: self.range.end.clone(),
        };
        Ok(Entries {
            writes: Versions::new(&*self.snapshot, Cf::Write, range.clone())?,
            values: None,
            snapshot: &*self.snapshot,
            range,
            ts: self.context.ts,
            after,
            user_key: Vec::new(),
        })
    }

    /// The values of the keys in the range, in the order of `direction`.
    ///
    /// # Errors
    /// [`MvccError::Engine`].
    pub fn scan(&self, direction: Direction, is_key_only: bool) -> Result<Scanner<'_>, MvccError> {
        let range = self.range.clone();
        Scanner::new(
            &*self.snapshot,
            range,
            self.context.clone(),
            direction,
            is_key_only,
        )
    }

    /// No key may be locked, whether it has versions or not. Checked before anything is read:
    /// a range with a lock is given up anyway.
    fn check_locks(&self) -> Result<(), MvccError> {
        let mut locks = self.snapshot.iter(Cf::Lock, self.range.clone());
        let mut is_valid = locks.seek_to_first()?;
        while is_valid {
            let lock = Lock::parse(locks.value())?;
            check_lock(
                key::strip_data_prefix(locks.key())?,
                &lock,
                false,
                &self.context,
            )?;
            is_valid = locks.next()?;
        }
        Ok(())
    }
}

/// The entries of a backup, in key order, without an allocation for each.
pub struct Entries<'v> {
    writes: Versions<'v>,
    /// Made at the first long value: ranges of short ones never need it.
    values: Option<Versions<'v>>,
    snapshot: &'v dyn Snapshot,
    range: KeyRange<DataKey>,
    ts: TimeStamp,
    after: TimeStamp,
    /// Data key without timestamp of the entry given last; empty before the first.
    user_key: Vec<u8>,
}

/// The newest version of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'e> {
    /// Memcomparable key.
    pub encoded_key: &'e [u8],
    /// Data key in the write column family.
    pub write_key: &'e [u8],
    /// The write record.
    pub write_value: &'e [u8],
    /// Data key and value in the default column family, of a long value.
    pub default: Option<(&'e [u8], &'e [u8])>,
    /// The value as the user wrote it; `None`: a delete.
    pub value: Option<&'e [u8]>,
}

/// What the record that the iteration stands on says.
#[derive(Clone, Copy)]
enum Found {
    /// The value's place in the record.
    Short {
        start: usize,
        len: usize,
    },
    /// The value is in the default column family, under this timestamp.
    Long(TimeStamp),
    Delete,
}

impl Entries<'_> {
    /// The next entry.
    ///
    /// # Errors
    /// [`MvccError`]; there is nothing to be had after it.
    #[allow(
        clippy::should_implement_trait,
        reason = "what it gives is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, MvccError> {
        let Some(found) = self.advance()? else {
            return Ok(None);
        };
        if let Found::Long(start_ts) = found {
            self.find_long_value(start_ts)?;
        }
        let write_key = self.writes.key();
        let write_value = self.writes.value();
        let default = match (&self.values, found) {
            (Some(values), Found::Long(_)) => Some((values.key(), values.value())),
            _ => None,
        };
        let value = match found {
            Found::Short { start, len } => {
                Some(write_value.get(start..start + len).unwrap_or_default())
            }
            Found::Long(_) => default.map(|(_, value)| value),
            Found::Delete => None,
        };
        let encoded_key = key::strip_data_prefix(&self.user_key)?;
        Ok(Some(Entry {
            encoded_key,
            write_key,
            write_value,
            default,
            value,
        }))
    }

    /// Moves to the next record that counts.
    fn advance(&mut self) -> Result<Option<Found>, MvccError> {
        if !self.user_key.is_empty() {
            self.writes.leave(&self.user_key)?;
        }
        while self.writes.is_valid() {
            let (user_key, _) = self.writes.position()?;
            self.user_key.clear();
            self.user_key.extend_from_slice(user_key);
            if let Some(found) = self.find_entry()? {
                return Ok(Some(found));
            }
            self.writes.leave(&self.user_key)?;
        }
        Ok(None)
    }

    /// From the newest version of a key down to the one that counts.
    fn find_entry(&mut self) -> Result<Option<Found>, MvccError> {
        let mut is_found = self.writes.descend(&self.user_key, self.ts)?;
        while is_found && self.writes.position()?.1 > self.after {
            let record = self.writes.value();
            let write = WriteRef::parse(record)?;
            if !write.is_valid_as_newest(self.ts) {
                return Ok(None);
            }
            match write.kind {
                WriteKind::Put => {
                    let Some(value) = write.short_value else {
                        return Ok(Some(Found::Long(write.start_ts)));
                    };
                    let start = value.as_ptr().addr() - record.as_ptr().addr();
                    return Ok(Some(Found::Short {
                        start,
                        len: value.len(),
                    }));
                }
                WriteKind::Delete => return Ok((!self.after.is_zero()).then_some(Found::Delete)),
                WriteKind::Lock | WriteKind::Rollback => {
                    self.writes.next()?;
                    is_found = self.writes.is_on(&self.user_key);
                }
            }
        }
        Ok(None)
    }

    fn find_long_value(&mut self, start_ts: TimeStamp) -> Result<(), MvccError> {
        let values = match &mut self.values {
            Some(values) => values,
            none => none.insert(Versions::new(
                self.snapshot,
                Cf::Default,
                self.range.clone(),
            )?),
        };
        if values.find(&self.user_key, start_ts)? {
            Ok(())
        } else {
            Err(MvccError::ValueMissing { start_ts })
        }
    }
}
