use std::time::Duration;

use br_proto::pdpb;
use br_rt::{Backoff, RetryPolicy};
use br_types::{EncodedKey, KeyRange, RegionId};

use super::{PdClient, PdError};
use crate::region::RegionRoute;

/// Regions of one page of a scan: a million of them take 8 000 calls, and no answer nears the
/// message limit, however long the keys are.
const PAGE_REGIONS: usize = 128;

/// How long regions may be between two shapes (a split not reported yet, an election).
const SCAN_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(2),
    attempts_max: 100,
    elapsed_max: Duration::from_secs(120),
};

/// How a scatter went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterOutcome {
    /// 0 to 100.
    pub finished_percentage: u64,
    /// Those to try again.
    pub failed: Vec<RegionId>,
}

/// What PD does to a region at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorState {
    /// Nothing, or PD does not remember.
    None,
    /// An operator, the newest.
    Known {
        /// What it is for, such as `scatter-region`.
        description: String,
        /// How far it is.
        status: pdpb::OperatorStatus,
    },
}

impl PdClient {
    /// The region that holds a key; `None` while PD knows none or it has no leader.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn region_of(&self, key: &EncodedKey) -> Result<Option<RegionRoute>, PdError> {
        let answer = self
            .call("GetRegion", |mut stub, header| async move {
                let request = pdpb::GetRegionRequest {
                    header: Some(header),
                    region_key: key.as_bytes().to_vec(),
                    need_buckets: false,
                };
                stub.get_region(request).await
            })
            .await?;
        Ok(route(answer))
    }

    /// The region that lies before the one that holds a key.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn region_before(&self, key: &EncodedKey) -> Result<Option<RegionRoute>, PdError> {
        let answer = self
            .call("GetPrevRegion", |mut stub, header| async move {
                let request = pdpb::GetRegionRequest {
                    header: Some(header),
                    region_key: key.as_bytes().to_vec(),
                    need_buckets: false,
                };
                stub.get_prev_region(request).await
            })
            .await?;
        Ok(route(answer))
    }

    /// The region of that id; `None` while PD knows none or it has no leader.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn region(&self, id: RegionId) -> Result<Option<RegionRoute>, PdError> {
        let answer = self
            .call("GetRegionByID", |mut stub, header| async move {
                let request = pdpb::GetRegionByIdRequest {
                    header: Some(header),
                    region_id: id.0,
                    need_buckets: false,
                };
                stub.get_region_by_id(request).await
            })
            .await?;
        Ok(route(answer))
    }

    /// Regions that overlap `range`, in key order, at most `limit`; the first holds its start.
    /// They may have holes, and regions without a leader are left out: see
    /// [`PdClient::all_regions`].
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn scan_regions(
        &self,
        range: &KeyRange<EncodedKey>,
        limit: usize,
    ) -> Result<Vec<RegionRoute>, PdError> {
        let answer = self
            .call("ScanRegions", |mut stub, header| async move {
                let request = pdpb::ScanRegionsRequest {
                    header: Some(header),
                    start_key: range.start.as_bytes().to_vec(),
                    limit: i32::try_from(limit).unwrap_or(i32::MAX),
                    end_key: range.end.as_bytes().to_vec(),
                };
                stub.scan_regions(request).await
            })
            .await?;
        if answer.regions.is_empty() && !answer.region_metas.is_empty() {
            // Before 4.0, in two lists.
            let pairs = answer.region_metas.into_iter().zip(answer.leaders);
            return Ok(pairs
                .filter_map(|(region, leader)| {
                    RegionRoute::from_pd(pdpb::Region {
                        region: Some(region),
                        leader: Some(leader),
                        ..Default::default()
                    })
                })
                .collect());
        }
        Ok(answer
            .regions
            .into_iter()
            .filter_map(RegionRoute::from_pd)
            .collect())
    }

    /// One page of the regions that cover `range`, without holes, each with a leader; the first
    /// holds its start. The next page starts where the last region ends.
    ///
    /// Asks again while PD's table has holes, for up to two minutes.
    ///
    /// # Errors
    /// PD is out of reach, or [`PdError::RegionsIncomplete`] after that time.
    pub async fn region_page(
        &self,
        range: &KeyRange<EncodedKey>,
    ) -> Result<Vec<RegionRoute>, PdError> {
        let mut backoff = Backoff::new(SCAN_RETRY, self.rt());
        loop {
            let regions = self.scan_regions(range, PAGE_REGIONS).await?;
            let Err(what) = check_contiguous(range, &regions) else {
                return Ok(regions);
            };
            if !backoff.pause(self.rt(), self.cancel()).await {
                if self.cancel().is_cancelled() {
                    return Err(PdError::Cancelled);
                }
                return Err(PdError::RegionsIncomplete {
                    range: range.clone(),
                    what,
                });
            }
            tracing::debug!(%range, what, "regions in motion");
        }
    }

    /// All regions that cover `range`, without holes, each with a leader. Memory grows with their
    /// number: for whole clusters take [`PdClient::region_page`].
    ///
    /// # Errors
    /// As [`PdClient::region_page`].
    pub async fn all_regions(
        &self,
        range: &KeyRange<EncodedKey>,
    ) -> Result<Vec<RegionRoute>, PdError> {
        let mut all = Vec::new();
        let mut rest = range.clone();
        loop {
            let page = self.region_page(&rest).await?;
            let end = page.last().map(|last| last.range().end).unwrap_or_default();
            all.extend(page);
            if end.is_empty() || !range.is_before_end(&end) {
                return Ok(all);
            }
            rest.start = end;
        }
    }

    /// Asks PD to spread the peers of regions over the stores, without its limit per store.
    ///
    /// # Errors
    /// PD is out of reach or refuses; [`PdError::is_unimplemented`] from PD before 4.0.
    pub async fn scatter(&self, regions: &[RegionId]) -> Result<ScatterOutcome, PdError> {
        let answer = self
            .call("ScatterRegion", |mut stub, header| async move {
                let request = pdpb::ScatterRegionRequest {
                    header: Some(header),
                    regions_id: regions.iter().map(|id| id.0).collect(),
                    skip_store_limit: true,
                    ..Default::default()
                };
                stub.scatter_region(request).await
            })
            .await?;
        Ok(ScatterOutcome {
            finished_percentage: answer.finished_percentage,
            failed: answer.failed_regions_id.into_iter().map(RegionId).collect(),
        })
    }

    /// Scatters one region, in the way that every PD understands.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    #[expect(deprecated, reason = "the only field that PD before 4.0 knows")]
    pub async fn scatter_one(&self, region: RegionId) -> Result<(), PdError> {
        self.call("ScatterRegion", |mut stub, header| async move {
            let request = pdpb::ScatterRegionRequest {
                header: Some(header),
                region_id: region.0,
                ..Default::default()
            };
            stub.scatter_region(request).await
        })
        .await
        .map(drop)
    }

    /// What PD does to a region at the moment.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn operator(&self, region: RegionId) -> Result<OperatorState, PdError> {
        let answer = self
            .call("GetOperator", |mut stub, header| async move {
                let request = pdpb::GetOperatorRequest {
                    header: Some(header),
                    region_id: region.0,
                };
                stub.get_operator(request).await
            })
            .await;
        match answer {
            Ok(answer) => Ok(OperatorState::Known {
                status: answer.status(),
                description: String::from_utf8_lossy(&answer.desc).into_owned(),
            }),
            Err(error) if error.is_refused_as(pdpb::ErrorType::RegionNotFound) => {
                Ok(OperatorState::None)
            }
            Err(error) => Err(error),
        }
    }
}

fn route(answer: pdpb::GetRegionResponse) -> Option<RegionRoute> {
    RegionRoute::from_pd(pdpb::Region {
        region: answer.region,
        leader: answer.leader,
        down_peers: answer.down_peers,
        pending_peers: answer.pending_peers,
        buckets: answer.buckets,
    })
}

/// Whether the first region holds the start of the range, each one begins where the one before
/// ends, and either the page is full or the range is covered.
fn check_contiguous(range: &KeyRange<EncodedKey>, regions: &[RegionRoute]) -> Result<(), String> {
    let Some((first, last)) = regions.first().zip(regions.last()) else {
        return Err("none is known".into());
    };
    if !first.range().contains(&range.start) {
        return Err(format!("region {} does not hold the start", first.id()));
    }
    for pair in regions.windows(2) {
        let [left, right] = pair else { continue };
        if left.region.end_key != right.region.start_key || left.region.end_key.is_empty() {
            return Err(format!(
                "region {} does not end where {} begins",
                left.id(),
                right.id()
            ));
        }
    }
    let end = last.range().end;
    let covered = end.is_empty() || !range.is_before_end(&end);
    if covered || regions.len() >= PAGE_REGIONS {
        Ok(())
    } else {
        Err(format!("nothing is known behind region {}", last.id()))
    }
}

#[cfg(test)]
mod tests {
    use br_proto::metapb;

    use super::*;

    fn region(id: u64, start: &str, end: &str) -> RegionRoute {
        RegionRoute {
            region: metapb::Region {
                id,
                start_key: start.into(),
                end_key: end.into(),
                ..Default::default()
            },
            leader: metapb::Peer {
                id,
                store_id: 1,
                ..Default::default()
            },
            pending_peers: Vec::new(),
        }
    }

    #[test]
    fn holes_are_found() {
        let check = |start: &str, end: &str, regions: &[RegionRoute]| {
            check_contiguous(&KeyRange::new(start.as_bytes(), end.as_bytes()), regions).is_ok()
        };
        let (a, b, c) = (region(1, "", "b"), region(2, "b", "d"), region(3, "d", ""));
        assert!(check("", "", &[a.clone(), b.clone(), c.clone()]));
        assert!(check("b", "d", std::slice::from_ref(&b)));
        assert!(check("c", "", &[b.clone(), c.clone()]));
        assert!(!check("", "", &[]));
        assert!(!check("a", "", &[b.clone(), c.clone()]));
        assert!(!check("", "", &[a.clone(), c]));
        assert!(!check("", "", &[a, b]));
    }
}
