use br_cluster::Cluster;
use br_format::log::{
    id_map::{DbIds, IdPair, RestoredIds, TableIds},
    names,
};
use br_snapshot::restore::RestorePlan;
use br_storage::Storage;
use br_types::{DbId, TableId, TimeStamp};

use super::{error::PointError, options::PointTarget};

/// Keeps the ids of a restore for one that goes on from `restored_ts`. Without them only that is
/// refused, so failing is told.
pub(super) async fn keep(target: &PointTarget, ids: &[u8], restored_ts: TimeStamp) {
    let name = names::id_map(target.cluster.id(), restored_ts);
    if let Err(error) = target.log.write(&name, ids.to_vec()).await {
        tracing::warn!(%error, "ids were not saved: no restore can go on from this one");
    }
}

/// Removes the ids that were kept of a restore into that cluster, if all of them are of those: it was
/// given up, and nothing can go on from it.
///
/// # Errors
/// The storage's, or they are damaged.
pub async fn forget_ids(
    log: &Storage,
    cluster: &Cluster,
    restored_ts: TimeStamp,
    ids: &std::ops::Range<i64>,
) -> Result<bool, PointError> {
    let kept = match IdMap::load(log, cluster, restored_ts).await {
        Ok(IdMap(kept)) => kept,
        Err(PointError::NoBase(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut tables = kept.dbs.iter().flat_map(|db| &db.tables);
    if !tables.all(|table| ids.contains(&table.id.downstream)) {
        return Ok(false);
    }
    log.delete(&names::id_map(cluster.id(), restored_ts))
        .await?;
    Ok(true)
}

/// The ids that tables of a log have in a cluster that it was restored to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap(pub(crate) RestoredIds);

impl IdMap {
    /// The ids of a plan that was carried out.
    pub(crate) fn of_plan(plan: &RestorePlan) -> IdMap {
        // One that an interrupted command made exists by then, and is new all the same.
        let owned = plan.ids.owned();
        let is_reused = |id: DbId| !owned.contains(&id.0);
        let mut dbs: Vec<DbIds> = plan
            .databases
            .iter()
            .map(|db| DbIds {
                name: db.name.clone(),
                id: IdPair {
                    upstream: db.old_id.0,
                    downstream: db
                        .existing
                        .or_else(|| plan.ids.get(TableId(db.old_id.0)).map(|id| DbId(id.0)))
                        .unwrap_or_default()
                        .0,
                },
                tables: Vec::new(),
                filtered_out: false,
                reused: db.existing.is_some_and(is_reused),
            })
            .collect();
        let pair = |old: TableId| IdPair {
            upstream: old.0,
            downstream: plan.ids.get(old).unwrap_or(old).0,
        };
        for table in &plan.tables {
            let partitions = table.old_physical_ids.iter();
            let partitions = partitions.filter(|id| **id != table.old_id);
            let ids = TableIds {
                name: table.name.clone(),
                id: pair(table.old_id),
                partitions: partitions.map(|id| pair(*id)).collect(),
                filtered_out: false,
            };
            if let Some(db) = dbs.get_mut(table.database) {
                db.tables.push(ids);
            }
        }
        IdMap(RestoredIds { dbs })
    }

    /// The bytes of the object.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    /// Reads those of the restore that ended at `start_ts`.
    ///
    /// # Errors
    /// There are none, or they are damaged.
    pub(crate) async fn load(
        storage: &Storage,
        cluster: &Cluster,
        start_ts: TimeStamp,
    ) -> Result<IdMap, PointError> {
        let name = names::id_map(cluster.id(), start_ts);
        match storage.read(&name).await {
            Ok(bytes) => Ok(IdMap(RestoredIds::decode(&name, &bytes)?)),
            Err(error) if error.is_not_found() => Err(PointError::NoBase(format!(
                "no restore into cluster {} is known that ended at {start_ts}",
                cluster.id()
            ))),
            Err(error) => Err(error.into()),
        }
    }
}
