//! # What it does
//! Splits regions where the groups of files end, and asks PD to spread them over the stores.
//!
//! # Ordering and invariants
//! Only right placement and speed depend on it: import finds the regions anew and is right for
//! any shape. So scatter that stays behind is waited for within limits and then left.
//!
//! # Retries
//! Splits follow moved leaders and changed epochs through the router. A key that is a boundary
//! already is left out, so that doing it again changes nothing.

use std::{collections::BTreeSet, time::Duration};

use br_cluster::{Cluster, KvError, OperatorState, Router};
use br_proto::{kvrpcpb, pdpb::OperatorStatus};
use br_rt::{Phase, Rt};
use br_types::{EncodedKey, KeyRange, RawKey, RegionId};
use futures::{StreamExt, TryStreamExt, stream};

use super::{error::RestoreError, key_form::KeyForm};

/// Keys of one request; stores refuse raft entries above 8 MiB.
const SPLIT_KEYS_MAX: usize = 10_240;
/// Bytes of the keys of one request, for the same reason.
const SPLIT_BYTES_MAX: usize = 6 << 20;
/// Regions that are split at once: each is one raft entry on another leader.
const SPLITS_IN_FLIGHT_MAX: usize = 8;
/// Regions of one scatter request; PD takes a thousand in less than a second.
const SCATTER_REGIONS_MAX: usize = 256;
/// Scatter is for balance only: no more rounds for regions that PD cannot move now.
const SCATTER_ROUNDS_MAX: usize = 10;
/// Longest wait for PD to have moved the regions.
const SCATTER_WAIT_MAX: Duration = Duration::from_secs(300);
/// How often PD is asked whether it has.
const SCATTER_POLL: Duration = Duration::from_millis(200);

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SplitOutcome {
    /// Regions that came into being.
    pub(super) regions: usize,
}

/// Splits regions at keys of transactional data, sorted and unique, and spreads what came of it
/// over the stores. Gives the number of new regions.
///
/// # Errors
/// A region could not be split after all retries.
pub async fn split_at(
    cluster: &Cluster,
    keys: &[RawKey],
    phase: &Phase,
) -> Result<usize, RestoreError> {
    let form = KeyForm::Encoded;
    let done = split_and_scatter(cluster.rt(), cluster.router(), form, keys, phase).await?;
    Ok(done.regions)
}

/// Splits at `keys`, sorted and unique, and spreads what came of it.
///
/// # Errors
/// A region could not be split after all retries.
pub(super) async fn split_and_scatter(
    rt: &Rt,
    router: &Router,
    form: KeyForm,
    keys: &[RawKey],
    phase: &Phase,
) -> Result<SplitOutcome, RestoreError> {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Ok(SplitOutcome::default());
    };
    let mut created: BTreeSet<RegionId> = BTreeSet::new();
    let mut from = form.encode(first);
    let last = form.encode(last);
    let mut keys = keys
        .iter()
        .map(|raw| (form.encode(raw), raw.clone()))
        .peekable();
    loop {
        let mut end = last.clone().into_bytes();
        end.push(0);
        let page = router
            .pd()
            .region_page(&KeyRange::new(from.clone(), end))
            .await?;
        let Some(page_end) = page.last().map(|route| route.range().end) else {
            break;
        };
        let mut of_regions = Vec::new();
        for route in page {
            let range = route.range();
            let mut inside = Vec::new();
            while let Some((encoded, raw)) = keys.next_if(|(key, _)| range.is_before_end(key)) {
                if encoded != range.start {
                    inside.push((encoded, raw));
                }
            }
            of_regions.push(inside);
        }
        let split: Vec<Vec<RegionId>> = stream::iter(of_regions)
            .map(|inside| split_region(router, form, inside, phase))
            .buffer_unordered(SPLITS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        created.extend(split.into_iter().flatten());
        if page_end.is_empty() || page_end > last {
            break;
        }
        from = page_end;
    }
    let outcome = SplitOutcome {
        regions: created.len(),
    };
    scatter(rt, router, created).await?;
    Ok(outcome)
}

/// Splits what was one region a moment ago.
async fn split_region(
    router: &Router,
    form: KeyForm,
    keys: Vec<(EncodedKey, RawKey)>,
    phase: &Phase,
) -> Result<Vec<RegionId>, RestoreError> {
    let mut created = Vec::new();
    let mut rest = keys.as_slice();
    while let Some((first, _)) = rest.first() {
        let route = router.locate(first).await.map_err(RestoreError::Kv)?;
        if route.range().start == *first {
            // Somebody has split there already.
            rest = rest.get(1..).unwrap_or_default();
            phase.advance(1, 0);
            continue;
        }
        let (answer, route) = router
            .send(first, |client, route| {
                let request = kvrpcpb::SplitRegionRequest {
                    context: Some(route.context()),
                    split_keys: batch(rest, &route.range()),
                    is_raw_kv: form == KeyForm::Plain,
                    ..Default::default()
                };
                async move { client.split_region(request).await }
            })
            .await?;
        let done = batch(rest, &route.range()).len();
        if answer.regions.len() < 2 {
            return Err(RestoreError::Kv(KvError::InvalidResponse {
                method: "SplitRegion",
                what: format!("names {} regions after a split", answer.regions.len()),
            }));
        }
        router.cache().forget(&route);
        created.extend(answer.regions.iter().map(|region| RegionId(region.id)));
        rest = rest.get(done.max(1)..).unwrap_or_default();
        phase.advance(done as u64, 0);
    }
    Ok(created)
}

/// The first keys that lie within the region, as many as one request takes.
fn batch(keys: &[(EncodedKey, RawKey)], region: &KeyRange<EncodedKey>) -> Vec<Vec<u8>> {
    let mut bytes = 0;
    keys.iter()
        .take_while(|(encoded, raw)| {
            bytes += raw.len();
            region.contains(encoded) && (bytes <= SPLIT_BYTES_MAX || bytes == raw.len())
        })
        .take(SPLIT_KEYS_MAX)
        .map(|(_, raw)| raw.as_bytes().to_vec())
        .collect()
}

async fn scatter(
    rt: &Rt,
    router: &Router,
    regions: BTreeSet<RegionId>,
) -> Result<(), RestoreError> {
    let regions: Vec<_> = regions.into_iter().collect();
    for chunk in regions.chunks(SCATTER_REGIONS_MAX) {
        let mut rest = chunk.to_vec();
        for _ in 0..SCATTER_ROUNDS_MAX {
            match router.pd().scatter(&rest).await {
                Ok(outcome) if outcome.failed.is_empty() => break,
                Ok(outcome) => rest = outcome.failed,
                Err(error) if error.is_unimplemented() => {
                    for region in &rest {
                        router.pd().scatter_one(*region).await?;
                    }
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            rt.sleep(SCATTER_POLL).await;
        }
    }
    let started = rt.now();
    for region in regions {
        while rt.now().since(started) < SCATTER_WAIT_MAX && is_moving(router, region).await? {
            rt.sleep(SCATTER_POLL).await;
        }
    }
    Ok(())
}

async fn is_moving(router: &Router, region: RegionId) -> Result<bool, RestoreError> {
    Ok(match router.pd().operator(region).await? {
        OperatorState::None => false,
        OperatorState::Known {
            description,
            status,
        } => description == "scatter-region" && status == OperatorStatus::Running,
    })
}
