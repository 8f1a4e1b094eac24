use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_proto::import_sstpb::{Range, SstMeta};
use br_rt::{Monotonic, Rt};
use br_types::Cf;
use tokio::sync::OnceCell;

use super::error::ImportError;

/// Files that wait for their ingestion at most. A restore keeps a few hundred; files of restores
/// that died are dropped after [`STAGED_FOR`].
const STAGED_MAX: usize = 100_000;
/// A file that nobody ingests in this time is dropped. Clients ingest right after the download;
/// their longest timeout is 200 minutes.
const STAGED_FOR: Duration = Duration::from_secs(4 * 3600);

/// A file made for one region at one epoch, waiting for its ingestion.
#[derive(Clone, Debug)]
pub(super) struct StagedFile {
    pub(super) cf: Cf,
    pub(super) path: PathBuf,
    /// First and last key, engine keys without `z`; `None`: nothing was left of the file.
    pub(super) range: Option<Range>,
}

/// The files that wait for their ingestion, by the name that the official store gives them.
///
/// All stores of the process share them: a download that is sent to every peer of a region with
/// the same id is done once.
#[derive(Debug)]
pub(super) struct Staged {
    rt: Rt,
    dir: PathBuf,
    slots: Mutex<BTreeMap<String, Slot>>,
}

#[derive(Debug)]
struct Slot {
    file: Arc<OnceCell<StagedFile>>,
    since: Monotonic,
    /// An ingestion of it is under way.
    busy: bool,
}

/// Files taken for one ingestion; put back when this is dropped, unless they were ingested.
pub(super) struct Taken<'s> {
    staged: &'s Staged,
    names: Vec<String>,
    pub(super) files: Vec<StagedFile>,
}

/// Why files cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeError {
    /// Another ingestion has one of them.
    Conflict,
    /// One is not there: never downloaded, or ingested already.
    Missing,
}

impl Staged {
    pub(super) fn new(rt: Rt, dir: PathBuf) -> Staged {
        Staged {
            rt,
            dir,
            slots: Mutex::default(),
        }
    }

    /// The file of a meta; the first to ask makes it at the path it is given, others wait.
    pub(super) async fn get<F>(
        &self,
        meta: &SstMeta,
        make: impl FnOnce(PathBuf) -> F,
    ) -> Result<StagedFile, ImportError>
    where
        F: Future<Output = Result<StagedFile, ImportError>>,
    {
        let name = file_name(meta)?;
        let path = self.dir.join(&name);
        let cell = self.slot(name)?;
        cell.get_or_try_init(|| make(path)).await.cloned()
    }

    fn slot(&self, name: String) -> Result<Arc<OnceCell<StagedFile>>, ImportError> {
        let now = self.rt.now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.contains_key(&name) && slots.len() >= STAGED_MAX {
            // Those that are used hold their cell, so it cannot be lost under them.
            slots.retain(|_, slot| {
                let keep = slot.busy
                    || now.since(slot.since) < STAGED_FOR
                    || Arc::strong_count(&slot.file) > 1;
                if !keep {
                    remove(slot);
                }
                keep
            });
            if slots.len() >= STAGED_MAX {
                return Err(ImportError::TooManyStaged);
            }
        }
        let slot = slots.entry(name).or_insert_with(|| Slot {
            file: Arc::default(),
            since: now,
            busy: false,
        });
        Ok(slot.file.clone())
    }

    /// Takes the files of an ingestion, all or none.
    pub(super) fn take(&self, metas: &[SstMeta]) -> Result<Taken<'_>, TakeError> {
        let mut taken = Taken {
            staged: self,
            names: Vec::new(),
            files: Vec::new(),
        };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let found = metas.iter().try_for_each(|meta| {
            let name = file_name(meta).map_err(|_| TakeError::Missing)?;
            let slot = slots.get_mut(&name).ok_or(TakeError::Missing)?;
            let file = slot.file.get().ok_or(TakeError::Missing)?;
            if slot.busy {
                return Err(TakeError::Conflict);
            }
            taken.files.push(file.clone());
            taken.names.push(name);
            slot.busy = true;
            Ok(())
        });
        // Its drop takes the lock again.
        drop(slots);
        found.map(|()| taken)
    }

    /// Drops files whose names begin with `prefix`, but for those being ingested.
    pub(super) fn clear(&self, prefix: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|name, slot| {
            let keep = slot.busy || !name.starts_with(prefix);
            if !keep {
                remove(slot);
            }
            keep
        });
    }
}

impl Taken<'_> {
    /// The files are in the engine: forgets them.
    pub(super) fn ingested(mut self) {
        let mut slots = self
            .staged
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for name in self.names.drain(..) {
            slots.remove(&name);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut slots = self
            .staged
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(slot) = slots.get_mut(name) {
                slot.busy = false;
            }
        }
    }
}

fn remove(slot: &Slot) {
    if let Some(file) = slot.file.get()
        && file.range.is_some()
        && let Err(error) = std::fs::remove_file(&file.path)
    {
        tracing::warn!(path = %file.path.display(), %error, "cannot remove a downloaded file");
    }
}

/// The name of a file, as TiKV's; unique for a download, region, epoch and column family.
fn file_name(meta: &SstMeta) -> Result<String, ImportError> {
    let uuid: [u8; 16] =
        meta.uuid.as_slice().try_into().map_err(|_| {
            ImportError::Invalid("the file's uuid does not have 16 bytes".to_owned())
        })?;
    let cf = cf_of(meta)?;
    let epoch = meta.region_epoch.unwrap_or_default();
    let uuid = hex::encode(uuid);
    Ok(format!(
        "{uuid}_{}_{}_{}_{cf}_2.sst",
        meta.region_id, epoch.conf_ver, epoch.version
    ))
}

/// The column family of a file: default or write.
pub(super) fn cf_of(meta: &SstMeta) -> Result<Cf, ImportError> {
    Cf::from_name(&meta.cf_name)
        .filter(|cf| *cf != Cf::Lock)
        .ok_or_else(|| {
            ImportError::Invalid(format!(
                "no files can be taken into column family {:?}",
                meta.cf_name
            ))
        })
}
