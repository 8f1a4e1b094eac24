use std::fmt;

use bytes::Bytes;

use crate::compression::Decompressor;
use crate::cursor::{Cursor, KEY_TAIL_SIZE_BYTES};
use crate::footer::BlockHandle;
use crate::table::{DATA, IndexLevels};
use crate::{RandomAccess, SstError, Table};

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Sets a value.
    Put,
    /// Removes the key.
    Delete,
    /// Something that backups do not have, by RocksDB's number.
    Other(u8),
}

/// An entry, valid until the iterator moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key without sequence number and type.
    pub user_key: &'a [u8],
    /// RocksDB's sequence number; 0 from `SstFileWriter`.
    pub sequence: u64,
    /// What it does.
    pub kind: EntryKind,
    /// The value.
    pub value: &'a [u8],
}

/// Goes over the entries of a table in order of their keys.
pub struct TableIter<'a, S> {
    table: &'a Table<S>,
    decompressor: Decompressor,
    index: Cursor,
    /// The part of the index in use, of an index with two levels.
    part: Option<Cursor>,
    data: Option<Cursor>,
    /// The current entry is new: the next call of `next` yields it instead of moving on.
    at_entry: bool,
    /// Data blocks begin here or later: they lie in order, which bounds the work.
    data_end: u64,
}

impl<S> fmt::Debug for TableIter<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableIter").finish_non_exhaustive()
    }
}

impl<'a, S: RandomAccess> TableIter<'a, S> {
    pub(crate) fn new(table: &'a Table<S>) -> Self {
        Self {
            table,
            decompressor: Decompressor::default(),
            index: table.index(),
            part: None,
            data: None,
            at_entry: false,
            data_end: 0,
        }
    }

    /// Goes before the first entry whose user key is not less than this one.
    ///
    /// # Errors
    /// [`SstError`]; the iterator is at its end then.
    pub fn seek(&mut self, user_key: &[u8]) -> Result<(), SstError> {
        let sought = self.try_seek(user_key);
        if sought.is_err() {
            self.stop();
        }
        sought
    }

    fn try_seek(&mut self, user_key: &[u8]) -> Result<(), SstError> {
        self.at_entry = false;
        self.data_end = 0;
        self.part = None;
        self.data = None;
        if !self.index.seek(user_key)? {
            self.stop();
            return Ok(());
        }
        let mut handle = self.index.handle();
        if self.table.index_levels == IndexLevels::Two {
            let part = self.read_part(handle)?;
            // The key of a part is not less than any in it, so there is an entry.
            if !part.seek(user_key)? {
                return self.find_next_block_entry();
            }
            handle = part.handle();
        }
        let data = self.read_data(handle)?;
        if data.seek(user_key)? {
            self.at_entry = true;
            return Ok(());
        }
        // The key lies between the last one of this block and the first one of the next.
        self.find_next_block_entry()
    }

    fn find_next_block_entry(&mut self) -> Result<(), SstError> {
        self.at_entry = self.advance()?;
        Ok(())
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// [`SstError`]; the iterator is at its end then.
    #[allow(
        clippy::should_implement_trait,
        reason = "an entry borrows from the iterator"
    )]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, SstError> {
        if !std::mem::take(&mut self.at_entry) {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    self.stop();
                    return Err(error);
                }
            }
        }
        Ok(self.data.as_ref().and_then(entry))
    }

    /// The value of the entry that `next` gave last, sharing the memory of its block.
    pub fn value_bytes(&self) -> Bytes {
        self.data
            .as_ref()
            .map(Cursor::value_bytes)
            .unwrap_or_default()
    }

    #[inline]
    fn advance(&mut self) -> Result<bool, SstError> {
        loop {
            if let Some(data) = &mut self.data
                && data.advance()?
            {
                return Ok(true);
            }
            let Some(handle) = self.next_data_block()? else {
                self.data = None;
                return Ok(false);
            };
            self.read_data(handle)?;
        }
    }

    fn next_data_block(&mut self) -> Result<Option<BlockHandle>, SstError> {
        loop {
            if let Some(part) = &mut self.part
                && part.advance()?
            {
                return Ok(Some(part.handle()));
            }
            if !self.index.advance()? {
                return Ok(None);
            }
            let handle = self.index.handle();
            match self.table.index_levels {
                IndexLevels::One => return Ok(Some(handle)),
                IndexLevels::Two => {
                    self.read_part(handle)?;
                }
            }
        }
    }

    fn read_part(&mut self, handle: BlockHandle) -> Result<&mut Cursor, SstError> {
        let block = self.table.read(handle, &mut self.decompressor)?;
        Ok(self.part.insert(Cursor::new(block, self.table.index_form)))
    }

    fn read_data(&mut self, handle: BlockHandle) -> Result<&mut Cursor, SstError> {
        if handle.offset < self.data_end {
            return Err(SstError::corrupt(
                handle.offset,
                "the index names blocks out of order",
            ));
        }
        let block = self.table.read(handle, &mut self.decompressor)?;
        self.data_end = handle.end().unwrap_or(u64::MAX);
        // The old cursor keeps its buffer of keys.
        let data = match self.data.take() {
            Some(mut data) => {
                data.reset(block);
                data
            }
            None => Cursor::new(block, DATA),
        };
        Ok(self.data.insert(data))
    }

    /// To the end, where it stays until the next seek.
    fn stop(&mut self) {
        self.at_entry = false;
        self.part = None;
        self.data = None;
        self.index.finish();
    }
}

#[inline]
fn entry(cursor: &Cursor) -> Option<Entry<'_>> {
    let (user_key, tail) = cursor.key().split_last_chunk::<KEY_TAIL_SIZE_BYTES>()?;
    let tail = u64::from_le_bytes(*tail);
    let kind = match tail as u8 {
        0 => EntryKind::Delete,
        1 => EntryKind::Put,
        other => EntryKind::Other(other),
    };
    Some(Entry {
        user_key,
        sequence: tail >> 8,
        kind,
        value: cursor.value(),
    })
}
