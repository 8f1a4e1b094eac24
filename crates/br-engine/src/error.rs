use std::path::Path;

use br_store::engine::EngineError;
use rust_rocksdb::{Error, ErrorKind};

/// What the operating system says when there is no room.
const NO_SPACE: &str = "No space left on device";

/// A failure of the database.
pub(crate) fn engine_error(error: Error) -> EngineError {
    let kind = error.kind();
    let message = error.into_string();
    if message.contains(NO_SPACE) {
        return EngineError::DiskFull(message);
    }
    match kind {
        ErrorKind::Corruption => EngineError::Corrupted(message),
        _ => EngineError::Other(message),
    }
}

/// A failure to open a database.
pub(crate) fn open_error(path: &Path, error: Error) -> EngineError {
    // RocksDB has no kind of its own for it.
    if error.kind() == ErrorKind::IOError && error.as_ref().contains("lock") {
        return EngineError::InUse(path.to_owned());
    }
    engine_error(error)
}

/// A failure with an SST file.
pub(crate) fn sst_error(path: &Path, error: Error) -> EngineError {
    match engine_error(error) {
        full @ EngineError::DiskFull(_) => full,
        EngineError::Corrupted(message) | EngineError::Other(message) => EngineError::Sst {
            path: path.to_owned(),
            message,
        },
        other => other,
    }
}

/// A failure of the file system.
pub(crate) fn io_error(path: &Path, error: &std::io::Error) -> EngineError {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return EngineError::DiskFull(error.to_string());
    }
    EngineError::Other(format!("{}: {error}", path.display()))
}
