use std::time::Duration;

use br_cluster::{Cluster, StoreStatus};
use br_proto::metapb;
use futures::{StreamExt as _, stream};

/// Stores that are asked at once.
const STORES_MAX: usize = 16;
/// Time between the two readings.
const READING_INTERVAL: Duration = Duration::from_secs(1);
/// The counters that versions of stores have of the records that they took over.
const COUNTERS: [&str; 2] = [
    "tikv_log_backup_handle_kv_batch_sum ",
    "tikv_stream_handle_kv_batch_sum ",
];

/// Records a second that all stores log; stores that cannot be asked count as still.
pub(super) async fn events_per_second(cluster: &Cluster) -> f64 {
    let stores = match cluster.pd().live_stores().await {
        Ok(stores) => stores,
        Err(error) => {
            tracing::warn!(%error, "the speed is not known");
            return 0.0;
        }
    };
    let before = counts(cluster, &stores).await;
    let started = cluster.rt().now();
    cluster.rt().sleep(READING_INTERVAL).await;
    let after = counts(cluster, &stores).await;
    let elapsed = cluster.rt().now().since(started).as_secs_f64();
    let grown: f64 = before
        .iter()
        .zip(&after)
        .filter_map(|(before, after)| Some((after.as_ref()? - before.as_ref()?).max(0.0)))
        .sum();
    grown / elapsed.max(f64::MIN_POSITIVE)
}

async fn counts(cluster: &Cluster, stores: &[metapb::Store]) -> Vec<Option<f64>> {
    let requests: Vec<_> = stores
        .iter()
        .map(|store| count(cluster.store_status(), store.status_address.clone()))
        .collect();
    stream::iter(requests).buffered(STORES_MAX).collect().await
}

async fn count(status: StoreStatus, address: String) -> Option<f64> {
    match status.metrics(&address).await {
        Ok(text) => read_counter(&text),
        Err(error) => {
            tracing::warn!(%error, "the speed of a store is not known");
            None
        }
    }
}

fn read_counter(metrics: &str) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let mut counters = COUNTERS.iter();
        counters.find_map(|name| line.strip_prefix(name)?.trim().parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_of_either_version() {
        let text = "# HELP x y\ntikv_log_backup_handle_kv_batch_bucket{le=\"1\"} 5\n\
                    tikv_log_backup_handle_kv_batch_sum 1234\n";
        assert_eq!(read_counter(text), Some(1234.0));
        assert_eq!(
            read_counter("tikv_stream_handle_kv_batch_sum 7.5"),
            Some(7.5)
        );
        assert_eq!(read_counter("something_else 1"), None);
    }
}
