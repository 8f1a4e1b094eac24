//! A whole cluster in one process.
//!
//! # What it does
//! Starts PD and stores on loopback ports over one engine, and changes them as a test or an
//! operator would: stores that fail and come back, leaders that move, regions that split and merge.
//!
//! # Objects it reads and writes
//! The data folder: `LOCK.cluster` (who uses it), the engine's and PD's files. In PD's store
//! `cluster_api_version`: the layout of raw data.
//!
//! # Cancellation
//! [`Cluster::stop`] ends cleanly; dropping a cluster cuts it off, as the death of the process
//! would.
//!
//! # After a crash
//! Whatever was acknowledged is there at the next start: transactions, regions, leaders,
//! timestamps, safe points, etcd keys. Every store is up then.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use br_cluster::{ClusterConfig, Security};
use br_codec::{ApiVersion, key};
use br_rt::{CancellationToken, Listener, Rt, Task};
use br_storage::Faults;
use br_store::{
    Importer, StoreConfig, StoreContext,
    engine::{Engine, RangeSize},
    log_backup::LogBackup,
    storage::Storage,
    topology::RegionState,
};
use br_types::{EncodedKey, KeyRange, RegionId, StoreId};
use tokio_rustls::rustls::ServerConfig;

mod disk;
mod error;
mod lock_file;
mod log_backup;
mod options;
mod splitter;
mod status;

pub use error::ClusterError;
pub use lock_file::LockFileError;
pub use options::{Options, STORES_MAX};

use self::{
    lock_file::LockFile,
    splitter::{SplitLimits, Splitter},
    status::StoreStatus,
};
use crate::{
    pd::{
        self, Pd, REPLICAS, Sizes,
        meta_kv::{MetaBatch, MetaKv},
        regions::RegionsError,
        stores::{StoreInfo, StoreRecord},
    },
    server::{Server, Services},
};

/// Time between looks whether the safe point has moved.
const GC_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait for requests that still use the engine when a cluster stops.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
const CLOSE_TICK: Duration = Duration::from_millis(2);
/// SST files that an import rewrites at the same time.
const REWRITES_MAX: usize = 4;

const API_VERSION_KEY: &[u8] = b"cluster_api_version";

/// What a cluster runs on. Both outlive it: starting again on the same parts is a restart.
#[derive(Clone)]
pub struct Parts {
    /// Where the data of all stores lies.
    pub engine: Arc<dyn Engine>,
    /// Where PD keeps what it knows.
    pub meta: Arc<dyn MetaKv>,
}

/// A cluster at work.
pub struct Cluster {
    shared: Shared,
    pd_server: Option<Server>,
    stores: Mutex<BTreeMap<StoreId, RunningStore>>,
    background: Vec<Task<()>>,
    cancel: CancellationToken,
    /// The engine, if nobody else has it; to know when it has closed.
    own_engine: Option<Weak<dyn Engine>>,
    // After everything that uses the folder: fields are dropped in their order.
    lock: Option<LockFile>,
}

/// What all stores work with.
struct Shared {
    rt: Rt,
    pd: Arc<Pd>,
    storage: Storage,
    importer: Arc<Importer>,
    config: Arc<StoreConfig>,
    limits: SplitLimits,
    log_faults: Faults,
    security: Security,
    tls: Option<Arc<ServerConfig>>,
}

struct RunningStore {
    server: Server,
    status: Server,
    log_backup: Option<LogBackup>,
    /// [`RunningStore::log_backup`] at work; dropped, it ends.
    log_backup_task: Option<Task<()>>,
}

/// How much lies where, as the engine estimates it.
struct EngineSizes(Arc<dyn Engine>);

impl Sizes for EngineSizes {
    fn of(&self, range: &KeyRange<EncodedKey>) -> RangeSize {
        self.0.approximate_size(&key::data_range(range))
    }

    fn disk_space(&self) -> (u64, u64) {
        self.0.disk_space()
    }
}

impl Cluster {
    /// Starts a cluster on its data folder.
    ///
    /// # Errors
    /// [`ClusterError`]; nothing is left running then.
    pub async fn start(options: Options) -> Result<Cluster, ClusterError> {
        options.check()?;
        let folder = options.data_dir.clone();
        let opened = options.rt.blocking(move || match &folder {
            Some(path) => disk::open(path).map(|(parts, lock)| (parts, Some(lock))),
            None => disk::open_temporary().map(|parts| (parts, None)),
        });
        let (parts, lock) = opened.await?;
        let engine = Arc::downgrade(&parts.engine);
        let mut cluster = Self::run(options, parts, lock).await?;
        cluster.own_engine = Some(engine);
        Ok(cluster)
    }

    /// Starts a cluster on parts that the caller keeps: `data_dir` is of no meaning then.
    ///
    /// # Errors
    /// [`ClusterError`]; nothing is left running then.
    pub async fn start_on(options: Options, parts: Parts) -> Result<Cluster, ClusterError> {
        options.check()?;
        Self::run(options, parts, None).await
    }

    async fn run(
        options: Options,
        parts: Parts,
        lock: Option<LockFile>,
    ) -> Result<Cluster, ClusterError> {
        let listener = bind(&options.rt, options.pd_addr).await?;
        let rt = options.rt.clone();
        let path = options
            .data_dir
            .as_deref()
            .unwrap_or(Path::new("in memory"));
        check_api_version(&*parts.meta, path, options.api_version)?;
        let replicas = options.stores.min(REPLICAS);
        let sizes = Arc::new(EngineSizes(parts.engine.clone()));
        let pd = Arc::new(Pd::open(rt.clone(), parts.meta.clone(), sizes, replicas)?);
        let ids = store_ids(&pd, path, options.stores)?;
        let storage = Storage::new(
            rt.clone(),
            parts.engine.clone(),
            pd.clone(),
            options.api_version,
        );
        let (engine, memory) = (parts.engine.clone(), options.store.import_memory_bytes_max);
        let importer = Importer::open(rt.clone(), engine, REWRITES_MAX, memory);
        let importer = importer.map_err(|source| ClusterError::Io {
            path: parts.engine.scratch_dir().to_owned(),
            source,
        })?;
        let limits = SplitLimits {
            size_bytes: options.region_split_size_bytes,
            keys: options.region_split_keys,
        };
        let mut cluster = Cluster {
            shared: Shared {
                rt,
                pd: pd.clone(),
                storage,
                importer: Arc::new(importer),
                config: Arc::new(options.store),
                limits,
                log_faults: options.log_faults,
                tls: options.security.server()?,
                security: options.security,
            },
            pd_server: None,
            stores: Mutex::default(),
            background: Vec::new(),
            cancel: CancellationToken::new(),
            own_engine: None,
            lock,
        };
        for id in ids {
            let store = cluster.shared.start_store(id, options.pd_addr).await?;
            cluster.stores().insert(id, store);
        }
        pd.bootstrap()?;
        cluster.start_background(parts.engine);
        let address = listener.local_addr();
        let failed = |source| ClusterError::Listen {
            address: options.pd_addr,
            source,
        };
        let address = address.map_err(failed)?;
        pd.set_url(format!("{}://{address}", cluster.shared.security.scheme()));
        let services = pd::server::services(&pd);
        let Shared { rt, tls, .. } = &cluster.shared;
        let server = Server::start(rt, listener, services, tls.clone()).map_err(failed)?;
        cluster.pd_server = Some(server);
        for store in cluster.stores().values_mut() {
            cluster.start_log_backup(store);
        }
        Ok(cluster)
    }

    /// Puts the log backup of a store to work.
    fn start_log_backup(&self, store: &mut RunningStore) {
        if let Some(log_backup) = store.log_backup.clone() {
            let Shared { rt, security, .. } = &self.shared;
            let config = ClusterConfig::new(&self.pd_addr(), security.clone());
            store.log_backup_task = Some(log_backup::start(rt, &self.cancel, config, log_backup));
        }
    }

    fn start_background(&mut self, engine: Arc<dyn Engine>) {
        let Shared {
            rt,
            pd,
            limits,
            storage,
            ..
        } = &self.shared;
        let splitter = Splitter {
            rt: rt.clone(),
            pd: pd.clone(),
            engine,
            limits: *limits,
            smaller: BTreeMap::new(),
        };
        let (storage, cancel) = (storage.clone(), self.cancel.clone());
        self.background = vec![
            rt.spawn(pd.clone().run_background()),
            rt.spawn(splitter.run()),
            rt.spawn(async move { storage.run_gc(GC_INTERVAL, cancel).await }),
        ];
    }

    /// `host:port` of PD.
    pub fn pd_addr(&self) -> String {
        let address = self.pd_server.as_ref().map(Server::address);
        address.map_or_else(String::new, |address| address.to_string())
    }

    /// The stores as PD knows them, by id.
    pub fn store_infos(&self) -> Vec<StoreInfo> {
        self.shared.pd.stores.all()
    }

    /// PD itself: timestamps, safe points, settings, the table of regions.
    pub fn pd(&self) -> &Arc<Pd> {
        &self.shared.pd
    }

    /// Transactions and raw key-value, without the network.
    pub fn storage(&self) -> &Storage {
        &self.shared.storage
    }

    /// Every region, in key order.
    pub fn regions(&self) -> Vec<RegionState> {
        self.shared.pd.regions.all()
    }

    /// The region that holds a key.
    pub fn region_of(&self, key: &EncodedKey) -> Option<RegionState> {
        self.shared.pd.regions.find(key)
    }

    /// Moves the leader of a region to its peer on a store.
    ///
    /// # Errors
    /// [`ClusterError::Regions`].
    pub fn transfer_leader(&self, region: RegionId, to: StoreId) -> Result<(), ClusterError> {
        Ok(self.shared.pd.regions.transfer_leader(region, to)?)
    }

    /// Splits at keys, each in the region that holds it; a key that is a bound already is left out.
    /// Gives all regions that came of it.
    ///
    /// # Errors
    /// [`ClusterError::Regions`]; splits at the keys before are done.
    pub fn split_at(&self, keys: &[EncodedKey]) -> Result<Vec<RegionState>, ClusterError> {
        let mut made = Vec::new();
        for key in keys {
            let Some(state) = self.region_of(key) else {
                continue;
            };
            if state.region.start_key == key.as_bytes() {
                continue;
            }
            let version = state.region.region_epoch.unwrap_or_default().version;
            let parts =
                self.shared
                    .pd
                    .regions
                    .split(state.id(), version, std::slice::from_ref(key));
            made.extend(parts.map_err(RegionsError::Region)?);
        }
        Ok(made)
    }

    /// Merges a region into its neighbour.
    ///
    /// # Errors
    /// [`ClusterError::Regions`].
    pub fn merge(&self, source: RegionId, target: RegionId) -> Result<RegionState, ClusterError> {
        Ok(self.shared.pd.regions.merge(source, target)?)
    }

    /// Lets a store fail: its connections are cut, its port is closed, its leaders move. Nothing
    /// happens to one that is down.
    ///
    /// # Errors
    /// [`ClusterError::NoStore`], [`ClusterError::Meta`].
    pub fn kill_store(&self, id: StoreId) -> Result<(), ClusterError> {
        if self.shared.pd.stores.get(id).is_none() {
            return Err(ClusterError::NoStore(id));
        }
        // First the leaders: no request may find a leader that is gone and stays.
        let moved = self.shared.pd.store_down(id);
        if let Some(store) = self.stores().remove(&id) {
            store.server.kill();
            store.status.kill();
        }
        tracing::info!(store = id.0, leaders = moved?, "a store is down");
        Ok(())
    }

    /// Brings a store back that was killed, on the same ports if they are free.
    ///
    /// # Errors
    /// [`ClusterError::NoStore`], [`ClusterError::Listen`], [`ClusterError::Meta`].
    pub async fn revive_store(&self, id: StoreId) -> Result<(), ClusterError> {
        if self.shared.pd.stores.get(id).is_none() {
            return Err(ClusterError::NoStore(id));
        }
        if self.shared.pd.stores.is_up(id) {
            return Ok(());
        }
        let near = self.pd_server.as_ref().map(Server::address);
        let near = near.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut store = self.shared.start_store(id, near).await?;
        self.start_log_backup(&mut store);
        self.stores().insert(id, store);
        Ok(())
    }

    /// Ends: no new requests, a moment for those under way, then everything is closed. The data
    /// folder is free when this returns.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        self.background.clear();
        let mut stores = std::mem::take(&mut *self.stores());
        for store in stores.values_mut() {
            store.log_backup_task = None;
        }
        let servers = stores
            .into_values()
            .flat_map(|store| [store.server, store.status])
            .chain(self.pd_server.take());
        futures::future::join_all(servers.map(Server::stop)).await;
        let rt = self.shared.rt.clone();
        let pd = Arc::downgrade(&self.shared.pd);
        let engine = self.own_engine.take();
        // Until the engine has closed, the folder is not free.
        let lock = self.lock.take();
        drop(self);
        let closed = async {
            while pd.strong_count() > 0
                || engine
                    .as_ref()
                    .is_some_and(|engine| engine.strong_count() > 0)
            {
                rt.sleep(CLOSE_TICK).await;
            }
        };
        if rt.timeout(CLOSE_PATIENCE, closed).await.is_err() {
            tracing::warn!("a request still uses the engine; the data folder is not closed yet");
        }
        drop(lock);
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<StoreId, RunningStore>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Shared {
    /// Opens a store's ports, notes them in PD, and serves.
    async fn start_store(
        &self,
        id: StoreId,
        near: SocketAddr,
    ) -> Result<RunningStore, ClusterError> {
        let mut record = self
            .pd
            .stores
            .get(id)
            .map(|store| store.record)
            .unwrap_or_default();
        let listener = bind_again(&self.rt, &record.address, near).await?;
        let status_listener = bind_again(&self.rt, &record.status_address, near).await?;
        let address = |listener: &Listener| {
            let address = listener.local_addr();
            address.map_err(|source| ClusterError::Listen {
                address: near,
                source,
            })
        };
        record.address = address(&listener)?.to_string();
        record.status_address = address(&status_listener)?.to_string();
        self.pd.stores.put(id, record)?;
        let topology = self.pd.clone();
        let (config, faults) = (&self.config, self.log_faults.clone());
        let log_backup = log_backup::new(&self.rt, id, &self.storage, topology, config, faults);
        let routes = br_store::routes(StoreContext {
            cluster_id: self.pd.cluster_id,
            store_id: id,
            storage: self.storage.clone(),
            topology: self.pd.clone(),
            importer: self.importer.clone(),
            rt: self.rt.clone(),
            log_backup: log_backup.clone(),
            config: self.config.clone(),
        });
        let status = status::router(StoreStatus {
            store: id,
            pd: self.pd.clone(),
            limits: self.limits,
            api_version: self.storage.api_version(),
            log_backup: log_backup.clone(),
            courtesy: self.storage.courtesy().clone(),
        });
        let grpc = routes.prepare().into_axum_router();
        let failed = |source| ClusterError::Listen {
            address: near,
            source,
        };
        let services = Services {
            grpc,
            http: status.clone(),
        };
        let tls = || self.tls.clone();
        let server = Server::start(&self.rt, listener, services, tls()).map_err(failed)?;
        let services = Services {
            grpc: axum::Router::new(),
            http: status,
        };
        let status = Server::start(&self.rt, status_listener, services, tls()).map_err(failed)?;
        self.pd.store_up(id);
        Ok(RunningStore {
            server,
            status,
            log_backup,
            log_backup_task: None,
        })
    }
}

async fn bind(rt: &Rt, address: SocketAddr) -> Result<Listener, ClusterError> {
    rt.listen(address)
        .await
        .map_err(|source| ClusterError::Listen { address, source })
}

/// The address from the last time, or else a free port beside PD.
async fn bind_again(rt: &Rt, last: &str, near: SocketAddr) -> Result<Listener, ClusterError> {
    if let Ok(last) = last.parse::<SocketAddr>()
        && last.ip() == near.ip()
        && let Ok(listener) = rt.listen(last).await
    {
        return Ok(listener);
    }
    bind(rt, SocketAddr::new(near.ip(), 0)).await
}

/// The stores of this cluster, with new ones if the options ask for more than there are.
fn store_ids(pd: &Pd, path: &Path, wanted: usize) -> Result<Vec<StoreId>, ClusterError> {
    let known = pd.stores.ids().len();
    if known > wanted {
        return Err(ClusterError::Mismatch {
            path: path.to_owned(),
            held: format!("of {known} stores"),
            asked: format!("of {wanted}"),
        });
    }
    for _ in known..wanted {
        let id = StoreId(pd.ids.alloc(1)?);
        pd.stores.put(id, StoreRecord::default())?;
    }
    Ok(pd.stores.ids())
}

/// Raw data is laid out in one way for life.
fn check_api_version(
    meta: &dyn MetaKv,
    path: &Path,
    asked: ApiVersion,
) -> Result<(), ClusterError> {
    let name = |version: ApiVersion| format!("of API version {version:?}");
    let Some(stored) = meta.get(API_VERSION_KEY)? else {
        let mut batch = MetaBatch::default();
        batch.put(API_VERSION_KEY, (asked as i32).to_be_bytes());
        return Ok(meta.write(batch)?);
    };
    let number = stored.as_slice().try_into().ok().map(i32::from_be_bytes);
    match number.and_then(ApiVersion::from_number) {
        Some(held) if held == asked => Ok(()),
        held => Err(ClusterError::Mismatch {
            path: path.to_owned(),
            held: held.map_or_else(|| "of an unknown API version".to_owned(), name),
            asked: name(asked),
        }),
    }
}
