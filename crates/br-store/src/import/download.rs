//! From a file on external storage to a file for one region: fetched once, cut to the region,
//! rewritten where it must be.

use std::{io, path::PathBuf, sync::Arc};

use br_codec::key::strip_data_prefix;
use br_proto::import_sstpb::{DownloadRequest, Range, SstMeta};
use br_storage::READS_OF_DAMAGED;
use br_types::Cf;

use super::{
    Importer,
    error::ImportError,
    fetch::fetch,
    file_cache::{CacheKey, FetchedFile},
    rewrite::{Clip, Rewrite},
    sst_file::SstFile,
    staged::{StagedFile, cf_of},
};
use crate::engine::{Engine, SstCompression, SstOptions};

/// Free bytes that a download leaves on the disk beside room for its own files.
const DISK_RESERVE_BYTES: u64 = 256 << 20;

impl Importer {
    /// The file of a request for its region, made if it is not there yet.
    pub(super) async fn download(
        &self,
        request: &DownloadRequest,
    ) -> Result<StagedFile, ImportError> {
        let meta = request.sst.clone().unwrap_or_default();
        if !request.ssts.is_empty() {
            return Err(ImportError::Invalid(
                "download takes one file; several are for BatchDownload".to_owned(),
            ));
        }
        self.check_disk(&meta)?;
        self.staged
            .get(&meta, |path| self.make(request, &meta, path))
            .await
    }

    fn check_disk(&self, meta: &SstMeta) -> Result<(), ImportError> {
        let (_, free) = self.engine.disk_space();
        // The file as fetched and as rewritten, perhaps with weaker compression.
        let needed = meta
            .length
            .saturating_mul(3)
            .saturating_add(DISK_RESERVE_BYTES);
        if free < needed {
            Err(ImportError::DiskFull)
        } else {
            Ok(())
        }
    }

    async fn make(
        &self,
        request: &DownloadRequest,
        meta: &SstMeta,
        path: PathBuf,
    ) -> Result<StagedFile, ImportError> {
        let cf = cf_of(meta)?;
        let rewrite = Rewrite::new(request.rewrite_rule.as_ref(), request.request_type());
        let rewritten = |source| ImportError::Rewrite {
            name: request.name.clone(),
            source,
        };
        let clip = rewrite.clip(meta).map_err(rewritten)?;
        let key = CacheKey {
            cache_id: request.storage_cache_id.clone(),
            name: request.name.clone(),
        };
        let mut reads = 0;
        let done = loop {
            let fetched = if key.cache_id.is_empty() {
                Arc::new(self.fetch(request).await?)
            } else {
                self.cache.get(&key, || self.fetch(request)).await?
            };
            let permit = self.rewrites.acquire().await;
            let work = Work {
                engine: self.engine.clone(),
                name: request.name.clone(),
                cf,
                rewrite: rewrite.clone(),
                clip: clip.clone(),
                fetched,
                path: path.clone(),
            };
            let done = self.rt.blocking(move || work.run()).await;
            drop(permit);
            reads += 1;
            match done {
                // Perhaps it is damaged only here.
                Err(error @ ImportError::Sst { .. }) if reads < READS_OF_DAMAGED => {
                    tracing::warn!(%error, "fetched again");
                    self.cache.forget(&key);
                }
                done => break done?,
            }
        };
        let Done { file, is_whole } = done;
        if is_whole {
            // No other region has a part of it.
            self.cache.forget(&key);
        }
        Ok(file)
    }

    async fn fetch(&self, request: &DownloadRequest) -> Result<FetchedFile, ImportError> {
        // Never closed, so there is always a permit to wait for.
        let _permit = self.fetches.acquire().await;
        let backend = request.storage_backend.as_ref();
        let storage = self.storages.open(&self.rt, backend, &request.name).await?;
        fetch(&storage, &self.rt, &self.cache_dir, &self.limits, request).await
    }
}

/// The part of a download that computes.
struct Work {
    engine: Arc<dyn Engine>,
    name: String,
    cf: Cf,
    rewrite: Rewrite,
    clip: Clip,
    fetched: Arc<FetchedFile>,
    path: PathBuf,
}

struct Done {
    file: StagedFile,
    /// The region has all of the file.
    is_whole: bool,
}

impl Work {
    fn run(self) -> Result<Done, ImportError> {
        let sst = SstFile::open(&self.name, self.fetched.file.path())?;
        if self.rewrite.is_identity()
            && let Some(range) = self.whole(&sst)?
        {
            self.keep()?;
            return Ok(Done {
                file: self.staged(Some(range)),
                is_whole: true,
            });
        }
        self.rewrite_into(&sst)
    }

    /// The keys of the file if all of them are wanted; verifies it then.
    fn whole(&self, sst: &SstFile) -> Result<Option<Range>, ImportError> {
        let mut entries = sst.entries_from(&[])?;
        let Some((first, _)) = entries.next()? else {
            return Ok(None);
        };
        let start = strip_data_prefix(first)?.to_vec();
        if self.clip.is_before(&start) || self.clip.is_after(&start) {
            return Ok(None);
        }
        let mut end = start.clone();
        while let Some((key, _)) = entries.next()? {
            let key = strip_data_prefix(key)?;
            if self.clip.is_after(key) {
                return Ok(None);
            }
            end.clear();
            end.extend_from_slice(key);
        }
        Ok(Some(Range { start, end }))
    }

    fn staged(&self, range: Option<Range>) -> StagedFile {
        StagedFile {
            cf: self.cf,
            path: self.path.clone(),
            range,
        }
    }

    /// Keeps the file as it is, under a second name.
    fn keep(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::hard_link(self.fetched.file.path(), &self.path)
    }

    /// Writes what is wanted of the file anew.
    fn rewrite_into(&self, sst: &SstFile) -> Result<Done, ImportError> {
        // Reading back what was just restored is rare; writing it fast is not.
        let options = SstOptions {
            compression: SstCompression::Lz4,
            level: 0,
        };
        let failed = |source| ImportError::Rewrite {
            name: self.name.clone(),
            source,
        };
        let mut writer = None;
        let mut first: Option<Vec<u8>> = None;
        // The key written last, and room for the next.
        let (mut last, mut key) = (Vec::new(), Vec::new());
        let mut is_whole = true;
        let mut entries = sst.entries_from(&[])?;
        if let Some((old_key, _)) = entries.next()? {
            is_whole = !self.clip.is_before(strip_data_prefix(old_key)?);
        }
        let mut entries = sst.entries_from(&self.clip.seek_key())?;
        while let Some((old_key, old_value)) = entries.next()? {
            if self.clip.is_after(strip_data_prefix(old_key)?) {
                is_whole = false;
                break;
            }
            if !self.rewrite.key(old_key, &mut key).map_err(failed)? {
                continue;
            }
            let value = self.rewrite.value(self.cf, old_value).map_err(failed)?;
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(self.engine.sst_writer(&self.path, options)?),
            };
            writer.put(&key, &value)?;
            if first.is_none() {
                first = Some(key.clone());
            }
            std::mem::swap(&mut last, &mut key);
        }
        let range = match (writer, first) {
            (Some(writer), Some(first)) => {
                writer.finish()?;
                Some(Range {
                    start: strip_data_prefix(&first)?.to_vec(),
                    end: strip_data_prefix(&last)?.to_vec(),
                })
            }
            _ => None,
        };
        Ok(Done {
            file: self.staged(range),
            is_whole,
        })
    }
}
