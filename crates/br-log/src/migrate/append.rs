use br_format::log::migration::{Migration, MigrationName};

use super::{MigrateError, load};
use crate::storage_lock::LockRequest;

/// Appends a migration, and gives its name.
///
/// # Errors
/// Somebody merges migrations; the storage failed. Nothing was appended then.
pub async fn append(
    request: &LockRequest<'_>,
    migration: &Migration,
) -> Result<MigrationName, MigrateError> {
    let reader = request.read_migrations().await?;
    reader.with(append_beside_readers(request, migration)).await
}

/// As [`append`], for those who hold the readers' lock themselves.
///
/// # Errors
/// As [`append`].
pub async fn append_beside_readers(
    request: &LockRequest<'_>,
    migration: &Migration,
) -> Result<MigrationName, MigrateError> {
    let lock = request.append_migration().await?;
    let work = async {
        let number = load(request.storage).await?.migrations.next_number();
        let hash = migration.hash();
        let name = MigrationName::Layer { number, hash };
        let written = request
            .storage
            .create(&name.to_name(), migration.encode())
            .await;
        match written {
            Err(error) if error.is_already_exists() => Err(MigrateError::Raced { number }),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(name),
        }
    };
    lock.with(work).await
}
