use br_cluster::Cluster;

/// Waits until TiDB sees what was restored, for a while. Whether it does changes nothing of what the
/// cluster has.
pub(super) async fn wait_until_loaded(cluster: &Cluster) {
    let late = match br_catalog::wait_until_loaded(cluster, br_catalog::LOAD_WAIT_MAX).await {
        Ok(late) => late,
        Err(error) => {
            tracing::warn!(%error, "whether TiDB has loaded the restored schemas is not known");
            return;
        }
    };
    for server in late {
        let address = server.address;
        match server.error {
            None => {
                let waited_seconds = br_catalog::LOAD_WAIT_MAX.as_secs();
                tracing::warn!(
                    address,
                    waited_seconds,
                    "this TiDB has not loaded the restored schemas yet, and will"
                );
            }
            Some(error) => tracing::warn!(
                address,
                %error,
                "this TiDB cannot be asked whether it has loaded the restored schemas; it does within \
                 half of its lease"
            ),
        }
    }
}
