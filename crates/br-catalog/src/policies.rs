//! Placement policies: meta keys of the cluster as a whole, matched by name.

use std::collections::BTreeMap;

use br_cluster::{Cluster, Snapshot};
use br_tidb::{
    meta_key,
    schema::{PolicyInfo, patch::policy_with_id},
};

use crate::{
    CatalogError,
    create::{announce, commit_with_retry, raise_version},
    read,
};

/// Creates those placement policies, each TiDB's JSON, that the cluster does not have, all or
/// nothing. Gives the ids of all policies of the cluster by name in lower case.
///
/// # Errors
/// [`CatalogError`].
pub async fn create_policies(
    cluster: &Cluster,
    wanted: &[Vec<u8>],
) -> Result<BTreeMap<String, i64>, CatalogError> {
    let (ids, version) = commit_with_retry(cluster, async |txn| {
        let mut ids = policies(txn.snapshot()).await?;
        let counter = meta_key::string_key(meta_key::POLICY_GLOBAL_ID);
        let before = read::number(txn.snapshot(), &counter).await?;
        let mut last = before;
        for json in wanted {
            let bad = |source| CatalogError::Schema {
                name: "a placement policy".to_owned(),
                source,
            };
            let policy = PolicyInfo::parse(json).map_err(bad)?;
            if ids.contains_key(&policy.name.lower) {
                continue;
            }
            last += 1;
            let json = policy_with_id(&String::from_utf8_lossy(json), last).map_err(bad)?;
            let mut value = vec![meta_key::POLICY_MAGIC];
            value.extend_from_slice(json.as_bytes());
            let field = meta_key::policy_field(last);
            txn.put(meta_key::hash_key(meta_key::POLICIES, &field), value)?;
            ids.insert(policy.name.lower, last);
        }
        if last == before {
            return Ok((ids, None));
        }
        txn.put(counter, last.to_string().into_bytes())?;
        Ok((ids, Some(raise_version(txn).await?)))
    })
    .await?;
    if let Some(version) = version {
        announce(cluster, version).await;
    }
    Ok(ids)
}

/// The ids of the cluster's policies, by name in lower case.
async fn policies(snapshot: &Snapshot) -> Result<BTreeMap<String, i64>, CatalogError> {
    let mut scan = snapshot.scan(&meta_key::hash_range(meta_key::POLICIES));
    let mut ids = BTreeMap::new();
    while let Some((key, value)) = scan.next().await? {
        let json = value
            .strip_prefix(&[meta_key::POLICY_MAGIC])
            .ok_or_else(|| CatalogError::damaged(&key, "it is no placement policy"))?;
        let policy = PolicyInfo::parse(json).map_err(|source| CatalogError::Schema {
            name: format!("key {key}"),
            source,
        })?;
        ids.insert(policy.name.lower, policy.id);
    }
    Ok(ids)
}
