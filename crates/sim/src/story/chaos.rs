//! What happens to a cluster while others work on it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use br_cluster::KvError;
use br_codec::key;
use br_rt::CancellationToken;
use br_types::{EncodedKey, KeyRange, TableId, TimeStamp};
use rand::{RngExt as _, rngs::StdRng};

use crate::{
    disturbance::{Disturbance, Disturbed},
    trace::Trace,
    world::World,
};

/// One in so many disturbances is a great one.
const GREAT_ONE_IN: u32 = 40;
/// The longest that a part is out of reach.
const CUT_OFF_MAX: Duration = Duration::from_secs(4);

/// Versions that nothing guards are kept for so long, and looked for so often.
const GC_LIFE: Duration = Duration::from_secs(40);
const GC_INTERVAL: Duration = Duration::from_secs(10);

/// How much may happen.
pub(super) struct Chaos {
    pub(super) disturbance: Disturbance,
    /// How often the whole cluster dies and comes back.
    pub(super) restarts: usize,
}

impl Chaos {
    pub(super) fn draw(rng: &mut StdRng) -> Chaos {
        Chaos {
            disturbance: Disturbance {
                merges: true,
                kept_bound: None,
                store_failures: rng.random_range(0..3),
                pause_max: Duration::from_millis(rng.random_range(200..1500)),
            },
            restarts: rng.random_range(0..2),
        }
    }

    /// Goes on until `stop`; everything is up then.
    pub(super) async fn run(
        mut self,
        world: &mut World,
        trace: &Trace,
        rng: &mut StdRng,
        stop: &CancellationToken,
    ) -> Result<()> {
        let rt = world.rt().clone();
        let mut done = Disturbed::default();
        if world
            .embedded()
            .is_some_and(|cluster| cluster.store_infos().len() < 2)
        {
            self.disturbance.store_failures = 0;
        }
        let mut collected = rt.now();
        while !stop.is_cancelled() {
            if rt.now().since(collected) >= GC_INTERVAL {
                collected = rt.now();
                collect_garbage(world, trace).await?;
            }
            if rng.random_range(0..GREAT_ONE_IN) == 0 {
                self.great(world, trace, rng).await?;
            } else if let Some(cluster) = world.embedded() {
                self.disturbance
                    .step(&rt, cluster, rng, &split_key, &mut done)
                    .await?;
            }
        }
        trace.note(format_args!("chaos has ended: {done:?}"));
        Ok(())
    }

    async fn great(&mut self, world: &mut World, trace: &Trace, rng: &mut StdRng) -> Result<()> {
        if self.restarts > 0 && rng.random() {
            self.restarts -= 1;
            trace.note("the cluster dies");
            world.restart().await?;
            trace.note("the cluster is back");
            return Ok(());
        }
        let rt = world.rt().clone();
        if rng.random_range(0..4) == 0 {
            trace.note("the disks are full");
            world.engine().set_disk_full(true);
            rt.sleep(CUT_OFF_MAX.mul_f64(rng.random())).await;
            world.engine().set_disk_full(false);
            trace.note("there is room on the disks again");
            return Ok(());
        }
        let mut addresses = vec![world.pd_address()];
        let stores = world.embedded().map(br_embed::Cluster::store_infos);
        for store in stores.unwrap_or_default() {
            addresses.extend(store.record.address.parse::<SocketAddr>());
        }
        let address = addresses[rng.random_range(0..addresses.len())];
        let Some(network) = rt.network() else {
            return Ok(());
        };
        trace.note(format_args!("{address} is cut off"));
        network.cut_off(address);
        rt.sleep(CUT_OFF_MAX.mul_f64(rng.random())).await;
        network.rejoin(address);
        trace.note(format_args!("{address} is back"));
        Ok(())
    }
}

/// Moves PD's safe points, as TiDB does; stores collect up to there.
async fn collect_garbage(world: &World, trace: &Trace) -> Result<()> {
    let Some(cluster) = world.embedded() else {
        return Ok(());
    };
    let now = world.rt().wall();
    let life = u64::try_from(GC_LIFE.as_millis()).unwrap_or(u64::MAX);
    let target = TimeStamp::compose(now.0.saturating_sub(life), 0);
    // Locks of those who died come to an end first: reading at the timestamp sees to that.
    let snapshot = world.client.snapshot(target);
    let mut scan = snapshot.scan(&KeyRange::default());
    let scanned = async {
        while scan.next().await?.is_some() {}
        Ok::<_, KvError>(())
    };
    if let Err(error) = scanned.await {
        trace.note(format_args!("no garbage is collected: {error}"));
        return Ok(());
    }
    // What is guarded stays.
    let Ok(moved) = cluster.pd().gc.advance_txn_safe_point(target, now) else {
        return Ok(());
    };
    cluster.pd().gc.update_gc_safe_point(moved.new)?;
    Ok(())
}

/// A key of some table, or of none.
fn split_key(rng: &mut StdRng) -> EncodedKey {
    let table = TableId(rng.random_range(1..60));
    let mut split = br_tidb::table_key::record_range(table).start.into_bytes();
    split.extend(rng.random::<u64>().to_be_bytes());
    key::encode(&split)
}
