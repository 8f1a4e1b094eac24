//! One cluster, on its own engine and metadata in memory, and a client that knows it by PD's address
//! only.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use br_cluster::{Cluster, ClusterConfig, Security};
use br_embed::{Options, Parts, pd::meta_kv::MemoryKv};
use br_rt::{CancellationToken, Rt};
use br_store::engine::memory::MemoryEngine;
use br_types::TimeStamp;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use tempfile::TempDir;

/// How long a cluster that died needs to come back.
const RESTART: Duration = Duration::from_millis(500);

/// A cluster and its client.
pub(crate) struct World {
    pub(crate) client: Cluster,
    embedded: Option<br_embed::Cluster>,
    options: Options,
    parts: Parts,
    engine: Arc<MemoryEngine>,
    _scratch: TempDir,
}

impl World {
    pub(crate) async fn start(mut options: Options) -> Result<World> {
        let scratch = tempfile::tempdir()?;
        let engine = Arc::new(MemoryEngine::new(scratch.path()));
        let parts = Parts {
            engine: engine.clone(),
            meta: Arc::new(MemoryKv::default()),
        };
        let started = br_embed::Cluster::start_on(options.clone(), parts.clone());
        let embedded = Box::pin(started).await?;
        let address: SocketAddr = embedded.pd_addr().parse().context("PD's address")?;
        // Whoever knew it finds it again after a restart.
        options.pd_addr = address;
        let config = ClusterConfig::new(&address.to_string(), Security::default());
        let client = Cluster::connect(options.rt.clone(), CancellationToken::new(), config);
        Ok(World {
            client: client.await?,
            embedded: Some(embedded),
            options,
            parts,
            engine,
            _scratch: scratch,
        })
    }

    pub(crate) fn rt(&self) -> &Rt {
        &self.options.rt
    }

    pub(crate) fn pd_address(&self) -> SocketAddr {
        self.options.pd_addr
    }

    /// The cluster; none for the moment of a restart.
    pub(crate) fn embedded(&self) -> Option<&br_embed::Cluster> {
        self.embedded.as_ref()
    }

    /// The engine under all stores.
    pub(crate) fn engine(&self) -> &MemoryEngine {
        &self.engine
    }

    pub(crate) async fn now(&self) -> Result<TimeStamp> {
        Ok(self.client.pd().tso().await?)
    }

    /// PD and all stores die and come back.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        // Dropped: nothing is told, nothing is finished.
        self.embedded = None;
        self.rt().sleep(RESTART).await;
        let started = br_embed::Cluster::start_on(self.options.clone(), self.parts.clone());
        self.embedded = Some(Box::pin(started).await?);
        Ok(())
    }
}

/// Clusters of all kinds: small regions, one store or three, log backup at a fast pace.
pub(crate) fn draw_options(rt: &Rt, rng: &mut StdRng) -> Options {
    let mut options = Options::new(rt.clone());
    options.region_split_keys = rng.random_range(50..400);
    options.region_split_size_bytes = rng.random_range(16 << 10..256 << 10);
    options.stores = *[1, 3, 3].choose(rng).unwrap_or(&3);
    if rng.random() {
        // One file at a time.
        options.store.import_memory_bytes_max = 1;
    }
    let log = &mut options.store.log_backup;
    log.min_flush_interval = Duration::from_millis(rng.random_range(500..3000));
    log.file_size_limit_bytes = rng.random_range(4 << 10..4 << 20);
    // Some records go through temporary files.
    log.temp_memory_bytes_max = *[64 << 10, 16 << 20].choose(rng).unwrap_or(&(16 << 20));
    options
}
