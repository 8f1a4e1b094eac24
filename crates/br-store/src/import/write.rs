//! Files made of sorted pairs that a client streams: what a repair of an index writes.
//!
//! Source: `import_sstpb.WriteRequest` and `RawWriteRequest`; TiKV `sst_writer.rs`.

use std::path::Path;

use br_codec::{ApiVersion, RawValue, SHORT_VALUE_LEN_MAX, Write, WriteKind, key};
use br_proto::import_sstpb::{
    Pair, Range, RawWriteBatch, RawWriteRequest, RawWriteResponse, SstMeta, WriteBatch,
    WriteRequest, WriteResponse, pair::Op, raw_write_request, write_request,
};
use br_rt::Rt;
use br_types::{Cf, EncodedKey, RegionId, TimeStamp};
use tonic::{Status, Streaming};

use super::{
    error::ImportError,
    staged::{StagedFile, cf_of},
};
use crate::{
    context::StoreContext,
    engine::{Engine, SstCompression, SstOptions, SstWriter},
    scratch_file::ScratchFile,
};

/// Serves `Write`.
///
/// # Errors
/// The stream breaks off or begins with something else than a meta.
pub(super) async fn write(
    store: &StoreContext,
    mut stream: Streaming<WriteRequest>,
) -> Result<WriteResponse, Status> {
    let first = stream.message().await?.and_then(|message| message.chunk);
    let Some(write_request::Chunk::Meta(meta)) = first else {
        return Err(Status::invalid_argument(
            "a write begins with the file's meta",
        ));
    };
    let mut writer = match begin(store, &meta) {
        Ok(writer) => writer,
        Err(error) => {
            return Ok(WriteResponse {
                error: Some(error.to_proto()),
                ..Default::default()
            });
        }
    };
    while let Some(message) = stream.message().await? {
        let Some(write_request::Chunk::Batch(batch)) = message.chunk else {
            return Err(Status::invalid_argument("a write has one meta"));
        };
        let result;
        (writer, result) = store
            .rt
            .blocking(move || {
                let result = writer.add_batch(batch);
                (writer, result)
            })
            .await;
        if let Err(error) = result {
            return Ok(WriteResponse {
                error: Some(error.to_proto()),
                ..Default::default()
            });
        }
    }
    Ok(match finish(store, writer, meta).await {
        Ok(metas) => WriteResponse {
            metas,
            ..Default::default()
        },
        Err(error) => WriteResponse {
            error: Some(error.to_proto()),
            ..Default::default()
        },
    })
}

/// Serves `RawWrite`.
///
/// # Errors
/// As [`write`].
pub(super) async fn raw_write(
    store: &StoreContext,
    mut stream: Streaming<RawWriteRequest>,
) -> Result<RawWriteResponse, Status> {
    let first = stream.message().await?.and_then(|message| message.chunk);
    let Some(raw_write_request::Chunk::Meta(meta)) = first else {
        return Err(Status::invalid_argument(
            "a write begins with the file's meta",
        ));
    };
    let mut writer = match begin(store, &meta) {
        Ok(writer) => writer,
        Err(error) => {
            return Ok(RawWriteResponse {
                error: Some(error.to_proto()),
                ..Default::default()
            });
        }
    };
    let (version, now_seconds) = (store.api_version(), store.rt.wall().0 / 1000);
    while let Some(message) = stream.message().await? {
        let Some(raw_write_request::Chunk::Batch(batch)) = message.chunk else {
            return Err(Status::invalid_argument("a write has one meta"));
        };
        let result;
        (writer, result) = store
            .rt
            .blocking(move || {
                let result = writer.add_raw_batch(batch, version, now_seconds);
                (writer, result)
            })
            .await;
        if let Err(error) = result {
            return Ok(RawWriteResponse {
                error: Some(error.to_proto()),
                ..Default::default()
            });
        }
    }
    Ok(match finish(store, writer, meta).await {
        Ok(metas) => RawWriteResponse {
            metas,
            ..Default::default()
        },
        Err(error) => RawWriteResponse {
            error: Some(error.to_proto()),
            ..Default::default()
        },
    })
}

/// Checks that the region is the one that the client knows.
fn begin(store: &StoreContext, meta: &SstMeta) -> Result<FileWriter, ImportError> {
    let id = RegionId(meta.region_id);
    let outdated = |why: String| ImportError::Invalid(format!("{why}, please rescan region later"));
    let Some(state) = store.topology.region(id) else {
        return Err(outdated(format!("region {id} is not found")));
    };
    if state.region.region_epoch != meta.region_epoch {
        return Err(outdated(format!("region {id} has another epoch now")));
    }
    Ok(FileWriter {
        rt: store.rt.clone(),
        engine: store.engine().clone(),
        dir: store.importer.cache_dir.clone(),
        files: Vec::new(),
    })
}

/// Completes the files and puts them to those that wait.
async fn finish(
    store: &StoreContext,
    writer: FileWriter,
    meta: SstMeta,
) -> Result<Vec<SstMeta>, ImportError> {
    let importer = &store.importer;
    let done = store.rt.blocking(move || writer.finish()).await?;
    let mut metas = Vec::new();
    for Done { cf, file, range } in done {
        let meta = SstMeta {
            cf_name: cf.name().to_owned(),
            ..meta.clone()
        };
        let cf = cf_of(&meta)?;
        // Every peer's store gets the same pairs under the same id; the first made the file.
        importer
            .staged
            .get(&meta, |path| {
                importer.rt.blocking(move || {
                    file.keep_as(&path)?;
                    Ok(StagedFile {
                        cf,
                        path,
                        range: Some(range),
                    })
                })
            })
            .await?;
        metas.push(meta);
    }
    Ok(metas)
}

/// The files of one stream, begun with their first entries.
struct FileWriter {
    rt: Rt,
    engine: std::sync::Arc<dyn Engine>,
    dir: std::path::PathBuf,
    files: Vec<OpenFile>,
}

struct OpenFile {
    cf: Cf,
    file: ScratchFile,
    sst: Box<dyn SstWriter>,
    first: Vec<u8>,
    last: Vec<u8>,
}

struct Done {
    cf: Cf,
    file: ScratchFile,
    /// First and last key without `z`.
    range: Range,
}

impl FileWriter {
    fn put(&mut self, cf: Cf, engine_key: &[u8], value: &[u8]) -> Result<(), ImportError> {
        let at = match self.files.iter().position(|open| open.cf == cf) {
            Some(at) => at,
            None => {
                self.open(cf, engine_key)?;
                self.files.len() - 1
            }
        };
        let Some(open) = self.files.get_mut(at) else {
            return Ok(());
        };
        open.last.clear();
        open.last.extend_from_slice(engine_key);
        open.sst.put(key::data_key(engine_key).as_bytes(), value)?;
        Ok(())
    }

    fn open(&mut self, cf: Cf, first: &[u8]) -> Result<(), ImportError> {
        let file = ScratchFile::new(&self.rt, &self.dir, "write");
        let options = SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        };
        let path: &Path = file.path();
        let sst = self.engine.sst_writer(path, options)?;
        self.files.push(OpenFile {
            cf,
            file,
            sst,
            first: first.to_vec(),
            last: Vec::new(),
        });
        Ok(())
    }

    fn add_batch(&mut self, batch: WriteBatch) -> Result<(), ImportError> {
        let ts = TimeStamp(batch.commit_ts);
        if ts.is_zero() {
            return Err(ImportError::Invalid("invalid commit-ts 0".to_owned()));
        }
        for pair in batch.pairs {
            let engine_key = at_ts(&pair, ts);
            let is_delete = pair.op() == Op::Delete;
            let record = if is_delete {
                Write::new(WriteKind::Delete, ts, None)
            } else if pair.value.len() <= SHORT_VALUE_LEN_MAX {
                Write::new(WriteKind::Put, ts, Some(pair.value))
            } else {
                self.put(Cf::Default, &engine_key, &pair.value)?;
                Write::new(WriteKind::Put, ts, None)
            };
            self.put(Cf::Write, &engine_key, &record.to_bytes())?;
        }
        Ok(())
    }

    fn add_raw_batch(
        &mut self,
        batch: RawWriteBatch,
        version: ApiVersion,
        now_seconds: u64,
    ) -> Result<(), ImportError> {
        if batch.ttl > 0 && version == ApiVersion::V1 {
            return Err(ImportError::Invalid("ttl is not enabled".to_owned()));
        }
        let expires_at_seconds = (batch.ttl > 0).then(|| now_seconds.saturating_add(batch.ttl));
        for pair in batch.pairs {
            if pair.op() == Op::Delete {
                return Err(ImportError::Invalid(
                    "a file cannot remove raw keys".to_owned(),
                ));
            }
            let engine_key = match version {
                ApiVersion::V2 => at_ts(&pair, TimeStamp(batch.ts)),
                _ => pair.key,
            };
            let value = RawValue {
                user_value: &pair.value,
                expires_at_seconds,
                is_deleted: false,
            };
            self.put(Cf::Default, &engine_key, &value.encode(version))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Done>, ImportError> {
        let mut files = self.files;
        files.sort_by_key(|open| open.cf);
        let finish = |open: OpenFile| {
            open.sst.finish()?;
            let range = Range {
                start: open.first,
                end: open.last,
            };
            Ok(Done {
                cf: open.cf,
                file: open.file,
                range,
            })
        };
        files.into_iter().map(finish).collect()
    }
}

/// The engine key of a pair, without `z`.
fn at_ts(pair: &Pair, ts: TimeStamp) -> Vec<u8> {
    let encoded: EncodedKey = key::encode(&pair.key);
    let mut engine_key = encoded.into_bytes();
    key::append_ts(&mut engine_key, ts);
    engine_key
}
