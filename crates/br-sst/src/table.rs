use std::fmt;

use crate::block::{self, Block};
use crate::compression::Decompressor;
use crate::cursor::{Cursor, EntryForm, ValueForm};
use crate::footer::{BlockHandle, FOOTER_SIZE_BYTES, Footer};
use crate::{Properties, RandomAccess, SstError, TableIter};

/// Entries with plain keys and any bytes as values: metaindex and properties.
const META: EntryForm = EntryForm {
    internal_keys: false,
    value: ValueForm::Bytes,
};
pub(crate) const DATA: EntryForm = EntryForm {
    internal_keys: true,
    value: ValueForm::Bytes,
};

/// An SST file that is open for reading.
///
/// Opening reads the footer, the metaindex, the properties and the (top) index; after that each
/// seek reads one data block, and one part of the index if that has two levels.
pub struct Table<S> {
    source: S,
    footer: Footer,
    properties: Properties,
    index: Block,
    pub(crate) index_form: EntryForm,
    pub(crate) index_levels: IndexLevels,
}

/// How the index is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexLevels {
    /// Its entries are data blocks.
    One,
    /// Its entries are indexes.
    Two,
}

impl<S> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("footer", &self.footer)
            .field("index_form", &self.index_form)
            .finish_non_exhaustive()
    }
}

impl<S: RandomAccess> Table<S> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SstError`]: bytes that are not a table, damage in what is read here, or features that
    /// are not supported, among them range deletions.
    pub fn open(source: S) -> Result<Table<S>, SstError> {
        let size = source.size_bytes();
        let Some(offset) = size.checked_sub(FOOTER_SIZE_BYTES as u64) else {
            return Err(SstError::NotATable("it is too short"));
        };
        let footer = source
            .read_at(offset, FOOTER_SIZE_BYTES)
            .map_err(|source| SstError::Read {
                offset,
                len: FOOTER_SIZE_BYTES,
                source,
            })?;
        let footer = Footer::decode(&footer)?;
        let mut decompressor = Decompressor::default();
        let mut read = |handle| block::read(&source, footer.checksum, handle, &mut decompressor);

        let metaindex = Metaindex::read(Cursor::new(read(footer.metaindex)?, META))?;
        let properties = match metaindex.properties {
            Some(handle) => Properties::read(Cursor::new(read(handle)?, META))?,
            None => return Err(SstError::unsupported("a table without properties")),
        };
        check_supported(&properties, &metaindex)?;
        let (index_form, index_levels) = index_form(&properties)?;
        let index = read(footer.index)?;
        Ok(Table {
            source,
            footer,
            properties,
            index,
            index_form,
            index_levels,
        })
    }

    /// What the writer noted about the table.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The version of the format: 2 to 5.
    pub fn format_version(&self) -> u32 {
        self.footer.format_version
    }

    /// An iterator before the first entry.
    pub fn iter(&self) -> TableIter<'_, S> {
        TableIter::new(self)
    }

    pub(crate) fn index(&self) -> Cursor {
        Cursor::new(self.index.clone(), self.index_form)
    }

    pub(crate) fn read(
        &self,
        handle: BlockHandle,
        decompressor: &mut Decompressor,
    ) -> Result<Block, SstError> {
        block::read(&self.source, self.footer.checksum, handle, decompressor)
    }
}

/// The blocks beside data and index.
#[derive(Default)]
struct Metaindex {
    properties: Option<BlockHandle>,
    has_range_deletions: bool,
    has_dictionary: bool,
}

impl Metaindex {
    fn read(mut cursor: Cursor) -> Result<Metaindex, SstError> {
        let mut metaindex = Metaindex::default();
        while cursor.advance()? {
            match cursor.key() {
                b"rocksdb.properties" => {
                    let handle = BlockHandle::take(&mut cursor.value());
                    let offset = cursor.block.offset;
                    metaindex.properties =
                        Some(handle.ok_or(SstError::corrupt(offset, "an entry is cut off"))?);
                }
                b"rocksdb.range_del" | b"rocksdb.range_del2" => {
                    metaindex.has_range_deletions = true;
                }
                b"rocksdb.compression_dict" => metaindex.has_dictionary = true,
                // Filters, mostly.
                _ => {}
            }
        }
        Ok(metaindex)
    }
}

fn check_supported(properties: &Properties, metaindex: &Metaindex) -> Result<(), SstError> {
    if metaindex.has_range_deletions
        || properties
            .number("rocksdb.num.range-deletions")
            .is_some_and(|count| count > 0)
    {
        return Err(SstError::unsupported("range deletions"));
    }
    if metaindex.has_dictionary {
        return Err(SstError::unsupported("a compression dictionary"));
    }
    match properties.get("rocksdb.comparator") {
        None | Some(b"leveldb.BytewiseComparator") => Ok(()),
        Some(other) => {
            let name = String::from_utf8_lossy(other);
            Err(SstError::unsupported(format!("the order of keys {name:?}")))
        }
    }
}

fn index_form(properties: &Properties) -> Result<(EntryForm, IndexLevels), SstError> {
    // A number of four bytes, little-endian, unlike the others.
    let kind = properties
        .get("rocksdb.block.based.table.index.type")
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let (levels, first_key) = match kind {
        // Binary search; hash search, whose index block is the same.
        0 | 1 => (IndexLevels::One, false),
        2 => (IndexLevels::Two, false),
        3 => (IndexLevels::One, true),
        other => return Err(SstError::unsupported(format!("index type {other}"))),
    };
    let set = |name| properties.number(name).is_some_and(|value| value != 0);
    let delta = set("rocksdb.index.value.is.delta.encoded");
    let internal_keys = !set("rocksdb.index.key.is.user.key");
    let value = ValueForm::Handle { delta, first_key };
    Ok((
        EntryForm {
            internal_keys,
            value,
        },
        levels,
    ))
}
