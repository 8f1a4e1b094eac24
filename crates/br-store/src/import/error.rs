use std::io;

use br_codec::DecodeError;
use br_proto::import_sstpb;
use br_storage::{BackendError, MasterKeysError, StorageError};
use br_types::RegionId;

use super::rewrite::RewriteError;
use crate::{cipher::CipherError, engine::EngineError, region_check::server_is_busy};

/// Why an import request failed. The texts are part of the protocol where clients look for them.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// External storage cannot be opened.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The file cannot be read from external storage.
    #[error("Cannot read {name}: {source}")]
    Storage {
        /// The file.
        name: String,
        /// Why.
        source: StorageError,
    },
    /// The file has another size than the backup says.
    #[error("downloaded size {found}, expected {expected} of {name}")]
    Length {
        /// The file.
        name: String,
        /// Bytes found.
        found: u64,
        /// Bytes that the request names.
        expected: u64,
    },
    /// The file is no SST, or damaged; after a wrong key it looks the same.
    #[error("File {name} corrupted: {source}")]
    Sst {
        /// The file.
        name: String,
        /// Where and why.
        source: br_sst::SstError,
    },
    /// The file does not fit the rewrite rule.
    #[error("{name}: {source}")]
    Rewrite {
        /// The file.
        name: String,
        /// Why.
        source: RewriteError,
    },
    /// Encryption that is not supported.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// A data key does not open.
    #[error(transparent)]
    MasterKey(#[from] MasterKeysError),
    /// The engine cannot write or take the file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A local file cannot be read or written.
    #[error("local file: {0}")]
    Io(#[from] io::Error),
    /// A key cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No room for files.
    #[error("TiKV disk space is not enough.")]
    DiskFull,
    /// The region is not here.
    #[error("region {0} not found, maybe it's not a replica of this store")]
    RegionNotFound(RegionId),
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No memory for what a request holds.
    #[error("other imports use all the memory that there is for them")]
    OutOfMemory,
    /// Too many files wait for their ingestion.
    #[error("too many downloaded files wait for their ingestion")]
    TooManyStaged,
}

impl ImportError {
    /// The error as the protocol has it.
    pub(super) fn to_proto(&self) -> import_sstpb::Error {
        let message = self.to_string();
        let store_error = match self {
            ImportError::TooManyStaged | ImportError::OutOfMemory => {
                Some(server_is_busy(&message, 1000))
            }
            _ => None,
        };
        import_sstpb::Error {
            message,
            store_error,
        }
    }
}
