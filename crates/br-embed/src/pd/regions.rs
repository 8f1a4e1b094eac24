//! The table of regions, shared by PD and every store.
//!
//! # What it does
//! Finds regions by key and id, splits and merges them, moves leaders and peers.
//!
//! # Objects it reads and writes
//! `region/` + id: a region with its leader.
//!
//! # Ordering and invariants
//! The regions cover all keys, without gap or overlap. An epoch only grows. A leader is one of the
//! region's peers. A change is stored, as one batch, before anyone sees it.
//!
//! # After a crash
//! A split, merge or move is there as a whole or not at all.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use br_proto::{errorpb, metapb};
use br_store::topology::RegionState;
use br_types::{Classify, EncodedKey, KeyRange, Kind, RegionId, StoreId};
use prost::Message;

use super::{
    id::IdAllocator,
    meta_kv::{MetaBatch, MetaError, MetaKv},
};

mod errors;
#[cfg(test)]
mod tests;

pub use errors::{epoch_not_match, key_not_in_region, region_not_found};

const PREFIX: &[u8] = b"region/";

/// Why the table was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RegionsError {
    /// No region of that id.
    #[error("there is no region {0}")]
    NotFound(RegionId),
    /// Only neighbours merge.
    #[error("region {source_region} and region {target} are not neighbours")]
    NotAdjacent {
        /// Was to go.
        source_region: RegionId,
        /// Was to stay.
        target: RegionId,
    },
    /// The store has no replica of the region.
    #[error("region {region} has no peer on store {store}")]
    NoPeer {
        /// The region.
        region: RegionId,
        /// The store.
        store: StoreId,
    },
    /// A region error, as a store answers it.
    #[error("{}", .0.message)]
    Region(Box<errorpb::Error>),
    /// The store behind the table failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for RegionsError {
    fn kind(&self) -> Kind {
        match self {
            RegionsError::NotFound(_) | RegionsError::Region(_) => Kind::Reroute,
            RegionsError::NotAdjacent { .. } | RegionsError::NoPeer { .. } => Kind::Invalid,
            RegionsError::Meta(error) => error.kind(),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    region: Option<metapb::Region>,
    #[prost(message, optional, tag = "2")]
    leader: Option<metapb::Peer>,
}

/// The table.
pub struct Regions {
    kv: Arc<dyn MetaKv>,
    ids: Arc<IdAllocator>,
    table: RwLock<Table>,
    /// Grows with each change, after it can be seen.
    changes: AtomicU64,
}

#[derive(Default)]
struct Table {
    by_start: BTreeMap<Vec<u8>, RegionId>,
    by_id: BTreeMap<RegionId, RegionState>,
}

impl Regions {
    /// Loads the table; of a new cluster it is empty until [`Regions::bootstrap`].
    ///
    /// # Errors
    /// [`MetaError::Damaged`] if the stored regions do not cover all keys.
    pub fn open(kv: Arc<dyn MetaKv>, ids: Arc<IdAllocator>) -> Result<Regions, MetaError> {
        let mut table = Table::default();
        for (key, value) in kv.scan_prefix(PREFIX)? {
            let stored = Stored::decode(value.as_slice())
                .map_err(|error| MetaError::damaged(&key, &error))?;
            let (Some(region), Some(leader)) = (stored.region, stored.leader) else {
                return Err(MetaError::damaged(&key, &"a region without its parts"));
            };
            table.insert(RegionState { region, leader });
        }
        table
            .check()
            .map_err(|message| MetaError::damaged(PREFIX, &message))?;
        Ok(Regions {
            kv,
            ids,
            table: RwLock::new(table),
            changes: AtomicU64::new(0),
        })
    }

    /// Makes the first region, of all keys, with a peer on each of `stores`. Does nothing if there
    /// are regions.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn bootstrap(&self, stores: &[StoreId]) -> Result<(), MetaError> {
        let mut table = self.write();
        if !table.by_id.is_empty() {
            return Ok(());
        }
        let id = self.ids.alloc(1)?;
        let mut peers = Vec::new();
        for store in stores {
            peers.push(peer(self.ids.alloc(1)?, *store));
        }
        let Some(&leader) = peers.first() else {
            return Err(MetaError::Io(
                "a cluster without stores cannot have regions".into(),
            ));
        };
        let region = metapb::Region {
            id,
            region_epoch: Some(metapb::RegionEpoch {
                conf_ver: 1,
                version: 1,
            }),
            peers,
            ..metapb::Region::default()
        };
        self.apply(&mut table, vec![RegionState { region, leader }], &[])
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().by_id.len()
    }

    /// A number that grows with each change of the table.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The region of that id.
    pub fn get(&self, id: RegionId) -> Option<RegionState> {
        self.read().by_id.get(&id).cloned()
    }

    /// The region that holds a key.
    pub fn find(&self, key: &EncodedKey) -> Option<RegionState> {
        self.read().find(key.as_bytes()).cloned()
    }

    /// The region before the one that holds a key.
    pub fn find_previous(&self, key: &EncodedKey) -> Option<RegionState> {
        let table = self.read();
        let start = &table.find(key.as_bytes())?.region.start_key;
        let before = (Bound::Unbounded, Bound::Excluded(start.as_slice()));
        let (_, id) = table.by_start.range::<[u8], _>(before).next_back()?;
        table.by_id.get(id).cloned()
    }

    /// The regions that overlap a range, in key order, at most `limit`.
    pub fn scan(&self, range: &KeyRange<EncodedKey>, limit: usize) -> Vec<RegionState> {
        if range.is_empty() {
            return Vec::new();
        }
        let table = self.read();
        let first = table
            .find(range.start.as_bytes())
            .map(|first| first.region.start_key.clone());
        table
            .by_start
            .range(first.unwrap_or_default()..)
            .take_while(|(start, _)| {
                range.end.is_empty() || start.as_slice() < range.end.as_bytes()
            })
            .take(limit)
            .filter_map(|(_, id)| table.by_id.get(id).cloned())
            .collect()
    }

    /// Every region, in key order.
    pub fn all(&self) -> Vec<RegionState> {
        self.scan(&KeyRange::default(), usize::MAX)
    }

    /// How many leaders and peers each store has.
    pub fn store_counts(&self) -> BTreeMap<StoreId, (usize, usize)> {
        let mut counts: BTreeMap<StoreId, (usize, usize)> = BTreeMap::new();
        for state in self.read().by_id.values() {
            counts.entry(state.leader_store()).or_default().0 += 1;
            for peer in &state.region.peers {
                counts.entry(StoreId(peer.store_id)).or_default().1 += 1;
            }
        }
        counts
    }

    /// Splits a region at keys strictly inside it, sorted and unique. Gives all resulting regions
    /// in key order; the original id keeps the last part, and all get the same new version. They
    /// are led from the store that led the original.
    ///
    /// # Errors
    /// The region error to answer with; nothing was changed then.
    pub fn split(
        &self,
        id: RegionId,
        version: u64,
        keys: &[EncodedKey],
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
        self.split_led(id, version, keys, |_| None)
    }

    /// Splits as [`Regions::split`] does; new regions are led from the store that `choose` picks of
    /// their peers, or as the original if it picks none.
    ///
    /// # Errors
    /// The region error to answer with; nothing was changed then.
    pub fn split_led(
        &self,
        id: RegionId,
        version: u64,
        keys: &[EncodedKey],
        mut choose: impl FnMut(&metapb::Region) -> Option<StoreId>,
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
        let mut table = self.write();
        let parent = table
            .by_id
            .get(&id)
            .ok_or_else(|| region_not_found(id))?
            .clone();
        let epoch = parent.region.region_epoch.unwrap_or_default();
        if epoch.version != version {
            return Err(epoch_not_match(&[parent]));
        }
        let range = parent.range();
        let mut previous = &range.start;
        for key in keys {
            if key <= previous || !range.is_before_end(key) {
                return Err(key_not_in_region(key.as_bytes(), &parent));
            }
            previous = key;
        }
        if keys.is_empty() {
            return Err(message("there is no key to split at"));
        }
        let failed = |error: MetaError| message(&format!("failed to split: {error}"));
        let new_epoch = metapb::RegionEpoch {
            conf_ver: epoch.conf_ver,
            version: epoch
                .version
                .saturating_add(u64::try_from(keys.len()).unwrap_or(u64::MAX)),
        };
        let mut parts = Vec::with_capacity(keys.len() + 1);
        let mut start = parent.region.start_key.clone();
        for key in keys {
            let end = key.as_bytes().to_vec();
            let mut child = self
                .child(&parent, start, end.clone(), new_epoch)
                .map_err(failed)?;
            if let Some(store) = choose(&child.region)
                && let Some(peer) = peer_on(&child.region, store)
            {
                child.leader = peer;
            }
            parts.push(child);
            start = end;
        }
        let mut last = parent;
        last.region.start_key = start;
        last.region.region_epoch = Some(new_epoch);
        parts.push(last);
        self.apply(&mut table, parts.clone(), &[]).map_err(failed)?;
        Ok(parts)
    }

    /// A region with peers on the same stores as `parent`, led from the same store.
    fn child(
        &self,
        parent: &RegionState,
        start_key: Vec<u8>,
        end_key: Vec<u8>,
        epoch: metapb::RegionEpoch,
    ) -> Result<RegionState, MetaError> {
        let id = self.ids.alloc(1)?;
        let mut peers = Vec::with_capacity(parent.region.peers.len());
        for old in &parent.region.peers {
            peers.push(metapb::Peer {
                id: self.ids.alloc(1)?,
                ..*old
            });
        }
        let region = metapb::Region {
            id,
            start_key,
            end_key,
            region_epoch: Some(epoch),
            peers,
            ..parent.region.clone()
        };
        let leader = peer_on(&region, parent.leader_store()).unwrap_or(parent.leader);
        Ok(RegionState { region, leader })
    }

    /// Merges a region into a neighbour, which takes its keys; the version becomes greater than
    /// both. Gives the merged region.
    ///
    /// # Errors
    /// [`RegionsError::NotFound`], [`RegionsError::NotAdjacent`], [`RegionsError::Meta`].
    pub fn merge(&self, source: RegionId, target: RegionId) -> Result<RegionState, RegionsError> {
        let mut table = self.write();
        let gone = table
            .by_id
            .get(&source)
            .ok_or(RegionsError::NotFound(source))?;
        let mut merged = table
            .by_id
            .get(&target)
            .ok_or(RegionsError::NotFound(target))?
            .clone();
        if !gone.region.end_key.is_empty() && gone.region.end_key == merged.region.start_key {
            merged.region.start_key = gone.region.start_key.clone();
        } else if !merged.region.end_key.is_empty()
            && merged.region.end_key == gone.region.start_key
        {
            merged.region.end_key = gone.region.end_key.clone();
        } else {
            return Err(RegionsError::NotAdjacent {
                source_region: source,
                target,
            });
        }
        let version_of =
            |state: &RegionState| state.region.region_epoch.unwrap_or_default().version;
        let epoch = metapb::RegionEpoch {
            conf_ver: merged.region.region_epoch.unwrap_or_default().conf_ver,
            version: version_of(gone).max(version_of(&merged)).saturating_add(1),
        };
        merged.region.region_epoch = Some(epoch);
        self.apply(&mut table, vec![merged.clone()], &[source])?;
        Ok(merged)
    }

    /// Makes the peer on a store the leader. The epoch stays.
    ///
    /// # Errors
    /// [`RegionsError::NotFound`], [`RegionsError::NoPeer`], [`RegionsError::Meta`].
    pub fn transfer_leader(&self, id: RegionId, store: StoreId) -> Result<(), RegionsError> {
        let mut table = self.write();
        let mut state = table
            .by_id
            .get(&id)
            .ok_or(RegionsError::NotFound(id))?
            .clone();
        let peer = peer_on(&state.region, store);
        state.leader = peer.ok_or(RegionsError::NoPeer { region: id, store })?;
        Ok(self.apply(&mut table, vec![state], &[])?)
    }

    /// Moves leaders away from a store, each to the peer that `choose` picks of the region; a
    /// region for which it picks none keeps its leader. Gives the number of moves.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn evict_leaders(
        &self,
        store: StoreId,
        mut choose: impl FnMut(&metapb::Region) -> Option<StoreId>,
    ) -> Result<usize, MetaError> {
        let mut table = self.write();
        let mut moved = Vec::new();
        for state in table
            .by_id
            .values()
            .filter(|state| state.leader_store() == store)
        {
            let Some(to) = choose(&state.region) else {
                continue;
            };
            let Some(leader) = peer_on(&state.region, to) else {
                continue;
            };
            moved.push(RegionState {
                region: state.region.clone(),
                leader,
            });
        }
        let count = moved.len();
        self.apply(&mut table, moved, &[])?;
        Ok(count)
    }

    /// Replaces the peer on one store by a new one on another; a leader there moves with it. Adding
    /// and removing each raise `conf_ver`.
    ///
    /// # Errors
    /// [`RegionsError::NotFound`], [`RegionsError::NoPeer`] if `from` has none or `to` has one,
    /// [`RegionsError::Meta`].
    pub fn move_peer(
        &self,
        id: RegionId,
        from: StoreId,
        to: StoreId,
    ) -> Result<RegionState, RegionsError> {
        let mut table = self.write();
        let mut state = table
            .by_id
            .get(&id)
            .ok_or(RegionsError::NotFound(id))?
            .clone();
        if state.region.peers.iter().any(|peer| peer.store_id == to.0) {
            return Err(RegionsError::NoPeer {
                region: id,
                store: from,
            });
        }
        let new = peer(self.ids.alloc(1)?, to);
        let old = state
            .region
            .peers
            .iter_mut()
            .find(|peer| peer.store_id == from.0);
        *old.ok_or(RegionsError::NoPeer {
            region: id,
            store: from,
        })? = new;
        if state.leader_store() == from {
            state.leader = new;
        }
        let mut epoch = state.region.region_epoch.unwrap_or_default();
        epoch.conf_ver = epoch.conf_ver.saturating_add(2);
        state.region.region_epoch = Some(epoch);
        self.apply(&mut table, vec![state.clone()], &[])?;
        Ok(state)
    }

    /// Stores regions as they are now and removes others, then shows it.
    fn apply(
        &self,
        table: &mut Table,
        changed: Vec<RegionState>,
        removed: &[RegionId],
    ) -> Result<(), MetaError> {
        let mut batch = MetaBatch::default();
        for id in removed {
            batch.delete(stored_key(*id));
        }
        for state in &changed {
            let stored = Stored {
                region: Some(state.region.clone()),
                leader: Some(state.leader),
            };
            batch.put(stored_key(state.id()), stored.encode_to_vec());
        }
        self.kv.write(batch)?;
        for id in removed
            .iter()
            .copied()
            .chain(changed.iter().map(RegionState::id))
        {
            table.remove(id);
        }
        for state in changed {
            table.insert(state);
        }
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, state: RegionState) {
        self.by_start
            .insert(state.region.start_key.clone(), state.id());
        self.by_id.insert(state.id(), state);
    }

    fn remove(&mut self, id: RegionId) {
        if let Some(state) = self.by_id.remove(&id)
            && self.by_start.get(&state.region.start_key) == Some(&id)
        {
            self.by_start.remove(&state.region.start_key);
        }
    }

    fn find(&self, key: &[u8]) -> Option<&RegionState> {
        let (_, id) = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        self.by_id.get(id)
    }

    /// Whether the regions cover all keys once.
    fn check(&self) -> Result<(), String> {
        if self.by_start.len() != self.by_id.len() {
            return Err("two regions begin at the same key".into());
        }
        let mut expected: Option<&[u8]> = Some(&[]);
        for id in self.by_start.values() {
            let Some(state) = self.by_id.get(id) else {
                return Err(format!("no region {id}"));
            };
            if expected != Some(state.region.start_key.as_slice()) {
                return Err(format!(
                    "region {id} does not begin where the one before it ends"
                ));
            }
            if !state.region.peers.contains(&state.leader) {
                return Err(format!("region {id} is led by none of its peers"));
            }
            let end = state.region.end_key.as_slice();
            expected = (!end.is_empty()).then_some(end);
        }
        if !self.by_id.is_empty() && expected.is_some() {
            return Err("the last region has an end".into());
        }
        Ok(())
    }
}

fn stored_key(id: RegionId) -> Vec<u8> {
    [PREFIX, &id.0.to_be_bytes()].concat()
}

fn peer(id: u64, store: StoreId) -> metapb::Peer {
    metapb::Peer {
        id,
        store_id: store.0,
        ..metapb::Peer::default()
    }
}

fn peer_on(region: &metapb::Region, store: StoreId) -> Option<metapb::Peer> {
    let mut peers = region.peers.iter();
    peers.find(|peer| peer.store_id == store.0).copied()
}

fn message(text: &str) -> Box<errorpb::Error> {
    Box::new(errorpb::Error {
        message: text.to_owned(),
        ..errorpb::Error::default()
    })
}
