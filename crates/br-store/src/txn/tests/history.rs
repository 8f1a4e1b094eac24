//! Random concurrent transactions against a model: what a read at a timestamp saw must be what
//! the commits at or below that timestamp make of the key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use br_proto::kvrpcpb::{
    Action, CheckTxnStatusRequest, LockInfo, Mutation, Op, PrewriteRequest, ResolveLockRequest,
};
use br_rt::Rt;
use br_types::{KeyRange, TimeStamp};

use super::client::{Client, lock_request, op, pessimistic, put, request, simulate};
use crate::mvcc::ReadContext;

const KEYS: u64 = 6;
const WRITERS: u64 = 6;
const READERS: u64 = 4;
const ROUNDS: u64 = 40;
/// Wall-clock time stands still in the oracle, so locks never expire: whoever is in the way
/// finishes or has finished.
const FIRST_TS: u64 = 1000;

type Value = Option<Vec<u8>>;

#[derive(Default)]
struct History {
    /// By key, then commit timestamp: start timestamp and value.
    commits: BTreeMap<Vec<u8>, BTreeMap<u64, (u64, Value)>>,
    reads: Vec<(u64, Vec<u8>, Value)>,
    /// Start timestamps of optimistic transactions.
    optimistic: BTreeSet<u64>,
}

impl History {
    fn value(&self, key: &[u8], ts: u64) -> Value {
        let commits = self.commits.get(key)?;
        commits
            .range(..=ts)
            .next_back()
            .and_then(|(_, (_, value))| value.clone())
    }

    fn commit(&mut self, start_ts: u64, commit_ts: u64, mutations: &[Mutation]) {
        for mutation in mutations {
            let value = (mutation.op() == Op::Put).then(|| mutation.value.clone());
            let previous = self
                .commits
                .entry(mutation.key.clone())
                .or_default()
                .insert(commit_ts, (start_ts, value));
            assert_eq!(previous, None, "two commits of a key at {commit_ts}");
        }
    }
}

#[derive(Clone)]
struct World {
    client: Client,
    clock: Arc<AtomicU64>,
    history: Arc<Mutex<History>>,
}

impl World {
    fn new(client: Client) -> Self {
        let clock = Arc::new(AtomicU64::new(FIRST_TS));
        Self {
            client,
            clock,
            history: Arc::default(),
        }
    }

    fn tso(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn random(&self, below: u64) -> u64 {
        self.client.rt.random_below(below)
    }

    async fn pause(&self) {
        let micros = self.random(300);
        self.client.rt.sleep(Duration::from_micros(micros)).await;
    }

    async fn run(&self) {
        let rt = self.client.rt.clone();
        let mut tasks = Vec::new();
        for _ in 0..WRITERS {
            let world = self.clone();
            tasks.push(rt.spawn(async move {
                for _ in 0..ROUNDS {
                    world.write_once().await;
                    world.pause().await;
                }
            }));
        }
        for _ in 0..READERS {
            let world = self.clone();
            tasks.push(rt.spawn(async move {
                for _ in 0..ROUNDS {
                    world.read_once().await;
                    world.pause().await;
                }
            }));
        }
        for task in tasks {
            task.await;
        }
    }

    fn mutations(&self, start_ts: u64) -> Vec<Mutation> {
        let mut keys = BTreeSet::new();
        for _ in 0..=self.random(3) {
            keys.insert(self.random(KEYS));
        }
        let mutation = |n: u64| {
            let key = [b'k', n as u8];
            if self.random(5) == 0 {
                return op(Op::Del, &key);
            }
            let len = if self.random(3) == 0 { 300 } else { 10 };
            let mut value = start_ts.to_be_bytes().to_vec();
            value.resize(len, b'v');
            put(&key, &value)
        };
        keys.into_iter().map(mutation).collect()
    }

    async fn write_once(&self) {
        let start_ts = self.tso();
        let mutations = self.mutations(start_ts);
        let keys: Vec<Vec<u8>> = mutations
            .iter()
            .map(|mutation| mutation.key.clone())
            .collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mode = self.random(4);
        let mut prewrite = if mode == 3 {
            let for_update_ts = self.tso();
            for key in &keys {
                let mut wanted = lock_request(start_ts, for_update_ts, key);
                wanted.primary_lock = keys[0].to_vec();
                wanted.wait_timeout = 5;
                if !self.client.lock(wanted).await.errors.is_empty() {
                    assert_eq!(self.client.rollback(start_ts, &keys).await, None);
                    return;
                }
            }
            self.pause().await;
            pessimistic(start_ts, for_update_ts, mutations.clone())
        } else {
            request(start_ts, mutations.clone())
        };
        let secondaries = keys[1..].iter().map(|key| key.to_vec()).collect();
        let is_async = mode == 1 || (mode == 3 && self.random(2) == 0);
        match mode {
            2 => prewrite.try_one_pc = true,
            _ if is_async => {
                prewrite = PrewriteRequest {
                    use_async_commit: true,
                    secondaries,
                    ..prewrite
                };
            }
            // Readers may push it.
            _ => prewrite.min_commit_ts = start_ts + 1,
        }
        if self.random(10) == 0 {
            // Often too small, so that the transaction falls back.
            prewrite.max_commit_ts = start_ts + 3;
        }
        let answer = self.client.prewrite(prewrite).await;
        if !answer.errors.is_empty() {
            assert_eq!(self.client.rollback(start_ts, &keys).await, None);
            return;
        }
        if mode != 3 {
            self.history.lock().unwrap().optimistic.insert(start_ts);
        }
        let decided = answer.min_commit_ts.max(answer.one_pc_commit_ts);
        if decided != 0 {
            self.history
                .lock()
                .unwrap()
                .commit(start_ts, decided, &mutations);
        }
        if answer.one_pc_commit_ts != 0 {
            return;
        }
        self.pause().await;
        let commit_ts = if decided != 0 { decided } else { self.tso() };
        if let Some(error) = self.client.commit(start_ts, commit_ts, &keys[..1]).await {
            // A reader has pushed it; nobody rolls it back.
            assert!(
                error.commit_ts_expired.is_some() && decided == 0,
                "{error:?}"
            );
            assert_eq!(self.client.rollback(start_ts, &keys).await, None);
            return;
        }
        if decided == 0 {
            self.history
                .lock()
                .unwrap()
                .commit(start_ts, commit_ts, &mutations);
        }
        // One in four dies here; readers find out.
        if self.random(4) != 0 {
            self.pause().await;
            assert_eq!(self.client.commit(start_ts, commit_ts, &keys).await, None);
        }
    }

    async fn read_once(&self) {
        let ts = self.tso();
        self.pause().await;
        for n in 0..KEYS {
            let key = [b'k', n as u8];
            let mut resolved = Vec::new();
            let value = loop {
                match self.client.get_knowing(ts, &key, &resolved, &[]) {
                    Ok(value) => break value,
                    Err(error) => {
                        let lock = error.locked.expect("nothing but locks stops a read");
                        if self.resolve(&lock, ts).await {
                            resolved.push(lock.lock_version);
                        }
                        self.pause().await;
                    }
                }
            };
            self.history
                .lock()
                .unwrap()
                .reads
                .push((ts, key.to_vec(), value));
        }
    }

    /// Finds out about a lock's transaction; whether the reader may pass it by.
    async fn resolve(&self, lock: &LockInfo, ts: u64) -> bool {
        let asked = CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts: ts,
            current_ts: self.tso(),
            ..Default::default()
        };
        let answer = self.client.storage.check_txn_status(asked).await;
        if answer.error.is_some() || answer.lock_ttl > 0 {
            return answer.action() == Action::MinCommitTsPushed;
        }
        let resolve = ResolveLockRequest {
            start_version: lock.lock_version,
            commit_version: answer.commit_version,
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        let answer = self
            .client
            .storage
            .resolve_lock(resolve, KeyRange::default())
            .await;
        assert_eq!(answer.error, None);
        false
    }

    async fn check(&self) {
        // Whoever died after its primary is resolved by the first reader.
        let last = self.tso();
        for lock in self.client.locks(last) {
            self.resolve(&lock, last).await;
        }
        assert_eq!(self.client.locks(last), vec![]);
        let history = std::mem::take(&mut *self.history.lock().unwrap());
        assert!(history.commits.values().map(BTreeMap::len).sum::<usize>() > 20);
        for (ts, key, value) in &history.reads {
            assert_eq!(&history.value(key, *ts), value, "{key:?} at {ts}");
        }
        for commits in history.commits.values() {
            let mut before = 0;
            for (commit_ts, (start_ts, _)) in commits {
                if history.optimistic.contains(start_ts) {
                    assert!(*start_ts >= before, "an update got lost at {commit_ts}");
                }
                before = *commit_ts;
            }
        }
        self.check_scans(&history, last);
        let middle = (FIRST_TS + last) / 2;
        let gc = self
            .client
            .storage
            .gc(&KeyRange::default(), TimeStamp(middle))
            .unwrap();
        assert!(gc.versions_removed > 0);
        for ts in [middle, (middle + last) / 2, last] {
            self.check_scans(&history, ts);
        }
    }

    fn check_scans(&self, history: &History, ts: u64) {
        let mut expected = Vec::new();
        for key in history.commits.keys() {
            expected.extend(history.value(key, ts).map(|value| (key.clone(), value)));
        }
        assert_eq!(self.client.scan(ts, false), expected, "at {ts}");
        let view = self
            .client
            .storage
            .read_range(&KeyRange::default(), ReadContext::at(TimeStamp(ts)))
            .unwrap();
        let mut entries = view.entries(TimeStamp::ZERO).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            let key = br_codec::key::decode(entry.encoded_key)
                .unwrap()
                .into_bytes();
            found.push((key, entry.value.unwrap().to_vec()));
        }
        assert_eq!(found, expected, "entries at {ts}");
        expected.reverse();
        assert_eq!(self.client.scan(ts, true), expected, "backwards at {ts}");
    }
}

#[test]
fn histories_in_simulation() {
    for seed in 0..30 {
        simulate(seed, async |client| {
            let world = World::new(client);
            world.run().await;
            world.check().await;
        });
    }
}

#[test]
fn a_history_on_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new(Client::new(Rt::real()));
        world.run().await;
        world.check().await;
    });
}
