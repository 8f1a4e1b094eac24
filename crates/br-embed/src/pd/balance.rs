//! The background scheduler that spreads leaders over the stores that are up.
//!
//! It does nothing while `balance-leader-scheduler` pauses, moves at most `leader-schedule-limit`
//! leaders a round, and leaves regions alone that a label rule denies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use br_proto::metapb;
use br_types::StoreId;

use super::{Pd, schedulers::BALANCE_LEADER};

/// Time between rounds.
const ROUND: Duration = Duration::from_millis(500);
/// A difference in leaders that is left alone, so that leaders do not wander to and fro.
const TOLERANCE: usize = 2;

/// How many leaders each store has that is up, kept while more are placed.
pub(super) struct Leaders(BTreeMap<StoreId, usize>);

impl Leaders {
    pub(super) fn of(pd: &Pd) -> Leaders {
        let counts = pd.regions.store_counts();
        let of_store = |store| counts.get(&store).map_or(0, |count| count.0);
        Leaders(
            pd.up_stores()
                .into_iter()
                .map(|store| (store, of_store(store)))
                .collect(),
        )
    }

    /// The store with fewest leaders that has a peer of the region, for another leader there.
    pub(super) fn place(&mut self, region: &metapb::Region) -> Option<StoreId> {
        let holders = region.peers.iter().map(|peer| StoreId(peer.store_id));
        let store = holders
            .filter(|store| self.0.contains_key(store))
            .min_by_key(|store| (self.0.get(store).copied(), *store))?;
        *self.0.entry(store).or_default() += 1;
        Some(store)
    }
}

/// Balances for ever.
pub(crate) async fn run(pd: Arc<Pd>) {
    loop {
        pd.rt.sleep(ROUND).await;
        if let Err(error) = round(&pd) {
            tracing::warn!(%error, "cannot balance leaders; trying again");
        }
    }
}

impl Pd {
    /// Leaders that may move in one round.
    fn leader_moves_max(&self) -> usize {
        let limit = self.config.number("schedule.leader-schedule-limit");
        usize::try_from(limit).unwrap_or(0)
    }

    /// Whether nobody has asked for leaders to stay where they are.
    pub(super) fn leaders_may_move(&self) -> bool {
        self.leader_moves_max() > 0 && self.schedulers.is_at_work(BALANCE_LEADER)
    }
}

/// One round; gives the number of leaders moved.
pub(crate) fn round(pd: &Pd) -> Result<usize, super::regions::RegionsError> {
    if !pd.leaders_may_move() {
        return Ok(0);
    }
    let limit = pd.leader_moves_max();
    let mut up: Vec<(StoreId, usize)> = Leaders::of(pd).0.into_iter().collect();
    up.sort_unstable();
    let unbalanced = |up: &[(StoreId, usize)]| {
        let most = up.iter().max_by_key(|(_, leaders)| *leaders)?;
        let least = up.iter().min_by_key(|(_, leaders)| *leaders)?;
        (most.1 - least.1 > TOLERANCE).then_some((most.0, least.0))
    };
    if unbalanced(&up).is_none() {
        return Ok(0);
    }
    let denied = pd.labels.denied_ranges();
    let mut moved = 0;
    for state in pd.regions.all() {
        let Some((from, to)) = unbalanced(&up) else {
            break;
        };
        if moved >= limit {
            break;
        }
        let movable = state.leader_store() == from
            && state.region.peers.iter().any(|peer| peer.store_id == to.0)
            && denied.iter().all(|range| !range.overlaps(&state.range()));
        if !movable {
            continue;
        }
        pd.regions.transfer_leader(state.id(), to)?;
        moved += 1;
        for (store, leaders) in &mut up {
            if *store == from {
                *leaders -= 1;
            } else if *store == to {
                *leaders += 1;
            }
        }
    }
    Ok(moved)
}
