//! Which subscription of a store an applied write belongs to.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use br_codec::key::DATA_PREFIX;
use br_types::{EncodedKey, KeyRange};

use super::{
    metrics::Metrics,
    observers::WriteObserver,
    queue::{EventQueue, Message, batch_bytes},
    subscription::{SubscriptionId, SubscriptionSpec},
};
use crate::engine::{Batch, Change};

/// The observer of one store for one task.
///
/// # Ordering and invariants
/// A write is routed by its keys and by who observes them at that moment, whatever region its
/// request was for: a write that arrives while its region splits or its leader moves goes to
/// whoever observes the key then. If that is nobody, whoever observes it next finds the write in
/// the snapshot of its scan.
pub(crate) struct StoreObserver {
    routes: RwLock<Routes>,
    queue: Arc<EventQueue>,
    metrics: Arc<Metrics>,
}

/// Observed ranges by start; they do not overlap.
#[derive(Default)]
struct Routes(BTreeMap<Vec<u8>, Route>);

struct Route {
    end: Vec<u8>,
    id: SubscriptionId,
}

impl StoreObserver {
    pub(crate) fn new(queue: Arc<EventQueue>, metrics: Arc<Metrics>) -> StoreObserver {
        StoreObserver {
            routes: RwLock::default(),
            queue,
            metrics,
        }
    }

    /// Observes a region from now on: a snapshot that is taken after this and the events together
    /// have every write. Its ranges must be free.
    pub(crate) fn subscribe(&self, spec: SubscriptionSpec) {
        let routes: Vec<_> = spec
            .ranges
            .iter()
            .map(|range| {
                let end = range.end.as_bytes().to_vec();
                (range.start.as_bytes().to_vec(), Route { end, id: spec.id })
            })
            .collect();
        self.queue.push(Message::Subscribe(Box::new(spec)));
        let mut table = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        table.0.extend(routes);
        drop(table);
        // See `Observers`: the snapshot must not be taken before this can be seen.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Stops observing.
    pub(crate) fn unsubscribe(&self, id: SubscriptionId) {
        self.forget(id);
        self.queue.push(Message::Unsubscribe(id));
    }

    fn forget(&self, id: SubscriptionId) {
        let mut table = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        table.0.retain(|_, route| route.id != id);
    }

    /// The subscriptions that a batch has changes for.
    fn route(&self, batch: &Batch) -> Vec<SubscriptionId> {
        let table = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        if table.0.is_empty() {
            return found;
        }
        let mut last: Option<(&[u8], &Route)> = None;
        for change in &batch.changes {
            let Some(key) = engine_key(change) else {
                continue;
            };
            if last.is_some_and(|(start, route)| start <= key && route.is_before_end(key)) {
                continue;
            }
            last = table.find(key);
            if let Some((_, route)) = last
                && !found.contains(&route.id)
            {
                found.push(route.id);
            }
        }
        found
    }
}

impl WriteObserver for StoreObserver {
    fn applied(&self, batch: &Arc<Batch>) {
        let found = self.route(batch);
        if found.is_empty() {
            return;
        }
        let bytes = batch_bytes(batch);
        for id in found {
            if self.queue.push_batch(id, batch, bytes).is_err() {
                self.metrics.events_lost.add(1);
                self.forget(id);
            }
        }
    }

    fn removed(&self, range: &KeyRange<EncodedKey>) {
        self.queue.push(Message::Removed(range.clone()));
    }
}

impl Routes {
    fn find(&self, key: &[u8]) -> Option<(&[u8], &Route)> {
        let before = (Bound::Unbounded, Bound::Included(key));
        let (start, route) = self.0.range::<[u8], _>(before).next_back()?;
        route
            .is_before_end(key)
            .then_some((start.as_slice(), route))
    }
}

impl Route {
    fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.is_empty() || key < self.end.as_slice()
    }
}

/// The key of a change, without `z`; `None`: it is no data.
pub(crate) fn engine_key(change: &Change) -> Option<&[u8]> {
    let (Change::Put(_, key, _) | Change::Delete(_, key)) = change;
    key.strip_prefix(&[DATA_PREFIX])
}

#[cfg(test)]
mod tests {
    use br_proto::metapb;
    use br_types::{Cf, TimeStamp};

    use super::*;

    fn spec(id: u64, ranges: &[(&str, &str)]) -> SubscriptionSpec {
        let range = |(start, end): &(&str, &str)| {
            KeyRange::new(start.as_bytes().to_vec(), end.as_bytes().to_vec())
        };
        SubscriptionSpec {
            id: SubscriptionId(id),
            region: metapb::Region::default(),
            ranges: ranges.iter().map(range).collect(),
            checkpoint: TimeStamp::ZERO,
        }
    }

    fn routed(observer: &StoreObserver, keys: &[&str]) -> Vec<u64> {
        let mut batch = Batch::default();
        for key in keys {
            batch.put(Cf::Write, key.as_bytes().to_vec(), Vec::new());
        }
        observer.route(&batch).iter().map(|id| id.0).collect()
    }

    #[test]
    fn writes_go_to_who_observes_their_keys() {
        let queue = Arc::new(EventQueue::new(1000));
        let observer = StoreObserver::new(queue.clone(), Arc::default());
        assert!(routed(&observer, &["zb"]).is_empty());
        observer.subscribe(spec(1, &[("m", "n"), ("t", "tk")]));
        observer.subscribe(spec(2, &[("tk", "u")]));
        assert_eq!(routed(&observer, &["zm1", "zta", "ztk"]), [1, 2]);
        assert!(routed(&observer, &["za", "zn", "zu", "m1", "b"]).is_empty());
        observer.unsubscribe(SubscriptionId(1));
        assert_eq!(routed(&observer, &["zm1", "ztz"]), [2]);
        // A subscription that has lost an event gets no more.
        let mut batch = Batch::default();
        batch.put(Cf::Write, b"ztz".to_vec(), vec![0; 900]);
        let batch = Arc::new(batch);
        observer.applied(&batch);
        observer.applied(&batch);
        observer.applied(&batch);
        let kinds: Vec<_> = queue
            .take()
            .iter()
            .map(|message| match message {
                Message::Subscribe(_) => 's',
                Message::Unsubscribe(_) => 'u',
                Message::Applied(..) => 'a',
                Message::Lost(_) => 'l',
                _ => '?',
            })
            .collect();
        assert_eq!(kinds, ['s', 's', 'u', 'a', 'l']);
    }
}
