use br_cluster::{KvError, PdError, RpcError};
use br_storage::{BackendError, StorageError};
use br_types::{Classify, Code, Kind, StoreId};

use crate::task::TaskError;

/// Why a step of the coordinator failed. None of them ends it: the next tick tries again.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A store did not help.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The keys of the task cannot be read or written.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The storage of the task failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The storage of the task cannot be understood.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A store has no log backup, or an older one without this call.
    #[error("store {0} does not tell of its flushes")]
    Unsupported(StoreId),
    /// A stream of a store broke.
    #[error("store {store}: {cause}")]
    Stream {
        /// The store.
        store: StoreId,
        /// In its or the transport's words.
        cause: String,
    },
}

impl From<RpcError> for AdvanceError {
    fn from(error: RpcError) -> AdvanceError {
        AdvanceError::Kv(error.into())
    }
}

impl Classify for AdvanceError {
    fn kind(&self) -> Kind {
        match self {
            AdvanceError::Pd(error) => error.kind(),
            AdvanceError::Kv(error) => error.kind(),
            AdvanceError::Task(error) => error.kind(),
            AdvanceError::Storage(error) => error.kind(),
            AdvanceError::Backend(error) => error.kind(),
            AdvanceError::Unsupported(_) => Kind::Invalid,
            AdvanceError::Stream { .. } => Kind::Retry,
        }
    }

    fn code(&self) -> Code {
        match self {
            AdvanceError::Pd(error) => error.code(),
            AdvanceError::Kv(error) => error.code(),
            AdvanceError::Task(error) => error.code(),
            AdvanceError::Storage(error) => error.code(),
            AdvanceError::Backend(error) => error.code(),
            AdvanceError::Unsupported(_) => Code::UNSUPPORTED_OPERATION,
            AdvanceError::Stream { .. } => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            AdvanceError::Pd(error) => error.next_step(),
            AdvanceError::Kv(error) => error.next_step(),
            AdvanceError::Task(error) => error.next_step(),
            AdvanceError::Storage(error) => error.next_step(),
            AdvanceError::Backend(error) => error.next_step(),
            AdvanceError::Unsupported(_) => {
                Some("Set log-backup.enable on that store and restart it".into())
            }
            AdvanceError::Stream { .. } => None,
        }
    }
}
