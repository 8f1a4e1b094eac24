use br_proto::{kvrpcpb, metapb, pdpb};
use br_types::{EncodedKey, KeyRange, RegionEpoch, RegionId, StoreId};

/// A region and the peer that leads it, as far as is known.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionRoute {
    /// Id, range, epoch, peers.
    pub region: metapb::Region,
    /// The leader; its store is never 0.
    pub leader: metapb::Peer,
    /// Peers that PD says are behind; empty if PD did not say.
    pub pending_peers: Vec<metapb::Peer>,
}

impl RegionRoute {
    /// What PD says of a region; `None` without a region or a leader.
    pub(crate) fn from_pd(found: pdpb::Region) -> Option<RegionRoute> {
        let region = found.region?;
        let leader = found.leader.filter(|leader| leader.store_id != 0)?;
        Some(RegionRoute {
            region,
            leader,
            pending_peers: found.pending_peers,
        })
    }

    /// The region's id.
    pub fn id(&self) -> RegionId {
        RegionId(self.region.id)
    }

    /// Its epoch.
    pub fn epoch(&self) -> RegionEpoch {
        let epoch = self.region.region_epoch.unwrap_or_default();
        RegionEpoch {
            conf_ver: epoch.conf_ver,
            version: epoch.version,
        }
    }

    /// Its keys.
    pub fn range(&self) -> KeyRange<EncodedKey> {
        KeyRange::new(self.region.start_key.clone(), self.region.end_key.clone())
    }

    /// The store of its leader.
    pub fn leader_store(&self) -> StoreId {
        StoreId(self.leader.store_id)
    }

    /// The stores of all its peers.
    pub fn stores(&self) -> impl Iterator<Item = StoreId> + '_ {
        self.region.peers.iter().map(|peer| StoreId(peer.store_id))
    }

    /// What a request to the leader carries.
    pub fn context(&self) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: self.region.id,
            region_epoch: self.region.region_epoch,
            peer: Some(self.leader),
            request_source: "br".into(),
            ..Default::default()
        }
    }
}
