//! A file that a client sends in pieces: first what it is, then its bytes.

use std::{fs::File, io::Write};

use br_proto::import_sstpb::{SstMeta, UploadRequest, upload_request::Chunk};
use tonic::{Status, Streaming};

use super::{
    Importer,
    error::ImportError,
    sst_file::SstFile,
    staged::{StagedFile, cf_of},
};
use crate::scratch_file::ScratchFile;

/// Takes one file and keeps it for its ingestion.
///
/// # Errors
/// The stream breaks off, or the file is not what its meta says.
pub(super) async fn upload(
    importer: &Importer,
    mut stream: Streaming<UploadRequest>,
) -> Result<(), Status> {
    let first = stream.message().await?.and_then(|message| message.chunk);
    let Some(Chunk::Meta(meta)) = first else {
        return Err(Status::invalid_argument(
            "an upload begins with the file's meta",
        ));
    };
    let received = receive(importer, stream).await?;
    let result = importer
        .staged
        .get(&meta, |path| {
            let meta = meta.clone();
            importer.rt.blocking(move || accept(received, &meta, path))
        })
        .await;
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(Status::unknown(error.to_string())),
    }
}

/// A file as it came in.
struct Received {
    file: ScratchFile,
    length: u64,
    crc32: u32,
}

async fn receive(
    importer: &Importer,
    mut stream: Streaming<UploadRequest>,
) -> Result<Received, Status> {
    let io = |error: std::io::Error| Status::unknown(format!("local file: {error}"));
    let file = ScratchFile::new(&importer.rt, &importer.cache_dir, "upload");
    let path = file.path().to_owned();
    let mut local = importer
        .rt
        .blocking(move || File::create_new(path))
        .await
        .map_err(io)?;
    let (mut length, mut crc32) = (0, crc32fast::Hasher::new());
    while let Some(message) = stream.message().await? {
        let Some(Chunk::Data(data)) = message.chunk else {
            return Err(Status::invalid_argument("an upload has one meta"));
        };
        length += data.len() as u64;
        crc32.update(&data);
        let written = importer
            .rt
            .blocking(move || {
                let result = local.write_all(&data);
                (local, result)
            })
            .await;
        local = written.0;
        written.1.map_err(io)?;
    }
    Ok(Received {
        file,
        length,
        crc32: crc32.finalize(),
    })
}

/// Checks a file and puts it to those that wait.
fn accept(
    received: Received,
    meta: &SstMeta,
    path: std::path::PathBuf,
) -> Result<StagedFile, ImportError> {
    let name = "the uploaded file";
    if meta.length != received.length {
        let (found, expected) = (received.length, meta.length);
        return Err(ImportError::Length {
            name: name.to_owned(),
            found,
            expected,
        });
    }
    if meta.crc32 != received.crc32 {
        let text = format!(
            "crc32 {} of the uploaded file, expected {}",
            received.crc32, meta.crc32
        );
        return Err(ImportError::Invalid(text));
    }
    let sst = SstFile::open(name, received.file.path())?;
    let range = sst.verify()?;
    received.file.keep_as(&path)?;
    Ok(StagedFile {
        cf: cf_of(meta)?,
        path,
        range,
    })
}
