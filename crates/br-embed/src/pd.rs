//! The placement driver: what it knows, apart from how it is asked.
//!
//! # What it does
//! Owns the timestamp oracle, ids, the table of regions, stores, safe points, settings, rules and
//! the etcd store of a cluster; serves them over gRPC (`grpc`) and HTTP (`http`) on one port.
//!
//! # Objects it reads and writes
//! All that its parts keep in [`MetaKv`], each described there; `cluster_id` is its own.
//!
//! # After a crash
//! All acknowledged changes are there; what ends by itself (pauses, settings for a time) has ended.

use std::sync::{Arc, OnceLock};

use br_proto::errorpb;
use br_rt::{Rt, UnixMillis};
use br_store::{
    engine::RangeSize,
    topology::{RegionState, Topology},
};
use br_types::{ClusterId, EncodedKey, KeyRange, RegionId, StoreId, TimeStamp};

mod balance;
pub mod config;
pub mod etcd;
pub mod gc;
mod global_config;
mod go_time;
pub(crate) mod grpc;
pub(crate) mod http;
pub mod id;
pub mod keyspace;
pub mod labels;
pub mod meta_kv;
mod meta_storage;
pub mod operators;
pub mod regions;
pub mod rules;
pub mod schedulers;
pub(crate) mod server;
pub mod stores;
pub mod tso;

use self::{
    balance::Leaders,
    config::Config,
    etcd::Etcd,
    gc::Gc,
    id::IdAllocator,
    keyspace::Keyspaces,
    labels::Labels,
    meta_kv::{MetaBatch, MetaError, MetaKv, get_u64},
    operators::Operators,
    regions::Regions,
    rules::Rules,
    schedulers::Schedulers,
    stores::Stores,
    tso::{Tso, TsoError},
};

/// The version of the cluster and its stores, in the sense of TiKV's releases: which features
/// clients may expect.
pub const CLUSTER_VERSION: &str = "8.5.0";
/// Peers of a region, if there are stores enough.
pub const REPLICAS: usize = 3;

const CLUSTER_ID_KEY: &[u8] = b"cluster_id";
const EXTERNAL_TIMESTAMP_KEY: &[u8] = b"external_timestamp";
const SNAPSHOT_RECOVERING_KEY: &[u8] = b"snapshot_recovering";
const NAME: &str = "pd1";

/// How much lies where; estimates of the engine.
pub trait Sizes: Send + Sync + 'static {
    /// About how much lies in a range.
    fn of(&self, range: &KeyRange<EncodedKey>) -> RangeSize;
    /// Bytes of the file system under the engine: all of it, and what is free.
    fn disk_space(&self) -> (u64, u64);
}

/// No data and no disk, for tests without an engine.
impl Sizes for () {
    fn of(&self, _: &KeyRange<EncodedKey>) -> RangeSize {
        RangeSize::default()
    }

    fn disk_space(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// Why PD could not start.
#[derive(Debug, thiserror::Error)]
pub enum PdError {
    /// The store behind it.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The oracle.
    #[error(transparent)]
    Tso(#[from] TsoError),
}

impl br_types::Classify for PdError {
    fn kind(&self) -> br_types::Kind {
        match self {
            PdError::Meta(error) => error.kind(),
            PdError::Tso(error) => error.kind(),
        }
    }
}

/// The placement driver of one cluster.
pub struct Pd {
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// The id of PD's only member.
    pub member_id: u64,
    /// When this process started it.
    pub started: UnixMillis,
    /// Clock, randomness, tasks.
    pub rt: Rt,
    /// Timestamps.
    pub tso: Tso,
    /// Ids.
    pub ids: Arc<IdAllocator>,
    /// Regions.
    pub regions: Regions,
    /// Stores.
    pub stores: Stores,
    /// Safe points and barriers.
    pub gc: Gc,
    /// Settings.
    pub config: Config,
    /// Schedulers.
    pub schedulers: Schedulers,
    /// Region label rules.
    pub labels: Labels,
    /// Placement rules.
    pub rules: Rules,
    /// Keyspaces.
    pub keyspaces: Keyspaces,
    /// Operators.
    pub operators: Operators,
    /// The etcd store.
    pub etcd: Etcd,
    /// How much lies where.
    pub sizes: Arc<dyn Sizes>,
    kv: Arc<dyn MetaKv>,
    url: OnceLock<String>,
}

impl Pd {
    /// Loads everything; makes a new cluster's id at the first start. There are no regions before
    /// [`Pd::bootstrap`].
    ///
    /// # Errors
    /// [`PdError`] if the store fails or holds damaged data.
    pub fn open(
        rt: Rt,
        kv: Arc<dyn MetaKv>,
        sizes: Arc<dyn Sizes>,
        replicas: usize,
    ) -> Result<Pd, PdError> {
        let mut cluster_id = get_u64(kv.as_ref(), CLUSTER_ID_KEY)?;
        if cluster_id == 0 {
            cluster_id = ((rt.wall().0 / 1000) << 32) | (rt.random_u64() >> 32).max(1);
            let mut batch = MetaBatch::default();
            batch.put(CLUSTER_ID_KEY, cluster_id.to_be_bytes());
            kv.write(batch)?;
        }
        let ids = Arc::new(IdAllocator::open(kv.clone())?);
        Ok(Pd {
            cluster_id: ClusterId(cluster_id),
            // Any number will do that stays the same and is not 0.
            member_id: cluster_id.rotate_left(17) | 1,
            started: rt.wall(),
            tso: Tso::open(rt.clone(), kv.clone())?,
            regions: Regions::open(kv.clone(), ids.clone())?,
            stores: Stores::open(rt.clone(), kv.clone())?,
            gc: Gc::open(kv.clone())?,
            config: Config::open(rt.clone(), kv.clone(), replicas)?,
            schedulers: Schedulers::new(rt.clone()),
            labels: Labels::open(rt.clone(), kv.clone())?,
            rules: Rules::open(kv.clone(), replicas)?,
            keyspaces: Keyspaces::open(&rt, kv.clone())?,
            operators: Operators::new(rt.clone()),
            etcd: Etcd::open(rt.clone(), kv.clone())?,
            ids,
            sizes,
            rt,
            kv,
            url: OnceLock::new(),
        })
    }

    /// Makes the first region, with peers on the first [`REPLICAS`] stores, if there is none.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn bootstrap(&self) -> Result<(), MetaError> {
        let mut stores = self.stores.ids();
        stores.truncate(REPLICAS);
        self.regions.bootstrap(&stores)
    }

    /// Whether there are regions.
    pub fn is_bootstrapped(&self) -> bool {
        self.regions.count() > 0
    }

    /// Sets the URL that clients reach it under; once.
    pub fn set_url(&self, url: String) {
        // A second URL would be a second server; the first one stays.
        let _ = self.url.set(url);
    }

    /// The URL that clients reach it under.
    pub fn client_url(&self) -> String {
        let url = self.url.get().map(String::as_str);
        url.unwrap_or("http://127.0.0.1:2379").to_owned()
    }

    /// The name of its only member.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The clock that barriers expire by: never goes back.
    pub fn clock(&self) -> UnixMillis {
        UnixMillis(self.tso.last().physical_ms().max(self.rt.wall().0))
    }

    /// The stores that are up.
    pub fn up_stores(&self) -> Vec<StoreId> {
        let stores = self.stores.all().into_iter();
        stores
            .filter(|store| store.up)
            .map(|store| store.id)
            .collect()
    }

    /// Notes that a store came up.
    pub fn store_up(&self, id: StoreId) {
        self.stores.set_up(id, true);
    }

    /// Notes that a store failed; its leaders move to the stores with fewest, as far as there are
    /// peers that are up. Gives the number of moves.
    ///
    /// # Errors
    /// [`MetaError`]; the store counts as down all the same.
    pub fn store_down(&self, id: StoreId) -> Result<usize, MetaError> {
        self.stores.set_up(id, false);
        let mut leaders = Leaders::of(self);
        self.regions
            .evict_leaders(id, |region| leaders.place(region))
    }

    /// Splits as [`Regions::split`] does, for want of space: the new regions are led from the
    /// stores with fewest leaders. To move them afterwards would turn every client away a second
    /// time. While leaders must not move, they stay where they are.
    ///
    /// # Errors
    /// The region error to answer with; nothing was changed then.
    pub fn split_and_spread(
        &self,
        id: RegionId,
        version: u64,
        keys: &[EncodedKey],
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
        let at_work = self.leaders_may_move();
        let denied = self.labels.denied_ranges();
        let mut leaders = Leaders::of(self);
        self.regions.split_led(id, version, keys, |region| {
            let range = KeyRange::new(region.start_key.as_slice(), region.end_key.as_slice());
            let may_move = at_work && denied.iter().all(|denied| !denied.overlaps(&range));
            may_move.then(|| leaders.place(region)).flatten()
        })
    }

    /// Runs what goes on in the background, for ever: leases that end, leaders that spread.
    pub async fn run_background(self: Arc<Self>) {
        let expiry = async { self.etcd.expire_leases().await };
        futures::join!(expiry, balance::run(self.clone()));
    }

    /// The external timestamp, 0 if none was set.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn external_timestamp(&self) -> Result<TimeStamp, MetaError> {
        Ok(TimeStamp(get_u64(
            self.kv.as_ref(),
            EXTERNAL_TIMESTAMP_KEY,
        )?))
    }

    /// Sets the external timestamp. `false`: it would go back or lie in the future.
    ///
    /// # Errors
    /// [`TsoError`], also for failures of the store.
    pub fn set_external_timestamp(&self, to: TimeStamp) -> Result<bool, TsoError> {
        if to > self.tso.now()? || to < self.external_timestamp()? {
            return Ok(false);
        }
        let mut batch = MetaBatch::default();
        batch.put(EXTERNAL_TIMESTAMP_KEY, to.0.to_be_bytes());
        self.kv.write(batch)?;
        Ok(true)
    }

    /// Whether the mark of a recovery from volume snapshots is set.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn is_snapshot_recovering(&self) -> Result<bool, MetaError> {
        Ok(get_u64(self.kv.as_ref(), SNAPSHOT_RECOVERING_KEY)? != 0)
    }

    /// Sets or clears that mark.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn set_snapshot_recovering(&self, marked: bool) -> Result<(), MetaError> {
        let mut batch = MetaBatch::default();
        batch.put(SNAPSHOT_RECOVERING_KEY, u64::from(marked).to_be_bytes());
        self.kv.write(batch)
    }
}

impl Topology for Pd {
    fn region(&self, id: RegionId) -> Option<RegionState> {
        self.regions.get(id)
    }

    fn region_of(&self, key: &EncodedKey) -> Option<RegionState> {
        self.regions.find(key)
    }

    fn regions_in(&self, range: &KeyRange<EncodedKey>, limit: usize) -> Vec<RegionState> {
        self.regions.scan(range, limit)
    }

    fn split(
        &self,
        id: RegionId,
        version: u64,
        keys: &[EncodedKey],
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
        self.regions.split(id, version, keys)
    }

    fn changes(&self) -> u64 {
        self.regions.changes()
    }

    fn is_up(&self, store: StoreId) -> bool {
        self.stores.is_up(store)
    }

    fn tso(&self) -> TimeStamp {
        // Without a stored bound no timestamp may be given out; zero is none, and commits nothing.
        self.tso.now().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot advance the timestamp oracle");
            TimeStamp::ZERO
        })
    }

    fn gc_safe_point(&self) -> TimeStamp {
        self.gc.gc_safe_point()
    }

    fn is_gc_held(&self) -> bool {
        self.gc.is_held(self.rt.wall())
    }
}

/// Runs `run` on virtual time that starts at this Unix millisecond.
#[cfg(test)]
pub(crate) fn simulate<T>(start_ms: u64, run: impl AsyncFnOnce(Rt) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async { run(Rt::simulated(7, UnixMillis(start_ms))).await })
}

#[cfg(test)]
mod tests;
