//! # What it does
//! Lets stores upload now what they have of the log, rather than at their next flush.
//!
//! It is no barrier for writes made just before: whoever needs those waits until the checkpoint has
//! passed a timestamp taken after them.

use std::time::Duration;

use br_cluster::{Cluster, KvError, PdError};
use br_proto::{logbackup as pb, metapb};
use br_types::StoreId;
use futures::{StreamExt as _, stream};

/// A flush uploads what has come together since the last one, some hundred MiB at most.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);
/// Stores that flush at once.
const STORES_MAX: usize = 64;

/// What came of the flush of one store.
#[derive(Debug)]
pub struct StoreFlush {
    /// The store.
    pub store: StoreId,
    /// Its address.
    pub address: String,
    /// The tasks that were flushed, or why nothing was.
    pub result: Result<Vec<TaskFlush>, KvError>,
}

/// What came of the flush of one task on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFlush {
    /// The name of the task.
    pub task: String,
    /// Why it failed, in the store's words; `None` if it did not.
    pub error: Option<String>,
}

/// Flushes the stores that `choose` takes by their addresses.
///
/// # Errors
/// PD is out of reach. A store that fails is part of the result.
pub async fn flush_now(
    cluster: &Cluster,
    choose: impl Fn(&str) -> bool,
) -> Result<Vec<StoreFlush>, PdError> {
    let mut stores = cluster.pd().live_stores().await?;
    stores.retain(|store| choose(&store.address));
    stores.sort_by_key(|store| store.id);
    let flushes: Vec<_> = stores
        .iter()
        .map(|store| async move {
            StoreFlush {
                store: StoreId(store.id),
                address: store.address.clone(),
                result: flush_store(cluster, store).await,
            }
        })
        .collect();
    Ok(stream::iter(flushes).buffered(STORES_MAX).collect().await)
}

async fn flush_store(cluster: &Cluster, store: &metapb::Store) -> Result<Vec<TaskFlush>, KvError> {
    let client = cluster.stores().client_of(store).await?;
    let mut stub = client.log_backup();
    let answer = client
        .call("FlushNow", FLUSH_LIMIT, async move {
            stub.flush_now(pb::FlushNowRequest {}).await
        })
        .await?;
    let results = answer.results.into_iter();
    Ok(results
        .map(|result| TaskFlush {
            task: result.task_name,
            error: (!result.success).then_some(result.error_message),
        })
        .collect())
}
