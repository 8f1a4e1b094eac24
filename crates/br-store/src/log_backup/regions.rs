//! Which regions a store observes: those that it leads.
//!
//! # What it does
//! Follows the table of regions. A region that the store has come to lead, or whose epoch has
//! changed by a split or merge, is observed anew and scanned from the global checkpoint; one that
//! it leads no more is dropped.
//!
//! # Ordering and invariants
//! A region is observed first, then its snapshot is taken: see `Observers`. The scan starts at the
//! global checkpoint, or at an older value of it: all up to there is on the storage. Garbage
//! collection must not have passed the start; it is looked at before the scan and after it.
//!
//! # Retries
//! By region, with growing pauses; after [`ATTEMPTS_MAX`] failures in a row the task is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use br_rt::{Monotonic, RateLimit, Rt, Task};
use br_types::{EncodedKey, KeyRange, RegionId, StoreId, TimeStamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    collector::LostBecause,
    error::Fault,
    global::GlobalCheckpoint,
    observer::StoreObserver,
    queue::{EventQueue, Message},
    scan::Scan,
    subscription::{SubscriptionId, SubscriptionSpec},
};
use crate::{
    mvcc::MvccError,
    storage::Storage,
    topology::{RegionState, Topology},
};

/// How soon a change of the table of regions is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How old the global checkpoint may be that a scan starts from.
const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(5);
/// Attempts in a row for one region, as in TiKV: some six minutes.
const ATTEMPTS_MAX: u32 = 24;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// Pause after a region lost events because there were too many; as much again at random.
const OVERLOAD_PAUSE: Duration = Duration::from_secs(10);

/// The regions of one store for one task.
pub(crate) struct RegionManager {
    pub(crate) rt: Rt,
    pub(crate) store: StoreId,
    pub(crate) storage: Storage,
    pub(crate) topology: Arc<dyn Topology>,
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) observer: Arc<StoreObserver>,
    /// The task's, in key order.
    pub(crate) ranges: Vec<KeyRange<EncodedKey>>,
    pub(crate) global: Arc<GlobalCheckpoint>,
    pub(crate) scans: Arc<Semaphore>,
    pub(crate) scan_limit: Option<Arc<RateLimit>>,
    pub(crate) lost: mpsc::UnboundedReceiver<(SubscriptionId, LostBecause)>,
    pub(crate) state: State,
}

/// What the manager has done so far.
#[derive(Default)]
pub(crate) struct State {
    regions: BTreeMap<RegionId, Observed>,
    last_id: u64,
    /// [`Topology::changes`] that the regions stand for.
    seen: Option<u64>,
    /// Regions that are to be observed, and not before when.
    waiting: BTreeMap<RegionId, Waiting>,
}

struct Observed {
    id: SubscriptionId,
    version: u64,
    /// `None`: the scan is through.
    scan: Option<Task<Result<(), ScanError>>>,
    attempts: u32,
}

#[derive(Clone, Copy)]
struct Waiting {
    not_before: Monotonic,
    attempts: u32,
}

/// Why a scan has failed.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Read(#[from] MvccError),
    #[error("garbage collection has passed {safe_point}")]
    Collected {
        checkpoint: TimeStamp,
        safe_point: TimeStamp,
    },
    #[error("the collector has ended")]
    Ended,
}

impl RegionManager {
    /// Works until something fatal happens.
    pub(crate) async fn run(mut self) -> Fault {
        loop {
            if let Err(fault) = self.round().await {
                return fault;
            }
            self.rt.sleep(LOOK_INTERVAL).await;
        }
    }

    async fn round(&mut self) -> Result<(), Fault> {
        while let Ok((id, because)) = self.lost.try_recv() {
            self.on_lost(id, because);
        }
        self.end_scans().await?;
        let changes = self.topology.changes();
        if self.state.seen != Some(changes) {
            self.reconcile();
            self.state.seen = Some(changes);
        }
        self.observe_waiting().await
    }

    fn on_lost(&mut self, id: SubscriptionId, because: LostBecause) {
        let found = self
            .state
            .regions
            .iter()
            .find(|(_, observed)| observed.id == id);
        let Some((&region, observed)) = found else {
            return;
        };
        let attempts = observed.attempts;
        self.drop_region(region);
        let pause = match because {
            LostBecause::Removed => Duration::ZERO,
            LostBecause::QueueFull | LostBecause::Locks => self.overload_pause(),
        };
        // Neither is a failure of the region: there is no limit to how often it may happen.
        self.wait(region, pause, attempts);
    }

    fn overload_pause(&self) -> Duration {
        let millis = u64::try_from(OVERLOAD_PAUSE.as_millis()).unwrap_or(u64::MAX);
        OVERLOAD_PAUSE + Duration::from_millis(self.rt.random_below(millis))
    }

    fn wait(&mut self, region: RegionId, pause: Duration, attempts: u32) {
        let not_before = self.rt.now().plus(pause);
        let waiting = Waiting {
            not_before,
            attempts,
        };
        self.state.waiting.insert(region, waiting);
    }

    fn drop_region(&mut self, region: RegionId) {
        if let Some(observed) = self.state.regions.remove(&region) {
            self.observer.unsubscribe(observed.id);
        }
    }

    async fn end_scans(&mut self) -> Result<(), Fault> {
        let is_through =
            |observed: &Observed| observed.scan.as_ref().is_some_and(Task::is_finished);
        let ended: Vec<_> = self
            .state
            .regions
            .iter()
            .filter(|(_, observed)| is_through(observed))
            .map(|(id, _)| *id)
            .collect();
        for region in ended {
            let Some(observed) = self.state.regions.get_mut(&region) else {
                continue;
            };
            let Some(scan) = observed.scan.take() else {
                continue;
            };
            match scan.await {
                Ok(()) => observed.attempts = 0,
                Err(ScanError::Collected {
                    checkpoint,
                    safe_point,
                }) => {
                    return Err(Fault::Collected {
                        checkpoint,
                        safe_point,
                    });
                }
                Err(error) => {
                    let attempts = observed.attempts + 1;
                    tracing::warn!(region = region.0, attempts, %error, "an initial scan failed");
                    if attempts >= ATTEMPTS_MAX {
                        return Err(Fault::Observe {
                            region,
                            attempts,
                            last: error.to_string(),
                        });
                    }
                    self.drop_region(region);
                    let doublings = (attempts - 1).min(10);
                    let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
                    self.wait(region, pause, attempts);
                }
            }
        }
        Ok(())
    }

    /// Brings the observed regions in line with the table.
    fn reconcile(&mut self) {
        let led = self.led();
        let now = self.rt.now();
        let stale: Vec<_> = self
            .state
            .regions
            .iter()
            .filter(|(id, observed)| {
                led.get(id)
                    .is_none_or(|state| version(state) != observed.version)
            })
            .map(|(id, _)| *id)
            .collect();
        for region in stale {
            self.drop_region(region);
        }
        self.state.waiting.retain(|id, _| led.contains_key(id));
        for &id in led.keys() {
            if !self.state.regions.contains_key(&id) {
                self.state.waiting.entry(id).or_insert(Waiting {
                    not_before: now,
                    attempts: 0,
                });
            }
        }
    }

    /// The regions that the store leads in the task's ranges.
    fn led(&self) -> BTreeMap<RegionId, RegionState> {
        let mut led = BTreeMap::new();
        if !self.topology.is_up(self.store) {
            return led;
        }
        for range in &self.ranges {
            let regions = self.topology.regions_in(range, usize::MAX);
            led.extend(
                regions
                    .into_iter()
                    .filter(|state| state.leader_store() == self.store)
                    .map(|state| (state.id(), state)),
            );
        }
        led
    }

    async fn observe_waiting(&mut self) -> Result<(), Fault> {
        let now = self.rt.now();
        let due: BTreeSet<_> = self
            .state
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.not_before <= now)
            .map(|(id, _)| *id)
            .collect();
        for region in due {
            let Ok(permit) = self.scans.clone().try_acquire_owned() else {
                return Ok(());
            };
            let checkpoint = match self.global.get(CHECKPOINT_AGE_MAX).await {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the global checkpoint");
                    return Ok(());
                }
            };
            let Some(waiting) = self.state.waiting.remove(&region) else {
                continue;
            };
            self.check_gc(checkpoint)?;
            self.observe(region, checkpoint, waiting.attempts, permit);
        }
        Ok(())
    }

    fn check_gc(&self, checkpoint: TimeStamp) -> Result<(), Fault> {
        let safe_point = self.topology.gc_safe_point();
        if safe_point > checkpoint {
            return Err(Fault::Collected {
                checkpoint,
                safe_point,
            });
        }
        Ok(())
    }

    fn observe(
        &mut self,
        region: RegionId,
        checkpoint: TimeStamp,
        attempts: u32,
        permit: OwnedSemaphorePermit,
    ) {
        let state = self.topology.region(region);
        let state = state.filter(|state| state.leader_store() == self.store);
        // Only while the table is the one that all observed regions stand for: after a split or
        // merge two of them might overlap.
        let is_current = self.state.seen == Some(self.topology.changes());
        let Some(state) = state.filter(|_| is_current) else {
            self.wait(region, Duration::ZERO, attempts);
            return;
        };
        let own = state.range();
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .filter_map(|range| range.intersect(&own))
            .collect();
        self.state.last_id += 1;
        let id = SubscriptionId(self.state.last_id);
        let version = version(&state);
        self.observer.subscribe(SubscriptionSpec {
            id,
            region: state.region,
            ranges: ranges.clone(),
            checkpoint,
        });
        let snapshot = self.storage.engine().snapshot();
        let scan = RegionScan {
            rt: self.rt.clone(),
            id,
            checkpoint,
            scan: Scan::new(snapshot.into(), &ranges, checkpoint),
            queue: self.queue.clone(),
            limit: self.scan_limit.clone(),
            topology: self.topology.clone(),
            _permit: permit,
        };
        let observed = Observed {
            id,
            version,
            scan: Some(self.rt.spawn(scan.run())),
            attempts,
        };
        self.state.regions.insert(region, observed);
    }
}

fn version(state: &RegionState) -> u64 {
    state.region.region_epoch.unwrap_or_default().version
}

struct RegionScan {
    rt: Rt,
    id: SubscriptionId,
    checkpoint: TimeStamp,
    scan: Scan,
    queue: Arc<EventQueue>,
    limit: Option<Arc<RateLimit>>,
    topology: Arc<dyn Topology>,
    _permit: OwnedSemaphorePermit,
}

impl RegionScan {
    async fn run(self) -> Result<(), ScanError> {
        let RegionScan {
            rt,
            id,
            checkpoint,
            mut scan,
            queue,
            limit,
            topology,
            _permit,
        } = self;
        loop {
            let part;
            (scan, part) = rt
                .blocking(move || {
                    let part = scan.next();
                    (scan, part)
                })
                .await;
            let Some(part) = part? else { break };
            if let Some(limit) = &limit {
                limit.take(part.visited_bytes).await;
            }
            let (taken, is_taken) = oneshot::channel();
            queue.push(Message::Scanned(id, Box::new(part), taken));
            is_taken.await.map_err(|_| ScanError::Ended)?;
        }
        let safe_point = topology.gc_safe_point();
        if safe_point > checkpoint {
            return Err(ScanError::Collected {
                checkpoint,
                safe_point,
            });
        }
        queue.push(Message::ScanDone(id));
        Ok(())
    }
}
