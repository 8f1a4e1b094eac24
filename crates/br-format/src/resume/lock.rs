use std::time::Duration;

use br_types::TimeStamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ResumeError, json};

/// How long a lock holds after it was written. The official tool gives it five minutes; its expiry
/// stands in it, so that each may have its own. Whoever comes after a machine that died waits for
/// it.
pub const LOCK_TTL: Duration = Duration::from_secs(60);
/// How often its owner writes it anew: two may fail.
pub const LOCK_REFRESH: Duration = Duration::from_secs(15);
/// How long after writing it its owner reads it again, to see whether somebody wrote over it.
pub const LOCK_RECHECK: Duration = Duration::from_secs(3);

/// `checkpoint.lock`: who is at work on this backup.
///
/// Storage has no compare-and-swap for all backends, so it is taken by writing it, waiting for
/// [`LOCK_RECHECK`] and reading it back. Times are those of PD's timestamps, not of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ResumeLock {
    /// A timestamp of PD, taken once by each run.
    #[serde(rename = "lock-id")]
    pub lock_id: u64,
    /// Unix milliseconds.
    #[serde(rename = "expire-at")]
    pub expire_at_unix_ms: u64,
    /// Whose it is. The official tool does not write this and passes it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<ResumeHolder>,
}

/// The process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ResumeHolder {
    /// The name of its machine or container.
    pub host: String,
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did; 0: not known.
    pub start_ticks: u64,
    /// In which space of process numbers; empty: not known.
    pub pid_space: String,
}

/// What a lock that stands on storage means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// It is this run's, or has expired: write it.
    Free,
    /// Another run is at work, or was, until that many milliseconds from now.
    Held {
        /// Milliseconds until it expires.
        for_ms: u64,
    },
    /// A run that began later took it while this one let it expire: stop.
    LostToLaterRun,
}

impl ResumeLock {
    /// A lock of the run with that id, taken at `now`.
    pub fn new(lock_id: TimeStamp, now: TimeStamp, holder: ResumeHolder) -> ResumeLock {
        let ttl_ms = LOCK_TTL.as_secs() * 1000;
        ResumeLock {
            lock_id: lock_id.0,
            expire_at_unix_ms: now.physical_ms() + ttl_ms,
            holder: Some(holder),
        }
    }

    /// What it means for the run with that id.
    pub fn state_for(&self, lock_id: TimeStamp, now: TimeStamp) -> LockState {
        match self.expire_at_unix_ms.checked_sub(now.physical_ms()) {
            None | Some(0) if self.lock_id > lock_id.0 => LockState::LostToLaterRun,
            Some(for_ms @ 1..) if self.lock_id != lock_id.0 => LockState::Held { for_ms },
            _ => LockState::Free,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`ResumeError::Malformed`].
    pub fn decode(object: &str, bytes: &[u8]) -> Result<ResumeLock, ResumeError> {
        serde_json::from_slice(bytes).map_err(|e| ResumeError::malformed(object, e))
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Bytes {
        json::encode(self)
    }
}
