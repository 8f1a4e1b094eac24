use std::sync::{Mutex, PoisonError};

use br_proto::backup::StorageBackend;
use br_rt::Rt;
use br_storage::{Backend, BackendError, Storage as ExternalStorage};

use super::error::ImportError;

/// Storages that are kept: restores read one or a few at a time.
const KEPT_MAX: usize = 8;

/// Sealed storages that requests named, kept open: their keyring would be read, and perhaps a key service
/// asked, for each of thousands of files.
#[derive(Default)]
pub(super) struct Storages(Mutex<Vec<(StorageBackend, ExternalStorage)>>);

impl Storages {
    /// The storage of a request.
    pub(super) async fn open(
        &self,
        rt: &Rt,
        backend: Option<&StorageBackend>,
        name: &str,
    ) -> Result<ExternalStorage, ImportError> {
        let wanted = backend.ok_or(BackendError::Missing)?;
        let parsed = Backend::from_proto(wanted)?;
        if let Some(kept) = self.kept(wanted) {
            return Ok(kept);
        }
        let storage = ExternalStorage::open(rt, &parsed).await;
        let storage = storage.map_err(|source| ImportError::Storage {
            name: name.to_owned(),
            source,
        })?;
        if storage.is_sealed() {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= KEPT_MAX {
                kept.remove(0);
            }
            kept.push((wanted.clone(), storage.clone()));
        }
        Ok(storage)
    }

    fn kept(&self, wanted: &StorageBackend) -> Option<ExternalStorage> {
        wanted.sealed.as_ref()?;
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(backend, _)| backend == wanted);
        found.map(|(_, storage)| storage.clone())
    }
}
