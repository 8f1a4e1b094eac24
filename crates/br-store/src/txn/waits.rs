//! Who waits for which lock, and whether somebody waits for himself.
//!
//! # Ordering and invariants
//! A waiter is entered while it holds the latch of the key, and a lock is removed under that latch
//! too: no wake-up gets lost. All waiters of a key are woken when its lock goes, in the order of
//! their transactions; each tries again, and those that find it locked wait on.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use br_proto::deadlock::WaitForEntry;
use br_types::TimeStamp;
use tokio::sync::oneshot;

use crate::mvcc::MvccError;

/// Waiting commands at a time. Each holds a request and some hundred bytes; one more is told at
/// once that the key is locked, as if its time to wait were over.
const WAITERS_MAX: usize = 10_000;

/// The waiting commands.
#[derive(Clone, Default)]
pub(crate) struct LockWaits(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiters: Mutex<Waiters>,
    count: AtomicUsize,
}

#[derive(Default)]
struct Waiters {
    next_id: u64,
    /// By data key of the lock.
    by_key: BTreeMap<Vec<u8>, Vec<Waiter>>,
    /// By waiting transaction.
    edges: BTreeMap<TimeStamp, Vec<Edge>>,
}

struct Waiter {
    id: u64,
    start_ts: TimeStamp,
    wake: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Edge {
    id: u64,
    holder: TimeStamp,
    raw_key: Vec<u8>,
}

/// A command that waits; dropping it takes it off the lists.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    id: u64,
    start_ts: TimeStamp,
    data_key: Vec<u8>,
    /// Completes when the lock has gone.
    pub(super) woken: oneshot::Receiver<()>,
}

impl LockWaits {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::SeqCst) == 0
    }

    /// Enters a transaction that is going to wait for `holder` to release a key. `None`: too many
    /// wait already.
    ///
    /// # Errors
    /// [`MvccError::Deadlock`] if the holder waits, directly or not, for this transaction.
    pub(super) fn enter(
        &self,
        start_ts: TimeStamp,
        holder: TimeStamp,
        data_key: Vec<u8>,
        raw_key: Vec<u8>,
    ) -> Result<Option<Waiting>, MvccError> {
        let mut waiters = self.0.lock();
        if let Some(chain) = waiters.chain(holder, start_ts) {
            return Err(deadlock(start_ts, holder, raw_key, chain));
        }
        if self.0.count.load(Ordering::SeqCst) >= WAITERS_MAX {
            return Ok(None);
        }
        let id = waiters.next_id;
        waiters.next_id += 1;
        let (wake, woken) = oneshot::channel();
        waiters
            .by_key
            .entry(data_key.clone())
            .or_default()
            .push(Waiter { id, start_ts, wake });
        waiters.edges.entry(start_ts).or_default().push(Edge {
            id,
            holder,
            raw_key,
        });
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Waiting {
            shared: self.0.clone(),
            id,
            start_ts,
            data_key,
            woken,
        }))
    }

    /// Everyone that waits, by transaction.
    pub(crate) fn all(&self) -> Vec<WaitForEntry> {
        let waiters = self.0.lock();
        let mut all: Vec<_> = waiters
            .edges
            .iter()
            .flat_map(|(waiter, edges)| edges.iter().map(|edge| (*waiter, edge)))
            .map(|(waiter, edge)| entry(waiter, edge.holder, edge.raw_key.clone()))
            .collect();
        all.sort_unstable_by(|a, b| (a.txn, &a.key).cmp(&(b.txn, &b.key)));
        all
    }

    /// Wakes who waits for the locks of these data keys.
    pub(crate) fn wake(&self, data_keys: &[Vec<u8>]) {
        if data_keys.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        {
            let mut waiters = self.0.lock();
            for key in data_keys {
                woken.extend(waiters.by_key.remove(key).unwrap_or_default());
            }
        }
        woken.sort_unstable_by_key(|waiter| (waiter.start_ts, waiter.id));
        for waiter in woken {
            // Whoever has given up in the meantime does not listen any more.
            let _ = waiter.wake.send(());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    /// Who waits for whom from `from` to `to`, if that is a way.
    fn chain(&self, from: TimeStamp, to: TimeStamp) -> Option<Vec<(TimeStamp, Edge)>> {
        let mut came_by: BTreeMap<TimeStamp, (TimeStamp, Edge)> = BTreeMap::new();
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(waiter) = open.pop() {
            for edge in self.edges.get(&waiter).into_iter().flatten() {
                if !seen.insert(edge.holder) {
                    continue;
                }
                came_by.insert(edge.holder, (waiter, edge.clone()));
                if edge.holder != to {
                    open.push(edge.holder);
                    continue;
                }
                let mut chain = Vec::new();
                let mut at = to;
                while let Some((waiter, edge)) = came_by.remove(&at) {
                    at = waiter;
                    chain.push((waiter, edge));
                }
                chain.reverse();
                return Some(chain);
            }
        }
        None
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiters = self.shared.lock();
        if let Some(of_key) = waiters.by_key.get_mut(&self.data_key) {
            of_key.retain(|waiter| waiter.id != self.id);
            if of_key.is_empty() {
                waiters.by_key.remove(&self.data_key);
            }
        }
        if let Some(edges) = waiters.edges.get_mut(&self.start_ts) {
            edges.retain(|edge| edge.id != self.id);
            if edges.is_empty() {
                waiters.edges.remove(&self.start_ts);
            }
        }
        self.shared.count.fetch_sub(1, Ordering::SeqCst);
    }
}

fn deadlock(
    start_ts: TimeStamp,
    holder: TimeStamp,
    raw_key: Vec<u8>,
    chain: Vec<(TimeStamp, Edge)>,
) -> MvccError {
    let deadlock_key = chain
        .last()
        .map(|(_, edge)| edge.raw_key.clone())
        .unwrap_or_default();
    let mut wait_chain: Vec<_> = chain
        .into_iter()
        .map(|(waiter, edge)| entry(waiter, edge.holder, edge.raw_key))
        .collect();
    wait_chain.push(entry(start_ts, holder, raw_key.clone()));
    MvccError::Deadlock {
        start_ts,
        lock_ts: holder,
        key: raw_key,
        deadlock_key_hash: hash(&deadlock_key),
        deadlock_key,
        wait_chain,
    }
}

fn entry(waiter: TimeStamp, holder: TimeStamp, key: Vec<u8>) -> WaitForEntry {
    WaitForEntry {
        txn: waiter.0,
        wait_for_txn: holder.0,
        key_hash: hash(&key),
        key,
        ..Default::default()
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
