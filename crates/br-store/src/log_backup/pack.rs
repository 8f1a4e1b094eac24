//! From records to the bytes of one object: each file compressed as one zstd frame, then encrypted.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use br_format::{
    crypter::{Crypter, Iv, Keystream},
    log::{
        content,
        encryption::{FileEncryption, KeySource},
        file::{LogCompression, LogFile, Span},
    },
};
use sha2::{Digest, Sha256};
use zstd::stream::write::Encoder;

use super::payload::RecordSource;

/// Bytes of an object that are made in one go.
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of records that go through the compressor at once.
const PIECE_BYTES: usize = 1 << 20;
/// The fastest level: the store has other things to do.
const ZSTD_LEVEL: i32 = 1;

/// Makes the bytes of one object, a chunk at a time. Memory: a chunk, a piece and a compressor,
/// whatever the size of the files.
pub(crate) struct Packer {
    waiting: VecDeque<(LogFile, RecordSource, Iv)>,
    current: Option<Current>,
    compression: LogCompression,
    crypter: Crypter,
    done: Vec<LogFile>,
    offset: u64,
}

struct Current {
    file: LogFile,
    source: RecordSource,
    iv: Iv,
    encoder: Option<Encoder<'static, Vec<u8>>>,
    keystream: Keystream,
    checksum: Sha256,
    length: u64,
}

impl Packer {
    /// Files in the order in which they lie in the object, each with an initialization vector of
    /// its own.
    pub(crate) fn new(
        files: Vec<(LogFile, RecordSource, Iv)>,
        compression: LogCompression,
        crypter: Crypter,
    ) -> Packer {
        Packer {
            waiting: files.into(),
            current: None,
            compression,
            crypter,
            done: Vec::new(),
            offset: 0,
        }
    }

    /// The next bytes; none at the end. Blocking.
    ///
    /// # Errors
    /// A temporary file could not be read.
    pub(crate) fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < CHUNK_BYTES {
            if self.current.is_none() {
                let Some((mut file, mut source, iv)) = self.waiting.pop_front() else {
                    break;
                };
                if file.length <= PIECE_BYTES as u64 {
                    self.whole(&mut file, &mut source, iv, &mut out)?;
                    self.push_done(file);
                    continue;
                }
                self.current = Some(self.start(file, source, iv)?);
            }
            if let Some(current) = &mut self.current
                && current.next(&mut out)?
                && let Some(current) = self.current.take()
            {
                let file = current.finish(self.compression, &self.crypter);
                self.push_done(file);
            }
        }
        Ok(out)
    }

    /// The files with their places in the object, and its length; after the end.
    pub(crate) fn finish(self) -> (Vec<LogFile>, u64) {
        (self.done, self.offset)
    }

    fn push_done(&mut self, mut file: LogFile) {
        file.span.offset = self.offset;
        self.offset += file.span.length;
        self.done.push(file);
    }

    /// A small file at once.
    fn whole(
        &self,
        file: &mut LogFile,
        source: &mut RecordSource,
        iv: Iv,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut records = Vec::new();
        while let Some(piece) = source.next(PIECE_BYTES)? {
            records.extend_from_slice(&piece);
        }
        let stored = content::seal(file, &records, self.compression, &self.crypter, iv)?;
        out.extend_from_slice(&stored);
        Ok(())
    }

    fn start(&self, file: LogFile, source: RecordSource, iv: Iv) -> io::Result<Current> {
        let encoder = match self.compression {
            LogCompression::None => None,
            LogCompression::Zstd => {
                let mut encoder = Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_pledged_src_size(Some(file.length))?;
                Some(encoder)
            }
        };
        Ok(Current {
            keystream: self.crypter.keystream(&iv),
            file,
            source,
            iv,
            encoder,
            checksum: Sha256::new(),
            length: 0,
        })
    }
}

impl Current {
    /// Adds bytes to `out`; `true`: the file is complete.
    fn next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let piece = self.source.next(PIECE_BYTES)?;
        let is_end = piece.is_none();
        let mut stored = match (&mut self.encoder, piece) {
            (None, piece) => piece.unwrap_or_default(),
            (Some(encoder), Some(piece)) => {
                encoder.write_all(&piece)?;
                std::mem::take(encoder.get_mut())
            }
            (encoder, None) => match encoder.take() {
                Some(encoder) => encoder.finish()?,
                None => Vec::new(),
            },
        };
        self.keystream.apply(&mut stored);
        self.checksum.update(&stored);
        self.length += stored.len() as u64;
        out.extend_from_slice(&stored);
        Ok(is_end)
    }

    fn finish(self, compression: LogCompression, crypter: &Crypter) -> LogFile {
        let mut file = self.file;
        file.compression = compression;
        file.span = Span {
            offset: 0,
            length: self.length,
        };
        file.encryption = (!crypter.is_plaintext()).then(|| FileEncryption {
            method: crypter.method(),
            iv: self.iv,
            checksum: self.checksum.finalize().to_vec(),
            key: KeySource::Task,
        });
        file
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use br_format::{crypter::Method, log::record::Records};
    use br_types::{Cf, TimeStamp};
    use bytes::Bytes;

    use super::*;
    use crate::{
        log_backup::{
            payload::{Event, MemoryUse, Payload},
            subscription::tests::whole_region,
        },
        testing::simulate,
    };

    #[test]
    fn small_and_large_files_come_back_with_and_without_encryption() {
        let key = Crypter::new(Method::Aes256Ctr, &[7; 32]).unwrap();
        for (crypter, compression) in [
            (Crypter::plaintext(), LogCompression::Zstd),
            (key.clone(), LogCompression::Zstd),
            (key, LogCompression::None),
        ] {
            simulate(async |rt| {
                let dir = tempfile::tempdir().unwrap();
                let memory = Arc::new(MemoryUse::default());
                let mut payload = Payload::new(rt.clone(), dir.path(), memory, 2 << 20);
                let mut counts = [0_u64; 3];
                for n in 0..9000_u64 {
                    let region = if n < 3 { 0 } else { 1 + n % 2 };
                    counts[region as usize] += 1;
                    let mut engine_key = br_codec::key::encode(&n.to_be_bytes()).into_bytes();
                    br_codec::key::append_ts(&mut engine_key, TimeStamp(n + 1));
                    let value: Vec<u8> = (0..600).map(|i| (i * n % 251) as u8).collect();
                    let event = Event {
                        cf: Cf::Default,
                        engine_key: &engine_key,
                        value: Some(&value),
                    };
                    let spec = whole_region(10 + region);
                    payload.append(&spec, TimeStamp(1), event).unwrap();
                    if payload.is_over_quota() {
                        payload.spill().unwrap();
                    }
                }
                let sealed = payload.seal();
                let files: Vec<_> = (0..3)
                    .map(|index| {
                        let file = sealed.files[index].file.clone();
                        let source = sealed.source(index).unwrap();
                        (file, source, Iv(rt.random_bytes()))
                    })
                    .collect();
                let mut packer = Packer::new(files, compression, crypter.clone());
                let mut object = Vec::new();
                loop {
                    let chunk = packer.next().unwrap();
                    if chunk.is_empty() {
                        break;
                    }
                    object.extend(chunk);
                }
                let (files, length) = packer.finish();
                assert_eq!(length, object.len() as u64);
                let object = Bytes::from(object);
                for (file, count) in files.iter().zip(counts) {
                    let end = usize::try_from(file.span.end().unwrap()).unwrap();
                    let start = usize::try_from(file.span.offset).unwrap();
                    let stored = object.slice(start..end);
                    let records = content::open("test", file, stored, &crypter).unwrap();
                    content::check_records("test", file, &records).unwrap();
                    assert_eq!(Records::new(&records).count() as u64, count);
                    assert_eq!(file.encryption.is_none(), crypter.is_plaintext());
                }
            });
        }
    }
}
