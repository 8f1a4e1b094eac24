use br_types::{Classify, Kind};
use tonic::{Code, Status};

use crate::pd::meta_kv::MetaError;

/// Why a request to etcd failed. Clients know etcd's errors by their text.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A value, or a lease, beside the flag that keeps the old one.
    #[error("etcdserver: {0} is provided")]
    Provided(&'static str),
    /// The flag that keeps what is there, for a key that is not there.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// The same key twice in one transaction.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// More operations or comparisons than etcd takes.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// The past before this revision is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted(i64),
    /// There is no such revision yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of that id is there.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A time to live beyond etcd's limit.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtl,
    /// Everything is full.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Too many watches or leases at one time.
    #[error("etcdserver: too many requests")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for EtcdError {
    fn kind(&self) -> Kind {
        match self {
            EtcdError::NoSpace | EtcdError::TooMany => Kind::Retry,
            EtcdError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Status {
        let code = match &error {
            EtcdError::EmptyKey
            | EtcdError::Provided(_)
            | EtcdError::KeyNotFound
            | EtcdError::DuplicateKey
            | EtcdError::TooManyOperations => Code::InvalidArgument,
            EtcdError::Compacted(_) | EtcdError::FutureRevision | EtcdError::LeaseTtl => {
                Code::OutOfRange
            }
            EtcdError::LeaseNotFound => Code::NotFound,
            EtcdError::LeaseExists => Code::FailedPrecondition,
            EtcdError::NoSpace | EtcdError::TooMany => Code::ResourceExhausted,
            EtcdError::Meta(_) => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}
