//! Writes the files of one piece: each entry once, hashed and encrypted as the bytes come to be, so
//! that a file is never read again but for its upload.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use br_codec::checksum;
use br_proto::backup::CipherInfo;
use br_rt::Rt;
use br_sst::{Compression, TableBuilder};
use br_types::Cf;
use sha2::{Digest, Sha256};

use super::error::PieceError;
use crate::{
    cipher::{IV_LEN, Keystream},
    scratch_file::ScratchFile,
};

/// Bytes of a table that are hashed and written at once: they are still in the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Where and how the files of a request are written before they are uploaded.
#[derive(Clone, Debug)]
pub(super) struct WriterOptions {
    /// Local folder.
    pub(super) dir: PathBuf,
    pub(super) compression: Compression,
    /// `None`: not encrypted.
    pub(super) cipher: Option<CipherInfo>,
}

/// What `backupmeta` says of a file's entries. An entry counts for one file only: that which holds
/// its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// XOR of the checksums of raw key and value.
    pub(super) crc64xor: u64,
    /// Entries.
    pub(super) kvs: u64,
    /// Bytes of raw keys and values.
    pub(super) bytes: u64,
}

impl Totals {
    fn count(&mut self, user_key: &[u8], user_value: &[u8]) {
        self.crc64xor ^= checksum::crc64_of_pair(user_key, user_value);
        self.kvs += 1;
        self.bytes += (user_key.len() + user_value.len()) as u64;
    }
}

/// A file that is complete and waits for its upload.
#[derive(Debug)]
pub(super) struct FinishedFile {
    pub(super) cf: Cf,
    pub(super) file: ScratchFile,
    pub(super) totals: Totals,
    /// Of the file as it is, encrypted or not.
    pub(super) size_bytes: u64,
    pub(super) sha256: Vec<u8>,
    /// What it is encrypted with, if it is.
    pub(super) iv: [u8; IV_LEN],
}

/// Writes the files of one piece: default and write for transactions, one for raw data. A file is
/// begun with its first entry, for an SST file without entries is none.
pub(super) struct PieceWriter<'a> {
    rt: &'a Rt,
    options: &'a WriterOptions,
    files: Vec<OpenFile>,
}

struct OpenFile {
    cf: Cf,
    table: TableBuilder,
    totals: Totals,
    sink: Sink,
}

/// Where the bytes of a table go.
struct Sink {
    file: ScratchFile,
    handle: File,
    keystream: Keystream,
    iv: [u8; IV_LEN],
    hash: Sha256,
    size_bytes: u64,
}

impl Sink {
    /// Takes all bytes out of the buffer.
    fn take(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.keystream.apply(bytes);
        self.hash.update(&bytes);
        self.size_bytes += bytes.len() as u64;
        self.handle.write_all(bytes)?;
        bytes.clear();
        Ok(())
    }
}

impl<'a> PieceWriter<'a> {
    pub(super) fn new(rt: &'a Rt, options: &'a WriterOptions) -> Self {
        PieceWriter {
            rt,
            options,
            files: Vec::with_capacity(2),
        }
    }

    /// Adds an entry to the file of a column family. `counted` is what checksums count of it, or
    /// `None` if another file counts it.
    pub(super) fn put(
        &mut self,
        cf: Cf,
        data_key: &[u8],
        value: &[u8],
        counted: Option<(&[u8], &[u8])>,
    ) -> Result<(), PieceError> {
        let at = match self.files.iter().position(|open| open.cf == cf) {
            Some(at) => at,
            None => self.open(cf)?,
        };
        let Some(open) = self.files.get_mut(at) else {
            return Ok(());
        };
        open.table.put(data_key, value)?;
        if open.table.output().len() >= CHUNK_BYTES {
            open.sink.take(open.table.output())?;
        }
        if let Some((user_key, user_value)) = counted {
            open.totals.count(user_key, user_value);
        }
        Ok(())
    }

    fn open(&mut self, cf: Cf) -> Result<usize, PieceError> {
        let file = ScratchFile::new(self.rt, &self.options.dir, "sst");
        let iv: [u8; IV_LEN] = self.rt.random_bytes();
        self.files.push(OpenFile {
            cf,
            table: TableBuilder::new(self.options.compression)?,
            totals: Totals::default(),
            sink: Sink {
                handle: File::create_new(file.path())?,
                file,
                keystream: Keystream::new(self.options.cipher.as_ref(), &iv)?,
                iv,
                hash: Sha256::new(),
                size_bytes: 0,
            },
        });
        Ok(self.files.len() - 1)
    }

    /// Bytes of keys and values counted so far.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|open| open.totals.bytes).sum()
    }

    /// Completes the files; default before write.
    pub(super) fn finish(mut self) -> Result<Vec<FinishedFile>, PieceError> {
        self.files.sort_by_key(|open| open.cf);
        let finish = |open: OpenFile| {
            let mut sink = open.sink;
            sink.take(&mut open.table.finish()?)?;
            Ok(FinishedFile {
                cf: open.cf,
                file: sink.file,
                totals: open.totals,
                size_bytes: sink.size_bytes,
                sha256: sink.hash.finalize().to_vec(),
                iv: sink.iv,
            })
        };
        self.files.into_iter().map(finish).collect()
    }
}
