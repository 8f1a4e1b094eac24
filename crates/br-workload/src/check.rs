//! Compares a cluster with the model, key by key and value by value.

use std::collections::BTreeMap;

use br_cluster::{Cluster, Snapshot};
use br_tidb::table_key;
use br_types::{RawKey, TableId, TimeStamp};

use crate::{
    model::{Entries, Model},
    run::WorkloadError,
};

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Tables.
    pub tables: usize,
    /// Keys and values that were equal: records and index entries.
    pub entries: usize,
}

/// Compares the tables of `database` as they are in the cluster at `cluster_ts` with the model at
/// `model_ts`. Tables are matched by name, so that they may have other ids than in the model.
///
/// # Errors
/// [`WorkloadError::Differs`] with the first difference.
pub async fn check(
    cluster: &Cluster,
    database: &str,
    model: &Model,
    model_ts: TimeStamp,
    cluster_ts: TimeStamp,
) -> Result<Checked, WorkloadError> {
    let snapshot = cluster.snapshot(cluster_ts);
    let differs = |table: &str, what: String| WorkloadError::Differs {
        table: format!("{database}.{table}"),
        what,
    };
    let databases = br_catalog::databases(&snapshot).await?;
    let Some(db) = databases
        .iter()
        .find(|db| db.info.name.original == database)
    else {
        return Err(differs("*", "the database is missing".to_owned()));
    };
    let mut found = BTreeMap::new();
    br_catalog::tables(&snapshot, db.info.id(), |table| {
        found.insert(table.info.name.original.clone(), table.info);
        Ok(())
    })
    .await?;
    let expected = model.entries_at(model_ts);
    let mut checked = Checked::default();
    for (_, table) in model.tables_at(model_ts) {
        let Some(info) = found.remove(&table.name) else {
            return Err(differs(&table.name, "the table is missing".to_owned()));
        };
        let (old, new) = (table.physical_ids(), info.physical_ids());
        if old.len() != new.len() {
            return Err(differs(
                &table.name,
                format!("it has {} partitions", new.len()),
            ));
        }
        for (old, new) in old.into_iter().zip(new) {
            let none = Entries::new();
            let expected = expected.get(&old).unwrap_or(&none);
            checked.entries += compare(&snapshot, expected, old, new)
                .await?
                .map_err(|what| differs(&table.name, what))?;
        }
        checked.tables += 1;
    }
    if let Some(name) = found.into_keys().next() {
        return Err(differs(&name, "no such table was made".to_owned()));
    }
    Ok(checked)
}

/// Compares one physical table. Gives the number of equal entries, or the first difference.
async fn compare(
    snapshot: &Snapshot,
    expected: &BTreeMap<RawKey, Vec<u8>>,
    old: TableId,
    new: TableId,
) -> Result<Result<usize, String>, WorkloadError> {
    let (old_prefix, new_prefix) = (table_key::table_prefix(old), table_key::table_prefix(new));
    let mut scan = snapshot.scan(&table_key::table_range(new));
    let mut wanted = expected.iter();
    let mut equal = 0;
    loop {
        let found = scan.next().await?.map(|(key, value)| {
            let rest = key.as_bytes().get(new_prefix.len()..).unwrap_or_default();
            (RawKey::new([old_prefix.as_bytes(), rest].concat()), value)
        });
        match (found, wanted.next()) {
            (None, None) => return Ok(Ok(equal)),
            (Some((key, _)), None) => return Ok(Err(format!("key {key} should not be there"))),
            (None, Some((key, _))) => return Ok(Err(format!("key {key} is missing"))),
            (Some((key, _)), Some((expected, _))) if key < *expected => {
                return Ok(Err(format!("key {key} should not be there")));
            }
            (Some((key, _)), Some((expected, _))) if key > *expected => {
                return Ok(Err(format!("key {expected} is missing")));
            }
            (Some((key, value)), Some((_, expected))) if value != *expected => {
                return Ok(Err(format!("key {key} has another value")));
            }
            _ => equal += 1,
        }
    }
}
