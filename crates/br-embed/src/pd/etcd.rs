//! The etcd v3 store on PD's port.
//!
//! # What it does
//! Keys with revisions, transactions, leases that take their keys with them, and watches. The
//! services of PD that keep things "in etcd" (meta storage, global config) use it too.
//!
//! # Objects it reads and writes
//! `etcd/kv/` + key: the key's current `mvccpb.KeyValue`. `etcd/revision`: the revision of the
//! store. `etcd/lease/` + id: the lease's time to live in seconds.
//!
//! # Ordering and invariants
//! Each change has one revision, greater by one than the one before; it is stored before anyone
//! sees it. Watchers get every event of their range in the order of revisions, or are cancelled.
//! Of the past only the newest [`HISTORY_EVENTS_MAX`] events are kept, in memory: older revisions
//! count as compacted.
//!
//! # After a crash
//! All acknowledged changes are there. Revisions before the restart count as compacted, and each
//! lease starts its time anew, as after a change of etcd's leader.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_proto::mvccpb::{Event, KeyValue, event::EventType};
use br_rt::Rt;
use prost::Message;

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_u64};

mod error;
pub(crate) mod grpc;
mod lease;
mod range;
#[cfg(test)]
mod tests;
mod txn;
mod watch;

pub use error::EtcdError;
pub use lease::LeaseInfo;
pub use watch::{WatchSpec, WatchUpdate, Watching};

/// Events of the past that watches and reads at older revisions can reach back to.
pub const HISTORY_EVENTS_MAX: usize = 20_000;
/// Bytes of those events; with it the memory of the history is bounded whatever their size.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;
/// Bytes of all keys and values; etcd's own quota is 2 GiB, and here all of it lies in memory.
pub const STORE_BYTES_MAX: usize = 512 << 20;

const KV_PREFIX: &[u8] = b"etcd/kv/";
const REVISION_KEY: &[u8] = b"etcd/revision";

/// The keys of a request: one key, a range, or everything from a key on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpan {
    start: Vec<u8>,
    end: Bound<Vec<u8>>,
}

impl KeySpan {
    /// From a request's `key` and `range_end`: empty is one key, a zero byte is no bound.
    pub fn new(key: &[u8], range_end: &[u8]) -> KeySpan {
        let end = match range_end {
            [] => Bound::Included(key.to_vec()),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end.to_vec()),
        };
        KeySpan {
            start: key.to_vec(),
            end,
        }
    }

    /// Whether a key lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice()
            && match &self.end {
                Bound::Included(end) => key <= end.as_slice(),
                Bound::Excluded(end) => key < end.as_slice(),
                Bound::Unbounded => true,
            }
    }

    fn is_empty(&self) -> bool {
        matches!(&self.end, Bound::Excluded(end) if *end <= self.start)
    }
}

/// The store. All calls are short; the ones that change something write to [`MetaKv`].
pub struct Etcd {
    rt: Rt,
    kv: Arc<dyn MetaKv>,
    state: Mutex<State>,
}

struct State {
    revision: i64,
    /// Revisions below it are gone.
    compacted: i64,
    keys: BTreeMap<Vec<u8>, KeyValue>,
    bytes: usize,
    /// Every event from `history_from` on, each with `prev_kv`, in order.
    history: VecDeque<Event>,
    history_from: i64,
    history_bytes: usize,
    leases: BTreeMap<i64, lease::Lease>,
    watchers: BTreeMap<u64, watch::Watcher>,
    next_watcher: u64,
}

impl Etcd {
    /// Loads what is stored.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(rt: Rt, kv: Arc<dyn MetaKv>) -> Result<Etcd, MetaError> {
        let stored = i64::try_from(get_u64(kv.as_ref(), REVISION_KEY)?).unwrap_or(i64::MAX);
        let revision = stored.max(1);
        let mut state = State {
            revision,
            compacted: revision,
            keys: BTreeMap::new(),
            bytes: 0,
            history: VecDeque::new(),
            history_from: revision + 1,
            history_bytes: 0,
            leases: lease::load(kv.as_ref(), rt.now())?,
            watchers: BTreeMap::new(),
            next_watcher: 1,
        };
        for (key, value) in kv.scan_prefix(KV_PREFIX)? {
            let pair = KeyValue::decode(value.as_slice())
                .map_err(|error| MetaError::damaged(&key, &error))?;
            if let Some(lease) = state.leases.get_mut(&pair.lease) {
                lease.keys.insert(pair.key.clone());
            }
            state.bytes += size(&pair);
            state.keys.insert(pair.key.clone(), pair);
        }
        Ok(Etcd {
            rt,
            kv,
            state: Mutex::new(state),
        })
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> i64 {
        self.lock().revision
    }

    /// Bytes of all keys and values.
    pub fn size_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Forgets the past before `revision`.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`] if that was done already, [`EtcdError::FutureRevision`].
    pub fn compact(&self, revision: i64) -> Result<i64, EtcdError> {
        let mut state = self.lock();
        if revision <= state.compacted {
            return Err(EtcdError::Compacted(state.compacted));
        }
        if revision > state.revision {
            return Err(EtcdError::FutureRevision);
        }
        state.forget_before(revision);
        Ok(state.revision)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `events`, already applied to `state.keys`, durable and tells the watchers; takes them
    /// back if that fails. `batch` may hold further changes that belong with them.
    fn commit(
        &self,
        state: &mut State,
        events: Vec<Event>,
        mut batch: MetaBatch,
    ) -> Result<(), EtcdError> {
        for event in &events {
            let Some(kv) = &event.kv else { continue };
            let key = [KV_PREFIX, &kv.key].concat();
            match state.keys.get(&kv.key) {
                Some(now) => batch.put(key, now.encode_to_vec()),
                None => batch.delete(key),
            }
        }
        if !events.is_empty() {
            batch.put(
                REVISION_KEY,
                (state.revision + 1).cast_unsigned().to_be_bytes(),
            );
        }
        let grown = state.bytes_after(&events);
        let result = if grown > STORE_BYTES_MAX && grown > state.bytes {
            Err(EtcdError::NoSpace)
        } else if batch.changes.is_empty() {
            Ok(())
        } else {
            self.kv.write(batch).map_err(EtcdError::from)
        };
        if let Err(error) = result {
            state.take_back(events);
            return Err(error);
        }
        if !events.is_empty() {
            state.bytes = grown;
            state.revision += 1;
            state.attach_leases(&events);
            state.tell_watchers(&events);
            state.remember(events);
        }
        Ok(())
    }
}

impl State {
    /// Sets a key at the next revision; gives the event.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: i64) -> Event {
        let revision = self.revision + 1;
        let previous = self.keys.get(&key).cloned();
        let kv = KeyValue {
            key: key.clone(),
            create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            value,
            lease,
        };
        self.keys.insert(key, kv.clone());
        Event {
            r#type: EventType::Put.into(),
            kv: Some(kv),
            prev_kv: previous,
        }
    }

    /// Removes the keys of a span at the next revision; gives the events.
    fn delete(&mut self, span: &KeySpan) -> Vec<Event> {
        let revision = self.revision + 1;
        let keys: Vec<_> = self.pairs(span).map(|kv| kv.key.clone()).collect();
        keys.into_iter()
            .filter_map(|key| self.keys.remove(&key))
            .map(|previous| Event {
                r#type: EventType::Delete.into(),
                kv: Some(KeyValue {
                    key: previous.key.clone(),
                    mod_revision: revision,
                    ..KeyValue::default()
                }),
                prev_kv: Some(previous),
            })
            .collect()
    }

    fn pairs(&self, span: &KeySpan) -> impl Iterator<Item = &KeyValue> {
        let range = (!span.is_empty()).then(|| {
            self.keys.range::<[u8], _>((
                Bound::Included(span.start.as_slice()),
                span.end.as_ref().map(Vec::as_slice),
            ))
        });
        range.into_iter().flatten().map(|(_, kv)| kv)
    }

    fn take_back(&mut self, events: Vec<Event>) {
        for event in events.into_iter().rev() {
            match (event.prev_kv, event.kv) {
                (Some(previous), _) => {
                    self.keys.insert(previous.key.clone(), previous);
                }
                (None, Some(kv)) => {
                    self.keys.remove(&kv.key);
                }
                (None, None) => {}
            }
        }
    }

    fn bytes_after(&self, events: &[Event]) -> usize {
        events.iter().fold(self.bytes, |bytes, event| {
            let added = match &event.kv {
                Some(kv) if event.r#type == i32::from(EventType::Put) => size(kv),
                _ => 0,
            };
            (bytes + added).saturating_sub(event.prev_kv.as_ref().map_or(0, size))
        })
    }

    fn attach_leases(&mut self, events: &[Event]) {
        for event in events {
            if let Some(previous) = &event.prev_kv
                && let Some(lease) = self.leases.get_mut(&previous.lease)
            {
                lease.keys.remove(&previous.key);
            }
            if let Some(kv) = &event.kv
                && let Some(lease) = self.leases.get_mut(&kv.lease)
            {
                lease.keys.insert(kv.key.clone());
            }
        }
    }

    fn remember(&mut self, events: Vec<Event>) {
        for event in events {
            self.history_bytes += event_size(&event);
            self.history.push_back(event);
        }
        while self.history.len() > HISTORY_EVENTS_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = self.history.front() else {
                break;
            };
            self.forget_before(revision_of(oldest) + 1);
        }
    }

    /// Drops the events before `revision`; the state at `revision` itself stays readable.
    fn forget_before(&mut self, revision: i64) {
        while let Some(oldest) = self.history.front()
            && revision_of(oldest) < revision
        {
            self.history_bytes = self.history_bytes.saturating_sub(event_size(oldest));
            self.history.pop_front();
        }
        self.history_from = self.history_from.max(revision);
        self.compacted = self.compacted.max(revision.min(self.revision));
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Bytes that a key and its value take, with what surrounds them in memory.
fn size(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len() + size_of::<KeyValue>()
}

fn event_size(event: &Event) -> usize {
    event.kv.as_ref().map_or(0, size) + event.prev_kv.as_ref().map_or(0, size)
}
