use br_codec::DecodeError;
use br_proto::{backup, errorpb, kvrpcpb};
use br_storage::StorageError;

use crate::{cipher::CipherError, engine::EngineError, mvcc::MvccError};

/// Why a piece could not be backed up.
#[derive(Debug, thiserror::Error)]
pub(super) enum PieceError {
    /// Locks, or the engine below.
    #[error(transparent)]
    Mvcc(#[from] MvccError),
    /// The region moved or changed since the piece was cut.
    #[error("{}", .0.message)]
    Region(Box<errorpb::Error>),
    /// The engine could not read or write.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A key or value that cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A local file that cannot be written or read.
    #[error("a local file cannot be written or read: {0}")]
    Io(#[from] std::io::Error),
    /// Entries that make no SST file.
    #[error(transparent)]
    Table(#[from] br_sst::BuildError),
    /// External storage does not take the file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Encryption that is not supported.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// The client has gone.
    #[error("the client has gone")]
    Cancelled,
}

impl PieceError {
    /// The error as the client classifies it: locks and region errors by field, the rest by text.
    pub(super) fn to_proto(&self) -> backup::Error {
        use backup::error::Detail;
        let detail = match self {
            PieceError::Region(error) => Some(Detail::RegionError((**error).clone())),
            PieceError::Mvcc(error) => match error.region_error() {
                Some(error) => Some(Detail::RegionError(error)),
                None => {
                    let key_error: kvrpcpb::KeyError = error.key_error();
                    key_error
                        .locked
                        .is_some()
                        .then_some(Detail::KvError(key_error))
                }
            },
            _ => None,
        };
        let msg = if detail.is_some() {
            String::new()
        } else {
            self.to_string()
        };
        backup::Error { msg, detail }
    }
}

/// An error that has only a text.
pub(super) fn message(msg: impl ToString) -> backup::Error {
    backup::Error {
        msg: msg.to_string(),
        detail: None,
    }
}
