//! # What it does
//! Keeps two commands from one target: `checkpoints/backup/checkpoint.lock`.
//!
//! # Ordering and invariants
//! A free lock is taken by creating it, which only one of two can. One that has expired, or whose
//! process is certainly dead, is written over; of two that do so at once the later one wins, and the
//! other one finds out [`LOCK_RECHECK`] after, before it may write `backupmeta`. That a process is
//! dead only its own machine can tell, so rivals for its lock are near, and
//! [`LOCAL_RECHECK`] does. Whoever finds
//! another's lock in place of its own stops. Until then both only add files of their own.
//!
//! # After a crash
//! On the same machine the next command takes the lock at once; on another one, when it expires.

use std::time::Duration;

use br_cluster::{PdClient, PdError};
use br_format::{
    log::rfc3339,
    names,
    resume::{LOCK_RECHECK, LOCK_REFRESH, LockState, ResumeError, ResumeHolder, ResumeLock},
};
use br_rt::{CancellationToken, Monotonic, ProcessName, Task};
use br_storage::{Storage, StorageError};
use br_types::{Classify, Code, Kind, TimeStamp};
use tokio::sync::watch;

/// As [`LOCK_RECHECK`], among processes of one machine: between reading the lock and writing it lies
/// one request to the storage.
const LOCAL_RECHECK: Duration = Duration::from_millis(500);
/// How long the end of a backup waits for a renewal under way.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a target cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LockError {
    /// Another command is at work there.
    #[error(
        "another backup to {place} is running since {since}: {holder}; its lock holds for another \
         {} s",
        for_ms.div_ceil(1000)
    )]
    Held {
        /// The place.
        place: String,
        /// When it began, UTC.
        since: String,
        /// Who it is.
        holder: String,
        /// Milliseconds until its lock expires.
        for_ms: u64,
    },
    /// Another command took the lock while this one was at work.
    #[error("another backup to {place} took over at {since}: {holder}")]
    Lost {
        /// The place.
        place: String,
        /// When it began, UTC.
        since: String,
        /// Who it is.
        holder: String,
    },
    /// The lock cannot be read.
    #[error(transparent)]
    Format(#[from] ResumeError),
    /// The storage's own.
    #[error(transparent)]
    Storage(#[from] std::sync::Arc<StorageError>),
    /// PD does not tell the time.
    #[error(transparent)]
    Pd(#[from] std::sync::Arc<PdError>),
}

impl From<StorageError> for LockError {
    fn from(error: StorageError) -> LockError {
        LockError::Storage(error.into())
    }
}

impl From<PdError> for LockError {
    fn from(error: PdError) -> LockError {
        LockError::Pd(error.into())
    }
}

impl Classify for LockError {
    fn kind(&self) -> Kind {
        match self {
            LockError::Held { .. } | LockError::Lost { .. } => Kind::Conflict,
            LockError::Format(error) => error.kind(),
            LockError::Storage(error) => error.kind(),
            LockError::Pd(error) => error.kind(),
        }
    }

    fn code(&self) -> Code {
        match self {
            LockError::Held { .. } | LockError::Lost { .. } => Code::STORAGE_IN_USE,
            LockError::Format(error) => error.code(),
            LockError::Storage(error) => error.code(),
            LockError::Pd(error) => error.code(),
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            LockError::Held { for_ms, .. } => format!(
                "Wait for it to end; if its machine has died, start again in {} s, when the lock \
                 has expired",
                for_ms.div_ceil(1000)
            ),
            LockError::Lost { .. } => "Leave the target to it".to_owned(),
            LockError::Format(_) => {
                format!(
                    "Delete {} if no backup is running there",
                    names::RESUME_LOCK
                )
            }
            LockError::Storage(error) => return error.next_step(),
            LockError::Pd(error) => return error.next_step(),
        })
    }
}

/// A lock that is held and renewed; see the module.
#[must_use = "dropped, the lock is left to expire"]
pub(in super::super) struct TargetLock {
    held: Option<Held>,
}

struct Held {
    keeper: Keeper,
    failure: watch::Receiver<Option<LockError>>,
    /// Ends the renewals.
    stop: CancellationToken,
    task: Task<()>,
    /// From when on it is certain that a rival would have shown.
    settled_at: Monotonic,
}

#[derive(Clone)]
struct Keeper {
    storage: Storage,
    pd: PdClient,
    id: TimeStamp,
    holder: ResumeHolder,
}

impl TargetLock {
    /// Takes the lock. Nothing is locked where nothing can be written.
    pub(in super::super) async fn take(
        storage: &Storage,
        pd: &PdClient,
    ) -> Result<TargetLock, LockError> {
        if storage.is_noop() {
            return Ok(TargetLock { held: None });
        }
        let process = ProcessName::current();
        let pd = pd.with_cancel(CancellationToken::new());
        let now = pd.tso().await?;
        let keeper = Keeper {
            storage: storage.clone(),
            id: now,
            holder: ResumeHolder {
                host: process.host,
                pid: process.pid,
                start_ticks: process.start_ticks,
                pid_space: process.pid_space,
            },
            pd,
        };
        let rt = keeper.pd.rt().clone();
        let mut settled_at = rt.now();
        let lock = ResumeLock::new(now, now, keeper.holder.clone()).encode();
        match storage.create(names::RESUME_LOCK, lock.clone()).await {
            Ok(()) => {}
            Err(error) if error.is_already_exists() => {
                let recheck = keeper.check_free(now).await?;
                storage.write(names::RESUME_LOCK, lock).await?;
                settled_at = rt.now().plus(recheck);
            }
            Err(error) => return Err(error.into()),
        }
        let (sender, failure) = watch::channel(None);
        let stop = CancellationToken::new();
        let (renewing, stopped) = (keeper.clone(), stop.clone());
        let task = rt.spawn(async move { renewing.keep(&sender, &stopped).await });
        Ok(TargetLock {
            held: Some(Held {
                keeper,
                failure,
                stop,
                task,
                settled_at,
            }),
        })
    }

    /// Waits until somebody else has the lock; for ever if all is well.
    pub(in super::super) async fn lost(&self) -> LockError {
        let Some(held) = &self.held else {
            return std::future::pending().await;
        };
        let mut failure = held.failure.clone();
        let lost = match failure.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            Err(_) => None,
        };
        match lost {
            Some(lost) => lost,
            // The task ends only after a failure, or with the runtime.
            None => std::future::pending().await,
        }
    }

    /// Makes certain that the lock is still this command's.
    pub(in super::super) async fn confirm(&self) -> Result<(), LockError> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        let rt = held.keeper.pd.rt();
        rt.sleep(held.settled_at.since(rt.now())).await;
        held.keeper.check_mine().await
    }

    /// Gives the lock back. What cannot be removed now expires.
    pub(in super::super) async fn release(self) {
        let Some(held) = self.held else { return };
        // A renewal that comes after the removal would leave the lock behind.
        held.stop.cancel();
        let rt = held.keeper.pd.rt();
        if rt.timeout(RELEASE_WAIT_MAX, held.task).await.is_err() {
            tracing::warn!("the lock of the backup is left to expire");
            return;
        }
        // Somebody who took it over keeps it.
        if held.keeper.check_mine().await.is_err() {
            return;
        }
        if let Err(error) = held.keeper.storage.delete(names::RESUME_LOCK).await {
            tracing::warn!(%error, "the lock of the backup is left to expire");
        }
        let storage = &held.keeper.storage;
        for folder in [names::RESUME_DATA_FOLDER, names::RESUME_CHECKSUM_FOLDER] {
            // The one that is not empty stops it.
            storage.remove_empty_folders(folder).await;
        }
        storage.remove_empty_folders(names::RESUME_FOLDER).await;
    }
}

impl Keeper {
    /// Checks that the lock that stands there may be written over, and tells how long after that
    /// it has to be read again.
    async fn check_free(&self, now: TimeStamp) -> Result<Duration, LockError> {
        let Some(lock) = self.read().await? else {
            return Ok(LOCK_RECHECK);
        };
        if lock.holder.as_ref().is_some_and(is_surely_dead) {
            tracing::info!(holder = who(&lock), "the backup before this one has died");
            return Ok(LOCAL_RECHECK);
        }
        let LockState::Held { for_ms } = lock.state_for(self.id, now) else {
            return Ok(LOCK_RECHECK);
        };
        Err(LockError::Held {
            place: self.storage.to_string(),
            since: since(&lock),
            holder: who(&lock),
            for_ms,
        })
    }

    async fn check_mine(&self) -> Result<(), LockError> {
        match self.read().await? {
            Some(lock) if lock.lock_id != self.id.0 => Err(LockError::Lost {
                place: self.storage.to_string(),
                since: since(&lock),
                holder: who(&lock),
            }),
            // Somebody removed it by hand: it is written again with the next renewal.
            Some(_) | None => Ok(()),
        }
    }

    async fn read(&self) -> Result<Option<ResumeLock>, LockError> {
        match self.storage.read(names::RESUME_LOCK).await {
            Ok(bytes) => Ok(Some(ResumeLock::decode(names::RESUME_LOCK, &bytes)?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Renews the lock until it is lost or given back.
    async fn keep(&self, failure: &watch::Sender<Option<LockError>>, stop: &CancellationToken) {
        let mut pause: Duration = LOCK_RECHECK;
        loop {
            tokio::select! {
                biased;
                () = self.pd.rt().sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = LOCK_REFRESH;
            match self.renew().await {
                Ok(()) => {}
                Err(error @ LockError::Lost { .. }) => {
                    failure.send_replace(Some(error));
                    return;
                }
                Err(error) => tracing::warn!(%error, "the lock could not be renewed yet"),
            }
        }
    }

    async fn renew(&self) -> Result<(), LockError> {
        self.check_mine().await?;
        let now = self.pd.tso().await?;
        let lock = ResumeLock::new(self.id, now, self.holder.clone());
        let written = self.storage.write(names::RESUME_LOCK, lock.encode()).await;
        Ok(written?)
    }
}

fn is_surely_dead(holder: &ResumeHolder) -> bool {
    let process = ProcessName {
        host: holder.host.clone(),
        pid: holder.pid,
        start_ticks: holder.start_ticks,
        pid_space: holder.pid_space.clone(),
    };
    process.is_surely_dead()
}

fn who(lock: &ResumeLock) -> String {
    match &lock.holder {
        Some(holder) => format!("process {} on {}", holder.pid, holder.host),
        None => format!("the official tool, run {}", lock.lock_id),
    }
}

/// A run is named by the timestamp at which it began.
fn since(lock: &ResumeLock) -> String {
    rfc3339(TimeStamp(lock.lock_id).physical_ms())
}
