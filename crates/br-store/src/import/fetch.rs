use std::{fs::File, io::Write};

use br_proto::import_sstpb::DownloadRequest;
use br_rt::Rt;
use br_storage::Storage as ExternalStorage;

use super::{error::ImportError, file_cache::FetchedFile, speed_limit::SpeedLimits};
use crate::{cipher::Keystream, scratch_file::ScratchFile};

/// Bytes asked for at once; a few requests are enough to fill a line, and a limit of the speed
/// takes hold within one.
const CHUNK_BYTES: u64 = 8 << 20;

/// Brings a file from external storage to the local disk, decrypted, and checks each of its
/// blocks.
pub(super) async fn fetch(
    storage: &ExternalStorage,
    rt: &Rt,
    dir: &std::path::Path,
    limits: &SpeedLimits,
    request: &DownloadRequest,
) -> Result<FetchedFile, ImportError> {
    let name = &request.name;
    let meta = request.sst.clone().unwrap_or_default();
    let read = |source| ImportError::Storage {
        name: name.clone(),
        source,
    };
    let size = storage.size(name).await.map_err(read)?;
    if meta.length != 0 && meta.length != size {
        return Err(ImportError::Length {
            name: name.clone(),
            found: size,
            expected: meta.length,
        });
    }
    let mut keystream = Keystream::new(request.cipher_info.as_ref(), &meta.cipher_iv)?;
    let file = ScratchFile::new(rt, dir, "sst");
    let path = file.path().to_owned();
    let mut local = rt.blocking(move || File::create_new(path)).await?;
    let mut at = 0;
    while at < size {
        let end = (at + CHUNK_BYTES).min(size);
        if let Some(limit) = limits.current() {
            limit.take(end - at).await;
        }
        let chunk = storage.read_range(name, at..end).await.map_err(read)?;
        (local, keystream) = rt
            .blocking(move || {
                if keystream.is_plain() {
                    local.write_all(&chunk)?;
                } else {
                    let mut chunk = chunk.to_vec();
                    keystream.apply(&mut chunk);
                    local.write_all(&chunk)?;
                }
                Ok::<_, std::io::Error>((local, keystream))
            })
            .await?;
        at = end;
    }
    Ok(FetchedFile { file, size })
}
