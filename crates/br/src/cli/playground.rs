use std::{net::SocketAddr, path::PathBuf};

use br_codec::ApiVersion;
use br_embed::{Cluster, Options};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use super::session::Session;
use crate::{edge::Outcome, summary};

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
    /// Print the ready line as JSON.
    #[arg(long)]
    json: bool,
}

impl PlaygroundCommand {
    pub(super) async fn run(&self, session: &Session) -> Outcome {
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
            ..Options::new(session.rt.clone())
        };
        let cluster = Box::pin(Cluster::start(options)).await?;
        summary::ready(&cluster, self.json);
        session.cancel.cancelled().await;
        cluster.stop().await;
        Ok(())
    }
}
