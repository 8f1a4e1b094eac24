use br_codec::{Lock, LockKind, WriteKind, WriteRef, bytes, key};
use br_types::{Cf, DataKey, EncodedKey, KeyRange, TimeStamp};

use super::{
    LockEffect, MvccError, ReadContext, Reader, check_lock, is_visible_to_rc_check,
    versions::Versions,
};
use crate::engine::{Cursor, Snapshot};

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// A key and its value at the timestamp of the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'p> {
    /// Raw key.
    pub key: &'p [u8],
    /// The value; empty if the scan is for keys only.
    pub value: &'p [u8],
}

/// The pairs of a range, one at a time.
pub struct Scanner<'v>(Way<'v>);

enum Way<'v> {
    Forward(Forward<'v>),
    Backward(Backward<'v>),
}

impl<'v> Scanner<'v> {
    pub(super) fn new(
        snapshot: &'v dyn Snapshot,
        range: KeyRange<DataKey>,
        context: ReadContext,
        direction: Direction,
        is_key_only: bool,
    ) -> Result<Self, MvccError> {
        Ok(Self(match direction {
            Direction::Forward => {
                Way::Forward(Forward::new(snapshot, range, context, is_key_only)?)
            }
            Direction::Backward => {
                Way::Backward(Backward::new(snapshot, range, context, is_key_only)?)
            }
        }))
    }

    /// The next pair. After [`MvccError::KeyIsLocked`] the scan can go on behind that key.
    ///
    /// # Errors
    /// [`MvccError`].
    #[allow(
        clippy::should_implement_trait,
        reason = "what it gives is lent until the next call"
    )]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, MvccError> {
        match &mut self.0 {
            Way::Forward(scan) => scan.next(),
            Way::Backward(scan) => scan.next(),
        }
    }
}

/// Where the value of the current key is.
enum Place {
    /// Nowhere; the key is skipped.
    Absent,
    /// In the write record under the cursor, or, if it is long, under the cursor over long values.
    Record { is_long: bool },
    /// Read from the lock of a transaction known to be committed.
    Lock(Vec<u8>),
}

struct Forward<'v> {
    snapshot: &'v dyn Snapshot,
    range: KeyRange<DataKey>,
    context: ReadContext,
    is_key_only: bool,
    writes: Versions<'v>,
    locks: Box<dyn Cursor + 'v>,
    has_lock: bool,
    values: Option<Versions<'v>>,
    /// Data key without timestamp of the pair given last.
    user_key: Vec<u8>,
    raw_key: Vec<u8>,
    lock_value: Vec<u8>,
}

impl<'v> Forward<'v> {
    fn new(
        snapshot: &'v dyn Snapshot,
        range: KeyRange<DataKey>,
        context: ReadContext,
        is_key_only: bool,
    ) -> Result<Self, MvccError> {
        let mut locks = snapshot.iter(Cf::Lock, range.clone());
        Ok(Self {
            snapshot,
            writes: Versions::new(snapshot, Cf::Write, range.clone())?,
            has_lock: locks.seek_to_first()?,
            locks,
            range,
            context,
            is_key_only,
            values: None,
            user_key: Vec::new(),
            raw_key: Vec::new(),
            lock_value: Vec::new(),
        })
    }

    fn next(&mut self) -> Result<Option<Pair<'_>>, MvccError> {
        while self.next_key()? {
            let place = self.place()?;
            let value = match place {
                Place::Absent => continue,
                _ if self.is_key_only => &[],
                Place::Record { is_long: false } => WriteRef::parse(self.writes.value())?
                    .short_value
                    .unwrap_or_default(),
                Place::Record { is_long: true } => {
                    self.values.as_ref().map_or(&[][..], Versions::value)
                }
                Place::Lock(value) => {
                    self.lock_value = value;
                    &self.lock_value
                }
            };
            self.raw_key.clear();
            bytes::decode_into(
                &mut self.raw_key,
                &mut key::strip_data_prefix(&self.user_key)?,
            )?;
            return Ok(Some(Pair {
                key: &self.raw_key,
                value,
            }));
        }
        Ok(None)
    }

    /// Goes on to the next key that has a version or a lock.
    fn next_key(&mut self) -> Result<bool, MvccError> {
        if !self.user_key.is_empty() {
            self.writes.leave(&self.user_key)?;
            if self.has_lock && self.locks.key() == self.user_key {
                self.has_lock = self.locks.next()?;
            }
        }
        let written = match self.writes.is_valid() {
            true => Some(self.writes.position()?.0),
            false => None,
        };
        let locked = self.has_lock.then(|| self.locks.key());
        let next = match (written, locked) {
            (None, None) => return Ok(false),
            (Some(key), None) | (None, Some(key)) => key,
            (Some(written), Some(locked)) => written.min(locked),
        };
        self.user_key.clear();
        self.user_key.extend_from_slice(next);
        Ok(true)
    }

    /// Where the value of `user_key` is; moves the cursors to it.
    fn place(&mut self) -> Result<Place, MvccError> {
        if self.has_lock && self.locks.key() == self.user_key {
            let lock = Lock::parse(self.locks.value())?;
            let encoded = key::strip_data_prefix(&self.user_key)?;
            if check_lock(encoded, &lock, false, &self.context)? == LockEffect::ReadValue {
                return self.place_in_lock(lock);
            }
        }
        if !self.writes.is_on(&self.user_key) {
            return Ok(Place::Absent);
        }
        let (newest, start_ts) = (
            self.writes.position()?.1,
            WriteRef::parse(self.writes.value())?.start_ts,
        );
        let encoded = key::strip_data_prefix(&self.user_key)?;
        is_visible_to_rc_check(encoded, newest, start_ts, &self.context)?;
        let mut is_found = self.writes.descend(&self.user_key, self.context.ts)?;
        while is_found {
            let write = WriteRef::parse(self.writes.value())?;
            if !write.is_valid_as_newest(self.context.ts) {
                return Ok(Place::Absent);
            }
            match write.kind {
                WriteKind::Put => {
                    let is_long = write.short_value.is_none();
                    let start_ts = write.start_ts;
                    if is_long && !self.is_key_only {
                        self.find_long_value(start_ts)?;
                    }
                    return Ok(Place::Record { is_long });
                }
                WriteKind::Delete => return Ok(Place::Absent),
                WriteKind::Lock | WriteKind::Rollback => {
                    self.writes.next()?;
                    is_found = self.writes.is_on(&self.user_key);
                }
            }
        }
        Ok(Place::Absent)
    }

    fn place_in_lock(&self, lock: Lock) -> Result<Place, MvccError> {
        if lock.kind == LockKind::Delete {
            return Ok(Place::Absent);
        }
        let encoded = EncodedKey::from(key::strip_data_prefix(&self.user_key)?);
        let value = Reader::new(self.snapshot).value_of_lock(&encoded, lock)?;
        Ok(value.map_or(Place::Absent, Place::Lock))
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

/// Backward scans look each key up by itself: they are rare and short.
struct Backward<'v> {
    reader: Reader<'v>,
    context: ReadContext,
    is_key_only: bool,
    writes: Box<dyn Cursor + 'v>,
    has_write: bool,
    locks: Box<dyn Cursor + 'v>,
    has_lock: bool,
    raw_key: Vec<u8>,
    value: Vec<u8>,
}

impl<'v> Backward<'v> {
    fn new(
        snapshot: &'v dyn Snapshot,
        range: KeyRange<DataKey>,
        context: ReadContext,
        is_key_only: bool,
    ) -> Result<Self, MvccError> {
        let mut writes = snapshot.iter(Cf::Write, range.clone());
        let mut locks = snapshot.iter(Cf::Lock, range);
        Ok(Self {
            reader: Reader::new(snapshot),
            context,
            is_key_only,
            has_write: writes.seek_to_last()?,
            writes,
            has_lock: locks.seek_to_last()?,
            locks,
            raw_key: Vec::new(),
            value: Vec::new(),
        })
    }

    fn next(&mut self) -> Result<Option<Pair<'_>>, MvccError> {
        while let Some(user_key) = self.next_key()? {
            let encoded = EncodedKey::from(key::strip_data_prefix(&user_key)?);
            let Some(found) = self.reader.get(&encoded, &self.context)? else {
                continue;
            };
            self.raw_key.clear();
            bytes::decode_into(&mut self.raw_key, &mut encoded.as_bytes())?;
            self.value = if self.is_key_only {
                Vec::new()
            } else {
                found.value
            };
            return Ok(Some(Pair {
                key: &self.raw_key,
                value: &self.value,
            }));
        }
        Ok(None)
    }

    /// The greatest key not looked at yet; moves the cursors before it.
    fn next_key(&mut self) -> Result<Option<Vec<u8>>, MvccError> {
        let written = match self.has_write {
            true => Some(key::split_ts(self.writes.key())?.0),
            false => None,
        };
        let locked = self.has_lock.then(|| self.locks.key());
        let Some(user_key) = written.max(locked).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        if written.is_some_and(|key| key == user_key) {
            // All versions of a key sort behind the key itself.
            self.has_write = self.writes.seek_for_prev(&user_key)?;
        }
        if self.has_lock && self.locks.key() == user_key {
            self.has_lock = self.locks.prev()?;
        }
        Ok(Some(user_key))
    }
}
