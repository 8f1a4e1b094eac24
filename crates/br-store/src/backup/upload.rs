use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use br_proto::backup;
use br_rt::{RateLimit, Rt};
use br_storage::Storage as ExternalStorage;

use super::{error::PieceError, name::file_name, writer::FinishedFile};

/// Bytes read at once. A part of an upload, so that a part is sent while the next is read.
const CHUNK_BYTES: usize = br_storage::PART_BYTES;

/// Where the files of a request go.
pub(super) struct Target {
    pub(super) storage: ExternalStorage,
    pub(super) limit: Option<RateLimit>,
}

/// Uploads one file and says what stands in `backupmeta` of it, but for its range and versions.
///
/// Into a directory of the same file system it moves as it is.
pub(super) async fn upload(
    rt: &Rt,
    target: &Target,
    stem: &str,
    finished: FinishedFile,
) -> Result<backup::File, PieceError> {
    let name = file_name(stem, finished.cf);
    let path = finished.file.path();
    let folder = path.parent().unwrap_or(Path::new("/"));
    if target.storage.can_adopt_from(folder) {
        let mut rest = finished.size_bytes;
        while let (Some(limit), true) = (&target.limit, rest > 0) {
            let now = rest.min(CHUNK_BYTES as u64);
            limit.take(now).await;
            rest -= now;
        }
        target.storage.adopt(path, &name).await?;
    } else {
        copy(rt, target, path, &name).await?;
    }
    Ok(backup::File {
        name,
        sha256: finished.sha256,
        crc64xor: finished.totals.crc64xor,
        total_kvs: finished.totals.kvs,
        total_bytes: finished.totals.bytes,
        cf: finished.cf.name().to_owned(),
        size: finished.size_bytes,
        cipher_iv: finished.iv.to_vec(),
        ..Default::default()
    })
}

async fn copy(rt: &Rt, target: &Target, path: &Path, name: &str) -> Result<(), PieceError> {
    let mut writer = target.storage.writer(name)?;
    let path = path.to_owned();
    let mut source = rt.blocking(move || File::open(&path)).await?;
    let mut chunk = Vec::new();
    loop {
        let read;
        (source, chunk, read) = rt
            .blocking(move || {
                let read = read_chunk(&source, &mut chunk);
                (source, chunk, read)
            })
            .await;
        read?;
        if chunk.is_empty() {
            break;
        }
        if let Some(limit) = &target.limit {
            limit.take(chunk.len() as u64).await;
        }
        writer.write(&chunk).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// The next bytes; none at the end.
fn read_chunk(source: &File, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    source.take(CHUNK_BYTES as u64).read_to_end(chunk)?;
    Ok(())
}
