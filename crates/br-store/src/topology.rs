//! What a store knows of regions: which there are, who leads them, and how to split one.
//!
//! In the embedded cluster one table serves PD and every store (`br-embed` owns it), so a store
//! sees a split or a new leader at once, and no heartbeat carries it.

use br_proto::{errorpb, metapb};
use br_types::{EncodedKey, KeyRange, RegionId, StoreId, TimeStamp};

/// One region as the cluster sees it now.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionState {
    /// Id, range, epoch and peers.
    pub region: metapb::Region,
    /// The peer that leads; always one of the region's peers.
    pub leader: metapb::Peer,
}

impl RegionState {
    /// The region's id.
    pub fn id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    /// The store of the leader.
    pub fn leader_store(&self) -> StoreId {
        StoreId(self.leader.store_id)
    }

    /// The region's keys.
    pub fn range(&self) -> KeyRange<EncodedKey> {
        KeyRange::new(self.region.start_key.clone(), self.region.end_key.clone())
    }
}

/// The regions of the cluster, for its stores. Calls are short and do not block on I/O.
pub trait Topology: Send + Sync + 'static {
    /// The region of that id.
    fn region(&self, id: RegionId) -> Option<RegionState>;

    /// The region that holds a key.
    fn region_of(&self, key: &EncodedKey) -> Option<RegionState>;

    /// The regions that overlap a range, in key order, at most `limit` of them.
    fn regions_in(&self, range: &KeyRange<EncodedKey>, limit: usize) -> Vec<RegionState>;

    /// Splits a region at keys strictly inside it, sorted and unique, if its epoch's version is
    /// still `version`. Gives all resulting regions in key order; the original id keeps the last
    /// part. Durable when it returns.
    ///
    /// # Errors
    /// The region error to answer with: epoch, not found, key not in region.
    fn split(
        &self,
        id: RegionId,
        version: u64,
        keys: &[EncodedKey],
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>>;

    /// A number that grows with every change of the table: as long as it stays, so do the regions,
    /// their epochs and their leaders.
    fn changes(&self) -> u64;

    /// Whether a store is up; a store that is down refuses every request.
    fn is_up(&self, store: StoreId) -> bool;

    /// A fresh timestamp of the cluster's oracle.
    fn tso(&self) -> TimeStamp;

    /// Versions at or below it may have been collected.
    fn gc_safe_point(&self) -> TimeStamp;

    /// Whether nothing may be collected now, wherever the safe point is: a restore writes versions
    /// below it, and what hides them may be there before they are.
    fn is_gc_held(&self) -> bool;
}
