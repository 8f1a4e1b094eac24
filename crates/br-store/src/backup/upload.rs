use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use br_proto::backup;
use br_rt::{RateLimit, Rt};
use br_storage::Storage as ExternalStorage;
use sha2::{Digest, Sha256};

use super::{error::PieceError, name::file_name, writer::FinishedFile};
use crate::cipher::{IV_LEN, Keystream};

/// Bytes read, encrypted and hashed at once. A part of an upload, so that a part is sent while
/// the next is read.
const CHUNK_BYTES: usize = br_storage::PART_BYTES;

/// Where the files of a request go.
pub(super) struct Target {
    pub(super) storage: ExternalStorage,
    pub(super) cipher: Option<backup::CipherInfo>,
    pub(super) limit: Option<RateLimit>,
}

/// Uploads one file and says what stands in `backupmeta` of it, but for its range and versions.
pub(super) async fn upload(
    rt: &Rt,
    target: &Target,
    stem: &str,
    finished: FinishedFile,
) -> Result<backup::File, PieceError> {
    let name = file_name(stem, finished.cf);
    let iv: [u8; IV_LEN] = rt.random_bytes();
    let keystream = Keystream::new(target.cipher.as_ref(), &iv)?;
    let path = finished.file.path().to_owned();
    let mut source = rt.blocking(move || Source::open(&path, keystream)).await?;
    let mut writer = target.storage.writer(&name)?;
    let mut chunk;
    loop {
        (source, chunk) = rt
            .blocking(move || {
                let chunk = source.next();
                (source, chunk)
            })
            .await;
        let chunk = chunk?;
        if chunk.is_empty() {
            break;
        }
        if let Some(limit) = &target.limit {
            limit.take(chunk.len() as u64).await;
        }
        writer.write(&chunk).await?;
        source.buffer = chunk;
    }
    let written = writer.finish().await?;
    Ok(backup::File {
        name,
        sha256: source.hash.finalize().to_vec(),
        crc64xor: finished.totals.crc64xor,
        total_kvs: finished.totals.kvs,
        total_bytes: finished.totals.bytes,
        cf: finished.cf.name().to_owned(),
        size: written.size_bytes,
        cipher_iv: iv.to_vec(),
        ..Default::default()
    })
}

/// A local file, encrypted and hashed as it is read.
struct Source {
    file: File,
    keystream: Keystream,
    hash: Sha256,
    /// The chunk before, for its room.
    buffer: Vec<u8>,
}

impl Source {
    fn open(path: &Path, keystream: Keystream) -> io::Result<Source> {
        Ok(Source {
            file: File::open(path)?,
            keystream,
            hash: Sha256::new(),
            buffer: Vec::new(),
        })
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = std::mem::take(&mut self.buffer);
        chunk.clear();
        (&self.file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)?;
        self.keystream.apply(&mut chunk);
        self.hash.update(&chunk);
        Ok(chunk)
    }
}
