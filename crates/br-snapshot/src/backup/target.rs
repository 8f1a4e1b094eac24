//! The place on external storage: free or taken, and claimed.
//!
//! # Ordering and invariants
//! `backup.lock` is the first object of a backup and `backupmeta` the last. A place with data files
//! and a lock but without `backupmeta` holds the remains of a backup, or one under way.

use br_format::{backup_lock, names};
use br_storage::{Storage, StorageError};
use br_types::{Classify, Code, Kind};
use futures::TryStreamExt;

/// Why a place cannot take a backup.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A complete backup is there.
    #[error("there is a backup at {place} already: {} exists", names::BACKUPMETA)]
    HasBackup {
        /// The place.
        place: String,
    },
    /// A complete backup is there, and an interrupted one was to be given up.
    #[error("the backup at {place} is complete: there is nothing to give up")]
    IsComplete {
        /// The place.
        place: String,
    },
    /// The remains of a backup are there, or one is under way.
    #[error(
        "there are data files of an unfinished backup at {place}, such as {file}, or another \
         backup is writing there"
    )]
    HasRemains {
        /// The place.
        place: String,
        /// One of the files.
        file: String,
    },
    /// An interrupted backup is there, and the user does not want to go on with it.
    #[error(
        "there is an interrupted backup at {place} that can be resumed: {} exists",
        names::RESUME_META
    )]
    HasResume {
        /// The place.
        place: String,
    },
    /// The storage's own.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Classify for TargetError {
    fn kind(&self) -> Kind {
        match self {
            TargetError::Storage(error) => error.kind(),
            _ => Kind::Conflict,
        }
    }

    fn code(&self) -> Code {
        match self {
            TargetError::Storage(error) => error.code(),
            // The official tool says "invalid argument" here; its own code tells more.
            _ => Code::STORAGE_IN_USE,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            TargetError::HasBackup { .. } => "Back up to an empty directory or prefix",
            TargetError::IsComplete { .. } => "Delete its directory or prefix if it is not wanted",
            TargetError::HasRemains { .. } => {
                "Back up to an empty directory or prefix; if no backup is running there, delete \
                 the remains first"
            }
            TargetError::HasResume { .. } => {
                "Leave --use-checkpoint=false away to resume it, give it up with `br abort backup`, or \
                 back up to an empty directory or prefix"
            }
            TargetError::Storage(error) => return error.next_step(),
        };
        Some(step.to_owned())
    }
}

/// Checks that nobody else's backup is there. An interrupted one is fine if it `may_resume`.
///
/// # Errors
/// [`TargetError`]; nothing has been written.
pub async fn check_free(storage: &Storage, may_resume: bool) -> Result<(), TargetError> {
    if storage.is_noop() {
        return Ok(());
    }
    let place = || storage.to_string();
    if storage.exists(names::BACKUPMETA).await? {
        return Err(TargetError::HasBackup { place: place() });
    }
    if storage.exists(names::RESUME_META).await? {
        return match may_resume {
            true => Ok(()),
            false => Err(TargetError::HasResume { place: place() }),
        };
    }
    // A lock alone does not block: a backup that failed before its first file left it.
    if storage.exists(names::BACKUP_LOCK).await? {
        let mut entries = storage.list("");
        while let Some(entry) = entries.try_next().await? {
            if names::is_sst(&entry.name) {
                return Err(TargetError::HasRemains {
                    place: place(),
                    file: entry.name,
                });
            }
        }
    }
    Ok(())
}

/// Claims the place.
///
/// # Errors
/// The storage's own.
pub async fn claim(storage: &Storage) -> Result<(), StorageError> {
    storage
        .write(names::BACKUP_LOCK, backup_lock::CONTENT)
        .await
}

/// Checks again, right before `backupmeta` is written, that no other backup was faster.
///
/// # Errors
/// [`TargetError::HasBackup`].
pub async fn check_still_free(storage: &Storage) -> Result<(), TargetError> {
    if !storage.is_noop() && storage.exists(names::BACKUPMETA).await? {
        return Err(TargetError::HasBackup {
            place: storage.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use br_rt::Rt;
    use br_storage::Backend;

    use super::*;

    /// What the check says about a place with these objects.
    async fn check(name: &str, objects: &[&str]) -> Result<(), TargetError> {
        let backend = Backend::Memory {
            name: name.to_owned(),
            prefix: String::new(),
        };
        let storage = Storage::open(&Rt::real(), &backend).await.expect("memory");
        for object in objects {
            storage.write(object, "x").await.expect("memory");
        }
        let checked = check_free(&storage, false).await;
        br_storage::forget_memory(name);
        checked
    }

    #[tokio::test]
    async fn a_place_is_free_or_taken() {
        assert!(check("target-1", &[]).await.is_ok());
        assert!(
            check(
                "target-2",
                &["backup.lock", "backupmeta.datafile.000000001"]
            )
            .await
            .is_ok()
        );
        // Files that are none of ours, without a lock: the official tool does not mind either.
        assert!(check("target-3", &["other/file.sst"]).await.is_ok());
        let taken = check("target-4", &["backup.lock", "1/2_3_write.sst"]).await;
        let Err(error @ TargetError::HasRemains { .. }) = taken else {
            panic!("{taken:?}")
        };
        assert!(error.to_string().contains("1/2_3_write.sst"));
        assert_eq!(
            (error.kind().exit_code(), error.next_step().is_some()),
            (4, true)
        );
        let taken = check("target-5", &["backupmeta"]).await;
        assert!(matches!(taken, Err(TargetError::HasBackup { .. })));
        let taken = check(
            "target-6",
            &["backup.lock", "checkpoints/backup/checkpoint.meta"],
        )
        .await;
        assert!(matches!(taken, Err(TargetError::HasResume { .. })));
    }
}
