//! What happens to a cluster all the time: regions split and merge, leaders move, a store fails and
//! comes back.

use std::time::Duration;

use br_embed::Cluster;
use br_rt::{CancellationToken, Rt};
use br_types::{EncodedKey, StoreId};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Which disturbances.
pub struct Disturbance {
    /// Whether regions merge.
    pub merges: bool,
    /// A bound between regions that merges leave alone.
    pub kept_bound: Option<EncodedKey>,
    /// How often a store fails and comes back; one at a time.
    pub store_failures: usize,
    /// Between two disturbances.
    pub pause_max: Duration,
}

impl Default for Disturbance {
    fn default() -> Disturbance {
        Disturbance {
            merges: false,
            kept_bound: None,
            store_failures: 0,
            pause_max: Duration::from_millis(20),
        }
    }
}

/// How much happened, so that a test can tell that something did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disturbed {
    /// Regions that were split.
    pub splits: usize,
    /// Regions that were merged.
    pub merges: usize,
    /// Leaders that moved.
    pub transfers: usize,
    /// Stores that failed and came back.
    pub store_failures: usize,
}

impl Disturbance {
    /// Goes on until `stop`. `key` gives keys to split at. Every store is up at the end.
    ///
    /// # Errors
    /// A store cannot be stopped or started.
    pub async fn run(
        &self,
        rt: &Rt,
        cluster: &Cluster,
        seed: u64,
        key: impl Fn(&mut StdRng) -> EncodedKey,
        stop: &CancellationToken,
    ) -> Result<Disturbed, br_embed::ClusterError> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut done = Disturbed::default();
        while !stop.is_cancelled() {
            self.step(rt, cluster, &mut rng, &key, &mut done).await?;
        }
        Ok(done)
    }

    /// One disturbance and a pause.
    ///
    /// # Errors
    /// A store cannot be stopped or started.
    pub async fn step(
        &self,
        rt: &Rt,
        cluster: &Cluster,
        rng: &mut StdRng,
        key: &impl Fn(&mut StdRng) -> EncodedKey,
        done: &mut Disturbed,
    ) -> Result<(), br_embed::ClusterError> {
        match rng.random_range(0..20) {
            0..6 => {
                let key = key(rng);
                // Lost against a split by size, at worst.
                if let Ok(made) = cluster.split_at(&[key]) {
                    done.splits += usize::from(!made.is_empty());
                }
            }
            6..10 if self.merges => done.merges += usize::from(self.merge(cluster, rng)),
            10 if done.store_failures < self.store_failures => {
                let stores = cluster.store_infos();
                let store: StoreId = stores[rng.random_range(0..stores.len())].id;
                cluster.kill_store(store)?;
                rt.sleep(Duration::from_millis(rng.random_range(20..400)))
                    .await;
                cluster.revive_store(store).await?;
                done.store_failures += 1;
            }
            _ => done.transfers += usize::from(transfer(cluster, rng)),
        }
        rt.sleep(self.pause_max.mul_f64(rng.random())).await;
        Ok(())
    }

    fn merge(&self, cluster: &Cluster, rng: &mut StdRng) -> bool {
        let regions = cluster.regions();
        if regions.len() < 2 {
            return false;
        }
        let left = rng.random_range(0..regions.len() - 1);
        let (a, b) = (&regions[left], &regions[left + 1]);
        if self.kept_bound == Some(b.range().start) {
            return false;
        }
        let (source, target) = if rng.random() { (a, b) } else { (b, a) };
        cluster.merge(source.id(), target.id()).is_ok()
    }
}

fn transfer(cluster: &Cluster, rng: &mut StdRng) -> bool {
    let regions = cluster.regions();
    let region = &regions[rng.random_range(0..regions.len())];
    let peers = &region.region.peers;
    let to = StoreId(peers[rng.random_range(0..peers.len())].store_id);
    to != region.leader_store() && cluster.transfer_leader(region.id(), to).is_ok()
}
