//! # What it does
//! Takes and releases locks on external storage, by the protocol of the official tools.
//!
//! # Objects it reads and writes
//! `truncating.lock`; `v1/LOCK.WRIT`, `v1/LOCK.READ.*`, `v1/APPEND_LOCK.WRIT`; and beside each,
//! while it is being taken, `<lock>.INTENT.*`.
//!
//! # Ordering and invariants
//! See [`br_format::log::lock`]. A lock that this process took is released by [`StorageLock::with`]
//! however the work under it ends.
//!
//! # Retries
//! [`LOCK_RETRY`] where the holders are short-lived; none where they work for long.
//!
//! # After a crash
//! The lock stays, as locks have no expiry. The next one on the same machine sees that the process
//! is gone and takes the lock away; elsewhere the error says who left it, and how to remove it.

use std::{future::Future, time::Duration};

use br_format::log::lock::{self, LockContent, LockId, LockPurpose};
use br_rt::{Backoff, CancellationToken, ProcessName, RetryPolicy, Rt, kill_point};
use br_storage::{Storage, StorageError};
use br_types::{Classify, Code, Kind};
use futures::TryStreamExt as _;

use crate::Operator;

/// How long a lock is waited for that its holders keep for the time of a few objects only.
pub const LOCK_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_secs(1),
    pause_max: Duration::from_secs(8),
    attempts_max: 12,
    elapsed_max: Duration::from_secs(60),
};

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it, or had it and died.
    #[error("{storage} is locked: {object} {holder}")]
    Held {
        /// The storage, without secrets.
        storage: String,
        /// The lock.
        object: String,
        /// Who, since when, what for.
        holder: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Classify for LockError {
    fn kind(&self) -> Kind {
        match self {
            LockError::Held { .. } => Kind::Conflict,
            LockError::Storage(error) => error.kind(),
        }
    }

    fn code(&self) -> Code {
        match self {
            LockError::Held { .. } => Code::STORAGE_IN_USE,
            LockError::Storage(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            LockError::Held { object, .. } => Some(format!(
                "wait for it to end; if that process is gone, delete the object {object} from the \
                 storage and run again"
            )),
            LockError::Storage(error) => error.next_step(),
        }
    }
}

/// How a lock at a place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The place itself is the lock, as for truncation.
    Alone,
    /// Beside other readers.
    Read,
    /// Without anybody else.
    Write,
}

/// What a lock is taken with.
#[derive(Clone, Debug)]
pub struct LockRequest<'a> {
    /// Where.
    pub storage: &'a Storage,
    /// Time and randomness.
    pub rt: &'a Rt,
    /// Ends waiting.
    pub cancel: &'a CancellationToken,
    /// Who takes it.
    pub operator: &'a Operator,
    /// What for, in words for whoever finds it.
    pub hint: &'a str,
}

/// A lock that is held.
#[must_use = "it stays on the storage until it is released"]
pub struct StorageLock {
    storage: Storage,
    object: String,
}

impl LockRequest<'_> {
    /// `truncating.lock`; not waited for.
    ///
    /// # Errors
    /// [`LockError::Held`]; the storage failed.
    pub async fn truncate(&self) -> Result<StorageLock, LockError> {
        let place = br_format::log::names::TRUNCATE_LOCK;
        self.take(place, Mode::Alone, LockPurpose::Truncate).await
    }

    /// The right to rely on the migrations that there are.
    ///
    /// # Errors
    /// [`LockError::Held`]; the storage failed.
    pub async fn read_migrations(&self) -> Result<StorageLock, LockError> {
        let place = br_format::log::names::MIGRATION_LOCK;
        self.take_patiently(place, Mode::Read, LockPurpose::MigrationRead)
            .await
    }

    /// The right to merge migrations and to delete what they say; not waited for, as readers take
    /// as long as a restore does.
    ///
    /// # Errors
    /// [`LockError::Held`]; the storage failed.
    pub async fn write_migrations(&self) -> Result<StorageLock, LockError> {
        let place = br_format::log::names::MIGRATION_LOCK;
        self.take(place, Mode::Write, LockPurpose::MigrationWrite)
            .await
    }

    /// The right to append a migration.
    ///
    /// # Errors
    /// [`LockError::Held`]; the storage failed.
    pub async fn append_migration(&self) -> Result<StorageLock, LockError> {
        let place = br_format::log::names::MIGRATION_APPEND_LOCK;
        self.take_patiently(place, Mode::Write, LockPurpose::MigrationAppend)
            .await
    }

    /// The right to fill the folder of a compaction; not waited for.
    ///
    /// # Errors
    /// [`LockError::Held`]; the storage failed.
    pub(crate) async fn compaction(&self, object: &str) -> Result<StorageLock, LockError> {
        self.take(object, Mode::Alone, LockPurpose::Compaction)
            .await
    }

    async fn take_patiently(
        &self,
        place: &str,
        mode: Mode,
        purpose: LockPurpose,
    ) -> Result<StorageLock, LockError> {
        let mut backoff = Backoff::new(LOCK_RETRY, self.rt);
        loop {
            let error = match self.take(place, mode, purpose).await {
                Err(error @ LockError::Held { .. }) => error,
                result => return result,
            };
            if !backoff.pause(self.rt, self.cancel).await {
                return Err(error);
            }
            tracing::info!(%error, "waiting for the lock");
        }
    }

    async fn take(
        &self,
        place: &str,
        mode: Mode,
        purpose: LockPurpose,
    ) -> Result<StorageLock, LockError> {
        let object = match mode {
            Mode::Alone => place.to_owned(),
            Mode::Read => lock::read_lock(place, self.rt.random_u64()),
            Mode::Write => lock::write_lock(place),
        };
        let id = LockId(self.rt.random_bytes());
        let intent = lock::intent(&object, id);
        let content = self.content(id, purpose);
        self.check_free(place, mode, None).await?;
        self.storage.write(&intent, content.encode()).await?;
        kill_point("lock.intent");
        let written = self
            .write_lock(place, mode, &object, (&intent, &content))
            .await;
        // The intent is in nobody's way for longer than need be.
        let removed = self.storage.delete(&intent).await;
        written?;
        let held = StorageLock {
            storage: self.storage.clone(),
            object,
        };
        if let Err(error) = removed {
            held.release().await;
            return Err(error.into());
        }
        Ok(held)
    }

    fn content(&self, id: LockId, purpose: LockPurpose) -> LockContent {
        let from = (self.operator.host.clone(), self.operator.pid);
        let hint = self.hint.to_owned();
        let content = LockContent::new(purpose, id, self.rt.wall().0, from, hint);
        let process = ProcessName::current();
        if (&process.host, process.pid) != (&self.operator.host, self.operator.pid) {
            return content;
        }
        LockContent {
            start_ticks: process.start_ticks,
            pid_space: process.pid_space,
            ..content
        }
    }

    async fn write_lock(
        &self,
        place: &str,
        mode: Mode,
        object: &str,
        (intent, content): (&str, &LockContent),
    ) -> Result<(), LockError> {
        self.check_free(place, mode, Some(intent)).await?;
        match self.storage.create(object, content.encode()).await {
            Err(error) if error.is_already_exists() => {
                let content = self.read(object).await;
                Err(self.held(object.to_owned(), &content))
            }
            result => {
                result?;
                kill_point("lock.taken");
                Ok(())
            }
        }
    }

    /// Fails if something other than `mine` stands in the way. What dead processes left does not, and
    /// is removed under the intent `mine`: whoever would take a lock of the same name meanwhile sees
    /// that, and gives way.
    async fn check_free(
        &self,
        place: &str,
        mode: Mode,
        mine: Option<&str>,
    ) -> Result<(), LockError> {
        let prefix = match mode {
            Mode::Alone => place.to_owned(),
            Mode::Read | Mode::Write => format!("{place}."),
        };
        let writer = lock::write_lock(place);
        let mut of_dead = Vec::new();
        let mut objects = self.storage.list(&prefix);
        while let Some(entry) = objects.try_next().await? {
            let is_in_the_way = match mode {
                // Intents of writers as well, and those of no reader.
                Mode::Read => entry.name.starts_with(&writer),
                Mode::Alone | Mode::Write => true,
            };
            // What is in nobody's way is looked at once, to remove it.
            let is_looked_at = is_in_the_way || mine.is_some();
            if !is_looked_at || mine == Some(entry.name.as_str()) {
                continue;
            }
            let content = self.read(&entry.name).await;
            if content.as_ref().is_ok_and(is_surely_dead) {
                of_dead.push(entry.name);
            } else if is_in_the_way {
                return Err(self.held(entry.name, &content));
            }
        }
        if mine.is_some() {
            for object in of_dead {
                tracing::info!(object, "its holder has died");
                self.storage.delete(&object).await?;
            }
        }
        Ok(())
    }

    fn held(&self, object: String, content: &Result<LockContent, Unread>) -> LockError {
        let holder = match content {
            Ok(content) if object.contains(".INTENT.") => format!(
                "is about to be taken by process {} on {}",
                content.locker_pid, content.locker_host
            ),
            Ok(content) => describe(content),
            Err(Unread::Empty) => "is about to be taken".into(),
            Err(Unread::Unknown) => "is of a holder that cannot be read".into(),
        };
        LockError::Held {
            storage: self.storage.to_string(),
            object,
            holder,
        }
    }

    /// Who holds a lock, or is about to, as its object says.
    async fn read(&self, object: &str) -> Result<LockContent, Unread> {
        const LOCK_BYTES_MAX: u64 = 64 << 10;
        let bytes = self.storage.read_at_most(object, LOCK_BYTES_MAX).await;
        match bytes {
            // An intent of another tool.
            Ok(bytes) if bytes.is_empty() => Err(Unread::Empty),
            Ok(bytes) => LockContent::decode(object, &bytes).map_err(|_| Unread::Unknown),
            Err(_) => Err(Unread::Unknown),
        }
    }
}

/// Why it is not known whose an object is.
enum Unread {
    Empty,
    Unknown,
}

fn is_surely_dead(content: &LockContent) -> bool {
    let process = ProcessName {
        host: content.locker_host.clone(),
        pid: u32::try_from(content.locker_pid).unwrap_or(0),
        start_ticks: content.start_ticks,
        pid_space: content.pid_space.clone(),
    };
    process.is_surely_dead()
}

fn describe(content: &LockContent) -> String {
    let LockContent {
        locked_at,
        locker_host,
        locker_pid,
        hint,
        ..
    } = content;
    let hint = match hint.as_str() {
        "" => String::new(),
        hint => format!(" ({hint})"),
    };
    format!("was taken by process {locker_pid} on {locker_host} at {locked_at}{hint}")
}

impl StorageLock {
    /// The object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Works under the lock, then releases it.
    pub async fn with<T>(self, work: impl Future<Output = T>) -> T {
        let result = work.await;
        self.release().await;
        result
    }

    /// Removes the lock. If that fails it is left behind, and whoever comes next is told.
    pub async fn release(self) {
        if let Err(error) = self.storage.delete(&self.object).await {
            tracing::warn!(%error, object = self.object, "a lock is left behind; delete it by hand");
        }
    }
}

#[cfg(test)]
mod tests;
