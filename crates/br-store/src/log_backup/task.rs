//! One task at work on one store: its parts, put together.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_codec::key;
use br_format::{
    crypter::{Crypter, Method},
    log::task::{TaskEncryption, TaskInfo, TaskName},
};
use br_rt::{RateLimit, Rt, Task};
use br_storage::{Backend, Faults, MasterKeys, Storage as ExternalStorage};
use br_types::{Classify, EncodedKey, KeyRange, Kind, StoreId, TimeStamp};
use tokio::sync::{Semaphore, mpsc};

use super::{
    board::TaskBoard,
    collector::{Collector, Filling},
    config::LiveConfig,
    error::Fault,
    flush::{FlushState, FlushWaiter, Flusher, guard_id},
    global::GlobalCheckpoint,
    metrics::Metrics,
    observer::StoreObserver,
    observers::WriteObserver,
    pace::objects_per_hour_max,
    payload::{MemoryUse, Payload},
    published::{Published, RunId},
    queue::{EVENT_BYTES_MAX, EventQueue},
    regions::{RegionManager, State},
    upload::{Destination, Encryption},
};
use crate::{scratch_file::empty_dir, storage::Storage, topology::Topology};

/// Pause before PD or the storage is asked again for what a task needs to begin.
const PD_PAUSE: Duration = Duration::from_secs(5);
/// Callers of "flush now" that wait at a time; more wait for room.
const FLUSH_WAITERS_MAX: usize = 64;
/// What was guarded when the task was paused by an error.
const GUARD_TTL: Duration = Duration::from_secs(2 * 3600);

/// What log backup works with on one store, whatever the task.
pub(crate) struct Store {
    pub(crate) rt: Rt,
    pub(crate) id: StoreId,
    pub(crate) mvcc: Storage,
    pub(crate) topology: Arc<dyn Topology>,
    pub(crate) config: Arc<LiveConfig>,
    pub(crate) temp_dir: PathBuf,
    pub(crate) faults: Faults,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) published: Arc<Published>,
    pub(crate) at_work: Mutex<Option<CurrentTask>>,
}

/// The task at work on a store.
#[derive(Clone)]
pub(crate) struct CurrentTask {
    run: RunId,
    pub(crate) name: TaskName,
    pub(crate) flushes: mpsc::Sender<FlushWaiter>,
}

/// The name under which a store guards the data of a task that an error has paused.
pub(crate) fn pause_guard_id(task: &TaskName, store: StoreId) -> String {
    format!("{task}-{store}-pause-guard")
}

/// Carries a task out until something fatal happens. Dropped, it ends: what has not been flushed
/// is forgotten, and scanned again from the global checkpoint.
pub(crate) async fn carry_out(
    store: Arc<Store>,
    board: Arc<dyn TaskBoard>,
    name: TaskName,
    info: Vec<u8>,
) -> Fault {
    match Preparation::new(&store, &board, &name, &info).await {
        Ok(preparation) => preparation.run(store, board, name).await,
        Err(fault) => fault,
    }
}

/// What a task is about, checked.
struct Preparation {
    start_ts: TimeStamp,
    ranges: Vec<KeyRange<EncodedKey>>,
    destination: Destination,
}

impl Preparation {
    async fn new(
        store: &Store,
        board: &Arc<dyn TaskBoard>,
        name: &TaskName,
        info: &[u8],
    ) -> Result<Preparation, Fault> {
        let wrong = |error: &dyn std::fmt::Display| Fault::Task(error.to_string());
        let info = TaskInfo::decode(name.as_str(), info).map_err(|error| wrong(&error))?;
        let encryption = match info.encryption {
            TaskEncryption::None => Encryption::DataKey(Crypter::plaintext()),
            TaskEncryption::DataKey(crypter) => Encryption::DataKey(crypter),
            TaskEncryption::MasterKeys(config) => {
                let method = Method::from_proto(config.encryption_type);
                let keys = MasterKeys::open(&store.rt, &config.master_keys).await;
                Encryption::MasterKeys {
                    method: method.map_err(|error| wrong(&error))?,
                    keys: keys.map_err(|error| wrong(&error))?,
                }
            }
        };
        let ranges = loop {
            match board.ranges(name).await {
                Ok(ranges) => break ranges,
                Err(error) => {
                    tracing::warn!(task = %name, %error, "cannot read the ranges of a task yet");
                    store.rt.sleep(PD_PAUSE).await;
                }
            }
        };
        let mut ranges: Vec<_> = ranges.iter().map(key::encode_range).collect();
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        if ranges.is_empty() {
            return Err(Fault::Task("it has no ranges".into()));
        }
        let backend = Backend::from_proto(&info.storage).map_err(|error| wrong(&error))?;
        let storage = loop {
            match ExternalStorage::open(&store.rt, &backend).await {
                Ok(storage) => break storage,
                // A sealed one is read, and perhaps a key service asked: either comes back.
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::warn!(task = %name, %error, "cannot open the storage of a task yet");
                    store.rt.sleep(PD_PAUSE).await;
                }
                Err(error) => return Err(wrong(&error)),
            }
        };
        Ok(Preparation {
            start_ts: info.start_ts,
            ranges: joined(ranges),
            destination: Destination {
                rt: store.rt.clone(),
                store: store.id,
                storage: storage.with_faults(store.faults.clone()),
                compression: info.compression,
                encryption,
                courtesy: store.mvcc.courtesy().clone(),
            },
        })
    }

    async fn run(self, store: Arc<Store>, board: Arc<dyn TaskBoard>, name: TaskName) -> Fault {
        let Store { rt, config, .. } = &*store;
        let limits = config.get();
        let global = Arc::new(GlobalCheckpoint::new(
            rt.clone(),
            board.clone(),
            name.clone(),
            self.start_ts,
        ));
        take_over_guard(&store, &*board, &name, &global).await;
        let temp_dir = store.temp_dir.join(name.as_str());
        let emptied = temp_dir.clone();
        if let Err(error) = rt.blocking(move || empty_dir(&emptied)).await {
            return Fault::TempFile(error);
        }
        let started = rt.now();
        let queue = Arc::new(EventQueue::new(EVENT_BYTES_MAX));
        let (filling, memory) = (Arc::new(Filling::default()), Arc::new(MemoryUse::default()));
        let (lost_sender, lost) = mpsc::unbounded_channel();
        let collector = Collector {
            rt: rt.clone(),
            started,
            store: store.id,
            topology: store.topology.clone(),
            queue: queue.clone(),
            payload: Payload::new(
                rt.clone(),
                &temp_dir,
                memory.clone(),
                limits.temp_memory_bytes_max,
            ),
            filling: filling.clone(),
            metrics: store.metrics.clone(),
            lost: lost_sender,
            subscriptions: BTreeMap::new(),
        };
        let observer = Arc::new(StoreObserver::new(queue.clone(), store.metrics.clone()));
        let (flush_sender, requests) = mpsc::channel(FLUSH_WAITERS_MAX);
        let at_work = AtWork::begin(&store, &name, observer.clone(), flush_sender);
        let manager = RegionManager {
            rt: rt.clone(),
            store: store.id,
            storage: store.mvcc.clone(),
            topology: store.topology.clone(),
            queue: queue.clone(),
            observer,
            ranges: self.ranges,
            global: global.clone(),
            scans: Arc::new(Semaphore::new(limits.scan_concurrency.max(1))),
            scan_limit: RateLimit::new(rt.clone(), limits.scan_bytes_per_s).map(Arc::new),
            lost,
            state: State::default(),
        };
        let flusher = Flusher {
            rt: rt.clone(),
            started,
            store: store.id,
            task: name.clone(),
            mvcc: store.mvcc.clone(),
            board,
            destination: self.destination,
            queue,
            filling,
            memory,
            published: store.published.clone(),
            run: at_work.run,
            config: config.clone(),
            metrics: store.metrics.clone(),
            global,
            requests,
            state: FlushState::new(started),
        };
        tracing::info!(
            task = %name,
            store = store.id.0,
            objects_per_hour_max = objects_per_hour_max(limits.min_flush_interval),
            "log backup begins"
        );
        let parts: [Task<Fault>; 3] = [
            rt.spawn(collector.run()),
            rt.spawn(manager.run()),
            rt.spawn(flusher.work()),
        ];
        let [collector, manager, flusher] = parts;
        tokio::select! {
            biased;
            fault = collector => fault,
            fault = manager => fault,
            fault = flusher => fault,
        }
    }
}

/// First the guard of a task at work, then the one of its pause goes: there is no gap.
async fn take_over_guard(
    store: &Store,
    board: &dyn TaskBoard,
    name: &TaskName,
    global: &GlobalCheckpoint,
) {
    let guarded = match global.get(Duration::ZERO).await {
        Ok(checkpoint) => {
            let id = guard_id(name, store.id);
            board.guard(&id, checkpoint.prev(), GUARD_TTL).await
        }
        Err(error) => Err(error),
    };
    let result = match guarded {
        Ok(()) => board.unguard(&pause_guard_id(name, store.id)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        // The scans look whether garbage collection has passed their start.
        tracing::warn!(task = %name, %error, "cannot guard the log's data from collection yet");
    }
}

/// Joins ranges that touch or overlap; they are sorted by start.
fn joined(ranges: Vec<KeyRange<EncodedKey>>) -> Vec<KeyRange<EncodedKey>> {
    let mut joined: Vec<KeyRange<EncodedKey>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end.is_empty() => {}
            Some(last) if range.start <= last.end => {
                if range.end.is_empty() || range.end > last.end {
                    last.end = range.end;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// While it lives, writes are observed and flushes can be asked for. The next task may have begun
/// when it goes: only what is its own is taken back.
struct AtWork {
    store: Arc<Store>,
    observer: Arc<dyn WriteObserver>,
    run: RunId,
}

impl AtWork {
    fn begin(
        store: &Arc<Store>,
        name: &TaskName,
        observer: Arc<dyn WriteObserver>,
        flushes: mpsc::Sender<FlushWaiter>,
    ) -> AtWork {
        store.mvcc.observe(observer.clone());
        let run = store.published.begin();
        *store.current() = Some(CurrentTask {
            run,
            name: name.clone(),
            flushes,
        });
        AtWork {
            store: store.clone(),
            observer,
            run,
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.store.mvcc.stop_observing(&self.observer);
        self.store.published.end(self.run);
        let mut current = self.store.current();
        if current.as_ref().is_some_and(|task| task.run == self.run) {
            *current = None;
        }
    }
}

impl Store {
    /// The task at work.
    pub(crate) fn current(&self) -> MutexGuard<'_, Option<CurrentTask>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let range = |start: &str, end: &str| {
            KeyRange::<EncodedKey>::new(start.as_bytes().to_vec(), end.as_bytes().to_vec())
        };
        let ranges = vec![
            range("a", "c"),
            range("b", "d"),
            range("d", "e"),
            range("f", "g"),
            range("h", ""),
            range("i", "j"),
        ];
        assert_eq!(
            joined(ranges),
            [range("a", "e"), range("f", "g"), range("h", "")]
        );
    }
}
