//! Whether what the user names is what the cases need.

use std::process::Command;

use br_cluster::Cluster;

use super::{named, own, snapshot, sql::Sql};

/// Looks at the stores, and at the TiDB and the official tool if they are named.
///
/// # Errors
/// A sentence for the user.
pub(super) async fn check(cluster: &Cluster) -> Result<(), String> {
    for store in cluster.pd().live_stores().await.unwrap() {
        let config = cluster.store_status().config(&store.status_address).await;
        if config.is_ok_and(|config| config.api_version == Some(2)) {
            return Err(
                "the stores have API version 2, and the cases are for version 1".to_owned(),
            );
        }
    }
    if let Some(address) = named("E2E_TIDB") {
        check_tidb(cluster, &address).await?;
    }
    if let Some(path) = named("E2E_OFFICIAL_BR") {
        if named("E2E_TIDB").is_none() {
            return Err("OFFICIAL_BR takes part in the cases with SQL: name TIDB too".to_owned());
        }
        check_official(&path)?;
    }
    Ok(())
}

async fn check_tidb(cluster: &Cluster, address: &str) -> Result<(), String> {
    // Not the whole of it, there may be a password.
    let shown = address.rsplit('@').next().unwrap_or_default();
    let mut sql = match Sql::connect(address).await {
        Ok(sql) => sql,
        Err(error) => return Err(format!("TIDB={shown} cannot be used: {error}")),
    };
    let probe = own("probe");
    sql.run(&format!("CREATE DATABASE IF NOT EXISTS {probe}"))
        .await;
    let databases = br_catalog::databases(&snapshot(cluster).await)
        .await
        .unwrap();
    sql.run(&format!("DROP DATABASE {probe}")).await;
    let is_ours = databases.iter().any(|db| db.info.name.lower == probe);
    match is_ours {
        true => Ok(()),
        false => Err(format!("TIDB={shown} belongs to another cluster than PD")),
    }
}

fn check_official(path: &str) -> Result<(), String> {
    let done = Command::new(path).arg("--version").output();
    let done = done.map_err(|error| format!("OFFICIAL_BR={path} cannot be run: {error}"))?;
    let said =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    match said.contains("Git Commit Hash") {
        true => Ok(()),
        false => Err(format!("OFFICIAL_BR={path} is not the official br")),
    }
}
