//! What commands do about the keyring of a sealed storage, beyond reading and writing objects.

use br_format::sealed::{keyring::FOLDER, object::HEADER_BYTES};
use futures::TryStreamExt;

use super::ring::generations;
use crate::{Failure, Operation, Storage, StorageError};

impl Storage {
    /// Makes certain that the keyring that new objects are sealed with is still the storage's. Who has
    /// taken a lock that [`Storage::forget_keyring`] respects asks once, before anything else is written.
    /// Fine if the storage is not sealed.
    ///
    /// # Errors
    /// [`Failure::KeyringChanged`]: it was removed, or another one is there. The storage's own.
    pub async fn check_keyring(&self) -> Result<(), StorageError> {
        let Some(ring) = self.ring() else {
            return Ok(());
        };
        match ring.still_holds().await? {
            true => Ok(()),
            false => Err(self.error(Operation::Open, "", Failure::KeyringChanged)),
        }
    }

    /// Removes the keyring of a sealed storage that has no objects but these, so that nothing is left of
    /// it; `false` if there are others, or if it is not sealed. What is still there afterwards can be
    /// deleted, and read by who has it open.
    ///
    /// The caller holds a lock that everybody takes who writes there; see [`Storage::check_keyring`]. After
    /// a crash in between the newest keyring is there.
    ///
    /// # Errors
    /// The storage's own.
    pub async fn forget_keyring(&self, but: &[&str]) -> Result<bool, StorageError> {
        let Some(ring) = self.ring() else {
            return Ok(false);
        };
        let mut objects = self.list("");
        while let Some(entry) = objects.try_next().await? {
            if !but.contains(&entry.name.as_str()) {
                return Ok(false);
            }
        }
        drop(objects);
        let plain = ring.plain();
        let mut all = generations(plain).await?;
        all.sort_unstable();
        for generation in all {
            plain.delete(&generation.name()).await?;
        }
        plain
            .remove_empty_folders(FOLDER.trim_end_matches('/'))
            .await;
        Ok(true)
    }

    /// The size in bytes of an object of a sealed storage that is not sealed: somebody else put it there,
    /// and nothing in it is to be believed. `None` if it is sealed, however damaged, or the storage is not.
    ///
    /// # Errors
    /// Not found; the storage's own.
    pub async fn foreign_size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let Some(ring) = self.ring() else {
            return Ok(None);
        };
        let plain = ring.plain();
        let size = plain.size(name).await?;
        match plain
            .read_range(name, 0..size.min(HEADER_BYTES as u64))
            .await
        {
            Ok(_) => Ok(Some(size)),
            Err(error) if error.failure == Failure::IsSealed => Ok(None),
            Err(error) => Err(error),
        }
    }
}
