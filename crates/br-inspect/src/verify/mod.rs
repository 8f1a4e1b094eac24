//! Whether a backup and the log on top of it can be restored, as far as their objects tell.
//!
//! # What it does
//! | depth | what is looked at |
//! |---|---|
//! | [`Depth::Objects`] | all indices; every object that they name is there and has its size |
//! | [`Depth::Checksums`] | the same, and contents: sums of files, blocks, records and tables, ranges of keys and timestamps, and that records and values belong together |
//!
//! A real restore is the third depth; it needs a cluster, see the crate `br-drill`.
//!
//! Nothing ends at the first damage: each becomes a [`Finding`] with the object, the tables and the
//! time window that it costs. What is no damage but should be known is a [`Note`].
//!
//! # Objects it reads and writes
//! Reads the indices whole, and with [`Depth::Checksums`] the objects that [`Sample`] takes. Writes
//! nothing, and takes no lock.
//!
//! # Ordering and invariants
//! - Memory: a few dozen bytes for each object and data file, the index object in use, and contents
//!   of [`CONTENT_BYTES_MAX`] at once (one object, if it alone is larger).
//! - What a sample takes depends on its seed and the names only.
//!
//! # Retries
//! Those of the storage. An object that is not there is a finding; a storage that cannot be reached
//! ends it.
//!
//! # Cancellation
//! Between objects; dropping the future stops it.

mod backup;
mod error;
mod listing;
mod log;
mod log_contents;
mod long_values;
mod names;
mod pair;
mod pairs;
mod report;
mod restorable;
mod sample;

use std::sync::Arc;

use br_format::backupmeta::Compatibility;
use br_format::crypter::Crypter;
use br_rt::{CancellationToken, Progress, Rt};
use br_storage::Storage;
use tokio::sync::{Semaphore, SemaphorePermit};

pub use error::VerifyError;
pub use report::{
    BackupLooked, Contents, Finding, LogLooked, LostTables, Note, Part, Verified, Window,
};
pub use restorable::Restorable;
pub use sample::Sample;

/// Objects whose contents are looked at once: two keep both a processor and the storage busy, and
/// more only help where the storage answers slowly.
pub const CONTENTS_IN_FLIGHT_MAX: usize = 8;
/// Bytes of objects in memory at once, as they are stored.
pub const CONTENT_BYTES_MAX: u64 = 512 << 20;

/// How deep it is looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Objects are there with their sizes.
    #[default]
    Objects,
    /// Contents are as they were written, and make sense.
    Checksums,
}

/// How it is looked at.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// How deep.
    pub depth: Depth,
    /// Of which objects contents are read.
    pub sample: Sample,
    /// How the backup is encrypted.
    pub crypter: Crypter,
    /// How the log is encrypted.
    pub log_crypter: Crypter,
    /// What to do about fields of newer tools.
    pub compatibility: Compatibility,
}

impl VerifyOptions {
    /// All objects, nothing encrypted.
    pub fn new(depth: Depth) -> VerifyOptions {
        VerifyOptions {
            depth,
            sample: Sample::all(),
            crypter: Crypter::plaintext(),
            log_crypter: Crypter::plaintext(),
            compatibility: Compatibility::Strict,
        }
    }
}

/// What everything here works with.
struct Look<'a> {
    rt: &'a Rt,
    options: &'a VerifyOptions,
    progress: &'a Arc<dyn Progress>,
    cancel: &'a CancellationToken,
    memory: Semaphore,
}

impl Look<'_> {
    fn check_cancel(&self) -> Result<(), VerifyError> {
        match self.cancel.is_cancelled() {
            true => Err(VerifyError::Cancelled),
            false => Ok(()),
        }
    }

    /// Room for so many bytes of contents.
    async fn room(&self, bytes: u64) -> SemaphorePermit<'_> {
        let kib = bytes.div_ceil(1 << 10).clamp(1, CONTENT_BYTES_MAX >> 10);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = self.memory.acquire_many(kib).await;
        room.expect("nobody closes the semaphore")
    }
}

/// Looks at a backup, at a log, or at a backup and the log on top of it.
///
/// `main` may be either; `log` is on top of a backup.
///
/// # Errors
/// [`VerifyError`]: there is nothing to look at, the storage cannot be reached, the key is wrong.
/// Damage is no error but part of what is returned.
pub async fn verify(
    rt: &Rt,
    main: &Storage,
    log: Option<&Storage>,
    options: &VerifyOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Verified, VerifyError> {
    let look = Look {
        rt,
        options,
        progress,
        cancel,
        memory: Semaphore::new(usize::try_from(CONTENT_BYTES_MAX >> 10).unwrap_or(usize::MAX)),
    };
    let work = async {
        let mut report = report::Report::default();
        let is_log = match log {
            Some(_) => false,
            None => log::is_log(main).await?,
        };
        let (backup, log) = match is_log {
            true => (None, Some(main)),
            false => (Some(main), log),
        };
        if let Some(storage) = backup {
            Box::pin(backup::look(&look, storage, &mut report)).await?;
        }
        if let Some(storage) = log {
            Box::pin(log::look(&look, storage, &mut report)).await?;
        }
        Ok(report.finish(options))
    };
    tokio::select! {
        biased;
        verified = work => verified,
        () = cancel.cancelled() => Err(VerifyError::Cancelled),
    }
}
