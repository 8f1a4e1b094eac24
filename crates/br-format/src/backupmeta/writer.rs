use std::fmt;

use br_proto::backup::{BackupMeta, File, MetaFile};
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use sha2::{Digest, Sha256};

use super::{BackupHead, DataFile, Layout};
use crate::Object;
use crate::crypter::{Crypter, Iv};
use crate::names::{self, BACKUPMETA, MetaKind};
use crate::schema::SchemaEntry;

/// The size at which a meta file ends, in bytes of plaintext, as in the official tool.
pub const METAFILE_SIZE_BYTES_MAX: usize = 128 << 20;

/// Writes `backupmeta` and its meta files.
///
/// Items are pushed in any order; objects come back as they fill up. Write each one before the
/// next call, and `backupmeta`, the last object of [`MetaWriter::finish`], after all others. The
/// official tool writes data files, DDL jobs, schemas, in this order.
///
/// In layout V2 one meta file is in memory at a time, already encoded; in V1 everything.
pub struct MetaWriter {
    layout: Layout,
    crypter: Crypter,
    new_iv: Box<dyn FnMut() -> Iv + Send>,
    metafile_size_bytes_max: usize,
    /// The encoded meta file (V2) or the encoded fields of `backupmeta` (V1) that are being filled.
    open: Option<(MetaKind, Vec<u8>)>,
    sequence: u32,
    indexes: Indexes,
    inline: Vec<u8>,
    inline_ddls: Vec<Vec<u8>>,
    data_size_bytes: u64,
    meta_size_bytes: u64,
}

#[derive(Default)]
struct Indexes {
    data_files: Vec<File>,
    schemas: Vec<File>,
    ddls: Vec<File>,
}

impl fmt::Debug for MetaWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaWriter")
            .field("layout", &self.layout)
            .field("crypter", &self.crypter)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl MetaWriter {
    /// A writer of a backup without items. `new_iv` draws a random vector for each object; it is
    /// not called without encryption.
    pub fn new(
        layout: Layout,
        crypter: Crypter,
        new_iv: impl FnMut() -> Iv + Send + 'static,
    ) -> MetaWriter {
        MetaWriter {
            layout,
            crypter,
            new_iv: Box::new(new_iv),
            metafile_size_bytes_max: METAFILE_SIZE_BYTES_MAX,
            open: None,
            sequence: 0,
            indexes: Indexes::default(),
            inline: Vec::new(),
            inline_ddls: Vec::new(),
            data_size_bytes: 0,
            meta_size_bytes: 0,
        }
    }

    /// Ends meta files at that size instead of [`METAFILE_SIZE_BYTES_MAX`].
    #[must_use]
    pub fn with_metafile_size_bytes_max(mut self, max: usize) -> MetaWriter {
        self.metafile_size_bytes_max = max;
        self
    }

    /// Takes files that belong together: those of one stem, which readers want side by side.
    pub fn push_data_files(&mut self, files: impl IntoIterator<Item = DataFile>) -> Vec<Object> {
        let mut objects = self.switch_to(MetaKind::DataFile);
        for file in files {
            self.data_size_bytes += file.size_bytes;
            self.append(2, 4, &file.into_proto().encode_to_vec());
        }
        objects.extend(self.end_if_full());
        objects
    }

    /// Takes a database or table.
    pub fn push_schema(&mut self, schema: SchemaEntry) -> Vec<Object> {
        let mut objects = self.switch_to(MetaKind::Schema);
        self.meta_size_bytes += schema.stats_size_bytes();
        self.append(3, 7, &schema.into_proto().encode_to_vec());
        objects.extend(self.end_if_full());
        objects
    }

    /// Takes a finished DDL job, as TiDB's JSON.
    pub fn push_ddl_job(&mut self, job_json: Vec<u8>) -> Vec<Object> {
        let mut objects = self.switch_to(MetaKind::Ddl);
        match self.layout {
            Layout::V1 => self.inline_ddls.push(job_json),
            Layout::V2 => self.append(5, 0, &job_json),
        }
        objects.extend(self.end_if_full());
        objects
    }

    /// The rest, `backupmeta` last.
    pub fn finish(mut self, head: BackupHead) -> Vec<Object> {
        let mut objects: Vec<Object> = self.end().into_iter().collect();
        let mut meta = head.into_proto(self.layout);
        if !self.inline_ddls.is_empty() {
            meta.ddls = [b"[", self.inline_ddls.join(&b',').as_slice(), b"]"].concat();
        }
        let index = |meta_files: Vec<File>| {
            (!meta_files.is_empty()).then(|| MetaFile {
                meta_files,
                ..Default::default()
            })
        };
        meta.file_index = index(self.indexes.data_files);
        meta.schema_index = index(self.indexes.schemas);
        meta.ddl_indexes = index(self.indexes.ddls);
        let own_size_bytes = (meta.encoded_len() + self.inline.len()) as u64;
        meta.backup_size = self.data_size_bytes + self.meta_size_bytes + own_size_bytes;
        let mut bytes = encode_in_order(&meta, self.inline);
        if !self.crypter.is_plaintext() {
            let iv = (self.new_iv)();
            self.crypter.apply(&iv, &mut bytes);
            bytes.splice(0..0, iv.0);
        }
        objects.push(Object {
            name: BACKUPMETA.to_owned(),
            bytes: bytes.into(),
        });
        objects
    }

    fn switch_to(&mut self, kind: MetaKind) -> Vec<Object> {
        match &self.open {
            Some((open, _)) if *open == kind => Vec::new(),
            _ => {
                let ended = self.end();
                self.open = Some((kind, Vec::new()));
                ended.into_iter().collect()
            }
        }
    }

    fn append(&mut self, in_metafile: u32, in_root: u32, item: &[u8]) {
        let (buffer, number) = match (&mut self.open, self.layout) {
            (Some((_, buffer)), Layout::V2) => (buffer, in_metafile),
            _ => (&mut self.inline, in_root),
        };
        encode_key(number, WireType::LengthDelimited, buffer);
        encode_varint(item.len() as u64, buffer);
        buffer.extend_from_slice(item);
    }

    fn end_if_full(&mut self) -> Option<Object> {
        match &self.open {
            Some((_, buffer)) if buffer.len() > self.metafile_size_bytes_max => self.end(),
            _ => None,
        }
    }

    fn end(&mut self) -> Option<Object> {
        let (kind, mut bytes) = self.open.take()?;
        if bytes.is_empty() {
            return None;
        }
        self.sequence += 1;
        let name = names::metafile(kind, self.sequence);
        let sha256 = Sha256::digest(&bytes).to_vec();
        let mut cipher_iv = Vec::new();
        if !self.crypter.is_plaintext() {
            let iv = (self.new_iv)();
            self.crypter.apply(&iv, &mut bytes);
            cipher_iv = iv.0.to_vec();
        }
        let size = bytes.len() as u64;
        self.meta_size_bytes += size;
        let index = match kind {
            MetaKind::DataFile => &mut self.indexes.data_files,
            MetaKind::Schema => &mut self.indexes.schemas,
            MetaKind::Ddl => &mut self.indexes.ddls,
        };
        index.push(File {
            name: name.clone(),
            sha256,
            size,
            cipher_iv,
            ..Default::default()
        });
        Some(Object {
            name,
            bytes: Bytes::from(bytes),
        })
    }
}

/// Puts the items, which have the numbers 4 and 7, between the fields around them, so that the
/// last fields of the object are those by which a reader sees that it is whole.
fn encode_in_order(meta: &BackupMeta, inline: Vec<u8>) -> Vec<u8> {
    if inline.is_empty() {
        return meta.encode_to_vec();
    }
    let mut bytes = inline;
    bytes.reserve(meta.encoded_len());
    // prost writes fields in order of their numbers, whichever stand before.
    meta.encode(&mut bytes).expect("a vector grows as needed");
    bytes
}
