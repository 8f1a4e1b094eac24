//! # What it does
//! Remembers regions and their leaders, so that PD is not asked for each request.
//!
//! # Ordering and invariants
//! Ranges in the cache do not overlap: a region that is put in drives out all that it overlaps,
//! unless one of those has a newer version. What is in the cache may be out of date at any time:
//! stores refuse requests for a shape that is gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_proto::metapb;
use br_types::{EncodedKey, RegionEpoch, RegionId};

use super::{RegionFault, RegionRoute};
use crate::pd::{PdClient, PdError};

/// Regions that are remembered, at some 300 bytes each; beyond it the cache starts from nothing.
const REGIONS_MAX: usize = 1 << 16;

/// The regions that requests met last. Cheap to clone; clones share.
#[derive(Clone, Default)]
pub struct RegionCache {
    regions: Arc<Mutex<BTreeMap<EncodedKey, RegionRoute>>>,
}

impl RegionCache {
    fn regions(&self) -> MutexGuard<'_, BTreeMap<EncodedKey, RegionRoute>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The region that holds a key, if it is in the cache.
    pub fn get(&self, key: &EncodedKey) -> Option<RegionRoute> {
        let regions = self.regions();
        let (_, route) = regions.range(..=key.clone()).next_back()?;
        route.range().contains(key).then(|| route.clone())
    }

    /// The region that holds a key, from PD if need be; `None` while PD knows none.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn locate(
        &self,
        pd: &PdClient,
        key: &EncodedKey,
    ) -> Result<Option<RegionRoute>, PdError> {
        if let Some(route) = self.get(key) {
            return Ok(Some(route));
        }
        let found = pd.region_of(key).await?;
        // PD's answer may be of a moment ago; a region that does not hold the key is of no use.
        let found = found.filter(|route| route.range().contains(key));
        if let Some(route) = &found {
            self.insert(route.clone());
        }
        Ok(found)
    }

    /// Remembers a region.
    pub fn insert(&self, route: RegionRoute) {
        let mut regions = self.regions();
        let range = route.range();
        let mut overlapped: Vec<EncodedKey> = Vec::new();
        // The one that may reach into the range from before it, and those that begin within it.
        let before = regions.range(..range.start.clone()).next_back();
        let within = regions.range(range.start.clone()..);
        for (start, old) in before.into_iter().chain(within) {
            if !range.is_before_end(start) {
                break;
            }
            if old.range().overlaps(&range) {
                if old.epoch().version > route.epoch().version {
                    return;
                }
                overlapped.push(start.clone());
            }
        }
        for start in overlapped {
            regions.remove(&start);
        }
        if regions.len() >= REGIONS_MAX {
            regions.clear();
        }
        regions.insert(range.start, route);
    }

    /// Forgets a region.
    pub fn forget(&self, route: &RegionRoute) {
        let mut regions = self.regions();
        let start = EncodedKey::from(route.region.start_key.clone());
        if regions
            .get(&start)
            .is_some_and(|known| known.id() == route.id())
        {
            regions.remove(&start);
        }
    }

    /// Forgets every region that a store leads: it is out of reach.
    pub fn forget_store(&self, store: br_types::StoreId) {
        self.regions()
            .retain(|_, route| route.leader_store() != store);
    }

    /// Learns from what a store answered instead of serving the request.
    pub fn learn(&self, route: &RegionRoute, fault: &RegionFault) {
        match fault {
            RegionFault::NotLeader {
                leader: Some(leader),
            } => {
                self.move_leader(route.id(), route.epoch(), route, *leader);
            }
            RegionFault::EpochNotMatch { current } => self.reshape(route, current),
            RegionFault::NotLeader { leader: None }
            | RegionFault::RegionNotFound
            | RegionFault::KeyNotInRegion
            | RegionFault::StoreNotMatch { .. }
            | RegionFault::StaleCommand => self.forget(route),
            _ => {}
        }
    }

    fn move_leader(
        &self,
        id: RegionId,
        epoch: RegionEpoch,
        route: &RegionRoute,
        leader: metapb::Peer,
    ) {
        let start = EncodedKey::from(route.region.start_key.clone());
        if let Some(known) = self.regions().get_mut(&start)
            && known.id() == id
            && known.epoch() == epoch
        {
            known.leader = leader;
        }
    }

    /// Takes over what is there now; the leader of a child of a split is first sought on the
    /// store that led before.
    fn reshape(&self, old: &RegionRoute, current: &[metapb::Region]) {
        self.forget(old);
        for region in current {
            let epoch = region.region_epoch.unwrap_or_default();
            if region.id == old.region.id && epoch.version < old.epoch().version {
                // The store is behind us: asked again, PD or time will tell.
                continue;
            }
            let leader = region
                .peers
                .iter()
                .find(|peer| peer.store_id == old.leader.store_id)
                .copied();
            if let Some(leader) = leader {
                self.insert(RegionRoute {
                    region: region.clone(),
                    leader,
                    pending_peers: Vec::new(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: u64, start: &str, end: &str, version: u64) -> RegionRoute {
        let peer = metapb::Peer {
            id: id * 10,
            store_id: 1,
            ..Default::default()
        };
        RegionRoute {
            region: metapb::Region {
                id,
                start_key: start.into(),
                end_key: end.into(),
                region_epoch: Some(metapb::RegionEpoch {
                    conf_ver: 1,
                    version,
                }),
                peers: vec![peer],
                ..Default::default()
            },
            leader: peer,
            pending_peers: Vec::new(),
        }
    }

    fn id_at(cache: &RegionCache, key: &str) -> Option<u64> {
        cache
            .get(&EncodedKey::from(key.as_bytes()))
            .map(|route| route.id().0)
    }

    #[test]
    fn a_new_region_drives_out_what_it_overlaps() {
        let cache = RegionCache::default();
        cache.insert(route(1, "", "", 1));
        cache.insert(route(2, "b", "d", 2));
        assert_eq!(
            (id_at(&cache, "a"), id_at(&cache, "b"), id_at(&cache, "d")),
            (None, Some(2), None)
        );
        cache.insert(route(3, "d", "", 2));
        cache.insert(route(4, "", "b", 2));
        assert_eq!((id_at(&cache, "a"), id_at(&cache, "z")), (Some(4), Some(3)));
        // After a merge of all.
        cache.insert(route(5, "", "", 4));
        assert_eq!((id_at(&cache, "a"), id_at(&cache, "c")), (Some(5), Some(5)));
    }

    #[test]
    fn an_older_shape_does_not_replace_a_newer() {
        let cache = RegionCache::default();
        cache.insert(route(2, "b", "d", 5));
        cache.insert(route(1, "", "", 1));
        assert_eq!((id_at(&cache, "c"), id_at(&cache, "z")), (Some(2), None));
    }

    #[test]
    fn faults_teach() {
        let cache = RegionCache::default();
        let old = route(1, "", "", 1);
        cache.insert(old.clone());
        let leader = metapb::Peer {
            id: 11,
            store_id: 2,
            ..Default::default()
        };
        cache.learn(
            &old,
            &RegionFault::NotLeader {
                leader: Some(leader),
            },
        );
        assert_eq!(
            cache.get(&EncodedKey::default()).map(|route| route.leader),
            Some(leader)
        );
        let current = vec![route(1, "m", "", 2).region, route(7, "", "m", 2).region];
        cache.learn(&old, &RegionFault::EpochNotMatch { current });
        assert_eq!((id_at(&cache, "a"), id_at(&cache, "m")), (Some(7), Some(1)));
        cache.learn(&route(7, "", "m", 2), &RegionFault::RegionNotFound);
        assert_eq!((id_at(&cache, "a"), id_at(&cache, "m")), (None, Some(1)));
    }
}
