use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use br_codec::key::strip_data_prefix;
use br_proto::import_sstpb::Range;
use br_sst::{EntryKind, RandomAccess, SstError, Table, TableIter};
use bytes::Bytes;

use super::error::ImportError;

/// A local SST file. Each block's checksum is verified as it is read.
pub(super) struct SstFile {
    name: String,
    table: Table<LocalFile>,
}

/// A file read by position.
struct LocalFile {
    file: File,
    size_bytes: u64,
}

impl RandomAccess for LocalFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

impl SstFile {
    /// Opens a file; `name` is what errors call it.
    ///
    /// # Errors
    /// [`ImportError::Sst`] if it is no SST file.
    pub(super) fn open(name: &str, path: &Path) -> Result<SstFile, ImportError> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let table =
            Table::open(LocalFile { file, size_bytes }).map_err(|source| ImportError::Sst {
                name: name.to_owned(),
                source,
            })?;
        Ok(SstFile {
            name: name.to_owned(),
            table,
        })
    }

    /// The entries from a data key on.
    ///
    /// # Errors
    /// [`ImportError::Sst`].
    pub(super) fn entries_from(&self, data_key: &[u8]) -> Result<Entries<'_>, ImportError> {
        let mut iter = self.table.iter();
        iter.seek(data_key).map_err(|source| self.damaged(source))?;
        Ok(Entries { file: self, iter })
    }

    /// Reads every entry, and so verifies the file; gives the first and last key without `z`, or
    /// `None` if it has no entries.
    ///
    /// # Errors
    /// [`ImportError::Sst`] if anything of it is damaged.
    pub(super) fn verify(&self) -> Result<Option<Range>, ImportError> {
        let mut range: Option<Range> = None;
        let mut entries = self.entries_from(&[])?;
        while let Some((key, _)) = entries.next()? {
            let key = strip_data_prefix(key)?;
            match &mut range {
                Some(range) => {
                    range.end.clear();
                    range.end.extend_from_slice(key);
                }
                None => {
                    range = Some(Range {
                        start: key.to_vec(),
                        end: key.to_vec(),
                    })
                }
            }
        }
        Ok(range)
    }

    fn damaged(&self, source: SstError) -> ImportError {
        ImportError::Sst {
            name: self.name.clone(),
            source,
        }
    }
}

/// A data key and its value.
pub(super) type KeyValue<'e> = (&'e [u8], &'e [u8]);

/// The entries of a file, in key order.
pub(super) struct Entries<'f> {
    file: &'f SstFile,
    iter: TableIter<'f, LocalFile>,
}

impl Entries<'_> {
    /// The next data key and value.
    ///
    /// # Errors
    /// [`ImportError::Sst`]: damage, or an entry that is no put.
    pub(super) fn next(&mut self) -> Result<Option<KeyValue<'_>>, ImportError> {
        let entry = self
            .iter
            .next()
            .map_err(|source| self.file.damaged(source))?;
        match entry {
            Some(entry) if entry.kind != EntryKind::Put => {
                let text = format!("{} removes keys, which no backup does", self.file.name);
                Err(ImportError::Invalid(text))
            }
            Some(entry) => Ok(Some((entry.user_key, entry.value))),
            None => Ok(None),
        }
    }
}
