use std::{collections::BTreeMap, fmt};

use br_cluster::Cluster;
use br_codec::key;
use br_types::{RawKey, RegionId, StoreId, TimeStamp};

use crate::{
    advancer::{Environment, RegionAt, RegionProgress, Unknown, ask_leaders, old_locks::OldLocks},
    task::Task,
};

/// Regions with the least checkpoints that are searched for locks.
const SEARCHED_REGIONS: usize = 8;

/// Something that holds a checkpoint back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holdup {
    /// The task is paused.
    Paused,
    /// Nobody coordinates.
    NoCoordinator,
    /// The stores are further than what is published.
    Unpublished {
        /// How far they are.
        proven: TimeStamp,
    },
    /// A transaction's lock: nobody knows yet whether it commits.
    Lock {
        /// A locked key.
        key: RawKey,
        /// When the transaction began.
        start_ts: TimeStamp,
        /// Its primary key, which decides.
        primary: RawKey,
        /// The region of the key.
        region: RegionId,
        /// The store that leads it.
        store: StoreId,
        /// How old it is.
        age_seconds: u64,
        /// For how long from its start its client claimed it.
        ttl_seconds: u64,
    },
    /// A store does not answer.
    StoreDown {
        /// The store.
        store: StoreId,
        /// The regions that it leads, as PD says.
        regions: usize,
        /// Why.
        cause: String,
    },
    /// A store has uploaded nothing of regions that it leads: they are new to it, or its uploads
    /// fail.
    NotFlushed {
        /// The store.
        store: StoreId,
        /// How many regions.
        regions: usize,
        /// One of them.
        example: RegionId,
        /// In the store's words.
        cause: String,
    },
    /// A store's last upload of regions is old, and no lock is in the way.
    OldFlush {
        /// The store.
        store: StoreId,
        /// How many regions.
        regions: usize,
        /// One of them.
        example: RegionId,
        /// Up to where it has uploaded that one.
        checkpoint: TimeStamp,
    },
    /// The stores have not copied the published checkpoint to the storage.
    NotOnStorage {
        /// What is there.
        stored: TimeStamp,
    },
    /// Not everything could be asked.
    SearchFailed(String),
    /// Too much to look at.
    SearchTooLong,
}

impl Holdup {
    /// A word for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Holdup::Paused => "paused",
            Holdup::NoCoordinator => "no_coordinator",
            Holdup::Unpublished { .. } => "unpublished",
            Holdup::Lock { .. } => "lock",
            Holdup::StoreDown { .. } => "store_down",
            Holdup::NotFlushed { .. } => "not_flushed",
            Holdup::OldFlush { .. } => "old_flush",
            Holdup::NotOnStorage { .. } => "not_on_storage",
            Holdup::SearchFailed(_) => "search_failed",
            Holdup::SearchTooLong => "search_too_long",
        }
    }

    /// The store that it concerns.
    pub fn store(&self) -> Option<StoreId> {
        match self {
            Holdup::Lock { store, .. }
            | Holdup::StoreDown { store, .. }
            | Holdup::NotFlushed { store, .. }
            | Holdup::OldFlush { store, .. } => Some(*store),
            _ => None,
        }
    }

    /// A region that it concerns.
    pub fn region(&self) -> Option<RegionId> {
        match self {
            Holdup::Lock { region, .. } => Some(*region),
            Holdup::NotFlushed { example, .. } | Holdup::OldFlush { example, .. } => Some(*example),
            _ => None,
        }
    }
}

impl fmt::Display for Holdup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holdup::Paused => f.write_str("the task is paused; `br log resume` lets it go on"),
            Holdup::NoCoordinator => {
                f.write_str("nobody coordinates: start a TiDB server or `br log advancer`")
            }
            Holdup::Unpublished { proven } => write!(
                f,
                "the stores are at {proven} and the coordinator has not published it; see its log"
            ),
            Holdup::Lock {
                key,
                start_ts,
                primary,
                region,
                store,
                age_seconds,
                ttl_seconds,
            } => {
                write!(
                    f,
                    "a lock on key {key} in region {region} (store {store}), of the transaction of \
                     {start_ts} with primary {primary}, {age_seconds} s old"
                )?;
                match age_seconds > ttl_seconds {
                    true => f.write_str("; its client is gone, and it will be resolved"),
                    false => f.write_str("; its client is still alive"),
                }
            }
            Holdup::StoreDown {
                store,
                regions,
                cause,
            } => write!(
                f,
                "store {store}, which leads {regions} regions, does not answer: {cause}"
            ),
            Holdup::NotFlushed {
                store,
                regions,
                example,
                cause,
            } => write!(
                f,
                "store {store} has not uploaded {regions} regions that it leads, such as region \
                 {example}: {cause}"
            ),
            Holdup::OldFlush {
                store,
                regions,
                example,
                checkpoint,
            } => write!(
                f,
                "store {store} has uploaded {regions} regions up to {checkpoint} only, such as \
                 region {example}; if that does not change, its log says why its uploads fail"
            ),
            Holdup::NotOnStorage { stored } => write!(
                f,
                "the storage says {stored} only: the stores have not written more to it yet"
            ),
            Holdup::SearchFailed(cause) => write!(f, "not everything could be asked: {cause}"),
            Holdup::SearchTooLong => f.write_str("there are too many regions to ask all of them"),
        }
    }
}

/// The stores may be so far ahead of what is published before that is anything to speak of: some
/// ticks of the coordinator.
const UNPUBLISHED_MS_MIN: u64 = 60_000;

/// What the leaders of a task's regions say, put together.
#[derive(Default)]
struct Survey {
    /// The least checkpoint of all regions; `None` while one is not known.
    proven: Option<TimeStamp>,
    is_complete: bool,
    down: BTreeMap<StoreId, (usize, String)>,
    not_flushed: BTreeMap<StoreId, (usize, RegionId, String)>,
    /// Those with the least checkpoints, the least first.
    least: Vec<(TimeStamp, RegionAt)>,
    /// Regions at or below the published checkpoint, by their leaders.
    lagging: BTreeMap<StoreId, (usize, RegionId, TimeStamp)>,
}

/// Looks for what holds the checkpoint of a task back.
pub(super) async fn find_holdups<E: Environment>(
    cluster: &Cluster,
    env: &E,
    task: &Task,
    has_coordinator: bool,
) -> Vec<Holdup> {
    if task.pause.is_some() {
        return vec![Holdup::Paused];
    }
    let mut holdups = Vec::new();
    if !has_coordinator {
        holdups.push(Holdup::NoCoordinator);
    }
    let published = task.global_checkpoint();
    let mut survey = Survey {
        is_complete: true,
        ..Survey::default()
    };
    for range in &task.ranges {
        let range = key::encode_range(range);
        let asked = ask_leaders(env, &range, |answer| {
            survey.add(answer, published);
            true
        });
        if let Err(error) = asked.await {
            holdups.push(Holdup::SearchFailed(error.to_string()));
            survey.is_complete = false;
        }
    }
    holdups.extend(survey.unknown());
    let (locks, locked) = find_locks(cluster, &survey).await;
    holdups.extend(locks);
    let proven = survey.proven.filter(|_| survey.is_complete);
    match proven {
        Some(proven) if proven > published => {
            let ahead_ms = proven.physical_ms() - published.physical_ms();
            if has_coordinator && ahead_ms > UNPUBLISHED_MS_MIN {
                holdups.push(Holdup::Unpublished { proven });
            }
        }
        _ => holdups.extend(survey.old_flushes(&locked)),
    }
    let stored = task.storage_checkpoint();
    if holdups.is_empty() && stored < published {
        holdups.push(Holdup::NotOnStorage { stored });
    }
    holdups
}

impl Survey {
    fn add(&mut self, answer: RegionProgress, published: TimeStamp) {
        let RegionProgress { region, checkpoint } = answer;
        match checkpoint {
            Err(Unknown::StoreUnreachable(cause)) => {
                self.is_complete = false;
                self.down.entry(region.leader).or_insert((0, cause)).0 += 1;
            }
            Err(Unknown::NotFlushed(cause)) => {
                self.is_complete = false;
                let entry = self.not_flushed.entry(region.leader);
                entry.or_insert((0, region.id, cause)).0 += 1;
            }
            Ok(checkpoint) => {
                self.proven = Some(
                    self.proven
                        .map_or(checkpoint, |least| least.min(checkpoint)),
                );
                if checkpoint <= published {
                    let entry = self.lagging.entry(region.leader);
                    let entry = entry.or_insert((0, region.id, checkpoint));
                    entry.0 += 1;
                    if checkpoint < entry.2 {
                        (entry.1, entry.2) = (region.id, checkpoint);
                    }
                }
                self.least.push((checkpoint, region));
                self.least.sort_by_key(|(checkpoint, _)| *checkpoint);
                self.least.truncate(SEARCHED_REGIONS);
            }
        }
    }

    fn unknown(&self) -> Vec<Holdup> {
        let down = self.down.iter().map(|(store, (regions, cause))| {
            let (store, regions, cause) = (*store, *regions, cause.clone());
            Holdup::StoreDown {
                store,
                regions,
                cause,
            }
        });
        let not_flushed = self.not_flushed.iter();
        let not_flushed = not_flushed.map(|(store, (regions, example, cause))| {
            let (store, regions, example) = (*store, *regions, *example);
            Holdup::NotFlushed {
                store,
                regions,
                example,
                cause: cause.clone(),
            }
        });
        down.chain(not_flushed).collect()
    }

    /// Stores whose regions lag without a lock in them.
    fn old_flushes(&self, locked: &[RegionId]) -> Vec<Holdup> {
        let lagging = self.lagging.iter();
        lagging
            .filter(|(_, (_, example, _))| !locked.contains(example))
            .map(|(store, (regions, example, checkpoint))| {
                let (store, regions, example) = (*store, *regions, *example);
                Holdup::OldFlush {
                    store,
                    regions,
                    example,
                    checkpoint: *checkpoint,
                }
            })
            .collect()
    }
}

/// The oldest lock of each region with one of the least checkpoints, if it is what holds the region
/// back; and the regions where there is one.
async fn find_locks(cluster: &Cluster, survey: &Survey) -> (Vec<Holdup>, Vec<RegionId>) {
    let mut locks: Vec<Holdup> = Vec::new();
    let mut locked = Vec::new();
    let now = cluster.rt().wall().0;
    for (checkpoint, region) in &survey.least {
        // A region stands right before the oldest transaction in it that has not ended.
        let mut search = OldLocks::new(cluster, region.range.clone(), checkpoint.next());
        let mut oldest: Option<br_proto::kvrpcpb::LockInfo> = None;
        loop {
            match search.next().await {
                Ok(Some(page)) => {
                    let least = page.into_iter().min_by_key(|lock| lock.lock_version);
                    let older = |lock: &br_proto::kvrpcpb::LockInfo| {
                        let known = oldest.as_ref().map(|oldest| oldest.lock_version);
                        known.is_none_or(|known| lock.lock_version < known)
                    };
                    if let Some(lock) = least.filter(older) {
                        oldest = Some(lock);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    locks.push(Holdup::SearchFailed(error.to_string()));
                    break;
                }
            }
        }
        let Some(lock) = oldest else { continue };
        locked.push(region.id);
        let start_ts = TimeStamp(lock.lock_version);
        locks.push(Holdup::Lock {
            key: RawKey::from(lock.key),
            start_ts,
            primary: RawKey::from(lock.primary_lock),
            region: region.id,
            store: region.leader,
            age_seconds: now.saturating_sub(start_ts.physical_ms()) / 1000,
            ttl_seconds: lock.lock_ttl / 1000,
        });
    }
    (locks, locked)
}
