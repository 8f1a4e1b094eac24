//! The split of a region that a client asks for before it restores data into it.
//!
//! Source: TiKV `service/kv.rs` `split_region`, raftstore `store/util.rs`. Only the version of the
//! epoch counts; the keys lie strictly inside the region; the region's id stays with the last part.

use br_codec::{ApiVersion, key};
use br_proto::{errorpb, kvrpcpb};
use br_types::{EncodedKey, RegionId};
use tonic::Status;

use crate::{
    context::StoreContext,
    region_check::{check_store, epoch_not_match, key_not_in_region, not_leader, region_not_found},
    topology::RegionState,
};

/// Splits a region at the keys of a request.
///
/// # Errors
/// A status when the store is down or the request is for another cluster; everything else stands
/// in the answer's `region_error`.
pub(crate) fn split_region(
    store: &StoreContext,
    request: kvrpcpb::SplitRegionRequest,
) -> Result<kvrpcpb::SplitRegionResponse, Status> {
    let cluster_id = request
        .context
        .as_ref()
        .map_or(0, |context| context.cluster_id);
    check_store(store, cluster_id)?;
    Ok(match split(store, request) {
        Ok(regions) => answer(regions),
        Err(error) => kvrpcpb::SplitRegionResponse {
            region_error: Some(*error),
            ..Default::default()
        },
    })
}

fn answer(regions: Vec<RegionState>) -> kvrpcpb::SplitRegionResponse {
    let regions: Vec<_> = regions.into_iter().map(|state| state.region).collect();
    let mut response = kvrpcpb::SplitRegionResponse::default();
    #[allow(deprecated, reason = "older clients read them")]
    if let [left, right] = &regions[..] {
        response.left = Some(left.clone());
        response.right = Some(right.clone());
    }
    response.regions = regions;
    response
}

fn split(
    store: &StoreContext,
    request: kvrpcpb::SplitRegionRequest,
) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
    let keys = split_keys(store, &request);
    let context = request.context.unwrap_or_default();
    let id = RegionId(context.region_id);
    let state = store
        .topology
        .region(id)
        .ok_or_else(|| Box::new(region_not_found(id)))?;
    if state.leader_store() != store.store_id {
        return Err(Box::new(not_leader(&state)));
    }
    let version = context.region_epoch.map_or(0, |epoch| epoch.version);
    let current = state
        .region
        .region_epoch
        .as_ref()
        .map_or(0, |epoch| epoch.version);
    if version != current {
        return Err(Box::new(epoch_not_match(store, &state, keys.into_iter())));
    }
    let range = state.range();
    if let Some(key) = keys.iter().find(|key| !range.contains(key)) {
        return Err(Box::new(key_not_in_region(key, &state.region)));
    }
    let at_start = keys.first().is_some_and(|key| *key == range.start);
    let repeats = keys.windows(2).any(|pair| pair[0] == pair[1]);
    if keys.is_empty() || at_start || repeats {
        let problem = match (keys.is_empty(), at_start) {
            (true, _) => "there are no keys",
            (_, true) => "a key is the region's start",
            _ => "a key stands there twice",
        };
        return Err(Box::new(errorpb::Error {
            message: format!("failed to split: invalid split request: {problem}"),
            ..Default::default()
        }));
    }
    store.topology.split(id, version, &keys)
}

/// The keys as regions know them, sorted.
fn split_keys(store: &StoreContext, request: &kvrpcpb::SplitRegionRequest) -> Vec<EncodedKey> {
    let is_bare = request.is_raw_kv && store.api_version() != ApiVersion::V2;
    let encode = |raw: &Vec<u8>| {
        if is_bare {
            EncodedKey::from(raw.clone())
        } else {
            key::encode(raw)
        }
    };
    #[allow(deprecated, reason = "older clients send it")]
    let one = &request.split_key;
    let mut keys: Vec<EncodedKey> = if one.is_empty() {
        request.split_keys.iter().map(encode).collect()
    } else {
        vec![encode(one)]
    };
    keys.sort();
    keys
}
