use std::{net::SocketAddr, path::PathBuf, time::Duration};

use br_cluster::{ClusterConfig, Security};
use br_codec::ApiVersion;
use br_embed::{Cluster, Options};
use br_log::advancer::{self, AdvancerConfig};
use br_rt::{CancellationToken, Task};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::{global_flags::GlobalFlags, session::Session};
use crate::{edge::Outcome, summary, value::Switch};

#[derive(Clone, Copy, ValueEnum)]
enum ApiVersionName {
    #[value(name = "1")]
    V1,
    #[value(name = "1ttl")]
    V1Ttl,
    #[value(name = "2")]
    V2,
}

/// `br playground`.
#[derive(Args)]
pub(super) struct PlaygroundCommand {
    /// How many stores.
    #[arg(long, default_value = "3", value_name = "N")]
    stores: usize,
    /// Where PD listens, on loopback; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:2379", value_name = "HOST:PORT")]
    pd_addr: SocketAddr,
    /// Where the data lies; without it, in a temporary folder that goes with the cluster.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Size of a region after a split.
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    region_split_size: ByteSize,
    /// Entries of a region after a split.
    #[arg(long, default_value = "2560000", value_name = "N")]
    region_split_keys: u64,
    /// Layout of raw data; a data folder keeps one for life.
    #[arg(long, value_enum, default_value = "1", value_name = "VERSION")]
    api_version: ApiVersionName,
    /// Coordinate log backup, as the TiDB servers of a cluster do.
    #[arg(long, default_value = "true")]
    log_coordinator: Switch,
    /// Print the ready line as JSON.
    #[arg(long)]
    json: bool,
}

/// The coordinator is beside its only cluster: a restart waits for its own old place, and people
/// watch.
const COORDINATOR_LEASE: Duration = Duration::from_secs(10);
/// How often it looks at everything; what stores tell of is published within a second.
const COORDINATOR_TICK: Duration = Duration::from_secs(3);
/// How long it may take to give its place away.
const COORDINATOR_END_LIMIT: Duration = Duration::from_secs(3);

impl PlaygroundCommand {
    /// `--ca`, `--cert` and `--key` are what the servers show and ask of clients.
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let security = global.cluster.security()?;
        let options = Options {
            stores: self.stores,
            pd_addr: self.pd_addr,
            data_dir: self.data_dir.clone(),
            region_split_size_bytes: self.region_split_size.as_u64(),
            region_split_keys: self.region_split_keys,
            api_version: match self.api_version {
                ApiVersionName::V1 => ApiVersion::V1,
                ApiVersionName::V1Ttl => ApiVersion::V1Ttl,
                ApiVersionName::V2 => ApiVersion::V2,
            },
            security: security.clone(),
            ..Options::new(session.rt.clone())
        };
        let cluster = Box::pin(Cluster::start(options)).await?;
        let coordinator = match self.log_coordinator.0 {
            true => Some(coordinate(&cluster.pd_addr(), security, session).await?),
            false => None,
        };
        summary::ready(&cluster, self.json);
        session.cancel.cancelled().await;
        if let Some(coordinator) = coordinator
            && let Err(error) = session.rt.timeout(COORDINATOR_END_LIMIT, coordinator).await
        {
            tracing::warn!(%error, "the coordinator of log backup did not end by itself");
        }
        cluster.stop().await;
        Ok(())
    }
}

/// Starts the coordinator of log backup. It knows the cluster by its address only.
async fn coordinate(pd_addr: &str, security: Security, session: &Session) -> Outcome<Task<()>> {
    let config = ClusterConfig::new(pd_addr, security);
    // It gives its place away after Ctrl-C, and needs its connections for that.
    let connected =
        br_cluster::Cluster::connect(session.rt.clone(), CancellationToken::new(), config).await?;
    let config = AdvancerConfig {
        tick_interval: COORDINATOR_TICK,
        lease_ttl: COORDINATOR_LEASE,
        ..AdvancerConfig::new(session.rt.uuid().to_string())
    };
    let cancel = session.cancel.clone();
    Ok(session
        .rt
        .spawn(async move { advancer::run(&connected, config, &cancel).await }))
}
