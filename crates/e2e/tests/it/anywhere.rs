//! Cases that run on the playground and, unchanged, on a cluster that the user names, where other
//! things may be: `make test-cluster PD=host:port` sets the variables below.
//!
//! | variable | what it says |
//! |---|---|
//! | `E2E_PD` | `host:port` of a PD of the cluster; the playground without it |
//! | `E2E_TIDB` | `[user[:password]@]host:port` of a TiDB of the cluster, for the cases with SQL |
//! | `E2E_OFFICIAL_BR` | the official tool, which then takes the other part of those cases |
//! | `E2E_STORAGE` | URL of storage that the stores reach too; a local folder without it |
//! | `E2E_ALLOW_DATA` | `1` if the cluster may hold data of others |
//!
//! All that the cases make begins with [`PREFIX`]. It is deleted at the end, and, should a run have
//! been cut off, at the beginning of the next.

mod keys;
mod log;
mod named;
mod sql;
mod state;
mod tables;
mod tidb;

use std::env;

use br_catalog::{DroppedTable, SchemaChange};
use br_cluster::{Cluster, ClusterConfig, Security, Snapshot};
use br_codec::ApiVersion;
use br_log::task::{self, TaskStore};
use br_rt::{CancellationToken, Rt};
use br_storage::Storage;
use br_tidb::{schema::is_system_db, table_key};
use br_types::{KeyRange, RawKey, TimeStamp};
use futures::TryStreamExt;
use tokio::sync::{Mutex, MutexGuard};

use crate::site::{Place, Site, options};

/// What everything begins with that the cases make, in any cluster.
const PREFIX: &str = "holdfast_test_";
/// Keys that one transaction deletes.
const DELETED_AT_ONCE: usize = 500;

/// There is one cluster of the user's, so one case at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The cluster of one case.
pub(crate) struct Anywhere {
    cluster: Cluster,
    pd: String,
    embedded: Option<br_embed::Cluster>,
    before: state::State,
    places: Vec<Place>,
    _alone: Option<MutexGuard<'static, ()>>,
}

fn named(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Ends the run, all of it: no case can do anything with what the user has named.
#[allow(
    clippy::exit,
    clippy::print_stderr,
    reason = "each case would end with the same panic"
)]
fn refuse(reason: &str) -> ! {
    eprintln!("{reason}");
    std::process::exit(1);
}

/// A name of our own.
fn own(name: &str) -> String {
    format!("{PREFIX}{name}")
}

impl Anywhere {
    /// The named cluster, cleaned of what an earlier run left; a playground otherwise.
    async fn start() -> Anywhere {
        let Some(pd) = named("E2E_PD") else {
            let mut options = options();
            options.stores = 3;
            options.region_split_keys = 500;
            let site = Site::start(options).await;
            let pd = site.embedded.pd_addr();
            return Anywhere::of(site.cluster, pd, Some(site.embedded), None).await;
        };
        let alone = ALONE.lock().await;
        let config = ClusterConfig::new(&pd, Security::default());
        let connected = Cluster::connect(Rt::real(), CancellationToken::new(), config).await;
        let cluster = connected.unwrap_or_else(|error| refuse(&format!("PD={pd}: {error}")));
        if let Err(reason) = named::check(&cluster).await {
            refuse(&reason);
        }
        clear(&cluster).await;
        let foreign = foreign(&cluster).await;
        if !foreign.is_empty() && named("E2E_ALLOW_DATA").as_deref() != Some("1") {
            let foreign = foreign.join(", ");
            refuse(&format!(
                "PD={pd} may be a cluster that is in use, it has {foreign}; ALLOW_DATA=1 runs the \
                 cases beside that"
            ));
        }
        Anywhere::of(cluster, pd, None, Some(alone)).await
    }

    async fn of(
        cluster: Cluster,
        pd: String,
        embedded: Option<br_embed::Cluster>,
        alone: Option<MutexGuard<'static, ()>>,
    ) -> Anywhere {
        let before = state::of(&cluster).await;
        Anywhere {
            cluster,
            pd,
            embedded,
            before,
            places: Vec::new(),
            _alone: alone,
        }
    }

    async fn now(&self) -> TimeStamp {
        self.cluster.pd().tso().await.unwrap()
    }

    /// External storage that the stores reach. It is emptied at the end.
    fn place(&mut self, name: &str) -> usize {
        let place = match named("E2E_STORAGE") {
            Some(base) => {
                let (base, query) = base.split_once('?').unwrap_or((&base, ""));
                let unique = self.cluster.rt().uuid();
                let base = base.trim_end_matches('/');
                Place::at(&format!("{base}/{PREFIX}{name}-{unique}?{query}"))
            }
            None => Place::temporary(),
        };
        self.places.push(place);
        self.places.len() - 1
    }

    /// Deletes what the case made, and finds everything else as it was.
    async fn finish(self) {
        clear(&self.cluster).await;
        for place in &self.places {
            empty(self.cluster.rt(), place).await;
        }
        state::assert_same(&self.cluster, &self.before).await;
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }
}

async fn empty(rt: &Rt, place: &Place) {
    let storage = Storage::create_base(rt, &place.backend).await.unwrap();
    let names = storage.list("").map_ok(|entry| entry.name);
    let names: Vec<String> = names.try_collect().await.unwrap();
    storage.delete_many(names).await.unwrap();
}

async fn snapshot(cluster: &Cluster) -> Snapshot {
    cluster.snapshot(cluster.pd().tso().await.unwrap())
}

/// What is not ours and not what a new cluster has.
async fn foreign(cluster: &Cluster) -> Vec<String> {
    let snapshot = snapshot(cluster).await;
    let mut found = Vec::new();
    for db in br_catalog::databases(&snapshot).await.unwrap() {
        let name = &db.info.name.original;
        if is_system_db(&db.info.name.lower) || name.starts_with(PREFIX) {
            continue;
        }
        let mut tables = 0;
        let counted = br_catalog::tables(&snapshot, db.info.id(), |_| {
            tables += 1;
            Ok(())
        });
        counted.await.unwrap();
        if tables > 0 {
            found.push(format!("database {name} with {tables} tables"));
        }
    }
    // Before, between and behind what belongs to schemas and tables.
    for (start, end) in [("", "m"), ("n", "t"), ("u", "")] {
        let range = KeyRange::<RawKey>::new(start.as_bytes(), end.as_bytes());
        if let Some((key, _)) = snapshot.scan(&range).next().await.unwrap() {
            found.push(format!("keys that belong to no table, such as {key}"));
        }
        let raw = cluster.raw(ApiVersion::V1);
        let pairs = raw.scan(&range, 1).await.unwrap();
        if let Some((key, _)) = pairs.first() {
            found.push(format!("raw keys, such as {key}"));
        }
    }
    let tasks = TaskStore::new(cluster.etcd().clone()).load().await.unwrap();
    for task in tasks.tasks {
        found.push(format!("a running log backup, {}", task.name()));
    }
    found
}

/// Ends our log backups, drops our databases with all their rows, and deletes our keys.
async fn clear(cluster: &Cluster) {
    let tasks = TaskStore::new(cluster.etcd().clone()).load().await.unwrap();
    for task in tasks.tasks {
        if task.name().starts_with(PREFIX) {
            task::stop(cluster, task.name()).await.unwrap();
        }
    }
    let snapshot = snapshot(cluster).await;
    for db in br_catalog::databases(&snapshot).await.unwrap() {
        if !db.info.name.original.starts_with(PREFIX) {
            continue;
        }
        let mut change = SchemaChange {
            dropped_databases: vec![db.info.id()],
            ..SchemaChange::default()
        };
        let collected = br_catalog::tables(&snapshot, db.info.id(), |table| {
            change.dropped.push(DroppedTable {
                db: db.info.id(),
                id: table.info.id(),
                ids: table.info.all_ids(),
            });
            Ok(())
        });
        collected.await.unwrap();
        // First, so that nobody sees a table that loses its rows.
        br_catalog::apply(cluster, &change).await.unwrap();
        for id in change.dropped.iter().flat_map(|table| &table.ids) {
            delete(cluster, &table_key::table_range(*id)).await;
        }
    }
    delete(cluster, &own_keys()).await;
    // And last, for it takes away long values of those keys as well.
    let raw = cluster.raw(ApiVersion::V1);
    raw.delete_range(&keys::own_raw_keys()).await.unwrap();
}

/// The keys that belong to no table and begin with [`PREFIX`].
fn own_keys() -> KeyRange<RawKey> {
    let mut end = PREFIX.as_bytes().to_vec();
    end.push(0xff);
    KeyRange::new(PREFIX.as_bytes(), end)
}

async fn delete(cluster: &Cluster, range: &KeyRange<RawKey>) {
    loop {
        let mut txn = cluster.begin().await.unwrap();
        let page = txn.snapshot().scan_all(range, DELETED_AT_ONCE).await;
        let page = page.unwrap();
        if page.is_empty() {
            return;
        }
        for (key, _) in page {
            txn.delete(key).unwrap();
        }
        txn.commit().await.unwrap();
    }
}
