use br_codec::DecodeError;
use br_proto::{
    errorpb,
    kvrpcpb::{self, KeyError, LockInfo, write_conflict::Reason},
};
use br_types::{Classify, Kind, TimeStamp};

use crate::engine::EngineError;

/// Why a transactional command failed. Keys are raw.
#[derive(Debug, thiserror::Error)]
pub enum MvccError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stored record or key cannot be read.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// A record says that a long value exists, but it does not.
    #[error("the value that transaction {start_ts} wrote is missing")]
    ValueMissing {
        /// When the transaction began.
        start_ts: TimeStamp,
    },
    /// Another transaction holds the key.
    #[error("the key is locked by transaction {}", .0.lock_version)]
    KeyIsLocked(Box<LockInfo>),
    /// Another transaction has written the key in the meantime.
    #[error("transaction {start_ts} conflicts with {conflict_start_ts}: {reason:?}")]
    WriteConflict {
        /// The transaction that fails.
        start_ts: TimeStamp,
        /// The one that wrote.
        conflict_start_ts: TimeStamp,
        /// When it committed.
        conflict_commit_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
        /// The primary key of the transaction that fails.
        primary: Vec<u8>,
        /// Which check found it.
        reason: Reason,
    },
    /// An insert found a value.
    #[error("the key exists")]
    AlreadyExist {
        /// The key.
        key: Vec<u8>,
    },
    /// A commit found neither its lock nor its commit.
    #[error("transaction {start_ts} has no lock to commit")]
    TxnLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
    },
    /// The transaction is not known at the key.
    #[error("transaction {start_ts} is not known")]
    TxnNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key that should be its primary.
        key: Vec<u8>,
    },
    /// A commit below what the lock promised to readers.
    #[error("transaction {start_ts} cannot commit at {commit_ts}, only from {min_commit_ts} on")]
    CommitTsExpired {
        /// The transaction.
        start_ts: TimeStamp,
        /// Where it wanted to commit.
        commit_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
        /// The least timestamp it may commit at.
        min_commit_ts: TimeStamp,
    },
    /// Async commit or 1PC would commit later than the client allows.
    #[error("the commit timestamp {min_commit_ts} is beyond what the client allows")]
    CommitTsTooLarge {
        /// The least timestamp it may commit at.
        min_commit_ts: TimeStamp,
    },
    /// The client was wrong about whether the key exists.
    #[error("transaction {start_ts} asserted {assertion:?}")]
    AssertionFailed {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
        /// What it asserted.
        assertion: kvrpcpb::Assertion,
        /// The transaction of the version that is there; zero: there is none.
        existing_start_ts: TimeStamp,
        /// When that committed.
        existing_commit_ts: TimeStamp,
    },
    /// The key is locked, but is not the primary of its transaction.
    #[error("the key is not the primary of transaction {}", .0.lock_version)]
    PrimaryMismatch(Box<LockInfo>),
    /// Waiting would never end.
    #[error("transaction {start_ts} would wait for itself")]
    Deadlock {
        /// The transaction that fails.
        start_ts: TimeStamp,
        /// The one it would have waited for.
        lock_ts: TimeStamp,
        /// The key it wanted.
        key: Vec<u8>,
        /// Of the key that the transaction holds and another one waits for.
        deadlock_key_hash: u64,
        /// That key.
        deadlock_key: Vec<u8>,
        /// Who waits for whom, from the transaction that it would have waited for back to it.
        wait_chain: Vec<br_proto::deadlock::WaitForEntry>,
    },
    /// The pessimistic lock that should be there is lost.
    #[error("transaction {start_ts} has lost its pessimistic lock: {why}")]
    PessimisticLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
        /// How it shows.
        why: &'static str,
    },
    /// A pessimistic lock for a transaction that has been rolled back.
    #[error("transaction {start_ts} was rolled back before it locked the key")]
    PessimisticLockRolledBack {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
    },
    /// The lock is pessimistic where a prewritten one should be, or the other way round.
    #[error("transaction {start_ts} has a lock of the wrong type (pessimistic: {is_pessimistic})")]
    LockTypeNotMatch {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
        /// Whether the lock found is pessimistic.
        is_pessimistic: bool,
    },
    /// A rollback of what is committed.
    #[error("transaction {start_ts} is committed at {commit_ts}")]
    Committed {
        /// The transaction.
        start_ts: TimeStamp,
        /// When it committed.
        commit_ts: TimeStamp,
        /// The key.
        key: Vec<u8>,
    },
    /// A commit at or before the start.
    #[error("transaction {start_ts} cannot commit at {commit_ts}")]
    InvalidTxnTso {
        /// The transaction.
        start_ts: TimeStamp,
        /// Where it wanted to commit.
        commit_ts: TimeStamp,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Classify for MvccError {
    fn kind(&self) -> Kind {
        match self {
            MvccError::Engine(error) => error.kind(),
            MvccError::Damaged(_) | MvccError::ValueMissing { .. } => Kind::Data,
            MvccError::KeyIsLocked(_) | MvccError::WriteConflict { .. } => Kind::Retry,
            MvccError::Invalid(_) | MvccError::InvalidTxnTso { .. } => Kind::Invalid,
            _ => Kind::Conflict,
        }
    }
}

impl MvccError {
    /// The region error that it is answered with, if it is not one of the key.
    pub fn region_error(&self) -> Option<errorpb::Error> {
        let MvccError::Engine(error) = self else {
            return None;
        };
        engine_region_error(error)
    }

    /// The error of the key, as the protocol has it.
    pub fn key_error(&self) -> KeyError {
        let mut answer = KeyError::default();
        match self {
            MvccError::KeyIsLocked(info) => answer.locked = Some((**info).clone()),
            MvccError::WriteConflict {
                start_ts,
                conflict_start_ts,
                conflict_commit_ts,
                key,
                primary,
                reason,
            } => {
                answer.conflict = Some(kvrpcpb::WriteConflict {
                    start_ts: start_ts.0,
                    conflict_ts: conflict_start_ts.0,
                    conflict_commit_ts: conflict_commit_ts.0,
                    key: key.clone(),
                    primary: primary.clone(),
                    reason: (*reason).into(),
                });
                // Old clients look here.
                answer.retryable = self.to_string();
            }
            MvccError::AlreadyExist { key } => {
                answer.already_exist = Some(kvrpcpb::AlreadyExist { key: key.clone() });
            }
            MvccError::TxnLockNotFound { key, .. } => {
                answer.retryable = self.to_string();
                answer.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key: key.clone() });
            }
            MvccError::TxnNotFound { start_ts, key } => {
                answer.txn_not_found = Some(kvrpcpb::TxnNotFound {
                    start_ts: start_ts.0,
                    primary_key: key.clone(),
                });
            }
            MvccError::CommitTsExpired {
                start_ts,
                commit_ts,
                key,
                min_commit_ts,
            } => {
                answer.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                    start_ts: start_ts.0,
                    attempted_commit_ts: commit_ts.0,
                    key: key.clone(),
                    min_commit_ts: min_commit_ts.0,
                });
            }
            MvccError::CommitTsTooLarge { min_commit_ts } => {
                answer.commit_ts_too_large = Some(kvrpcpb::CommitTsTooLarge {
                    commit_ts: min_commit_ts.0,
                });
            }
            MvccError::AssertionFailed {
                start_ts,
                key,
                assertion,
                existing_start_ts,
                existing_commit_ts,
            } => {
                answer.assertion_failed = Some(kvrpcpb::AssertionFailed {
                    start_ts: start_ts.0,
                    key: key.clone(),
                    assertion: (*assertion).into(),
                    existing_start_ts: existing_start_ts.0,
                    existing_commit_ts: existing_commit_ts.0,
                });
            }
            MvccError::PrimaryMismatch(info) => {
                let lock_info = Some((**info).clone());
                answer.primary_mismatch = Some(kvrpcpb::PrimaryMismatch { lock_info });
            }
            MvccError::Deadlock {
                lock_ts,
                key,
                deadlock_key_hash,
                deadlock_key,
                wait_chain,
                ..
            } => {
                answer.deadlock = Some(kvrpcpb::Deadlock {
                    lock_ts: lock_ts.0,
                    lock_key: key.clone(),
                    deadlock_key_hash: *deadlock_key_hash,
                    wait_chain: wait_chain.clone(),
                    deadlock_key: deadlock_key.clone(),
                });
            }
            _ => answer.abort = format!("{self:?}"),
        }
        answer
    }
}

/// The region error for a failure of the engine; `None` if it is an error of the command.
pub(crate) fn engine_region_error(error: &EngineError) -> Option<errorpb::Error> {
    let EngineError::DiskFull(reason) = error else {
        return None;
    };
    Some(errorpb::Error {
        message: error.to_string(),
        disk_full: Some(errorpb::DiskFull {
            store_id: Vec::new(),
            reason: reason.clone(),
        }),
        ..Default::default()
    })
}
