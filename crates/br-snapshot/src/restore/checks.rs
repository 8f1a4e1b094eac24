//! What is checked before a restore changes anything.

use std::collections::{HashMap, HashSet};

use br_catalog::CatalogError;
use br_cluster::Snapshot;
use br_storage::SEALED_FORM;
use br_tidb::schema;
use br_types::{StoreId, TableId};

use super::{RestoreTarget, error::RestoreError, plan::RestorePlan, table_ids::TableIdMap};

/// Databases that a cluster may have and still be fresh: `test` comes with every cluster.
const FRESH_DB: &str = "test";

/// The stores keep this share of their disks free.
const RESERVED_PERCENT: u64 = 10;

impl From<CatalogError> for RestoreError {
    fn from(error: CatalogError) -> RestoreError {
        match error {
            CatalogError::Kv(error) => RestoreError::Kv(error),
            CatalogError::Pd(error) => RestoreError::Pd(error),
            CatalogError::Exists { name } => RestoreError::CreatedMeanwhile { name },
            error => RestoreError::Catalog(error),
        }
    }
}

/// Refuses a cluster that has databases of users with tables in them, or other databases than
/// `test`.
pub(super) async fn is_fresh(snapshot: &Snapshot) -> Result<(), RestoreError> {
    let mut existing = Vec::new();
    for db in br_catalog::databases(snapshot).await? {
        let lower = &db.info.name.lower;
        if schema::is_system_db(lower) || schema::is_memory_db(lower) {
            continue;
        }
        let mut tables = 0;
        br_catalog::tables(snapshot, db.info.id(), |_| {
            tables += 1;
            Ok(())
        })
        .await?;
        if lower != FRESH_DB || tables > 0 {
            existing.push(format!(
                "database {} with {tables} tables",
                db.info.name.original
            ));
        }
    }
    if existing.is_empty() {
        Ok(())
    } else {
        Err(RestoreError::NotFresh { existing })
    }
}

/// Finds the databases of the plan that exist already, and refuses tables that do, unless they are
/// those that an interrupted command of this restore made with `ids`.
pub(super) async fn find_existing(
    snapshot: &Snapshot,
    plan: &mut RestorePlan,
    ids: Option<&TableIdMap>,
) -> Result<(), RestoreError> {
    let known = br_catalog::databases(snapshot).await?;
    for planned in &mut plan.databases {
        let lower = planned.name.to_lowercase();
        let found = known.iter().find(|db| db.info.name.lower == lower);
        planned.existing = found.map(|db| db.info.id());
    }
    let (mut clashes, mut created) = (Vec::new(), HashSet::new());
    for (place, db) in plan.databases.iter().enumerate() {
        let Some(id) = db.existing else { continue };
        let wanted = plan.tables.iter().filter(|table| table.database == place);
        let wanted: HashMap<String, TableId> = wanted
            .map(|table| (table.name.to_lowercase(), table.old_id))
            .collect();
        br_catalog::tables(snapshot, id, |table| {
            let Some(old) = wanted.get(&table.info.name.lower) else {
                return Ok(());
            };
            match ids.and_then(|ids| ids.get(*old)) {
                Some(own) if own == table.info.id() => {
                    created.insert(*old);
                }
                _ => clashes.push(format!("{}.{}", db.name, table.info.name.original)),
            }
            Ok(())
        })
        .await?;
    }
    plan.created = created;
    if clashes.is_empty() {
        Ok(())
    } else {
        Err(RestoreError::TablesExist { tables: clashes })
    }
}

/// Refuses a sealed backup if a store would take what is sealed for damaged files.
pub(super) async fn stores_can_read(target: &RestoreTarget) -> Result<(), RestoreError> {
    if target.backend.is_sealed() {
        target.cluster.pd().check_sealing(SEALED_FORM).await?;
    }
    Ok(())
}

/// Refuses when a store's share of the data, with all its replicas, would not fit.
pub(super) async fn has_space(
    target: &RestoreTarget,
    stored_bytes: u64,
) -> Result<(), RestoreError> {
    let spaces = target.cluster.http().store_spaces().await?;
    let live = target.cluster.pd().live_stores().await?;
    let replicate = target.cluster.http().replicate_config().await?;
    let replicas = replicate
        .get("max-replicas")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or(3);
    let stores = live.len() as u64;
    let copies = replicas.min(stores.max(1));
    let needed_bytes = stored_bytes.saturating_mul(copies) / stores.max(1);
    let needed_bytes = needed_bytes + needed_bytes / 100 * RESERVED_PERCENT;
    for space in spaces {
        if live.iter().any(|store| StoreId(store.id) == space.id)
            && space.available_bytes < needed_bytes
        {
            return Err(RestoreError::NoSpace {
                store: space.id,
                available_bytes: space.available_bytes,
                needed_bytes,
            });
        }
    }
    Ok(())
}

/// Refuses a restore of tables into a cluster whose strings sort otherwise. A cluster on which no
/// TiDB was ever bootstrapped has no opinion.
pub(super) async fn collation_fits(
    snapshot: &Snapshot,
    of_backup: Option<bool>,
) -> Result<(), RestoreError> {
    let of_cluster = br_catalog::new_collations_enabled(snapshot).await?;
    match (of_backup, of_cluster) {
        (Some(backup), Some(cluster)) if backup != cluster => {
            Err(RestoreError::Collation { backup, cluster })
        }
        _ => Ok(()),
    }
}
