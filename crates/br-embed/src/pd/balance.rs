//! The background scheduler that spreads leaders over the stores that are up.
//!
//! It does nothing while `balance-leader-scheduler` pauses, moves at most `leader-schedule-limit`
//! leaders a round, and leaves regions alone that a label rule denies.

use std::{sync::Arc, time::Duration};

use br_types::StoreId;

use super::{Pd, schedulers::BALANCE_LEADER};

/// Time between rounds.
const ROUND: Duration = Duration::from_millis(500);
/// A difference in leaders that is left alone, so that leaders do not wander to and fro.
const TOLERANCE: usize = 2;

/// Balances for ever.
pub(crate) async fn run(pd: Arc<Pd>) {
    loop {
        pd.rt.sleep(ROUND).await;
        if let Err(error) = round(&pd) {
            tracing::warn!(%error, "cannot balance leaders; trying again");
        }
    }
}

/// One round; gives the number of leaders moved.
pub(crate) fn round(pd: &Pd) -> Result<usize, super::regions::RegionsError> {
    let limit = usize::try_from(pd.config.number("schedule.leader-schedule-limit")).unwrap_or(0);
    if limit == 0 || !pd.schedulers.is_at_work(BALANCE_LEADER) {
        return Ok(0);
    }
    let counts = pd.regions.store_counts();
    let mut up: Vec<(StoreId, usize)> = pd
        .up_stores()
        .into_iter()
        .map(|store| (store, counts.get(&store).map_or(0, |count| count.0)))
        .collect();
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
