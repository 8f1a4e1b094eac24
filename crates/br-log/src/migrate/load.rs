use br_format::log::{
    migration::{MigrationName, Migrations},
    names::MIGRATION_FOLDER,
};
use br_storage::Storage;
use br_types::TimeStamp;
use futures::TryStreamExt as _;

use super::MigrateError;
use crate::read::LogStorage;

/// All migrations of a storage, with their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// What they say.
    pub migrations: Migrations,
    /// The names of the layers, in their order.
    pub names: Vec<MigrationName>,
}

/// Reads all migrations. Whoever relies on them holds a lock.
///
/// # Errors
/// One cannot be understood, or somebody without a lock changed them meanwhile; the storage failed.
pub async fn load(storage: &Storage) -> Result<Loaded, MigrateError> {
    let migrations = LogStorage::new(storage.clone()).migrations().await?;
    let mut names = Vec::new();
    let mut objects = storage.list(&format!("{MIGRATION_FOLDER}/"));
    while let Some(entry) = objects.try_next().await? {
        if let Some(layer @ MigrationName::Layer { .. }) = MigrationName::parse(&entry.name) {
            names.push(layer);
        }
    }
    names.sort();
    let numbers = names.iter().map(|name| number_of(*name));
    if !numbers.eq(migrations.layers.iter().map(|(number, _)| *number)) {
        let number = names.last().map_or(0, |name| number_of(*name));
        return Err(MigrateError::Raced { number });
    }
    Ok(Loaded { migrations, names })
}

pub(super) fn number_of(name: MigrationName) -> u32 {
    match name {
        MigrationName::Layer { number, .. } => number,
        MigrationName::Base | MigrationName::BaseTemporary => 0,
    }
}

/// What the mark of truncations says; zero if there is none.
pub(crate) async fn truncate_safe_point(storage: &Storage) -> Result<TimeStamp, MigrateError> {
    Ok(LogStorage::new(storage.clone())
        .truncate_safe_point()
        .await?)
}
