use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path};

use object_store::local::LocalFileSystem;

use crate::Failure;

/// The directory as an object store: each write goes to a temporary file, which is synced and
/// renamed, and the directory is synced.
pub(super) fn open(path: &Path) -> Result<LocalFileSystem, Failure> {
    let metadata = fs::metadata(path).map_err(|error| failure(&error))?;
    if !metadata.is_dir() {
        return Err(Failure::Settings("it is not a directory".into()));
    }
    let store = LocalFileSystem::new_with_prefix(path)?;
    Ok(store.with_fsync(true))
}

/// Makes the directory and those above it, writable for all that the umask allows: stores that
/// run as another user write into it.
pub(crate) fn create_base(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o777)
        .create(path)
        .map_err(|error| failure(&error))
}

/// In the spelling of the error kinds (`NotFound`, `PermissionDenied`) that the official tool
/// looks for in the answer of a store.
pub(crate) fn failure(error: &io::Error) -> Failure {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::NotFound(text),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::PermissionDenied(text)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::DiskFull(text),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Failure::Settings("it is not a directory".into())
        }
        _ => Failure::Settings(text),
    }
}
