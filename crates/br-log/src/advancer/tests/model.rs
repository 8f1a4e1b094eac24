//! A cluster in virtual time: regions with leaders, stores that flush each three minutes, locks,
//! etcd's keys. It knows for every key what is on storage, and checks what is published against it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use br_codec::key;
use br_format::log::{
    file::LogCompression,
    task::{END_TS_NONE, TaskEncryption, TaskInfo, TaskName},
};
use br_rt::{Rt, Task as Running};
use br_types::{EncodedKey, KeyRange, RawKey, RegionId, StoreId, TimeStamp};
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::{Notify, mpsc};

use super::super::*;
use crate::{
    Operator,
    task::{Checkpoints, Task, TaskError, error_pause},
};

pub(super) const START_MS: u64 = 1_800_000_000_000;
const FLUSH: Duration = Duration::from_secs(180);
/// Keys are `t` and one of so many numbers.
const KEYS: u64 = 240;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// It answers nobody and flushes nothing.
    Down,
    /// It has no streams.
    NoStreams,
    /// Its streams open and say nothing.
    SilentStreams,
}

#[derive(Clone, Debug)]
struct Region {
    id: u64,
    version: u64,
    leader: StoreId,
    /// Keys from here up to the next region.
    start: u64,
    end: u64,
    /// What its leader says of it; `None` before its first flush.
    flushed: Option<TimeStamp>,
}

#[derive(Default)]
struct State {
    regions: Vec<Region>,
    next_region: u64,
    faults: BTreeMap<StoreId, Fault>,
    streams: BTreeMap<StoreId, Vec<mpsc::UnboundedSender<Vec<Flushed>>>>,
    /// Key → start of the transaction that locks it, and whether it lives.
    locks: BTreeMap<u64, (TimeStamp, bool)>,
    /// What is on storage for each key.
    durable: Vec<TimeStamp>,
    task: Option<Task>,
    revision: i64,
    is_pd_down: bool,
    is_storage_down: bool,
    safe_point: Option<TimeStamp>,
    safe_point_renewed: u64,
    stored: TimeStamp,
    pauses: Vec<String>,
    writes: u64,
    /// What was published when it was last looked at.
    seen: TimeStamp,
}

pub(super) struct Cluster {
    rt: Rt,
    state: Mutex<State>,
    changed: Notify,
    flushing: Mutex<Vec<Running<()>>>,
}

fn raw(number: u64) -> RawKey {
    RawKey::from(format!("t{number:04}").into_bytes())
}

fn bound(number: u64) -> EncodedKey {
    match number {
        // The regions at the edges hold what is beyond the task, too.
        0 | KEYS => EncodedKey::default(),
        number => key::encode(raw(number).as_bytes()),
    }
}

impl Region {
    fn range(&self) -> KeyRange<EncodedKey> {
        KeyRange {
            start: bound(self.start),
            end: bound(self.end),
        }
    }
}

fn unreachable() -> AdvanceError {
    AdvanceError::Stream {
        store: StoreId(0),
        cause: "down".into(),
    }
}

impl Cluster {
    pub(super) fn start(rt: &Rt, stores: u64, regions: u64) -> Arc<Cluster> {
        let each = KEYS / regions;
        let region = |n: u64| Region {
            id: n + 1,
            version: 1,
            leader: StoreId(1 + n % stores),
            start: n * each,
            end: if n + 1 == regions {
                KEYS
            } else {
                (n + 1) * each
            },
            flushed: None,
        };
        let state = State {
            regions: (0..regions).map(region).collect(),
            next_region: regions + 1,
            faults: (1..=stores).map(|id| (StoreId(id), Fault::None)).collect(),
            durable: vec![TimeStamp::ZERO; usize::try_from(KEYS).unwrap()],
            ..State::default()
        };
        let cluster = Arc::new(Cluster {
            rt: rt.clone(),
            state: Mutex::new(state),
            changed: Notify::new(),
            flushing: Mutex::default(),
        });
        for id in 1..=stores {
            let (weak, rt2) = (Arc::downgrade(&cluster), rt.clone());
            let task = rt.spawn(async move {
                // Stores do not flush in step.
                rt2.sleep(FLUSH * u32::try_from(id).unwrap() / 7).await;
                while let Some(cluster) = weak.upgrade() {
                    cluster.flush(StoreId(id));
                    drop(cluster);
                    rt2.sleep(FLUSH).await;
                }
            });
            cluster.flushing.lock().unwrap().push(task);
        }
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn now_ts(&self) -> TimeStamp {
        TimeStamp::compose(self.rt.wall().0, 1)
    }

    /// One flush of a store: everything of its regions up to now, or up to a lock.
    fn flush(&self, store: StoreId) {
        let now = self.now_ts();
        let mut state = self.state();
        let is_running = state.task.as_ref().is_some_and(|task| task.pause.is_none());
        let fault = state.faults.get(&store).copied().unwrap_or_default();
        if !is_running || fault == Fault::Down {
            return;
        }
        let State {
            regions,
            locks,
            durable,
            ..
        } = &mut *state;
        let mut events = Vec::new();
        for region in regions.iter_mut().filter(|region| region.leader == store) {
            let oldest = locks
                .range(region.start..region.end)
                .map(|(_, (start, _))| start.prev())
                .min();
            let resolved = oldest.map_or(now, |oldest| oldest.min(now));
            region.flushed = Some(resolved);
            for number in region.start..region.end {
                let at = &mut durable[usize::try_from(number).unwrap()];
                *at = (*at).max(resolved);
            }
            events.push(Flushed {
                range: region.range(),
                checkpoint: resolved,
            });
        }
        if fault == Fault::None
            && let Some(streams) = state.streams.get_mut(&store)
        {
            streams.retain(|stream| stream.send(events.clone()).is_ok());
        }
    }

    pub(super) fn add_task(&self, name: &str) {
        let mut state = self.state();
        state.revision += 1;
        let start = self.now_ts();
        // What was flushed before went to another place.
        state.durable.fill(start);
        for region in &mut state.regions {
            region.flushed = None;
        }
        state.task = Some(Task {
            info: TaskInfo {
                name: TaskName::new(name).unwrap(),
                storage: Default::default(),
                start_ts: start,
                end_ts: END_TS_NONE,
                table_filter: vec!["*.*".into()],
                compression: LogCompression::Zstd,
                encryption: TaskEncryption::None,
            },
            info_revision: state.revision,
            ranges: vec![KeyRange::new(&b"t"[..], &b"u"[..])],
            pause: None,
            checkpoints: Checkpoints::default(),
            errors: BTreeMap::new(),
        });
        state.seen = TimeStamp::ZERO;
        state.stored = TimeStamp::ZERO;
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn remove_task(&self) {
        self.state().task = None;
        self.changed.notify_waiters();
    }

    pub(super) fn set_fault(&self, store: StoreId, fault: Fault) {
        let mut state = self.state();
        state.faults.insert(store, fault);
        if fault != Fault::None && fault != Fault::SilentStreams {
            state.streams.remove(&store);
        }
    }

    pub(super) fn fail_pd(&self, is_down: bool) {
        self.state().is_pd_down = is_down;
    }

    pub(super) fn fail_storage(&self, is_down: bool) {
        self.state().is_storage_down = is_down;
    }

    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.is_pd_down = false;
        state.is_storage_down = false;
        state.locks.clear();
        for fault in state.faults.values_mut() {
            *fault = Fault::None;
        }
    }

    /// A new leader has flushed nothing yet, and knows the region only from the checkpoint on.
    pub(super) fn move_leaders(&self, from: StoreId, to: StoreId) {
        for region in &mut self.state().regions {
            if region.leader == from && from != to {
                region.leader = to;
                region.flushed = None;
            }
        }
    }

    pub(super) fn split(&self, at: u64) {
        let mut state = self.state();
        let next = state.next_region;
        let Some(region) = state
            .regions
            .iter_mut()
            .find(|region| region.start < at && at < region.end)
        else {
            return;
        };
        region.version += 1;
        region.flushed = None;
        let mut right = region.clone();
        region.end = at;
        right.start = at;
        right.id = next;
        state.next_region += 1;
        state.regions.push(right);
        state.regions.sort_by_key(|region| region.start);
    }

    pub(super) fn merge(&self, at: u64) {
        let mut state = self.state();
        let Some(left) = state
            .regions
            .iter()
            .position(|region| region.start <= at && at < region.end)
        else {
            return;
        };
        if left + 1 == state.regions.len() {
            return;
        }
        let right = state.regions.remove(left + 1);
        let region = &mut state.regions[left];
        region.version = region.version.max(right.version) + 1;
        region.end = right.end;
        region.flushed = None;
    }

    /// Locks a key now; gives the start of the transaction.
    pub(super) fn lock(&self, number: u64, is_alive: bool) -> TimeStamp {
        let start = self.now_ts();
        self.state().locks.insert(number, (start, is_alive));
        start
    }

    pub(super) fn unlock(&self, number: u64) {
        self.state().locks.remove(&number);
    }

    pub(super) fn pause_by_hand(&self) {
        self.set_pause("by hand");
    }

    fn set_pause(&self, why: &str) {
        let mut state = self.state();
        let operator = Operator {
            host: "h".into(),
            pid: 1,
        };
        let pause = error_pause(&self.rt, &operator, why);
        if let Some(task) = &mut state.task
            && task.pause.is_none()
        {
            task.pause = Some(pause);
            state.pauses.push(why.to_owned());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn resume(&self) {
        if let Some(task) = &mut self.state().task {
            task.pause = None;
        }
        self.changed.notify_waiters();
    }

    pub(super) fn pauses(&self) -> Vec<String> {
        self.state().pauses.clone()
    }

    pub(super) fn published(&self) -> TimeStamp {
        let state = self.state();
        let task = state.task.as_ref().unwrap();
        task.checkpoints.global.unwrap_or(task.start_ts())
    }

    pub(super) fn stored(&self) -> TimeStamp {
        self.state().stored
    }

    pub(super) fn safe_point(&self) -> Option<TimeStamp> {
        self.state().safe_point
    }

    pub(super) fn safe_point_renewed(&self) -> u64 {
        self.state().safe_point_renewed
    }

    pub(super) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// What has to hold at every moment.
    pub(super) fn check(&self) {
        let published = self.published();
        let mut state = self.state();
        assert!(published >= state.seen, "it went back");
        state.seen = published;
        let proven = state.durable.iter().min().copied().unwrap();
        assert!(published <= proven, "{published} is beyond {proven}");
        assert!(state.stored <= published, "the storage is ahead of etcd");
    }

    fn check_pd(&self) -> Result<(), AdvanceError> {
        match self.state().is_pd_down {
            true => Err(unreachable()),
            false => Ok(()),
        }
    }

    async fn delay(&self) {
        let millis = self.rt.random_below(40);
        self.rt.sleep(Duration::from_millis(millis)).await;
    }
}

impl Environment for Cluster {
    fn rt(&self) -> &Rt {
        &self.rt
    }

    async fn tasks(&self) -> Result<Vec<Task>, AdvanceError> {
        self.delay().await;
        self.check_pd()?;
        Ok(self.state().task.iter().cloned().collect())
    }

    async fn tasks_changed(&self) {
        self.changed.notified().await;
    }

    async fn now(&self) -> Result<TimeStamp, AdvanceError> {
        self.check_pd()?;
        Ok(self.now_ts())
    }

    async fn stores(&self) -> Result<Vec<StoreAt>, AdvanceError> {
        self.check_pd()?;
        let state = self.state();
        Ok(state
            .faults
            .keys()
            .map(|id| StoreAt {
                id: *id,
                started_at: 1,
            })
            .collect())
    }

    async fn flush_interval(&self) -> Result<Option<Duration>, AdvanceError> {
        Ok(Some(FLUSH))
    }

    async fn subscribe(
        &self,
        store: StoreId,
    ) -> Result<BoxStream<'static, Result<Vec<Flushed>, AdvanceError>>, AdvanceError> {
        self.delay().await;
        let mut state = self.state();
        match state.faults.get(&store) {
            Some(Fault::Down) | None => return Err(unreachable()),
            Some(Fault::NoStreams) => return Err(AdvanceError::Unsupported(store)),
            Some(Fault::SilentStreams | Fault::None) => {}
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let known = state
            .regions
            .iter()
            .filter(|region| region.leader == store)
            .filter_map(|region| {
                Some(Flushed {
                    range: region.range(),
                    checkpoint: region.flushed?,
                })
            })
            .collect();
        let _ = sender.send(known);
        state.streams.entry(store).or_default().push(sender);
        let stream = tokio_stream(receiver);
        Ok(stream.map(Ok).boxed())
    }

    async fn regions(&self, range: &KeyRange<EncodedKey>) -> Result<Vec<RegionAt>, AdvanceError> {
        self.delay().await;
        self.check_pd()?;
        let state = self.state();
        let all = state.regions.iter().filter(|r| r.range().overlaps(range));
        Ok(all
            .take(7)
            .map(|region| RegionAt {
                id: RegionId(region.id),
                version: region.version,
                range: region.range(),
                leader: region.leader,
            })
            .collect())
    }

    async fn last_flush(
        &self,
        store: StoreId,
        regions: &[RegionAt],
    ) -> Result<Vec<RegionFlushed>, AdvanceError> {
        self.delay().await;
        let state = self.state();
        if matches!(state.faults.get(&store), Some(Fault::Down) | None) {
            return Err(unreachable());
        }
        Ok(regions
            .iter()
            .map(|asked| {
                let found = state.regions.iter().find(|region| {
                    region.id == asked.id.0
                        && region.version == asked.version
                        && region.leader == store
                });
                RegionFlushed {
                    id: asked.id,
                    checkpoint: found
                        .and_then(|region| region.flushed)
                        .ok_or_else(|| "not flushed".to_owned()),
                }
            })
            .collect())
    }

    async fn raise(&self, task: &Task, checkpoint: TimeStamp) -> Result<Raised, AdvanceError> {
        self.delay().await;
        self.check_pd()?;
        let lost = self.rt.random_below(10) == 0;
        let mut state = self.state();
        state.writes += 1;
        let Some(current) = &mut state.task else {
            return Ok(Raised::Changed);
        };
        let is_same =
            current.is_same(task) && current.checkpoints.global == task.checkpoints.global;
        if !is_same {
            return Ok(Raised::Changed);
        }
        current.checkpoints.global = Some(checkpoint);
        match lost {
            true => Err(unreachable()),
            false => Ok(Raised::Done),
        }
    }

    async fn pause(&self, task: &Task, reason: &str) -> Result<(), AdvanceError> {
        self.check_pd()?;
        let is_same = self.state().task.as_ref().is_some_and(|t| t.is_same(task));
        if !is_same {
            let name = task.info.name.clone();
            return Err(TaskError::Changed { name }.into());
        }
        self.set_pause(reason);
        Ok(())
    }

    async fn protect(&self, ts: TimeStamp) -> Result<(), AdvanceError> {
        self.check_pd()?;
        let mut state = self.state();
        state.safe_point = Some(ts);
        state.safe_point_renewed += 1;
        Ok(())
    }

    async fn unprotect(&self) -> Result<(), AdvanceError> {
        self.check_pd()?;
        self.state().safe_point = None;
        Ok(())
    }

    async fn resolve_locks(
        &self,
        range: &KeyRange<EncodedKey>,
        max_version: TimeStamp,
    ) -> Result<LocksResolved, AdvanceError> {
        self.delay().await;
        let mut done = LocksResolved::default();
        self.state().locks.retain(|number, (start, is_alive)| {
            let is_old = *start <= max_version;
            if !is_old || !range.contains(&key::encode(raw(*number).as_bytes())) {
                return true;
            }
            done.found += 1;
            done.alive += u64::from(*is_alive);
            *is_alive
        });
        Ok(done)
    }

    async fn store_checkpoint(&self, _: &Task, checkpoint: TimeStamp) -> Result<(), AdvanceError> {
        let mut state = self.state();
        if state.is_storage_down {
            return Err(unreachable());
        }
        state.stored = checkpoint;
        Ok(())
    }
}

fn tokio_stream(
    receiver: mpsc::UnboundedReceiver<Vec<Flushed>>,
) -> impl futures::Stream<Item = Vec<Flushed>> {
    futures::stream::unfold(receiver, async |mut receiver| {
        let next = receiver.recv().await?;
        Some((next, receiver))
    })
}
