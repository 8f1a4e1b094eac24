use br_proto::backup::{self, MetaFile};
use bytes::Bytes;
use prost::Message;

use super::{BackupHead, Compatibility, Content, Layout, MetaError, MetaNode, ObjectRef};
use super::{SCHEMA_VERSION, index};
use crate::crypter::{Crypter, IV_SIZE_BYTES, Iv};
use crate::names::{BACKUPMETA, MetaKind};
use crate::wire::{self, Fields};

/// A `backupmeta` that was read: what the backup is, and where its items are.
#[derive(Clone, Debug)]
pub struct BackupMeta {
    /// What the backup is.
    pub head: BackupHead,
    /// Where items are.
    pub layout: Layout,
    /// `backup_schema_version`; 0 from tools older than that field.
    pub schema_version: u32,
    /// Bytes of data, meta and statistics files; 0 from tools older than that field.
    pub backup_size_bytes: u64,
    compatibility: Compatibility,
    crypter: Crypter,
    bytes: Bytes,
    file_index: MetaFile,
    schema_index: MetaFile,
    ddl_indexes: MetaFile,
}

/// Fewer bytes say nothing about whether they are random.
const RANDOM_BYTES_MIN: usize = 128;

/// Whether all values of a byte are about as frequent: two bytes of encrypted ones are the same in
/// one of 256 cases. Names, small numbers and zeros make that several times as often in a
/// `backupmeta` (4.5 times in the least of those that were measured), damaged or not.
fn looks_encrypted(bytes: &[u8]) -> bool {
    if bytes.len() < RANDOM_BYTES_MIN {
        return false;
    }
    let mut counts = [0_u64; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let same: u64 = counts
        .iter()
        .map(|count| count * count.saturating_sub(1))
        .sum();
    let pairs = bytes.len() as u64 * (bytes.len() as u64 - 1);
    same * 256 < 2 * pairs
}

impl BackupMeta {
    /// Reads the stored bytes of `backupmeta`.
    ///
    /// # Errors
    /// - [`MetaError::NoKey`]: they are as random as only encrypted ones are, without a key;
    /// - [`MetaError::WrongKey`], [`MetaError::Malformed`], [`MetaError::Incomplete`]: the bytes
    ///   are not a whole `backupmeta`;
    /// - [`MetaError::NewerVersion`], [`MetaError::UnknownField`]: a newer tool made it (unless
    ///   lenient);
    /// - [`MetaError::Unsupported`]: another kind of backup.
    pub fn decode(
        stored: Bytes,
        crypter: &Crypter,
        compatibility: Compatibility,
    ) -> Result<BackupMeta, MetaError> {
        let bytes = decrypt(stored, crypter)?;
        let no_sense = || match crypter.is_plaintext() {
            true if looks_encrypted(&bytes) => MetaError::NoKey {
                object: BACKUPMETA.to_owned(),
            },
            true => MetaError::malformed(BACKUPMETA, "it is not a backupmeta"),
            false => MetaError::WrongKey {
                object: BACKUPMETA.to_owned(),
            },
        };
        if bytes.is_empty() {
            return Err(MetaError::Truncated {
                object: BACKUPMETA.to_owned(),
                expected: 1,
                found: 0,
            });
        }
        let unknown = check_unknown(BACKUPMETA, "backup.BackupMeta", &bytes, compatibility);
        // Bytes that are not protobuf at all come first: a version in them says nothing.
        if matches!(unknown, Ok(Err(_))) {
            return Err(no_sense());
        }
        let mut meta = decode_without_items(&bytes).ok_or_else(no_sense)?;
        check_versions(&meta, compatibility)?;
        let _ = unknown?;
        let layout = if meta.version == 0 {
            Layout::V1
        } else {
            Layout::V2
        };
        let read = BackupMeta {
            layout,
            schema_version: meta.backup_schema_version,
            backup_size_bytes: meta.backup_size,
            compatibility,
            crypter: crypter.clone(),
            bytes,
            file_index: meta.file_index.take().unwrap_or_default(),
            schema_index: meta.schema_index.take().unwrap_or_default(),
            ddl_indexes: meta.ddl_indexes.take().unwrap_or_default(),
            head: BackupHead::from_proto(meta)?,
        };
        read.check_complete()?;
        Ok(read)
    }

    /// Protobuf that was cut between two fields is valid. Tools write the fields in order of their
    /// numbers, so that a cut loses the last ones.
    fn check_complete(&self) -> Result<(), MetaError> {
        let incomplete = |missing| {
            Err(MetaError::Incomplete {
                object: BACKUPMETA.to_owned(),
                missing,
            })
        };
        if self.schema_version == 0 && release_has_size(&self.head.br_version) {
            return incomplete("size and schema version");
        }
        // Tools of 2020 did not write it; their backups need the lenient way.
        if self.head.br_version.is_empty() && self.compatibility == Compatibility::Strict {
            return incomplete("version of the tool that made it");
        }
        let has_files = self.file_index != MetaFile::default();
        let has_schemas = self.schema_index != MetaFile::default();
        if self.layout == Layout::V2
            && self.head.content == Content::Tables
            && has_files
            && !has_schemas
        {
            return incomplete("index of schemas");
        }
        Ok(())
    }

    /// Walks the items of that kind; see [`MetaWalk`].
    ///
    /// # Errors
    /// [`MetaError::Malformed`] if the index is.
    pub fn walk(&self, kind: MetaKind) -> Result<MetaWalk, MetaError> {
        let index = match kind {
            MetaKind::DataFile => &self.file_index,
            MetaKind::Schema => &self.schema_index,
            MetaKind::Ddl => &self.ddl_indexes,
        };
        let children = index::children(BACKUPMETA, index.clone(), 1)?;
        let mut pending = children.clone();
        pending.reverse();
        let own = MetaFile {
            meta_files: Vec::new(),
            ..index.clone()
        };
        let own = Bytes::from(own.encode_to_vec());
        Ok(MetaWalk {
            root: MetaNode::of_root(self.bytes.clone(), own, children),
            pending,
            crypter: self.crypter.clone(),
            compatibility: self.compatibility,
        })
    }
}

/// Goes over the meta files of one kind, one in memory at a time.
///
/// First take the items of [`MetaWalk::root`]. Then, while [`MetaWalk::next_object`] names an
/// object, read it and hand its bytes to [`MetaWalk::open`], whose node has further items.
/// Objects that will be asked for later stand in [`MetaWalk::pending`], for reading ahead.
#[derive(Clone, Debug)]
pub struct MetaWalk {
    root: MetaNode,
    /// The next one last.
    pending: Vec<ObjectRef>,
    crypter: Crypter,
    compatibility: Compatibility,
}

impl MetaWalk {
    /// Items that stand in `backupmeta` itself.
    pub fn root(&self) -> &MetaNode {
        &self.root
    }

    /// The object that [`MetaWalk::open`] takes next; `None` at the end.
    pub fn next_object(&self) -> Option<&ObjectRef> {
        self.pending.last()
    }

    /// The objects that are known to come, in order.
    pub fn pending(&self) -> impl Iterator<Item = &ObjectRef> {
        self.pending.iter().rev()
    }

    /// Goes on without the next object, which is damaged or not there: its items are lost.
    pub fn skip(&mut self) {
        self.pending.pop();
    }

    /// Takes the stored bytes of the next object.
    ///
    /// # Errors
    /// As [`ObjectRef::open`]. The walk stays where it was.
    ///
    /// # Panics
    /// If there is no next object.
    pub fn open(&mut self, stored: Bytes) -> Result<MetaNode, MetaError> {
        let next = self
            .pending
            .last()
            .expect("called only while next_object names an object");
        let node = next.open(stored, &self.crypter, self.compatibility)?;
        self.pending.pop();
        self.pending.extend(node.children().iter().rev().cloned());
        Ok(node)
    }
}

fn decrypt(stored: Bytes, crypter: &Crypter) -> Result<Bytes, MetaError> {
    if crypter.is_plaintext() {
        return Ok(stored);
    }
    let found = stored.len() as u64;
    let expected = IV_SIZE_BYTES as u64;
    let Some((iv, content)) = stored.split_at_checked(IV_SIZE_BYTES) else {
        return Err(MetaError::Truncated {
            object: BACKUPMETA.to_owned(),
            expected,
            found,
        });
    };
    let iv =
        Iv::from_slice(iv).map_err(|error| MetaError::malformed(BACKUPMETA, error.to_string()))?;
    let mut content = content.to_vec();
    crypter.apply(&iv, &mut content);
    Ok(content.into())
}

/// Leaves data files, schemas and DDL jobs out: they may be many, and are read one by one.
fn decode_without_items(bytes: &[u8]) -> Option<backup::BackupMeta> {
    let mut without_items = Vec::new();
    for field in Fields::new(bytes) {
        let field = field.ok()?;
        if !matches!(field.number, 4 | 7 | 10) {
            without_items.extend_from_slice(field.encoded);
        }
    }
    backup::BackupMeta::decode(without_items.as_slice()).ok()
}

fn check_versions(
    meta: &backup::BackupMeta,
    compatibility: Compatibility,
) -> Result<(), MetaError> {
    let newer = |field, found, supported| {
        Err(MetaError::NewerVersion {
            object: BACKUPMETA.to_owned(),
            field,
            found,
            supported,
        })
    };
    // An unknown layout cannot be read at all, lenient or not.
    if !(0..=1).contains(&meta.version) {
        return newer("version", meta.version.into(), 1);
    }
    if meta.backup_schema_version > SCHEMA_VERSION && compatibility == Compatibility::Strict {
        let found = meta.backup_schema_version.into();
        return newer("backup_schema_version", found, SCHEMA_VERSION.into());
    }
    Ok(())
}

/// Whether the official tool of this description writes `backup_schema_version`: from 9.0 on.
fn release_has_size(br_version: &str) -> bool {
    br_version
        .lines()
        .find_map(|line| line.trim().strip_prefix("Release Version:"))
        .and_then(|version| {
            version
                .trim()
                .strip_prefix('v')?
                .split('.')
                .next()?
                .parse::<u32>()
                .ok()
        })
        .is_some_and(|major| major >= 9)
}

/// The outer error is an unknown field, the inner one bytes that are not the message.
pub(super) fn check_unknown(
    object: &str,
    message: &'static str,
    bytes: &[u8],
    compatibility: Compatibility,
) -> Result<Result<(), wire::Malformed>, MetaError> {
    match wire::unknown_field(message, bytes) {
        Err(malformed) => Ok(Err(malformed)),
        Ok(Some(field)) if compatibility == Compatibility::Strict => Err(MetaError::UnknownField {
            object: object.to_owned(),
            message: field.message,
            number: field.number,
        }),
        Ok(_) => Ok(Ok(())),
    }
}
