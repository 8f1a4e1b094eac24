use std::sync::{Arc, Mutex, PoisonError};

use br_types::{EncodedKey, KeyRange, StoreId};

use crate::topology::{RegionState, Topology};

/// Regions looked up at once, as in TiKV: enough to keep workers busy, few enough that their
/// epochs are still fresh when their turn comes.
const REGIONS_AT_ONCE: usize = 8;

/// The part of a wanted range that lies in one region.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// The region as it was when the piece was cut.
    pub(super) state: RegionState,
    /// What to back up of it.
    pub(super) range: KeyRange<EncodedKey>,
}

/// Hands out the pieces of the wanted ranges in regions that this store may answer for, to any
/// number of workers. Regions of other stores are skipped without a word: every store is asked
/// for all ranges.
pub(super) struct Pieces {
    topology: Arc<dyn Topology>,
    store: StoreId,
    /// Follower regions too.
    any_replica: bool,
    /// Where a large piece is cut into parts.
    boundaries: Boundaries,
    inner: Mutex<Inner>,
}

/// The keys at which a range is cut into parts, ascending.
pub(super) type Boundaries = Box<dyn Fn(&KeyRange<EncodedKey>) -> Vec<EncodedKey> + Send + Sync>;

struct Inner {
    /// Ranges that remain, the next one last.
    ranges: Vec<KeyRange<EncodedKey>>,
    /// Pieces cut and not handed out, the next one last.
    cut: Vec<Piece>,
}

impl Pieces {
    pub(super) fn new(
        topology: Arc<dyn Topology>,
        store: StoreId,
        any_replica: bool,
        boundaries: Boundaries,
        mut ranges: Vec<KeyRange<EncodedKey>>,
    ) -> Pieces {
        ranges.reverse();
        Pieces {
            topology,
            store,
            any_replica,
            boundaries,
            inner: Mutex::new(Inner {
                ranges,
                cut: Vec::new(),
            }),
        }
    }

    /// The next piece; `None` when there is none left.
    pub(super) fn next(&self) -> Option<Piece> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(piece) = inner.cut.pop() {
                return Some(piece);
            }
            let range = inner.ranges.pop()?;
            self.cut(&range, &mut inner);
        }
    }

    /// Cuts the pieces at the front of a range and puts the rest back.
    fn cut(&self, range: &KeyRange<EncodedKey>, inner: &mut Inner) {
        if range.is_empty() {
            return;
        }
        let regions = self.topology.regions_in(range, REGIONS_AT_ONCE);
        let full = regions.len() >= REGIONS_AT_ONCE;
        let cut_until = regions
            .last()
            .map(|state| state.range().end)
            .unwrap_or_default();
        for state in regions {
            if self.is_ours(&state)
                && let Some(part) = state.range().intersect(range)
            {
                let mut start = part.start.clone();
                let ends = (self.boundaries)(&part).into_iter().chain([part.end]);
                for end in ends {
                    let range = KeyRange {
                        start: std::mem::replace(&mut start, end.clone()),
                        end,
                    };
                    inner.cut.push(Piece {
                        state: state.clone(),
                        range,
                    });
                }
            }
        }
        inner.cut.reverse();
        let rest = KeyRange {
            start: cut_until,
            end: range.end.clone(),
        };
        if full && !rest.start.is_empty() && !rest.is_empty() {
            inner.ranges.push(rest);
        }
    }

    fn is_ours(&self, state: &RegionState) -> bool {
        let has_peer = || {
            state
                .region
                .peers
                .iter()
                .any(|peer| peer.store_id == self.store.0)
        };
        state.leader_store() == self.store || (self.any_replica && has_peer())
    }
}
