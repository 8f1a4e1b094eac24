//! # What it does
//! Asks the leaders of regions what they have flushed: for keys of which no stream told anything,
//! and for everybody who wants to know what holds a checkpoint back.

use std::collections::BTreeMap;

use br_types::{EncodedKey, KeyRange, StoreId, TimeStamp};
use futures::StreamExt as _;

use super::{
    AdvanceError, Environment,
    environment::{Flushed, RegionAt},
};

/// Regions in one request to a store.
const BATCH_REGIONS: usize = 1024;
/// Requests under way at once.
const REQUESTS_MAX: usize = 32;

/// A region and what its leader says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionProgress {
    /// The region.
    pub region: RegionAt,
    /// Everything of it up to here is on storage; or why that is not known.
    pub checkpoint: Result<TimeStamp, Unknown>,
}

/// Why nothing is known of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The store does not answer.
    StoreUnreachable(String),
    /// The store answers, but not for the region: it has not flushed it yet, or does not lead it.
    NotFlushed(String),
}

/// What leaders say of the regions that cover `range`, page by page, to `take`; until it has
/// enough and gives `false`.
///
/// # Errors
/// The regions cannot be read. Stores that do not answer are no error.
pub async fn ask_leaders<E: Environment>(
    env: &E,
    range: &KeyRange<EncodedKey>,
    mut take: impl FnMut(RegionProgress) -> bool,
) -> Result<(), AdvanceError> {
    let mut rest = range.clone();
    loop {
        let page = env.regions(&rest).await?;
        let end = page.last().map(|region| region.range.end.clone());
        for answer in ask_page(env, page).await {
            if !take(answer) {
                return Ok(());
            }
        }
        match end {
            Some(end) if !end.is_empty() && range.is_before_end(&end) => rest.start = end,
            _ => return Ok(()),
        }
    }
}

/// What leaders say of these regions, in their order.
async fn ask_page<E: Environment>(env: &E, page: Vec<RegionAt>) -> Vec<RegionProgress> {
    let mut by_store: BTreeMap<StoreId, Vec<RegionAt>> = BTreeMap::new();
    for region in &page {
        by_store
            .entry(region.leader)
            .or_default()
            .push(region.clone());
    }
    let requests = by_store.into_iter().flat_map(|(store, regions)| {
        let batches: Vec<Vec<RegionAt>> = regions
            .chunks(BATCH_REGIONS)
            .map(<[RegionAt]>::to_vec)
            .collect();
        batches.into_iter().map(move |batch| (store, batch))
    });
    let requests: Vec<_> = requests
        .map(|(store, batch)| ask_store(env, store, batch))
        .collect();
    let answers: Vec<Vec<RegionProgress>> = futures::stream::iter(requests)
        .buffer_unordered(REQUESTS_MAX)
        .collect()
        .await;
    let mut answers: Vec<RegionProgress> = answers.into_iter().flatten().collect();
    answers.sort_by(|a, b| a.region.range.start.cmp(&b.region.range.start));
    answers
}

async fn ask_store<E: Environment>(
    env: &E,
    store: StoreId,
    batch: Vec<RegionAt>,
) -> Vec<RegionProgress> {
    let told = env.last_flush(store, &batch).await;
    let checkpoint_of = |region: &RegionAt| match &told {
        Err(error) => Err(Unknown::StoreUnreachable(error.to_string())),
        Ok(told) => match told.iter().find(|told| told.id == region.id) {
            Some(told) => told.checkpoint.clone().map_err(Unknown::NotFlushed),
            None => Err(Unknown::NotFlushed(
                "the store left the region out of its answer".into(),
            )),
        },
    };
    batch
        .iter()
        .map(|region| RegionProgress {
            region: region.clone(),
            checkpoint: checkpoint_of(region),
        })
        .collect()
}

impl RegionProgress {
    /// What it says, if it says something.
    pub(crate) fn flushed(&self) -> Option<Flushed> {
        let checkpoint = *self.checkpoint.as_ref().ok()?;
        Some(Flushed {
            range: self.region.range.clone(),
            checkpoint,
        })
    }
}
