//! What was last done to a region on request, and the scattering of regions.
//!
//! # What it does
//! Scatters regions: gives each its leader (and, with more stores than replicas, its peers) where
//! its group has fewest. Everything is done at once, so an operator is always over when it is
//! asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};
use br_types::{RegionId, StoreId};

use super::regions::{Regions, RegionsError};

/// What an operator of `scatter` is called; clients wait for this name.
pub const SCATTER_REGION: &str = "scatter-region";
/// How long an operator is remembered, as in PD.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Operators remembered at one time.
const KEPT_MAX: usize = 100_000;
/// Groups whose counts are remembered; each is a table or a restore.
const GROUPS_MAX: usize = 1000;

/// Leaders and peers of a group on each store.
type Counts = BTreeMap<StoreId, (u64, u64)>;

/// The operators and the counts of scatter groups; in memory only.
pub struct Operators {
    rt: Rt,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: BTreeMap<RegionId, (&'static str, Monotonic)>,
    order: VecDeque<(RegionId, Monotonic)>,
    groups: BTreeMap<String, Counts>,
}

impl Operators {
    /// None yet.
    pub fn new(rt: Rt) -> Operators {
        Operators {
            rt,
            state: Mutex::default(),
        }
    }

    /// What was done last to a region, if that was lately.
    pub fn last(&self, region: RegionId) -> Option<&'static str> {
        let now = self.rt.now();
        let state = self.lock();
        let (name, at) = state.done.get(&region)?;
        (now.since(*at) < KEPT_FOR).then_some(*name)
    }

    /// Scatters a region within a group.
    ///
    /// # Errors
    /// [`RegionsError`].
    pub fn scatter(
        &self,
        regions: &Regions,
        up: &[StoreId],
        group: &str,
        id: RegionId,
    ) -> Result<(), RegionsError> {
        let mut region = regions.get(id).ok_or(RegionsError::NotFound(id))?;
        let mut state = self.lock();
        if state.groups.len() >= GROUPS_MAX && !state.groups.contains_key(group) {
            state.groups.clear();
        }
        let counts = state.groups.entry(group.to_owned()).or_default();
        let peers_of = |counts: &Counts, store: StoreId| counts.get(&store).map_or(0, |c| c.1);
        for peer in region.region.peers.clone() {
            let from = StoreId(peer.store_id);
            let free = up.iter().copied().filter(|store| {
                region
                    .region
                    .peers
                    .iter()
                    .all(|peer| peer.store_id != store.0)
            });
            let Some(to) = free.min_by_key(|store| peers_of(counts, *store)) else {
                break;
            };
            if peers_of(counts, to) < peers_of(counts, from) {
                region = regions.move_peer(id, from, to)?;
            }
        }
        let leads = |counts: &Counts, store: StoreId| counts.get(&store).map_or(0, |c| c.0);
        let holders = region
            .region
            .peers
            .iter()
            .map(|peer| StoreId(peer.store_id));
        let leader = holders
            .clone()
            .filter(|store| up.contains(store))
            // Of equal ones the present leader stays.
            .min_by_key(|store| (leads(counts, *store), *store != region.leader_store()));
        if let Some(leader) = leader {
            regions.transfer_leader(id, leader)?;
            counts.entry(leader).or_default().0 += 1;
        }
        for store in holders {
            counts.entry(store).or_default().1 += 1;
        }
        state.note(id, SCATTER_REGION, self.rt.now());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, region: RegionId, name: &'static str, now: Monotonic) {
        self.done.insert(region, (name, now));
        self.order.push_back((region, now));
        while let Some(&(oldest, at)) = self.order.front()
            && (self.order.len() > KEPT_MAX || now.since(at) >= KEPT_FOR)
        {
            self.order.pop_front();
            if self
                .done
                .get(&oldest)
                .is_some_and(|(_, noted)| *noted == at)
            {
                self.done.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use br_types::EncodedKey;

    use super::*;
    use crate::pd::{id::IdAllocator, meta_kv::MemoryKv, simulate};

    fn scattered(stores: u64) -> (BTreeMap<StoreId, (usize, usize)>, Option<&'static str>) {
        simulate(1_000, async |rt| {
            let kv: Arc<MemoryKv> = Arc::default();
            let ids = Arc::new(IdAllocator::open(kv.clone()).unwrap());
            let regions = Regions::open(kv, ids).unwrap();
            let up: Vec<_> = (1..=stores).map(StoreId).collect();
            regions.bootstrap(&up[..3]).unwrap();
            let first = regions.all().remove(0);
            let keys: Vec<_> = (1..60_u8).map(|b| EncodedKey::from(&[b][..])).collect();
            let operators = Operators::new(rt.clone());
            for part in regions.split(first.id(), 1, &keys).unwrap() {
                operators.scatter(&regions, &up, "", part.id()).unwrap();
            }
            let last = operators.last(first.id());
            rt.sleep(KEPT_FOR).await;
            assert_eq!(operators.last(first.id()), None);
            (regions.store_counts(), last)
        })
    }

    #[test]
    fn leaders_spread_over_the_replicas() {
        let (counts, last) = scattered(3);
        assert!(
            counts.values().all(|count| *count == (20, 60)),
            "{counts:?}"
        );
        assert_eq!(last, Some(SCATTER_REGION));
    }

    #[test]
    fn peers_spread_over_more_stores() {
        let (counts, _) = scattered(5);
        assert_eq!(counts.len(), 5);
        for (leaders, peers) in counts.values() {
            assert!(
                (10..=14).contains(leaders) && (34..=38).contains(peers),
                "{counts:?}"
            );
        }
    }
}
