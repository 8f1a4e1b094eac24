//! The bytes of `backupmeta` on a storage, with their sum if there is one.

use br_format::backupmeta::{MetaError, check_sum, sum_of};
use br_format::names::{BACKUPMETA, BACKUPMETA_SUM};
use br_storage::{Storage, StorageError};
use bytes::Bytes;

/// Reads `backupmeta`, and holds it against `backupmeta.sha256` if that is there.
///
/// # Errors
/// There is no `backupmeta`, or the storage is out of reach; within, that one of the two has changed.
pub async fn read(storage: &Storage) -> Result<Result<Bytes, MetaError>, StorageError> {
    let stored = storage.read(BACKUPMETA).await?;
    match storage.read(BACKUPMETA_SUM).await {
        Ok(sum) => Ok(check_sum(&stored, &sum).map(|()| stored)),
        // Other tools do not write it.
        Err(error) if error.is_not_found() => Ok(Ok(stored)),
        Err(error) => Err(error),
    }
}

/// Writes `backupmeta`, its sum first: from then on the backup exists.
///
/// # Errors
/// The storage's own.
pub(crate) async fn write(storage: &Storage, stored: Bytes) -> Result<(), StorageError> {
    let sum = sum_of(&stored);
    storage.write(&sum.name, sum.bytes).await?;
    storage.write(BACKUPMETA, stored).await
}
