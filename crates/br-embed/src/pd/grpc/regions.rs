//! Lookups of regions, splits and scattering, as `pdpb.PD` answers them.

use br_proto::pdpb::{self as pb, ErrorType};
use br_store::topology::RegionState;
use br_types::{EncodedKey, KeyRange, RegionId, StoreId};
use tonic::Response;

use super::{Answer, PdService, internal};

/// Regions in one answer, whatever was asked for.
const SCAN_MAX: usize = 100_000;
/// New regions that one call may ask ids for; each takes one for every peer besides.
const SPLIT_IDS_MAX: u32 = 10_240;

impl PdService {
    pub(super) fn region_by_key(
        &self,
        request: &pb::GetRegionRequest,
        previous: bool,
    ) -> Answer<pb::GetRegionResponse> {
        self.check(request.header.as_ref())?;
        let key = EncodedKey::from(request.region_key.as_slice());
        let found = if previous {
            self.0.regions.find_previous(&key)
        } else {
            self.0.regions.find(&key)
        };
        Ok(Response::new(self.region_response(found)))
    }

    pub(super) fn region_response(&self, found: Option<RegionState>) -> pb::GetRegionResponse {
        let Some(found) = found else {
            return pb::GetRegionResponse {
                header: self.header(),
                ..Default::default()
            };
        };
        pb::GetRegionResponse {
            header: self.header(),
            down_peers: self.down_peers(&found),
            region: Some(found.region),
            leader: Some(found.leader),
            ..Default::default()
        }
    }

    fn down_peers(&self, state: &RegionState) -> Vec<pb::PeerStats> {
        let now = self.0.rt.wall().0;
        let down = |store: u64| {
            let store = self.0.stores.get(StoreId(store))?;
            (!store.up).then(|| now.saturating_sub(store.last_heartbeat.0) / 1000)
        };
        state
            .region
            .peers
            .iter()
            .filter_map(|peer| {
                let down_seconds = down(peer.store_id)?;
                Some(pb::PeerStats {
                    peer: Some(*peer),
                    down_seconds,
                })
            })
            .collect()
    }

    fn region(&self, state: RegionState) -> pb::Region {
        pb::Region {
            down_peers: self.down_peers(&state),
            region: Some(state.region),
            leader: Some(state.leader),
            ..Default::default()
        }
    }

    pub(super) fn scan(&self, request: &pb::ScanRegionsRequest) -> Answer<pb::ScanRegionsResponse> {
        self.check(request.header.as_ref())?;
        let range = KeyRange::new(request.start_key.as_slice(), request.end_key.as_slice());
        let found = self.0.regions.scan(&range, limit(request.limit));
        Ok(Response::new(pb::ScanRegionsResponse {
            header: self.header(),
            region_metas: found.iter().map(|state| state.region.clone()).collect(),
            leaders: found.iter().map(|state| state.leader).collect(),
            regions: found.into_iter().map(|state| self.region(state)).collect(),
        }))
    }

    pub(super) fn batch_scan(
        &self,
        request: &pb::BatchScanRegionsRequest,
    ) -> Answer<pb::BatchScanRegionsResponse> {
        self.check(request.header.as_ref())?;
        let refuse = |kind, message: &str| {
            let header = self.error_header(kind, message);
            Ok(Response::new(pb::BatchScanRegionsResponse {
                header,
                ..Default::default()
            }))
        };
        let ranges: Vec<KeyRange<EncodedKey>> = request
            .ranges
            .iter()
            .map(|range| KeyRange::new(range.start_key.as_slice(), range.end_key.as_slice()))
            .collect();
        let sorted = ranges.windows(2).all(|pair| match pair {
            [a, b] => !a.end.is_empty() && a.end <= b.start,
            _ => true,
        });
        if !sorted || ranges.iter().any(KeyRange::is_empty) {
            return refuse(
                ErrorType::Unknown,
                "the ranges are not sorted, or overlap, or are empty",
            );
        }
        let limit = limit(request.limit);
        let mut regions: Vec<pb::Region> = Vec::new();
        for range in &ranges {
            let room = limit - regions.len();
            if room == 0 {
                break;
            }
            for state in self.0.regions.scan(range, room) {
                // A region that two ranges touch is told once.
                let last = regions.last().and_then(|last| last.region.as_ref());
                if last.is_none_or(|last| last.id != state.region.id) {
                    regions.push(self.region(state));
                }
            }
        }
        // The table has no gaps: a range that is not covered is covered by nothing at all.
        if request.contain_all_key_range && regions.is_empty() && !ranges.is_empty() {
            return refuse(
                ErrorType::RegionsNotContainAllKeyRange,
                "found regions do not cover the whole key ranges",
            );
        }
        Ok(Response::new(pb::BatchScanRegionsResponse {
            header: self.header(),
            regions,
        }))
    }

    pub(super) fn split_ids(
        &self,
        request: &pb::AskBatchSplitRequest,
    ) -> Answer<pb::AskBatchSplitResponse> {
        self.check(request.header.as_ref())?;
        let refuse = |message: String| {
            let header = self.error_header(ErrorType::Unknown, message);
            Ok(Response::new(pb::AskBatchSplitResponse {
                header,
                ..Default::default()
            }))
        };
        let id = request.region.as_ref().map_or(0, |region| region.id);
        let Some(state) = self.0.regions.get(RegionId(id)) else {
            return refuse(format!("region {id} not found"));
        };
        if request.split_count == 0 || request.split_count > SPLIT_IDS_MAX {
            return refuse(format!(
                "{} is no possible number of splits",
                request.split_count
            ));
        }
        let alloc = || self.0.ids.alloc(1).map_err(|error| internal(&error));
        let mut ids = Vec::new();
        for _ in 0..request.split_count {
            let new_region_id = alloc()?;
            let peers = state.region.peers.iter();
            let new_peer_ids = peers.map(|_| alloc()).collect::<Result<_, _>>()?;
            ids.push(pb::SplitId {
                new_region_id,
                new_peer_ids,
            });
        }
        Ok(Response::new(pb::AskBatchSplitResponse {
            header: self.header(),
            ids,
        }))
    }

    /// Splits at encoded keys; gives how much of it is done, in percent, and the new regions.
    pub(super) fn split_at(&self, keys: Vec<Vec<u8>>) -> (u64, Vec<u64>) {
        let mut keys: Vec<EncodedKey> = keys.into_iter().map(EncodedKey::from).collect();
        keys.sort_unstable();
        keys.dedup();
        let wanted = keys.len();
        let mut done = 0;
        let mut new = Vec::new();
        for key in keys {
            let Some(state) = self.0.regions.find(&key) else {
                continue;
            };
            if state.region.start_key == key.as_bytes() {
                done += 1;
                continue;
            }
            let version = state.region.region_epoch.unwrap_or_default().version;
            match self.0.regions.split(state.id(), version, &[key]) {
                Ok(parts) => {
                    done += 1;
                    // The last part keeps the old id.
                    new.extend(
                        parts
                            .iter()
                            .map(|part| part.region.id)
                            .filter(|id| *id != state.region.id),
                    );
                }
                Err(error) => tracing::warn!(error = error.message, "cannot split a region"),
            }
        }
        (percentage(done, wanted), new)
    }

    pub(super) fn scatter(
        &self,
        request: &pb::ScatterRegionRequest,
    ) -> Answer<pb::ScatterRegionResponse> {
        self.check(request.header.as_ref())?;
        #[expect(deprecated, reason = "old clients name one region so")]
        let single = request.region_id;
        if request.regions_id.is_empty() {
            let id = if single != 0 {
                single
            } else {
                request.region.as_ref().map_or(0, |r| r.id)
            };
            if self.0.regions.get(RegionId(id)).is_none() {
                let header =
                    self.error_header(ErrorType::RegionNotFound, format!("region {id} not found"));
                return Ok(Response::new(pb::ScatterRegionResponse {
                    header,
                    ..Default::default()
                }));
            }
            let (finished_percentage, failed_regions_id) = self.scatter_all(&request.group, &[id]);
            let header = self.header();
            return Ok(Response::new(pb::ScatterRegionResponse {
                header,
                finished_percentage,
                failed_regions_id,
            }));
        }
        let (finished_percentage, failed_regions_id) =
            self.scatter_all(&request.group, &request.regions_id);
        Ok(Response::new(pb::ScatterRegionResponse {
            header: self.header(),
            finished_percentage,
            failed_regions_id,
        }))
    }

    /// Scatters regions; gives how much of it is done, in percent, and those that failed.
    pub(super) fn scatter_all(&self, group: &str, ids: &[u64]) -> (u64, Vec<u64>) {
        let up = self.0.up_stores();
        let mut failed = Vec::new();
        for &id in ids {
            let done = self
                .0
                .operators
                .scatter(&self.0.regions, &up, group, RegionId(id));
            if let Err(error) = done {
                tracing::warn!(region = id, %error, "cannot scatter a region");
                failed.push(id);
            }
        }
        (percentage(ids.len() - failed.len(), ids.len()), failed)
    }

    pub(super) fn operator(
        &self,
        request: &pb::GetOperatorRequest,
    ) -> Answer<pb::GetOperatorResponse> {
        self.check(request.header.as_ref())?;
        let id = RegionId(request.region_id);
        Ok(Response::new(match self.0.operators.last(id) {
            Some(name) => pb::GetOperatorResponse {
                header: self.header(),
                region_id: id.0,
                desc: name.as_bytes().to_vec(),
                status: pb::OperatorStatus::Success.into(),
                kind: b"admin,leader,region".to_vec(),
            },
            None => pb::GetOperatorResponse {
                header: self.error_header(ErrorType::RegionNotFound, "Not Found"),
                ..Default::default()
            },
        }))
    }
}

/// Zero or less asks for all.
fn limit(asked: i32) -> usize {
    match usize::try_from(asked) {
        Ok(limit) if limit > 0 => limit.min(SCAN_MAX),
        _ => SCAN_MAX,
    }
}

fn percentage(done: usize, wanted: usize) -> u64 {
    let percent = (done * 100).checked_div(wanted).unwrap_or(100);
    u64::try_from(percent).unwrap_or(100)
}
