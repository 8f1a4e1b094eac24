//! Region errors, as stores answer them.

use br_proto::errorpb;
use br_store::topology::RegionState;
use br_types::RegionId;

/// There is no such region, here or anywhere.
pub fn region_not_found(id: RegionId) -> Box<errorpb::Error> {
    Box::new(errorpb::Error {
        message: format!("region {id} not found"),
        region_not_found: Some(errorpb::RegionNotFound { region_id: id.0 }),
        ..errorpb::Error::default()
    })
}

/// The region has changed; `current` is what it became.
pub fn epoch_not_match(current: &[RegionState]) -> Box<errorpb::Error> {
    Box::new(errorpb::Error {
        message: "the region's epoch has changed".to_owned(),
        epoch_not_match: Some(errorpb::EpochNotMatch {
            current_regions: current.iter().map(|state| state.region.clone()).collect(),
        }),
        ..errorpb::Error::default()
    })
}

/// The key belongs to another region, or cannot be a bound within this one.
pub fn key_not_in_region(key: &[u8], state: &RegionState) -> Box<errorpb::Error> {
    Box::new(errorpb::Error {
        message: format!("the key is not inside region {}", state.region.id),
        key_not_in_region: Some(errorpb::KeyNotInRegion {
            key: key.to_vec(),
            region_id: state.region.id,
            start_key: state.region.start_key.clone(),
            end_key: state.region.end_key.clone(),
        }),
        ..errorpb::Error::default()
    })
}
