//! Takes events, scans and seals off the queue, in order; owns all locks and all records.
//!
//! # Ordering and invariants
//! - There is one for each task and store, and nothing else changes what it owns: what a seal sees
//!   is what all messages before it have made of it.
//! - A seal resolves each region whose leadership is confirmed at that moment, which is after the
//!   timestamp of the seal was fetched, and takes the payload in the same step.
//!
//! # After a crash
//! All of it is gone; whoever leads the regions then scans them from the global checkpoint.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_codec::{Lock, LockKind};
use br_proto::metapb;
use br_rt::{Monotonic, Rt};
use br_types::{Cf, StoreId, TimeStamp};
use tokio::sync::mpsc;

use super::{
    error::Fault,
    metrics::Metrics,
    observer::engine_key,
    payload::{Event, Payload, SealedFiles},
    queue::{EventQueue, Message},
    scan::ScanBatch,
    subscription::{HeldBy, Subscription, SubscriptionId},
};
use crate::{
    engine::{Batch, Change},
    topology::Topology,
};

/// How long events gather before they are taken: one wake for many writes. A seal does not wait
/// for it.
const GATHER: Duration = Duration::from_millis(20);

/// What a seal asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealRequest {
    /// Below every commit that is not in the queue yet, as far as it is not a lock's; `None`: no
    /// timestamp could be had, only the payload is wanted.
    pub(crate) min_ts: Option<TimeStamp>,
}

/// A payload and the progress that belongs to it.
pub(crate) struct Sealed {
    pub(crate) files: SealedFiles,
    /// One for each region whose leadership was confirmed; none without a timestamp.
    pub(crate) progress: Vec<RegionProgress>,
    /// What is committed at or below it in the regions of this store is in this payload or an
    /// earlier one; `None` without a timestamp.
    pub(crate) store_resolved_ts: Option<TimeStamp>,
}

/// How far a region is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RegionProgress {
    pub(crate) region: metapb::Region,
    pub(crate) checkpoint: TimeStamp,
}

/// What the collector tells the region manager of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostBecause {
    /// The queue was full.
    QueueFull,
    /// More locks than can be tracked.
    Locks,
    /// Its keys were removed physically.
    Removed,
}

/// What others see of the payload while it fills.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    bytes: AtomicU64,
    /// Milliseconds of the monotonic clock at the first record, plus one; 0: there is none.
    first_at_ms: AtomicU64,
}

impl Filling {
    /// Bytes of records that wait, and for how long the first of them has.
    pub(crate) fn waiting(&self, since_start_ms: u64) -> Option<(u64, Duration)> {
        let first_at_ms = self.first_at_ms.load(Ordering::Relaxed).checked_sub(1)?;
        let age = Duration::from_millis(since_start_ms.saturating_sub(first_at_ms));
        Some((self.bytes.load(Ordering::Relaxed), age))
    }
}

/// See the module.
pub(crate) struct Collector {
    pub(crate) rt: Rt,
    pub(crate) started: Monotonic,
    pub(crate) store: StoreId,
    pub(crate) topology: Arc<dyn Topology>,
    pub(crate) queue: Arc<EventQueue>,
    pub(crate) payload: Payload,
    pub(crate) filling: Arc<Filling>,
    pub(crate) metrics: Arc<Metrics>,
    /// One message for each subscription at most.
    pub(crate) lost: mpsc::UnboundedSender<(SubscriptionId, LostBecause)>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
}

impl Collector {
    /// Works until something fatal happens.
    pub(crate) async fn run(mut self) -> Fault {
        loop {
            self.queue.filled().await;
            if !self.queue.is_urgent() {
                self.rt.sleep(GATHER).await;
            }
            for message in self.queue.take() {
                if let Err(fault) = self.handle(message) {
                    return fault;
                }
                if self.payload.is_over_quota() {
                    let mut payload = self.payload;
                    let result;
                    (payload, result) = self
                        .rt
                        .blocking(move || {
                            let result = payload.spill();
                            (payload, result)
                        })
                        .await;
                    self.payload = payload;
                    self.metrics.spilled.add(1);
                    if let Err(error) = result {
                        return Fault::TempFile(error);
                    }
                }
            }
            self.show();
        }
    }

    /// Lets others see how full the payload is.
    fn show(&self) {
        let filling = &self.filling;
        filling.bytes.store(self.payload.bytes(), Ordering::Relaxed);
        let first_at = self.payload.first_at().map_or(0, |at| {
            u64::try_from(at.since(self.started).as_millis()).unwrap_or(u64::MAX - 1) + 1
        });
        filling.first_at_ms.store(first_at, Ordering::Relaxed);
        self.metrics.waiting_bytes.set(self.payload.bytes());
        self.metrics.regions.set(self.subscriptions.len() as u64);
    }

    fn handle(&mut self, message: Message) -> Result<(), Fault> {
        match message {
            Message::Applied(id, batch) => self.applied(id, &batch),
            Message::Lost(id) => {
                self.lose(id, LostBecause::QueueFull);
                Ok(())
            }
            Message::Removed(range) => {
                let hit: Vec<_> = self
                    .subscriptions
                    .iter()
                    .filter(|(_, subscription)| {
                        let ranges = &subscription.spec.ranges;
                        ranges.iter().any(|own| own.overlaps(&range))
                    })
                    .map(|(id, _)| *id)
                    .collect();
                for id in hit {
                    self.lose(id, LostBecause::Removed);
                }
                Ok(())
            }
            Message::Subscribe(spec) => {
                self.subscriptions.insert(spec.id, Subscription::new(*spec));
                Ok(())
            }
            Message::Unsubscribe(id) => {
                self.subscriptions.remove(&id);
                Ok(())
            }
            Message::Scanned(id, batch, taken) => {
                let result = self.scanned(id, &batch);
                // A scan that was given up does not wait.
                let _ = taken.send(());
                result
            }
            Message::ScanDone(id) => {
                if let Some(subscription) = self.subscriptions.get_mut(&id)
                    && subscription.scan_done().is_err()
                {
                    self.lose(id, LostBecause::Locks);
                }
                Ok(())
            }
            Message::Seal(request, reply) => {
                let sealed = self.seal(request);
                self.show();
                // Whoever asked has been stopped then, and everything with it.
                let _ = reply.send(sealed);
                Ok(())
            }
        }
    }

    fn lose(&mut self, id: SubscriptionId, because: LostBecause) {
        if let Some(lost) = self.subscriptions.remove(&id) {
            tracing::warn!(
                region = lost.spec.region.id,
                ?because,
                "a region is going to be observed anew"
            );
            // The manager has ended when nobody hears it.
            let _ = self.lost.send((id, because));
        }
    }

    fn applied(&mut self, id: SubscriptionId, batch: &Batch) -> Result<(), Fault> {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Ok(());
        };
        self.metrics.batches.add(1);
        let mut records = 0;
        for change in &batch.changes {
            let Some(engine_key) = engine_key(change) else {
                continue;
            };
            if !subscription.spec.covers(engine_key) {
                continue;
            }
            let (cf, value) = match change {
                Change::Put(cf, _, value) => (*cf, Some(value.as_slice())),
                Change::Delete(cf, _) => (*cf, None),
            };
            if cf == Cf::Lock {
                let tracked = match value.map(tracked_lock) {
                    Some(Ok(Some(start_ts))) => subscription.lock(engine_key, start_ts),
                    Some(Ok(None)) | None => subscription.unlock(engine_key),
                    Some(Err(error)) => return Err(Fault::Damaged(error.to_string())),
                };
                if tracked.is_err() {
                    self.lose(id, LostBecause::Locks);
                    break;
                }
                continue;
            }
            let event = Event {
                cf,
                engine_key,
                value,
            };
            let resolved_ts = subscription.resolved();
            self.payload
                .append(&subscription.spec, resolved_ts, event)
                .map_err(|error| Fault::Damaged(error.to_string()))?;
            records += 1;
        }
        self.metrics.records.add(records);
        Ok(())
    }

    fn scanned(&mut self, id: SubscriptionId, batch: &ScanBatch) -> Result<(), Fault> {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return Ok(());
        };
        for (key, start_ts) in &batch.locks {
            if subscription.scanned_lock(key, *start_ts).is_err() {
                self.lose(id, LostBecause::Locks);
                return Ok(());
            }
        }
        let resolved_ts = subscription.resolved();
        for (cf, engine_key, value) in &batch.records {
            let event = Event {
                cf: *cf,
                engine_key,
                value: Some(value),
            };
            self.payload
                .append(&subscription.spec, resolved_ts, event)
                .map_err(|error| Fault::Damaged(error.to_string()))?;
        }
        let records = batch.records.len() as u64;
        self.metrics.records.add(records);
        self.metrics.scanned_records.add(records);
        Ok(())
    }

    fn seal(&mut self, request: SealRequest) -> Sealed {
        let files = self.payload.seal();
        let Some(min_ts) = request.min_ts else {
            return Sealed {
                files,
                progress: Vec::new(),
                store_resolved_ts: None,
            };
        };
        let mut progress = Vec::with_capacity(self.subscriptions.len());
        let mut store_resolved_ts = min_ts;
        let is_up = self.topology.is_up(self.store);
        for subscription in self.subscriptions.values_mut() {
            let (checkpoint, held_by) = subscription.resolve(min_ts);
            store_resolved_ts = store_resolved_ts.min(checkpoint);
            if held_by == HeldBy::Lock {
                tracing::debug!(
                    region = subscription.spec.region.id,
                    %checkpoint,
                    "a lock holds a region back"
                );
            }
            if is_up && is_led(&*self.topology, self.store, subscription) {
                progress.push(RegionProgress {
                    region: subscription.spec.region.clone(),
                    checkpoint,
                });
            }
        }
        Sealed {
            files,
            progress,
            store_resolved_ts: Some(store_resolved_ts),
        }
    }
}

/// Whether the store leads the region in the epoch for which it is observed. The table of regions
/// is the cluster's own, so this is what a quorum of peers would confirm.
fn is_led(topology: &dyn Topology, store: StoreId, subscription: &Subscription) -> bool {
    let spec = &subscription.spec;
    topology.region(spec.region_id()).is_some_and(|state| {
        let epoch = state.region.region_epoch.unwrap_or_default();
        state.leader_store() == store && epoch.version == spec.version()
    })
}

/// The `start_ts` of a lock that is going to change data; `None` for others: what they leave
/// behind is of no use to a restore.
pub(crate) fn tracked_lock(value: &[u8]) -> Result<Option<TimeStamp>, br_codec::DecodeError> {
    let lock = Lock::parse(value)?;
    Ok(match lock.kind {
        LockKind::Put | LockKind::Delete => Some(lock.start_ts),
        LockKind::Lock | LockKind::Pessimistic => None,
    })
}
