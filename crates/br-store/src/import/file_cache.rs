use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use crate::scratch_file::ScratchFile;

/// Bytes of fetched files kept for further regions. A file of the usual size spans few regions and
/// their downloads come close together, so a handful of files is enough.
const CACHE_BYTES_MAX: u64 = 2 << 30;

/// Names one file of one restore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct CacheKey {
    /// `storage_cache_id` of the request: one per run of a restore.
    pub(super) cache_id: String,
    /// The file's name on external storage.
    pub(super) name: String,
}

/// A fetched file, decrypted. Removed from the disk when nobody uses it any more.
#[derive(Debug)]
pub(super) struct FetchedFile {
    pub(super) file: ScratchFile,
    pub(super) size: u64,
}

/// Files fetched from external storage, so that the regions that share a file fetch it once.
#[derive(Debug, Default)]
pub(super) struct FileCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: BTreeMap<CacheKey, Slot>,
    /// Counts uses, to find the one used longest ago.
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    file: Arc<OnceCell<Arc<FetchedFile>>>,
    used: u64,
}

impl FileCache {
    /// The file of that name; the first to ask fetches it, others wait for it. A failure is not
    /// kept.
    pub(super) async fn get<E, F>(
        &self,
        key: &CacheKey,
        fetch: impl FnOnce() -> F,
    ) -> Result<Arc<FetchedFile>, E>
    where
        F: Future<Output = Result<FetchedFile, E>>,
    {
        let cell = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.clock += 1;
            let used = inner.clock;
            let slot = inner.slots.entry(key.clone()).or_insert_with(|| Slot {
                file: Arc::default(),
                used,
            });
            slot.used = used;
            slot.file.clone()
        };
        let result = cell
            .get_or_try_init(|| async move { fetch().await.map(Arc::new) })
            .await
            .cloned();
        match &result {
            Ok(_) => self.shrink(key),
            Err(_) => self.forget_empty(key),
        }
        result
    }

    /// Nobody will ask for it again; those who use it keep it.
    pub(super) fn forget(&self, key: &CacheKey) {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .slots
            .remove(key);
    }

    fn forget_empty(&self, key: &CacheKey) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner
            .slots
            .get(key)
            .is_some_and(|slot| slot.file.get().is_none())
        {
            inner.slots.remove(key);
        }
    }

    /// Drops the files used longest ago until the rest fits; never the one just fetched.
    fn shrink(&self, newest: &CacheKey) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |slot: &Slot| slot.file.get().map_or(0, |file| file.size);
        let mut total: u64 = inner.slots.values().map(size).sum();
        while total > CACHE_BYTES_MAX {
            let oldest = inner
                .slots
                .iter()
                .filter(|(key, slot)| *key != newest && slot.file.get().is_some())
                .min_by_key(|(_, slot)| slot.used)
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            total -= inner.slots.remove(&oldest).as_ref().map_or(0, size);
        }
    }
}
