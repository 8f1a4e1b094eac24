use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use br_codec::key;
use br_proto::{
    kvrpcpb::{self, Op},
    tikvpb::tikv_server::Tikv,
};
use br_types::TimeStamp;
use tonic::{Request, Response, Status};

use super::{
    locked,
    state::{FakeLock, State},
};

pub(super) struct FakeStore {
    pub(super) store: u64,
    pub(super) state: Arc<Mutex<State>>,
}

fn slices(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    keys.iter().map(Vec::as_slice).collect()
}

fn locked_by(info: kvrpcpb::LockInfo) -> kvrpcpb::KeyError {
    kvrpcpb::KeyError {
        locked: Some(info),
        ..Default::default()
    }
}

/// The lock of a prewrite, or what is against it.
fn prewrite_one(
    state: &State,
    request: &kvrpcpb::PrewriteRequest,
    mutation: &kvrpcpb::Mutation,
) -> Result<FakeLock, kvrpcpb::KeyError> {
    let start = request.start_version;
    if let Some(lock) = state.locks.get(&mutation.key)
        && lock.info.lock_version != start
    {
        return Err(locked_by(lock.info.clone()));
    }
    let newest = state
        .commits
        .get(&mutation.key)
        .and_then(|commits| commits.last());
    if let Some((commit, of, _)) = newest
        && *commit > start
    {
        let conflict = kvrpcpb::WriteConflict {
            start_ts: start,
            conflict_ts: *of,
            conflict_commit_ts: *commit,
            key: mutation.key.clone(),
            ..Default::default()
        };
        return Err(kvrpcpb::KeyError {
            conflict: Some(conflict),
            ..Default::default()
        });
    }
    if mutation.op() == Op::Insert && newest.is_some_and(|(_, _, value)| value.is_some()) {
        let already_exist = Some(kvrpcpb::AlreadyExist {
            key: mutation.key.clone(),
        });
        return Err(kvrpcpb::KeyError {
            already_exist,
            ..Default::default()
        });
    }
    let info = kvrpcpb::LockInfo {
        primary_lock: request.primary_lock.clone(),
        lock_version: start,
        key: mutation.key.clone(),
        lock_ttl: request.lock_ttl,
        txn_size: request.txn_size,
        lock_type: mutation.op,
        ..Default::default()
    };
    let value = (mutation.op() != Op::Del).then(|| mutation.value.clone());
    Ok(FakeLock { info, value })
}

#[tonic::async_trait]
impl Tikv for FakeStore {
    async fn kv_get(
        &self,
        request: Request<kvrpcpb::GetRequest>,
    ) -> Result<Response<kvrpcpb::GetResponse>, Status> {
        let request = request.into_inner();
        let state = locked(&self.state);
        let mut answer = kvrpcpb::GetResponse {
            region_error: state.check(self.store, request.context.as_ref(), &[&request.key]),
            ..Default::default()
        };
        if answer.region_error.is_none() {
            let passable = request.context.map(|context| context.resolved_locks);
            match state.read(&request.key, request.version, &passable.unwrap_or_default()) {
                Ok(Some(value)) => answer.value = value,
                Ok(None) => answer.not_found = true,
                Err(lock) => answer.error = Some(locked_by(lock)),
            }
        }
        Ok(Response::new(answer))
    }

    async fn kv_batch_get(
        &self,
        request: Request<kvrpcpb::BatchGetRequest>,
    ) -> Result<Response<kvrpcpb::BatchGetResponse>, Status> {
        let request = request.into_inner();
        let state = locked(&self.state);
        let region_error =
            state.check(self.store, request.context.as_ref(), &slices(&request.keys));
        let mut answer = kvrpcpb::BatchGetResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_none() {
            for key in request.keys {
                match state.read(&key, request.version, &[]) {
                    Ok(Some(value)) => {
                        answer.pairs.push(kvrpcpb::KvPair {
                            key,
                            value,
                            ..Default::default()
                        });
                    }
                    Ok(None) => {}
                    Err(lock) => answer.pairs.push(kvrpcpb::KvPair {
                        error: Some(locked_by(lock)),
                        ..Default::default()
                    }),
                }
            }
        }
        Ok(Response::new(answer))
    }

    async fn kv_scan(
        &self,
        request: Request<kvrpcpb::ScanRequest>,
    ) -> Result<Response<kvrpcpb::ScanResponse>, Status> {
        let request = request.into_inner();
        let state = locked(&self.state);
        let context = request.context.as_ref();
        // Downwards the start is exclusive and may be the end of the region.
        let first: Vec<&[u8]> = if request.reverse {
            Vec::new()
        } else {
            vec![&request.start_key]
        };
        let region_error = state.check(self.store, context, &first);
        let mut answer = kvrpcpb::ScanResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_some() {
            return Ok(Response::new(answer));
        }
        let id = context.map(|context| context.region_id).unwrap_or_default();
        let (low, high) = if request.reverse {
            (&request.end_key, &request.start_key)
        } else {
            (&request.start_key, &request.end_key)
        };
        // As a store does: the range has to lie in the region.
        let lowest = state.region_of(key::encode(low).as_bytes());
        let end = lowest.map(|region| region.end.clone());
        let end = end.unwrap_or_default();
        if !end.is_empty() && !high.is_empty() && *key::encode(high).as_bytes() > *end {
            answer.error = Some(kvrpcpb::KeyError {
                abort: "the range goes beyond the region".to_owned(),
                ..Default::default()
            });
            return Ok(Response::new(answer));
        }
        let mut keys: Vec<Vec<u8>> = state
            .locks
            .keys()
            .chain(state.commits.keys())
            .cloned()
            .collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| {
            let region = state
                .region_of(key::encode(key).as_bytes())
                .map(|region| region.id);
            region == Some(id) && key >= low && (high.is_empty() || key < high)
        });
        if request.reverse {
            keys.reverse();
        }
        for key in keys {
            match state.read(&key, request.version, &[]) {
                Ok(Some(value)) => {
                    answer.pairs.push(kvrpcpb::KvPair {
                        key,
                        value,
                        ..Default::default()
                    });
                }
                Ok(None) => {}
                Err(lock) => answer.pairs.push(kvrpcpb::KvPair {
                    error: Some(locked_by(lock)),
                    ..Default::default()
                }),
            }
        }
        answer.pairs.truncate(request.limit as usize);
        Ok(Response::new(answer))
    }

    async fn kv_prewrite(
        &self,
        request: Request<kvrpcpb::PrewriteRequest>,
    ) -> Result<Response<kvrpcpb::PrewriteResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let keys: Vec<&[u8]> = request
            .mutations
            .iter()
            .map(|mutation| mutation.key.as_slice())
            .collect();
        let region_error = state.check(self.store, request.context.as_ref(), &keys);
        let mut answer = kvrpcpb::PrewriteResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_none() {
            let mut locks = Vec::new();
            for mutation in &request.mutations {
                match prewrite_one(&state, &request, mutation) {
                    Ok(lock) => locks.push((mutation.key.clone(), lock)),
                    Err(error) => answer.errors.push(error),
                }
            }
            if answer.errors.is_empty() {
                state.locks.extend(locks);
            }
        }
        Ok(Response::new(answer))
    }

    async fn kv_commit(
        &self,
        request: Request<kvrpcpb::CommitRequest>,
    ) -> Result<Response<kvrpcpb::CommitResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let region_error =
            state.check(self.store, request.context.as_ref(), &slices(&request.keys));
        let mut answer = kvrpcpb::CommitResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_none() {
            let start = request.start_version;
            for key in &request.keys {
                let done = state.finish(key, start, request.commit_version)
                    || state.commit_of(key, start).is_some();
                if !done {
                    answer.error = Some(kvrpcpb::KeyError {
                        txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: key.clone() }),
                        ..Default::default()
                    });
                }
            }
            if state.lose_commit_answers > 0 {
                state.lose_commit_answers -= 1;
                return Err(Status::unavailable("connection reset"));
            }
        }
        Ok(Response::new(answer))
    }

    async fn kv_batch_rollback(
        &self,
        request: Request<kvrpcpb::BatchRollbackRequest>,
    ) -> Result<Response<kvrpcpb::BatchRollbackResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let region_error =
            state.check(self.store, request.context.as_ref(), &slices(&request.keys));
        if region_error.is_none() {
            for key in &request.keys {
                state.finish(key, request.start_version, 0);
            }
        }
        Ok(Response::new(kvrpcpb::BatchRollbackResponse {
            region_error,
            ..Default::default()
        }))
    }

    async fn kv_txn_heart_beat(
        &self,
        _: Request<kvrpcpb::TxnHeartBeatRequest>,
    ) -> Result<Response<kvrpcpb::TxnHeartBeatResponse>, Status> {
        Ok(Response::new(kvrpcpb::TxnHeartBeatResponse::default()))
    }

    async fn kv_check_txn_status(
        &self,
        request: Request<kvrpcpb::CheckTxnStatusRequest>,
    ) -> Result<Response<kvrpcpb::CheckTxnStatusResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let (key, start) = (&request.primary_key, request.lock_ts);
        let region_error = state.check(self.store, request.context.as_ref(), &[key]);
        let mut answer = kvrpcpb::CheckTxnStatusResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_some() {
            return Ok(Response::new(answer));
        }
        let lock = state
            .locks
            .get(key)
            .filter(|lock| lock.info.lock_version == start)
            .cloned();
        let is_expired = |lock: &FakeLock| {
            TimeStamp(start).physical_ms() + lock.info.lock_ttl
                < TimeStamp(request.current_ts).physical_ms()
        };
        match lock {
            Some(lock) if lock.info.use_async_commit && !request.force_sync_commit => {
                answer.lock_ttl = lock.info.lock_ttl;
                answer.lock_info = Some(lock.info);
            }
            Some(lock) if is_expired(&lock) => {
                state.finish(key, start, 0);
                answer.set_action(kvrpcpb::Action::TtlExpireRollback);
            }
            Some(lock) => {
                answer.lock_ttl = lock.info.lock_ttl;
                answer.lock_info = Some(lock.info);
            }
            None => match state.commit_of(key, start) {
                Some(commit) => answer.commit_version = commit,
                None if state.rollbacks.contains(&(key.clone(), start)) => {}
                None if request.rollback_if_not_exist => {
                    state.rollbacks.push((key.clone(), start));
                    answer.set_action(kvrpcpb::Action::LockNotExistRollback);
                }
                None => {
                    let txn_not_found = Some(kvrpcpb::TxnNotFound {
                        start_ts: start,
                        primary_key: key.clone(),
                    });
                    answer.error = Some(kvrpcpb::KeyError {
                        txn_not_found,
                        ..Default::default()
                    });
                }
            },
        }
        Ok(Response::new(answer))
    }

    async fn kv_check_secondary_locks(
        &self,
        request: Request<kvrpcpb::CheckSecondaryLocksRequest>,
    ) -> Result<Response<kvrpcpb::CheckSecondaryLocksResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let region_error =
            state.check(self.store, request.context.as_ref(), &slices(&request.keys));
        let mut answer = kvrpcpb::CheckSecondaryLocksResponse {
            region_error,
            ..Default::default()
        };
        if answer.region_error.is_none() {
            let start = request.start_version;
            for key in request.keys {
                match state
                    .locks
                    .get(&key)
                    .filter(|lock| lock.info.lock_version == start)
                {
                    Some(lock) => answer.locks.push(lock.info.clone()),
                    None => {
                        answer.locks.clear();
                        answer.commit_ts = state.commit_of(&key, start).unwrap_or_default();
                        if answer.commit_ts == 0 {
                            state.rollbacks.push((key, start));
                        }
                        break;
                    }
                }
            }
        }
        Ok(Response::new(answer))
    }

    async fn kv_resolve_lock(
        &self,
        request: Request<kvrpcpb::ResolveLockRequest>,
    ) -> Result<Response<kvrpcpb::ResolveLockResponse>, Status> {
        let request = request.into_inner();
        let mut state = locked(&self.state);
        let context = request.context.as_ref();
        let region_error = state.check(self.store, context, &slices(&request.keys));
        let unique: BTreeSet<_> = request.keys.iter().collect();
        if unique.len() < request.keys.len() {
            // TiKV 8.5 dies of it.
            let abort = "a key is named twice".to_owned();
            return Ok(Response::new(kvrpcpb::ResolveLockResponse {
                error: Some(kvrpcpb::KeyError {
                    abort,
                    ..Default::default()
                }),
                ..Default::default()
            }));
        }
        if region_error.is_none() {
            let id = context.map(|context| context.region_id);
            let in_region: Vec<Vec<u8>> = state
                .locks
                .keys()
                .filter(|key| {
                    state
                        .region_of(key::encode(key).as_bytes())
                        .map(|region| region.id)
                        == id
                })
                .cloned()
                .collect();
            let keys = if request.keys.is_empty() {
                in_region
            } else {
                request.keys
            };
            for key in keys {
                state.finish(&key, request.start_version, request.commit_version);
            }
        }
        Ok(Response::new(kvrpcpb::ResolveLockResponse {
            region_error,
            ..Default::default()
        }))
    }
}
