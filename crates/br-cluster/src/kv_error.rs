use br_proto::kvrpcpb;
use br_types::{Classify, Code, EncodedKey, Kind, RawKey, RegionId, StoreId, TimeStamp};

use crate::{pd::PdError, region::RegionFault, rpc::RpcError};

/// A request to the stores that did not give a result.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// No answer of a store.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// A store does not answer for a region.
    #[error("region {region} on store {store}: {fault}")]
    Region {
        /// The region.
        region: RegionId,
        /// Whom the request went to.
        store: StoreId,
        /// Why.
        fault: Box<RegionFault>,
    },
    /// PD knows no region with a leader for a key.
    #[error("no region with a leader holds key {key}")]
    NoRegion {
        /// The key.
        key: EncodedKey,
    },
    /// The last error, after an attempt of which it is not known whether it was carried out.
    #[error(transparent)]
    AnswerLost(Box<KvError>),
    /// A lock of a living transaction stayed for too long.
    #[error("key {key} is locked by the transaction of {owner}, which is still alive")]
    Locked {
        /// A locked key.
        key: RawKey,
        /// When the owner began.
        owner: TimeStamp,
    },
    /// Another transaction wrote the key since this one began.
    #[error("key {key} was written at {conflict}, after this transaction began at {start}")]
    WriteConflict {
        /// The key.
        key: RawKey,
        /// When this transaction began.
        start: TimeStamp,
        /// When the other one committed, or began if that is not known.
        conflict: TimeStamp,
    },
    /// A key that must not exist does.
    #[error("key {key} exists already")]
    AlreadyExists {
        /// The key.
        key: RawKey,
    },
    /// The transaction was rolled back by somebody else.
    #[error("the transaction of {start} was rolled back: {cause}")]
    RolledBack {
        /// When it began.
        start: TimeStamp,
        /// In the store's words.
        cause: String,
    },
    /// It is not known whether the transaction is committed.
    #[error("whether the transaction of {start} is committed is not known: {cause}")]
    Undetermined {
        /// When it began.
        start: TimeStamp,
        /// Why.
        cause: Box<KvError>,
    },
    /// The transaction has grown too large.
    #[error("the transaction holds more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The store refused the request itself.
    #[error("{method}: {message}")]
    Refused {
        /// The method.
        method: &'static str,
        /// In the store's words.
        message: String,
    },
    /// The answer makes no sense.
    #[error("{method}: the answer of the store {what}")]
    InvalidResponse {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl KvError {
    /// The error for a [`kvrpcpb::KeyError`] that is not a lock.
    pub(crate) fn from_key_error(
        method: &'static str,
        start: TimeStamp,
        error: kvrpcpb::KeyError,
    ) -> KvError {
        if let Some(conflict) = error.conflict {
            let at = match conflict.conflict_commit_ts {
                0 => conflict.conflict_ts,
                commit_ts => commit_ts,
            };
            if conflict.reason() == kvrpcpb::write_conflict::Reason::SelfRolledBack {
                let cause = "its rollback is on record".into();
                return KvError::RolledBack { start, cause };
            }
            return KvError::WriteConflict {
                key: RawKey::from(conflict.key),
                start,
                conflict: TimeStamp(at),
            };
        }
        if let Some(exists) = error.already_exist {
            return KvError::AlreadyExists {
                key: RawKey::from(exists.key),
            };
        }
        if error.txn_lock_not_found.is_some() || error.txn_not_found.is_some() {
            return KvError::RolledBack {
                start,
                cause: "its lock is gone".into(),
            };
        }
        let message = match (error.retryable, error.abort) {
            (retryable, abort) if abort.is_empty() => retryable,
            (_, abort) => abort,
        };
        KvError::Refused { method, message }
    }

    /// Whether the request that failed may have been carried out all the same.
    pub(crate) fn may_have_run(&self) -> bool {
        match self {
            KvError::Rpc(error) => error.may_have_run(),
            KvError::Region { fault, .. } => {
                matches!(
                    **fault,
                    RegionFault::StaleCommand | RegionFault::Undetermined { .. }
                )
            }
            KvError::AnswerLost(_) | KvError::Undetermined { .. } => true,
            _ => false,
        }
    }

    /// Marks that an attempt before this error may have been carried out.
    pub(crate) fn after_lost_answer(self) -> KvError {
        match self {
            KvError::AnswerLost(_) => self,
            error => KvError::AnswerLost(Box::new(error)),
        }
    }
}

impl Classify for KvError {
    fn kind(&self) -> Kind {
        match self {
            KvError::Pd(error) => error.kind(),
            KvError::Rpc(error) => error.kind(),
            KvError::Region { fault, .. } => fault.kind(),
            KvError::AnswerLost(error) => error.kind(),
            KvError::NoRegion { .. } | KvError::Locked { .. } => Kind::Retry,
            KvError::WriteConflict { .. }
            | KvError::AlreadyExists { .. }
            | KvError::RolledBack { .. }
            | KvError::Undetermined { .. } => Kind::Conflict,
            KvError::TooLarge { .. } | KvError::Refused { .. } => Kind::Invalid,
            KvError::InvalidResponse { .. } => Kind::Internal,
            KvError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            KvError::Pd(error) => error.code(),
            KvError::Rpc(error) => error.code(),
            KvError::Region { fault, .. } => fault.code(),
            KvError::AnswerLost(error) => error.code(),
            KvError::NoRegion { .. } => Code::BACKUP_NO_LEADER,
            KvError::Locked { .. } => Code::BACKUP_KEY_IS_LOCKED,
            KvError::Cancelled => Code::CANCELLED,
            _ => Code::KV_UNKNOWN,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            KvError::Pd(error) => error.next_step(),
            KvError::Rpc(error) => error.next_step(),
            KvError::Region { fault, .. } => fault.next_step(),
            KvError::AnswerLost(error) => error.next_step(),
            KvError::Locked { .. } => {
                Some("Wait until that transaction has ended, then try again".into())
            }
            KvError::Undetermined { .. } => {
                Some("Look whether the change is there before doing it again".into())
            }
            _ => None,
        }
    }
}
