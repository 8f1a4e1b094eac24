//! The bytes of `backupmeta` on a storage, with their sum if there is one.

use br_format::backupmeta::{MetaError, check_sum, sum_of};
use br_format::names::{BACKUPMETA, BACKUPMETA_SUM};
use br_storage::{Storage, StorageError, read_again};
use bytes::Bytes;

/// Reads `backupmeta`, and holds it against `backupmeta.sha256` if that is there.
///
/// # Errors
/// There is no `backupmeta`, or the storage is out of reach; within, that one of the two has changed.
pub async fn read(storage: &Storage) -> Result<Result<Bytes, MetaError>, StorageError> {
    let read = read_again(async || match read_once(storage).await {
        Ok(checked) => checked.map(Ok),
        Err(error) => Ok(Err(error)),
    });
    match read.await {
        Ok(read) => read.map(Ok),
        Err(damaged) => Ok(Err(damaged)),
    }
}

async fn read_once(storage: &Storage) -> Result<Result<Bytes, MetaError>, StorageError> {
    let stored = match storage.read(BACKUPMETA).await {
        Ok(stored) => stored,
        Err(error) => return damaged(BACKUPMETA, error),
    };
    match storage.read(BACKUPMETA_SUM).await {
        Ok(sum) => Ok(check_sum(&stored, &sum).map(|()| stored)),
        // Other tools do not write it.
        Err(error) if error.is_not_found() => Ok(Ok(stored)),
        Err(error) => damaged(BACKUPMETA_SUM, error),
    }
}

/// A sealed object that was changed is damage of the backup.
fn damaged(object: &str, error: StorageError) -> Result<Result<Bytes, MetaError>, StorageError> {
    match error.damage() {
        Some(reason) => Ok(Err(MetaError::Malformed {
            object: object.to_owned(),
            reason,
        })),
        None => Err(error),
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
