//! # What it does
//! The folder of a compaction while it is being made: whose it is, and what becomes of it when
//! whoever made it fails or dies.
//!
//! # Objects it reads and writes
//! In the folder, beside `outputs/` and `metas/`: `LOCK`, as long as somebody works there, and
//! `PREPARED`, with the time in Unix milliseconds, from when all of it is written until the
//! migration that names it is.
//!
//! # Ordering and invariants
//! What no migration names is removed, if whoever wrote it failed or has died, but for what is
//! prepared: its migration may be on its way to the storage. A compaction of the same files goes on
//! with it; others remove it after [`ON_ITS_WAY_MAX`].
//!
//! # After a crash
//! The next compaction on the same machine removes what was left, or goes on.

use std::{collections::HashSet, time::Duration};

use br_format::log::names;
use br_rt::kill_point;
use br_storage::Storage;
use futures::TryStreamExt as _;

use super::CompactError;
use crate::{
    migrate,
    storage_lock::{LockError, LockRequest, StorageLock},
};

const LOCK: &str = "LOCK";
const PREPARED: &str = "PREPARED";

/// A request that was sent by a process that died arrives within this time or never.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(600);

/// A folder that is being filled.
pub(super) struct Folder {
    storage: Storage,
    /// Its name, without a slash at the end.
    pub(super) name: String,
    lock: StorageLock,
    is_prepared: bool,
}

impl Folder {
    /// Takes the folder, empty or prepared.
    ///
    /// # Errors
    /// Somebody works there; the storage failed.
    pub(super) async fn take(
        request: &LockRequest<'_>,
        name: String,
    ) -> Result<Folder, CompactError> {
        let lock = request.compaction(&format!("{name}/{LOCK}")).await?;
        let mut folder = Folder {
            storage: request.storage.clone(),
            name,
            lock,
            is_prepared: false,
        };
        match folder.look().await {
            Ok(is_prepared) => {
                folder.is_prepared = is_prepared;
                Ok(folder)
            }
            Err(error) => {
                folder.lock.release().await;
                Err(error)
            }
        }
    }

    async fn look(&self) -> Result<bool, CompactError> {
        let is_prepared = self.storage.exists(&self.object(PREPARED)).await?;
        if !is_prepared {
            self.empty().await?;
        }
        Ok(is_prepared)
    }

    /// Whether all of it was written by a compaction of the same files that died.
    pub(super) fn is_prepared(&self) -> bool {
        self.is_prepared
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// All of it is written, and the migration comes next.
    ///
    /// # Errors
    /// The storage failed.
    pub(super) async fn set_prepared(&self, now_unix_ms: u64) -> Result<(), CompactError> {
        let text = now_unix_ms.to_string();
        self.storage.write(&self.object(PREPARED), text).await?;
        kill_point("compact.prepared");
        Ok(())
    }

    /// A migration names it.
    pub(super) async fn keep(self) {
        if let Err(error) = self.storage.delete(&self.object(PREPARED)).await {
            tracing::warn!(%error, folder = self.name, "a mark was left behind");
        }
        kill_point("compact.unmarked");
        self.lock.release().await;
    }

    /// Nothing comes of it this time. What was prepared by another one stays, and stays locked.
    pub(super) async fn give_up(self) {
        if !self.is_prepared {
            self.discard().await;
        }
    }

    /// Nobody needs it. If it cannot be removed it stays locked, and the next one removes it.
    async fn discard(self) {
        match self.empty().await {
            Ok(()) => self.lock.release().await,
            Err(error) => {
                tracing::warn!(%error, folder = self.name, "what was written was left behind");
            }
        }
    }

    /// Removes everything but locks.
    async fn empty(&self) -> Result<(), CompactError> {
        let lock = self.object(LOCK);
        let mut listed = self.storage.list(&format!("{}/", self.name));
        let mut left = Vec::new();
        while let Some(entry) = listed.try_next().await? {
            if !entry.name.starts_with(&lock) {
                left.push(entry.name);
            }
        }
        Ok(self.storage.delete_many(left).await?)
    }
}

/// Removes what compactions left that died, as far as no migration names it. Failing is only told.
pub(super) async fn remove_left_behind(request: &LockRequest<'_>) {
    if let Err(error) = try_remove(request).await {
        tracing::warn!(%error, "what dead compactions left was not removed");
    }
}

async fn try_remove(request: &LockRequest<'_>) -> Result<(), CompactError> {
    let storage = request.storage;
    let mut folders = Vec::new();
    let mut listed = storage.list(&format!("{}/", names::COMPACTION_FOLDER));
    while let Some(entry) = listed.try_next().await? {
        if let Some(folder) = entry.name.strip_suffix(&format!("/{LOCK}")) {
            folders.push(folder.to_owned());
        }
    }
    if folders.is_empty() {
        return Ok(());
    }
    let named = named_folders(storage).await?;
    for name in folders {
        let lock = match request.compaction(&format!("{name}/{LOCK}")).await {
            Ok(lock) => lock,
            // Somebody works there, or did and cannot be seen from here.
            Err(LockError::Held { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let folder = Folder {
            storage: storage.clone(),
            name,
            lock,
            is_prepared: false,
        };
        if named.contains(&folder.name) {
            folder.keep().await;
            continue;
        }
        match prepared_at(storage, &folder.object(PREPARED)).await? {
            Some(at) if request.rt.wall().0 < at.saturating_add(on_its_way_max_ms()) => {
                // The lock stays, so that it is found again.
                tracing::info!(folder = folder.name, "its migration may still be written");
            }
            _ => {
                tracing::info!(folder = folder.name, "of a compaction that died");
                folder.discard().await;
            }
        }
    }
    Ok(())
}

fn on_its_way_max_ms() -> u64 {
    u64::try_from(ON_ITS_WAY_MAX.as_millis()).unwrap_or(u64::MAX)
}

async fn prepared_at(storage: &Storage, mark: &str) -> Result<Option<u64>, CompactError> {
    match storage.read(mark).await {
        // Damaged: as if it were of now.
        Ok(text) => Ok(Some(
            std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(u64::MAX),
        )),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The folders that migrations name.
async fn named_folders(storage: &Storage) -> Result<HashSet<String>, CompactError> {
    let merged = migrate::load(storage).await?.migrations.merged();
    let folders = merged.compactions.iter().filter_map(|compaction| {
        let (folder, _) = compaction
            .artifacts
            .trim_end_matches('/')
            .rsplit_once('/')?;
        Some(folder.to_owned())
    });
    Ok(folders.collect())
}
