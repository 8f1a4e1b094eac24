//! Walks over the entries of one block.

use std::ops::Range;

use crate::SstError;
use crate::block::Block;
use crate::footer::BlockHandle;
use crate::varint::{take_i64, take_len};

/// Sequence number and type at the end of an internal key.
pub(crate) const KEY_TAIL_SIZE_BYTES: usize = 8;

/// How entries of a block are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryForm {
    /// Keys end with sequence number and type.
    pub(crate) internal_keys: bool,
    pub(crate) value: ValueForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueForm {
    /// Any bytes, after their length.
    Bytes,
    /// Where a block is, maybe with its first key behind; its length before it unless `delta`.
    Handle { delta: bool, first_key: bool },
}

/// A place in a block: before its first entry, at an entry, or behind the last.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) block: Block,
    form: EntryForm,
    /// Where the next entry begins.
    next: usize,
    key: Vec<u8>,
    value: Range<usize>,
    handle: BlockHandle,
}

/// The lengths in front of an entry.
struct Lengths {
    shared: usize,
    unshared: usize,
    value: Option<usize>,
    /// Where the rest of the key begins.
    key_start: usize,
}

impl Cursor {
    pub(crate) fn new(block: Block, form: EntryForm) -> Cursor {
        let handle = BlockHandle::default();
        Cursor {
            block,
            form,
            next: 0,
            key: Vec::new(),
            value: 0..0,
            handle,
        }
    }

    /// Goes to another block, before its first entry; keeps the buffer of keys.
    pub(crate) fn reset(&mut self, block: Block) {
        self.block = block;
        self.next = 0;
        self.key.clear();
        self.value = 0..0;
        self.handle = BlockHandle::default();
    }

    /// Goes behind the last entry.
    pub(crate) fn finish(&mut self) {
        self.next = self.block.entries_end;
    }

    fn corrupt(&self) -> SstError {
        SstError::corrupt(self.block.offset, "an entry is cut off")
    }

    fn lengths(&self, at: usize) -> Option<Lengths> {
        let entries = self.block.entries();
        let mut rest = entries.get(at..)?;
        let shared = take_len(&mut rest)?;
        let unshared = take_len(&mut rest)?;
        let value = match self.form.value {
            ValueForm::Handle { delta: true, .. } => None,
            _ => Some(take_len(&mut rest)?),
        };
        Some(Lengths {
            shared,
            unshared,
            value,
            key_start: entries.len() - rest.len(),
        })
    }

    /// Goes to the next entry; `false` behind the last.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<bool, SstError> {
        if self.next >= self.block.entries_end {
            return Ok(false);
        }
        self.read_entry().ok_or_else(|| self.corrupt())?;
        Ok(true)
    }

    #[inline]
    fn read_entry(&mut self) -> Option<()> {
        let lengths = self.lengths(self.next)?;
        let key_end = lengths.key_start.checked_add(lengths.unshared)?;
        if lengths.shared > self.key.len() {
            return None;
        }
        let entries = self.block.bytes.get(..self.block.entries_end)?;
        let unshared = entries.get(lengths.key_start..key_end)?;
        self.key.truncate(lengths.shared);
        self.key.extend_from_slice(unshared);
        if self.form.internal_keys && self.key.len() < KEY_TAIL_SIZE_BYTES {
            return None;
        }
        match self.form.value {
            ValueForm::Bytes => {
                let end = key_end.checked_add(lengths.value?)?;
                entries.get(key_end..end)?;
                self.value = key_end..end;
                self.next = end;
            }
            ValueForm::Handle { delta, first_key } => {
                let mut rest = entries.get(key_end..)?;
                self.handle = if delta && lengths.shared > 0 {
                    // Blocks lie side by side, so only the size is told, as a difference.
                    let size = self.handle.size.checked_add_signed(take_i64(&mut rest)?)?;
                    BlockHandle {
                        offset: self.handle.end()?,
                        size,
                    }
                } else {
                    BlockHandle::take(&mut rest)?
                };
                if first_key {
                    let len = take_len(&mut rest)?;
                    rest = rest.get(len..)?;
                }
                self.next = match lengths.value {
                    Some(len) => key_end
                        .checked_add(len)
                        .filter(|&end| end <= entries.len())?,
                    None => entries.len() - rest.len(),
                };
            }
        }
        Some(())
    }

    /// Goes to the first entry whose user key is not less than this one; `false` if there is none.
    pub(crate) fn seek(&mut self, user_key: &[u8]) -> Result<bool, SstError> {
        // The last restart point with a key that is less.
        let (mut low, mut high) = (0, self.block.restarts.saturating_sub(1));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let key = self.restart_key(middle)?;
            if key < user_key {
                low = middle
            } else {
                high = middle - 1
            }
        }
        self.next = if self.block.restarts == 0 {
            0
        } else {
            self.block.restart(low)?
        };
        self.key.clear();
        self.handle = BlockHandle::default();
        while self.advance()? {
            if self.user_key() >= user_key {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn restart_key(&self, index: usize) -> Result<&[u8], SstError> {
        let at = self.block.restart(index)?;
        self.lengths(at)
            .filter(|lengths| lengths.shared == 0)
            .and_then(|lengths| {
                let end = lengths.key_start.checked_add(lengths.unshared)?;
                self.user_part(self.block.entries().get(lengths.key_start..end)?)
            })
            .ok_or_else(|| SstError::corrupt(self.block.offset, "a restart point has no key"))
    }

    fn user_part<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        match self.form.internal_keys {
            true => key.get(..key.len().checked_sub(KEY_TAIL_SIZE_BYTES)?),
            false => Some(key),
        }
    }

    /// The key of the entry, as written.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key of the entry without sequence number and type.
    #[inline]
    pub(crate) fn user_key(&self) -> &[u8] {
        self.user_part(&self.key).unwrap_or_default()
    }

    /// The value of the entry, of [`ValueForm::Bytes`].
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        self.block.bytes.get(self.value.clone()).unwrap_or_default()
    }

    /// The same, sharing the block.
    pub(crate) fn value_bytes(&self) -> bytes::Bytes {
        self.block.bytes.slice(self.value.clone())
    }

    /// The value of the entry, of [`ValueForm::Handle`].
    pub(crate) fn handle(&self) -> BlockHandle {
        self.handle
    }
}
