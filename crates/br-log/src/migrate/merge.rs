use br_format::log::migration::{Migration, MigrationName, MigrationVersion};
use br_rt::{CancellationToken, kill_point};
use br_storage::Storage;
use br_types::TimeStamp;

use super::{
    Loaded, MigrateError,
    carry_out::{carry_out, check},
    load,
    load::number_of,
};
use crate::{storage_lock::LockRequest, truncate::find_cut};

/// Up to which migration others are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeUntil {
    /// None: only the base is carried out.
    Base,
    /// That one.
    Number(u32),
    /// All that there are.
    Newest,
}

/// What a merge did or would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// The new base, before it is carried out.
    pub base: Migration,
    /// The migrations in it that were beside it.
    pub layers: Vec<MigrationName>,
}

/// What [`merge`] would do.
///
/// # Errors
/// [`MigrateError`].
pub async fn plan_merge(storage: &Storage, until: MergeUntil) -> Result<Merge, MigrateError> {
    let loaded = load(storage).await?;
    fold(&loaded, until, TimeStamp::ZERO)
}

/// Merges migrations into the base, and removes from the storage what they took out of the log.
///
/// # Errors
/// Readers or other writers are at work; [`MigrateError`]. Running it again finishes it.
pub async fn merge(request: &LockRequest<'_>, until: MergeUntil) -> Result<Merge, MigrateError> {
    // Other tools truncate under their own lock only, and write the same metadata anew.
    let alone = request.truncate().await?;
    alone.with(merge_alone(request, until)).await
}

async fn merge_alone(request: &LockRequest<'_>, until: MergeUntil) -> Result<Merge, MigrateError> {
    let lock = request.write_migrations().await?;
    lock.with(async {
        let loaded = load(request.storage).await?;
        let merged = fold(&loaded, until, TimeStamp::ZERO)?;
        // Layers that stay beside the base count as well.
        let compactions = loaded.migrations.merged().compactions;
        let truncated_to = merged.base.truncated_to;
        let shift_ts = match truncated_to.is_zero() {
            true => TimeStamp::ZERO,
            false => {
                find_cut(request.storage, truncated_to, &compactions)
                    .await?
                    .shift_ts
            }
        };
        apply(request.storage, request.cancel, &merged, shift_ts).await?;
        Ok(merged)
    })
    .await
}

/// The base that comes of migrations up to `until`, cut off at `truncated_to` or later.
pub(crate) fn fold(
    loaded: &Loaded,
    until: MergeUntil,
    truncated_to: TimeStamp,
) -> Result<Merge, MigrateError> {
    let last = loaded.names.last().map_or(0, |name| number_of(*name));
    let number = match until {
        MergeUntil::Base => 0,
        MergeUntil::Newest => u32::MAX,
        MergeUntil::Number(number) if number > last => {
            return Err(MigrateError::NotFound { number, last });
        }
        MergeUntil::Number(number) => number,
    };
    let mut base = loaded.migrations.base.clone();
    let mut layers = Vec::new();
    for (name, (at, layer)) in loaded.names.iter().zip(&loaded.migrations.layers) {
        if *at <= number {
            base.merge(layer.clone());
            layers.push(*name);
        }
    }
    base.truncated_to = base.truncated_to.max(truncated_to);
    base.version = base.version.max(MigrationVersion::M1);
    Ok(Merge { base, layers })
}

/// Writes the base, forgets what is in it, carries it out, and writes what is left.
///
/// Whoever dies in between leaves migrations twice, or things to do twice; neither does harm.
pub(crate) async fn apply(
    storage: &Storage,
    cancel: &CancellationToken,
    merge: &Merge,
    shift_ts: TimeStamp,
) -> Result<(), MigrateError> {
    let base = MigrationName::Base.to_name();
    let has_nothing = merge.layers.is_empty() && merge.base.is_empty();
    if has_nothing {
        return Ok(());
    }
    if !merge.layers.is_empty() {
        storage.write(&base, merge.base.encode()).await?;
        kill_point("migrate.base");
    }
    for name in &merge.layers {
        check(cancel)?;
        storage.delete(&name.to_name()).await?;
        kill_point("migrate.layer");
    }
    let left = carry_out(storage, cancel, merge.base.clone(), shift_ts).await?;
    kill_point("migrate.carried_out");
    storage.write(&base, left.encode()).await?;
    // What a tool left behind that died while it wrote a base.
    storage
        .delete(&MigrationName::BaseTemporary.to_name())
        .await?;
    Ok(())
}
