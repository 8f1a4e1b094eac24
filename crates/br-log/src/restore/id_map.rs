use br_cluster::Cluster;
use br_format::log::{
    id_map::{DbIds, IdPair, RestoredIds, TableIds},
    names,
};
use br_snapshot::restore::RestorePlan;
use br_storage::Storage;
use br_types::{ClusterId, TableId, TimeStamp};

use super::error::PointError;

/// The ids that tables of a log have in a cluster that it was restored to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap(pub(crate) RestoredIds);

impl IdMap {
    /// The ids of a plan that was carried out.
    pub(crate) fn of_plan(plan: &RestorePlan) -> IdMap {
        let mut dbs: Vec<DbIds> = plan
            .databases
            .iter()
            .map(|db| DbIds {
                name: db.name.clone(),
                id: IdPair {
                    upstream: db.old_id.0,
                    downstream: db
                        .existing
                        .or_else(|| {
                            plan.ids
                                .get(TableId(db.old_id.0))
                                .map(|id| br_types::DbId(id.0))
                        })
                        .unwrap_or_default()
                        .0,
                },
                tables: Vec::new(),
                filtered_out: false,
                reused: db.existing.is_some(),
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

    /// Saves them for a restore that goes on from `restored_ts`.
    ///
    /// # Errors
    /// The storage's.
    pub(crate) async fn save(
        &self,
        storage: &Storage,
        cluster: ClusterId,
        restored_ts: TimeStamp,
    ) -> Result<(), PointError> {
        let name = names::id_map(cluster, restored_ts);
        Ok(storage.write(&name, self.0.encode()).await?)
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
