//! Whether this store may answer a request now: cluster, store, region, leader, epoch, keys, in
//! the order in which TiKV asks, with the errors that clients route by.
//!
//! Source: `kvrpcpb.Context`, `errorpb.Error`; the order is TiKV's (raftstore `store/util.rs`).

use br_proto::{errorpb, kvrpcpb, metapb};
use br_types::{EncodedKey, KeyRange, RegionId};
use tonic::Status;

use crate::{context::StoreContext, topology::RegionState};

/// Regions named in one "epoch not match" at most: a client needs those of its keys, and a batch
/// may touch many.
const CURRENT_REGIONS_MAX: usize = 16;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Reject {
    /// The client loads the region again; goes into the answer's `region_error`.
    Region(Box<errorpb::Error>),
    /// The call as a whole fails.
    Status(Status),
}

/// What a request wants of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A read: a follower may serve it when the client asks for that.
    Read,
    /// A change: only the leader.
    Write,
}

/// Refuses a request for another cluster, or to a store that is down.
///
/// # Errors
/// The status that ends the call.
pub(crate) fn check_store(store: &StoreContext, cluster_id: u64) -> Result<(), Status> {
    if !store.topology.is_up(store.store_id) {
        return Err(Status::unavailable(format!(
            "store {} is down",
            store.store_id
        )));
    }
    if cluster_id != 0 && cluster_id != store.cluster_id.0 {
        return Err(Status::invalid_argument(format!(
            "the request is for cluster {cluster_id}, this is cluster {}",
            store.cluster_id
        )));
    }
    Ok(())
}

/// Finds the region of a request and checks that this store may serve it.
///
/// `keys` are the keys that the request touches, each of which must lie in the region.
///
/// # Errors
/// [`Reject`].
pub(crate) fn check<'k>(
    store: &StoreContext,
    context: Option<&kvrpcpb::Context>,
    access: Access,
    keys: impl Iterator<Item = EncodedKey> + Clone + 'k,
) -> Result<RegionState, Reject> {
    let absent = kvrpcpb::Context::default();
    let context = context.unwrap_or(&absent);
    check_store(store, context.cluster_id).map_err(Reject::Status)?;
    let state = check_region(store, context, access)?;
    let version = context
        .region_epoch
        .as_ref()
        .map_or(0, |epoch| epoch.version);
    let current = state
        .region
        .region_epoch
        .as_ref()
        .map_or(0, |epoch| epoch.version);
    if version != current {
        return Err(region_error(epoch_not_match(store, &state, keys)));
    }
    let range = state.range();
    for key in keys {
        if !range.contains(&key) {
            return Err(region_error(key_not_in_region(&key, &state.region)));
        }
    }
    Ok(state)
}

/// The checks that need no keys: store, region, leader, peer.
fn check_region(
    store: &StoreContext,
    context: &kvrpcpb::Context,
    access: Access,
) -> Result<RegionState, Reject> {
    let id = RegionId(context.region_id);
    if let Some(peer) = &context.peer
        && peer.store_id != 0
        && peer.store_id != store.store_id.0
    {
        return Err(region_error(errorpb::Error {
            message: format!(
                "the request is for store {}, this is store {}",
                peer.store_id, store.store_id
            ),
            store_not_match: Some(errorpb::StoreNotMatch {
                request_store_id: peer.store_id,
                actual_store_id: store.store_id.0,
            }),
            ..Default::default()
        }));
    }
    let Some(state) = store.topology.region(id) else {
        return Err(region_error(region_not_found(id)));
    };
    let Some(peer) = state
        .region
        .peers
        .iter()
        .find(|peer| peer.store_id == store.store_id.0)
    else {
        return Err(region_error(region_not_found(id)));
    };
    let follower_may = access == Access::Read && (context.replica_read || context.stale_read);
    if state.leader_store() != store.store_id && !follower_may {
        return Err(region_error(not_leader(&state)));
    }
    if let Some(asked) = &context.peer
        && asked.id != 0
        && asked.id != peer.id
    {
        return Err(region_error(errorpb::Error {
            message: format!(
                "the request is for peer {} of region {id}, here is peer {}",
                asked.id, peer.id
            ),
            mismatch_peer_id: Some(errorpb::MismatchPeerId {
                request_peer_id: asked.id,
                store_peer_id: peer.id,
            }),
            ..Default::default()
        }));
    }
    Ok(state)
}

/// Checks what an ingest needs: leadership and exactly the epoch for which the files were made.
///
/// # Errors
/// [`Reject`].
pub(crate) fn check_exact_epoch(
    store: &StoreContext,
    context: &kvrpcpb::Context,
) -> Result<RegionState, Reject> {
    check_store(store, context.cluster_id).map_err(Reject::Status)?;
    let state = check_region(store, context, Access::Write)?;
    if context.region_epoch != state.region.region_epoch {
        return Err(region_error(epoch_not_match(
            store,
            &state,
            std::iter::empty(),
        )));
    }
    Ok(state)
}

fn region_error(error: errorpb::Error) -> Reject {
    Reject::Region(Box::new(error))
}

/// There is no such region on this store.
pub(crate) fn region_not_found(id: RegionId) -> errorpb::Error {
    errorpb::Error {
        message: format!("region {id} is not on this store"),
        region_not_found: Some(errorpb::RegionNotFound { region_id: id.0 }),
        ..Default::default()
    }
}

/// Another store leads the region; names it.
pub(crate) fn not_leader(state: &RegionState) -> errorpb::Error {
    errorpb::Error {
        message: format!(
            "region {} is led by store {}",
            state.id(),
            state.leader_store()
        ),
        not_leader: Some(errorpb::NotLeader {
            region_id: state.id().0,
            leader: Some(state.leader),
        }),
        ..Default::default()
    }
}

/// The region's shape is another one; carries the regions as they are now, that of the request
/// first, then those of its keys.
pub(crate) fn epoch_not_match(
    store: &StoreContext,
    state: &RegionState,
    keys: impl Iterator<Item = EncodedKey>,
) -> errorpb::Error {
    let mut regions: Vec<metapb::Region> = vec![state.region.clone()];
    for key in keys {
        let known = |region: &metapb::Region| {
            KeyRange::<EncodedKey>::new(region.start_key.clone(), region.end_key.clone())
                .contains(&key)
        };
        if regions.iter().any(known) {
            continue;
        }
        if let Some(found) = store.topology.region_of(&key) {
            regions.push(found.region);
        }
        if regions.len() >= CURRENT_REGIONS_MAX {
            break;
        }
    }
    errorpb::Error {
        message: format!("region {} has another epoch now", state.id()),
        epoch_not_match: Some(errorpb::EpochNotMatch {
            current_regions: regions,
        }),
        ..Default::default()
    }
}

/// A key of the request lies outside the region.
pub(crate) fn key_not_in_region(key: &EncodedKey, region: &metapb::Region) -> errorpb::Error {
    errorpb::Error {
        message: format!("key {key} is not in region {}", region.id),
        key_not_in_region: Some(errorpb::KeyNotInRegion {
            key: key.as_bytes().to_vec(),
            region_id: region.id,
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }),
        ..Default::default()
    }
}

/// The store has too much to do; the client waits and sends the same again.
pub(crate) fn server_is_busy(reason: &str, backoff_ms: u64) -> errorpb::Error {
    errorpb::Error {
        message: reason.to_owned(),
        server_is_busy: Some(errorpb::ServerIsBusy {
            reason: reason.to_owned(),
            backoff_ms,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
