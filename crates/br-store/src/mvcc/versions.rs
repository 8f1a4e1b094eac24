use br_codec::key;
use br_types::{Cf, DataKey, KeyRange, TimeStamp};

use super::MvccError;
use crate::engine::{Cursor, Snapshot};

/// Steps to the next entry before a seek is cheaper. Most keys have a version or two.
const STEPS_BEFORE_SEEK: usize = 8;

/// A cursor over records or long values that moves forward from key to key.
///
/// "User key" here is the data key without its timestamp.
pub(super) struct Versions<'s> {
    cursor: Box<dyn Cursor + 's>,
    is_valid: bool,
    sought: Vec<u8>,
}

impl<'s> Versions<'s> {
    pub(super) fn new(
        snapshot: &'s dyn Snapshot,
        cf: Cf,
        range: KeyRange<DataKey>,
    ) -> Result<Self, MvccError> {
        let mut cursor = snapshot.iter(cf, range);
        let is_valid = cursor.seek_to_first()?;
        Ok(Self {
            cursor,
            is_valid,
            sought: Vec::new(),
        })
    }

    pub(super) fn is_valid(&self) -> bool {
        self.is_valid
    }

    pub(super) fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    pub(super) fn value(&self) -> &[u8] {
        self.cursor.value()
    }

    /// The user key and the timestamp here; only when valid.
    pub(super) fn position(&self) -> Result<(&[u8], TimeStamp), MvccError> {
        Ok(key::split_ts(self.cursor.key())?)
    }

    /// Whether the cursor stands on a version of that user key.
    pub(super) fn is_on(&self, user_key: &[u8]) -> bool {
        let here = self.cursor.key();
        self.is_valid && here.len() == user_key.len() + key::TS_LEN && here.starts_with(user_key)
    }

    pub(super) fn next(&mut self) -> Result<(), MvccError> {
        self.is_valid = self.cursor.next()?;
        Ok(())
    }

    /// From a version of a user key to its first one at or below `ts`; `false`: it has none, and
    /// the cursor stands beyond the user key.
    pub(super) fn descend(&mut self, user_key: &[u8], ts: TimeStamp) -> Result<bool, MvccError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_on(user_key) {
                return Ok(false);
            }
            if self.position()?.1 <= ts {
                return Ok(true);
            }
            self.next()?;
        }
        self.seek(user_key, ts)?;
        Ok(self.is_on(user_key))
    }

    /// From a version of a user key to beyond all of them.
    pub(super) fn leave(&mut self, user_key: &[u8]) -> Result<(), MvccError> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_on(user_key) {
                return Ok(());
            }
            self.next()?;
        }
        if self.is_on(user_key) {
            self.seek(user_key, TimeStamp::ZERO)?;
        }
        if self.is_on(user_key) {
            self.next()?;
        }
        Ok(())
    }

    /// To exactly that version, which is not behind the cursor; `false`: there is none.
    pub(super) fn find(&mut self, user_key: &[u8], ts: TimeStamp) -> Result<bool, MvccError> {
        self.sought.clear();
        self.sought.extend_from_slice(user_key);
        key::append_ts(&mut self.sought, ts);
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_valid {
                return Ok(false);
            }
            match self.cursor.key().cmp(&self.sought) {
                std::cmp::Ordering::Less => self.is_valid = self.cursor.next()?,
                std::cmp::Ordering::Equal => return Ok(true),
                std::cmp::Ordering::Greater => return Ok(false),
            }
        }
        self.is_valid = self.cursor.seek(&self.sought)?;
        Ok(self.is_valid && self.cursor.key() == self.sought)
    }

    fn seek(&mut self, user_key: &[u8], ts: TimeStamp) -> Result<(), MvccError> {
        self.sought.clear();
        self.sought.extend_from_slice(user_key);
        key::append_ts(&mut self.sought, ts);
        self.is_valid = self.cursor.seek(&self.sought)?;
        Ok(())
    }
}
