use std::{future::Future, sync::Arc};

use br_codec::ApiVersion;
use br_proto::kvrpcpb::{
    self, BatchRollbackRequest, CommitRequest, Context, GetRequest, KeyError, LockInfo, Mutation,
    Op, PessimisticLockRequest, PessimisticLockResponse, PrewriteRequest, PrewriteResponse,
    ScanRequest, prewrite_request::PessimisticAction,
};
use br_rt::{Rt, UnixMillis};
use br_types::KeyRange;

use crate::{engine::memory::MemoryEngine, storage::Storage, testing::FakeTopology};

/// A storage over an empty engine in memory.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) storage: Storage,
    pub(super) rt: Rt,
}

/// Runs a test on virtual time.
pub(super) fn simulate<T, F: Future<Output = T>>(seed: u64, test: impl FnOnce(Client) -> F) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { test(Client::new(Rt::simulated(seed, UnixMillis(0)))).await })
}

pub(super) fn put(key: &[u8], value: &[u8]) -> Mutation {
    Mutation {
        op: Op::Put.into(),
        key: key.to_vec(),
        value: value.to_vec(),
        ..Default::default()
    }
}

pub(super) fn op(op: Op, key: &[u8]) -> Mutation {
    Mutation {
        op: op.into(),
        key: key.to_vec(),
        value: b"i".to_vec(),
        ..Default::default()
    }
}

pub(super) fn request(start_ts: u64, mutations: Vec<Mutation>) -> PrewriteRequest {
    PrewriteRequest {
        primary_lock: mutations[0].key.clone(),
        mutations,
        start_version: start_ts,
        lock_ttl: 3000,
        ..Default::default()
    }
}

pub(super) fn pessimistic(
    start_ts: u64,
    for_update_ts: u64,
    mutations: Vec<Mutation>,
) -> PrewriteRequest {
    let action = PessimisticAction::DoPessimisticCheck.into();
    PrewriteRequest {
        pessimistic_actions: vec![action; mutations.len()],
        for_update_ts,
        ..request(start_ts, mutations)
    }
}

pub(super) fn lock_request(
    start_ts: u64,
    for_update_ts: u64,
    key: &[u8],
) -> PessimisticLockRequest {
    PessimisticLockRequest {
        mutations: vec![op(Op::PessimisticLock, key)],
        primary_lock: key.to_vec(),
        start_version: start_ts,
        lock_ttl: 3000,
        for_update_ts,
        wait_timeout: -1,
        ..Default::default()
    }
}

impl Client {
    pub(super) fn new(rt: Rt) -> Self {
        let engine = Arc::new(MemoryEngine::new("unused"));
        let topology = Arc::new(FakeTopology::new());
        Self {
            storage: Storage::new(rt.clone(), engine, topology, ApiVersion::V1),
            rt,
        }
    }

    pub(super) async fn prewrite(&self, request: PrewriteRequest) -> PrewriteResponse {
        self.storage.prewrite(request).await
    }

    pub(super) async fn must_prewrite(&self, start_ts: u64, mutations: Vec<Mutation>) {
        let answer = self.prewrite(request(start_ts, mutations)).await;
        assert_eq!(answer.errors, vec![]);
    }

    pub(super) async fn commit(
        &self,
        start_ts: u64,
        commit_ts: u64,
        keys: &[&[u8]],
    ) -> Option<KeyError> {
        let request = CommitRequest {
            start_version: start_ts,
            commit_version: commit_ts,
            keys: keys.iter().map(|key| key.to_vec()).collect(),
            ..Default::default()
        };
        self.storage.commit(request).await.error
    }

    /// Puts one key in a transaction of its own.
    pub(super) async fn write(&self, start_ts: u64, commit_ts: u64, key: &[u8], value: &[u8]) {
        self.must_prewrite(start_ts, vec![put(key, value)]).await;
        assert_eq!(self.commit(start_ts, commit_ts, &[key]).await, None);
    }

    pub(super) async fn remove(&self, start_ts: u64, commit_ts: u64, key: &[u8]) {
        self.must_prewrite(start_ts, vec![op(Op::Del, key)]).await;
        assert_eq!(self.commit(start_ts, commit_ts, &[key]).await, None);
    }

    pub(super) async fn rollback(&self, start_ts: u64, keys: &[&[u8]]) -> Option<KeyError> {
        let keys = keys.iter().map(|key| key.to_vec()).collect();
        let request = BatchRollbackRequest {
            start_version: start_ts,
            keys,
            ..Default::default()
        };
        self.storage.batch_rollback(request).await.error
    }

    pub(super) async fn lock(&self, request: PessimisticLockRequest) -> PessimisticLockResponse {
        self.storage.pessimistic_lock(request).await
    }

    pub(super) fn get(&self, ts: u64, key: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
        self.get_knowing(ts, key, &[], &[])
    }

    pub(super) fn get_knowing(
        &self,
        ts: u64,
        key: &[u8],
        resolved: &[u64],
        committed: &[u64],
    ) -> Result<Option<Vec<u8>>, KeyError> {
        let context = Context {
            resolved_locks: resolved.to_vec(),
            committed_locks: committed.to_vec(),
            ..Default::default()
        };
        let request = GetRequest {
            key: key.to_vec(),
            version: ts,
            context: Some(context),
            ..Default::default()
        };
        let answer = self.storage.get(&request);
        match answer.error {
            Some(error) => Err(error),
            None => Ok((!answer.not_found).then_some(answer.value)),
        }
    }

    /// The value, where no lock may be in the way.
    pub(super) fn value(&self, ts: u64, key: &[u8]) -> Option<Vec<u8>> {
        self.get(ts, key).unwrap()
    }

    pub(super) fn scan(&self, ts: u64, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let request = ScanRequest {
            limit: 1000,
            version: ts,
            reverse,
            ..Default::default()
        };
        let answer = self.storage.scan(&request, &KeyRange::default());
        assert_eq!(answer.error, None);
        answer
            .pairs
            .into_iter()
            .map(|pair| {
                assert_eq!(pair.error, None);
                (pair.key, pair.value)
            })
            .collect()
    }

    pub(super) fn locks(&self, ts: u64) -> Vec<LockInfo> {
        let request = kvrpcpb::ScanLockRequest {
            max_version: ts,
            ..Default::default()
        };
        let answer = self.storage.scan_lock(&request, &KeyRange::default());
        assert_eq!(answer.error, None);
        answer.locks
    }
}
