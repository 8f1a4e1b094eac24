//! # What it does
//! Waits until TiDB servers work with new schemas. They hear of a new version at once, and then load
//! everything; until they have, statements find the old tables.
//!
//! # Objects it reads and writes
//! Reads `/tidb/server/info/` in etcd, where servers register, and asks each at its status port.

use std::time::Duration;

use br_cluster::{Cluster, HttpError};
use br_rt::{Backoff, RetryPolicy};
use br_tidb::schema::is_system_db;
use br_types::TableId;
use futures::{StreamExt, stream};

use crate::{CatalogError, read};

/// How long a restore waits for servers: loading 100 000 tables takes them some ten seconds.
pub const LOAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two questions to one server.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Servers asked at a time.
const SERVERS_IN_FLIGHT: usize = 16;

/// A server that may still work with older schemas.
#[derive(Debug)]
pub struct LateServer {
    /// Its status address.
    pub address: String,
    /// Why it could not be asked; `None`: it was, and has not loaded them.
    pub error: Option<HttpError>,
}

/// Waits until every TiDB server has the schemas that there are now, at most `limit`. Gives those
/// that have not, or cannot be asked; none, if the cluster has no servers.
///
/// # Errors
/// PD or stores are out of reach.
pub async fn wait_until_loaded(
    cluster: &Cluster,
    limit: Duration,
) -> Result<Vec<LateServer>, CatalogError> {
    let servers = cluster.tidb_status().servers().await?;
    if servers.is_empty() {
        return Ok(Vec::new());
    }
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let version = read::schema_version(&snapshot).await?;
    let Some(table) = any_table(cluster).await? else {
        return Ok(Vec::new());
    };
    let late: Vec<_> = stream::iter(servers)
        .map(|address| wait_for(cluster, address, version, table, limit))
        .buffer_unordered(SERVERS_IN_FLIGHT)
        .collect()
        .await;
    Ok(late.into_iter().flatten().collect())
}

/// A table that is there in any version, so a system's if there is one.
async fn any_table(cluster: &Cluster) -> Result<Option<TableId>, CatalogError> {
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let mut databases = read::databases(&snapshot).await?;
    databases.sort_by_key(|db| !is_system_db(&db.info.name.lower));
    for db in databases {
        let mut first = None;
        let visited = read::tables(&snapshot, db.info.id(), |table| {
            first.get_or_insert(table.info.id());
            Ok(())
        });
        visited.await?;
        if first.is_some() {
            return Ok(first);
        }
    }
    Ok(None)
}

async fn wait_for(
    cluster: &Cluster,
    address: String,
    version: i64,
    table: TableId,
    limit: Duration,
) -> Option<LateServer> {
    let policy = RetryPolicy {
        pause_min: Duration::from_millis(20),
        pause_max: PAUSE_MAX,
        attempts_max: u32::MAX,
        elapsed_max: limit,
    };
    let status = cluster.tidb_status();
    let mut backoff = Backoff::new(policy, cluster.rt());
    loop {
        let error = match status.schema_version(&address, table).await {
            Ok(Some(loaded)) if loaded >= version => return None,
            Ok(_) => None,
            Err(error) => Some(error),
        };
        // One that is not to be reached from here will not be a moment later.
        if error.is_some() || !backoff.pause(cluster.rt(), cluster.cancel()).await {
            return Some(LateServer { address, error });
        }
    }
}
