//! # What it does
//! Lets an interrupted backup go on: keeps what is done on the external storage beside the backup,
//! and finds it again.
//!
//! # Objects it reads and writes
//! Below `checkpoints/backup/`, in the format of the official tool, so that either can go on where
//! the other stopped ([`br_format::resume`]): `checkpoint.lock` for as long as a command is at work
//! ([`lock`]); `checkpoint.meta` once, before the first data file; `data/*.cpt` and
//! `checksum/*.cpt`, which only become more ([`writer`], [`reader`]).
//!
//! # Ordering and invariants
//! The lock, `backup.lock`, `checkpoint.meta`, data files, what is done of them, `backupmeta`, and
//! then everything here is removed, `checkpoint.meta` before the lock. What a file here says is
//! done is done, and its data files are on the storage: their sizes are compared before they count.
//!
//! # After a crash
//! The next command with the same options goes on with the same timestamp. What was not written down
//! yet, [`writer::FLUSH_INTERVAL`] of work at most, is done again. A crash after `backupmeta` leaves
//! files here that the next command removes.

mod lock;
mod parameters;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_cluster::GcScope;
use br_format::{
    crypter::Crypter,
    kv_stats::KvStats,
    names,
    resume::{ResumeMeta, TableChecksum},
};
use br_rt::{Rt, kill_point};
use br_storage::{Storage, StorageError};
use br_types::{TableId, TimeStamp};
use futures::TryStreamExt;

pub use self::{lock::LockError, parameters::Difference};
pub(super) use self::{
    lock::TargetLock,
    parameters::{check_same, of as parameters_of},
    reader::ResumeFilesError,
};
use self::{reader::ResumeReader, writer::ResumeWriter};
use super::{BackupContext, BackupError, target::TargetError};

/// What a command finds at its target.
pub(super) async fn find(storage: &Storage) -> Result<Option<ResumeMeta>, BackupError> {
    if storage.is_noop() {
        return Ok(None);
    }
    match storage.read(names::RESUME_META).await {
        Ok(bytes) => Ok(Some(ResumeMeta::decode(names::RESUME_META, &bytes)?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The book of what is done, of one command.
pub(super) struct Resume {
    storage: Storage,
    writer: ResumeWriter,
    /// What earlier commands did.
    earlier: Option<Earlier>,
    /// For how long they were at work, as far as it is known by now.
    elapsed_before_ns: Arc<AtomicU64>,
}

/// What earlier commands did of the same backup.
struct Earlier {
    reader: ResumeReader,
    checksums: HashMap<TableId, KvStats>,
}

impl Resume {
    /// Opens the book: reads what earlier commands did, or writes what this backup is.
    pub(super) async fn open(
        rt: &Rt,
        storage: Storage,
        crypter: Crypter,
        found: Option<&ResumeMeta>,
        meta: impl FnOnce() -> ResumeMeta,
    ) -> Result<Resume, BackupError> {
        let elapsed_before_ns = Arc::new(AtomicU64::new(0));
        let (earlier, backup_ts) = match found {
            Some(found) => {
                let (ts, elapsed) = (found.backup_ts, &elapsed_before_ns);
                let reader = ResumeReader::open(&storage, crypter.clone(), ts, elapsed.clone());
                let earlier = Earlier {
                    checksums: reader::read_checksums(&storage, ts, elapsed).await?,
                    reader: reader.await?,
                };
                (Some(earlier), ts)
            }
            None => {
                let meta = meta();
                storage.write(names::RESUME_META, meta.encode()).await?;
                kill_point("backup.resume_meta");
                (None, meta.backup_ts)
            }
        };
        let elapsed = elapsed_before_ns.clone();
        let writer = ResumeWriter::start(rt, &storage, crypter, backup_ts, elapsed);
        Ok(Resume {
            storage,
            writer,
            earlier,
            elapsed_before_ns,
        })
    }

    /// Where what is done is written down.
    pub(super) fn writer(&self) -> &ResumeWriter {
        &self.writer
    }

    /// What earlier commands backed up.
    pub(super) fn reader(&self) -> Option<&ResumeReader> {
        self.earlier.as_ref().map(|earlier| &earlier.reader)
    }

    /// The checksum of a table, if an earlier command had it computed.
    pub(super) fn checksum_of(&self, table: TableId) -> Option<KvStats> {
        self.earlier.as_ref()?.checksums.get(&table).copied()
    }

    /// Writes down the checksum of a table.
    pub(super) async fn add_checksum(&self, table: TableId, stats: KvStats) {
        self.writer
            .add_checksum(TableChecksum { table, stats })
            .await;
    }

    /// For how long earlier commands were at work.
    pub(super) fn elapsed_before(&self) -> Duration {
        Duration::from_nanos(self.elapsed_before_ns.load(Ordering::Relaxed))
    }

    /// Writes the rest down, for the next command.
    pub(super) async fn keep(self) {
        self.writer.close().await;
    }

    /// Removes the book: the backup is complete.
    pub(super) async fn remove(self) {
        let Resume {
            storage, writer, ..
        } = self;
        writer.discard().await;
        if let Err(error) = remove_files(&storage).await {
            tracing::warn!(%error, "files of the finished backup's progress were left behind");
        }
    }
}

/// Removes the files of an unfinished backup's progress, all but the lock; `checkpoint.meta` goes
/// last, so that a crash in between leaves something that is found again.
///
/// # Errors
/// The storage's own.
pub(super) async fn remove_files(storage: &Storage) -> Result<(), StorageError> {
    for folder in [names::RESUME_DATA_FOLDER, names::RESUME_CHECKSUM_FOLDER] {
        let entries: Vec<_> = storage.list(&format!("{folder}/")).try_collect().await?;
        let ours = entries.into_iter().map(|entry| entry.name);
        let ours = ours.filter(|name| name.ends_with(names::RESUME_SUFFIX));
        storage.delete_many(ours.collect::<Vec<_>>()).await?;
        kill_point("backup.resume_removing");
    }
    storage.delete(names::RESUME_META).await
}

/// What giving up a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbortedBackup {
    /// The timestamp of the backup that is given up; `None`: nothing was there to give up.
    pub backup_ts: Option<TimeStamp>,
    /// Data files that were removed.
    pub data_files: u64,
    /// Their bytes.
    pub data_size_bytes: u64,
    /// Whether the storage was sealed and nothing else was in it, so that its keys were removed too.
    pub is_keyring_removed: bool,
}

/// Gives up an unfinished backup: removes its data files, its progress, and its barrier before
/// garbage collection. A finished backup is left alone. Repeating it is fine.
///
/// # Errors
/// A backup is finished or under way there; the storage's own; PD's own.
pub async fn abort(context: &BackupContext) -> Result<AbortedBackup, BackupError> {
    let storage = &context.storage;
    check_incomplete(storage).await?;
    let lock = TargetLock::take(storage, context.cluster.pd()).await?;
    let outcome = abort_locked(context).await;
    lock.release().await;
    outcome
}

async fn check_incomplete(storage: &Storage) -> Result<(), BackupError> {
    if storage.exists(names::BACKUPMETA).await? {
        let place = storage.to_string();
        return Err(TargetError::IsComplete { place }.into());
    }
    Ok(())
}

async fn abort_locked(context: &BackupContext) -> Result<AbortedBackup, BackupError> {
    let storage = &context.storage;
    // Whoever held the lock may have completed it, and died before its progress was removed.
    check_incomplete(storage).await?;
    let mut aborted = AbortedBackup::default();
    if let Some(meta) = find(storage).await? {
        aborted.backup_ts = Some(meta.backup_ts);
        // Data first: without `checkpoint.meta` nobody would know whose they are.
        if storage.exists(names::BACKUP_LOCK).await? {
            let mut entries = storage.list("");
            let mut files = Vec::new();
            while let Some(entry) = entries.try_next().await? {
                if is_data_file(&entry.name) || is_meta_file(&entry.name) {
                    aborted.data_files += 1;
                    aborted.data_size_bytes += entry.size_bytes;
                    files.push(entry.name);
                }
            }
            let folders = files.iter().filter_map(|file| file.rsplit_once('/'));
            let folders: BTreeSet<String> = folders.map(|(folder, _)| folder.to_owned()).collect();
            storage.delete_many(files).await?;
            for folder in &folders {
                storage.remove_empty_folders(folder).await;
            }
        }
        unprotect(context, &meta).await?;
        remove_files(storage).await?;
        storage.delete(names::BACKUP_LOCK).await?;
    }
    // A sealed place is as free as any other then.
    aborted.is_keyring_removed = storage.forget_keyring(&[names::RESUME_LOCK]).await?;
    Ok(aborted)
}

/// Takes back the protection from garbage collection that an interrupted backup left.
///
/// # Errors
/// PD's own.
pub(super) async fn unprotect(
    context: &BackupContext,
    meta: &ResumeMeta,
) -> Result<(), BackupError> {
    if meta.backup_ts.is_zero() {
        return Ok(());
    }
    let pd = context.cluster.pd();
    let scope = match context.key_prefix.keyspace_id() {
        Some(keyspace) => {
            let scope = GcScope::Keyspace(keyspace.get());
            match pd.gc_state(scope).await?.is_keyspace_level {
                true => scope,
                false => GcScope::Cluster,
            }
        }
        None => GcScope::Cluster,
    };
    Ok(pd.unprotect_from_gc(scope, &meta.gc_service_id).await?)
}

/// A data file at the place itself or in the folder of a store; another backup further down keeps
/// its own.
fn is_data_file(name: &str) -> bool {
    let is_of_a_store = |folder: &str| folder.bytes().all(|byte| byte.is_ascii_digit());
    names::is_sst(name)
        && match name.split_once('/') {
            None => true,
            Some((folder, rest)) => is_of_a_store(folder) && !rest.contains('/'),
        }
}

/// `backupmeta.datafile.…` and its like; not `backupmeta` itself.
fn is_meta_file(name: &str) -> bool {
    name.strip_prefix(names::BACKUPMETA)
        .is_some_and(|rest| rest.starts_with('.'))
}

impl From<ResumeFilesError> for BackupError {
    fn from(error: ResumeFilesError) -> BackupError {
        match error {
            ResumeFilesError::Storage(error) => error.into(),
            ResumeFilesError::Format(error) => error.into(),
        }
    }
}
