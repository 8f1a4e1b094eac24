//! The first phase of a commit: locks with the new values, after checks for conflicts.
//!
//! With 1PC the locks are never stored: the keys are committed at once.

mod mutation;

use br_codec::{Lock, WriteKind, key};
use br_proto::kvrpcpb::{
    AssertionLevel, PrewriteRequest, PrewriteResponse, prewrite_request::PessimisticAction,
};
use br_types::{EncodedKey, TimeStamp};

use self::mutation::{Prewritten, prewrite_mutation};
use crate::{
    mvcc::{CommitRecord, MvccError, WriteTxn},
    storage::{Answer, Storage},
};

impl Storage {
    /// Locks keys with their new values; with 1PC commits them.
    pub async fn prewrite(&self, request: PrewriteRequest) -> PrewriteResponse {
        let keys = request
            .mutations
            .iter()
            .map(|mutation| key::encode(&mutation.key))
            .collect();
        let done = self
            .run_write(keys, move |txn| Prewrite::new(&request)?.run(txn, request))
            .await;
        done.unwrap_or_else(|error| PrewriteResponse::failed(&error))
    }
}

/// How the transaction is going to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommitMode {
    /// Prewrite, then a commit of the primary key.
    TwoPhase,
    /// Committed once all keys are prewritten.
    Async,
    /// Committed by this prewrite.
    OnePhase,
}

/// What holds for all mutations of one prewrite.
struct Prewrite {
    start_ts: TimeStamp,
    /// `None`: an optimistic transaction.
    for_update_ts: Option<TimeStamp>,
    primary: Vec<u8>,
    lock_ttl_ms: u64,
    txn_size: u64,
    min_commit_ts: TimeStamp,
    /// Zero: any.
    max_commit_ts: TimeStamp,
    mode: CommitMode,
    /// Whether the client asked for async commit; with 1PC too it may do both.
    is_async_asked: bool,
    secondaries: Vec<Vec<u8>>,
    skips_constraint_check: bool,
    is_retry: bool,
    assertion_level: AssertionLevel,
    txn_source: u64,
}

impl Prewrite {
    fn new(request: &PrewriteRequest) -> Result<Self, MvccError> {
        let is_pessimistic = request.for_update_ts > 0;
        // More are not told apart: tikv-client sends those of all regions to each.
        if is_pessimistic && request.pessimistic_actions.len() < request.mutations.len() {
            return Err(MvccError::Invalid(
                "a pessimistic prewrite needs one pessimistic action for each mutation",
            ));
        }
        let mode = match (request.try_one_pc, request.use_async_commit) {
            (true, _) => CommitMode::OnePhase,
            (false, true) => CommitMode::Async,
            (false, false) => CommitMode::TwoPhase,
        };
        let context = request.context.as_ref();
        Ok(Self {
            start_ts: TimeStamp(request.start_version),
            for_update_ts: is_pessimistic.then_some(TimeStamp(request.for_update_ts)),
            primary: request.primary_lock.clone(),
            lock_ttl_ms: request.lock_ttl,
            txn_size: request.txn_size,
            min_commit_ts: TimeStamp(request.min_commit_ts),
            max_commit_ts: TimeStamp(request.max_commit_ts),
            mode,
            is_async_asked: request.use_async_commit,
            secondaries: request.secondaries.clone(),
            skips_constraint_check: request.skip_constraint_check,
            is_retry: context.is_some_and(|context| context.is_retry_request),
            assertion_level: request.assertion_level(),
            txn_source: context.map_or(0, |context| context.txn_source),
        })
    }

    fn run(
        mut self,
        txn: &mut WriteTxn<'_>,
        request: PrewriteRequest,
    ) -> Result<PrewriteResponse, MvccError> {
        let expected = expected_for_update_ts(&request)?;
        let actions: Vec<_> = request.pessimistic_actions().collect();
        let mut pending: Vec<Prewritten> = Vec::with_capacity(request.mutations.len());
        let mut commit_ts = TimeStamp::ZERO;
        let mut locked = Vec::new();
        let mut assertion_failure = None;
        for (index, mutation) in request.mutations.into_iter().enumerate() {
            let action = actions
                .get(index)
                .copied()
                .unwrap_or(PessimisticAction::SkipPessimisticCheck);
            let expected = expected.get(index).copied().flatten();
            let key = key::encode(&mutation.key);
            match prewrite_mutation(&self, txn, &key, mutation, action, expected, &mut pending) {
                Ok(ts) if self.mode != CommitMode::TwoPhase && ts.is_zero() => {
                    // Its lock is there already, and is one of two phases.
                    self.fall_back(txn, &mut pending);
                    commit_ts = TimeStamp::ZERO;
                }
                Ok(ts) => commit_ts = commit_ts.max(ts),
                Err(error) => {
                    if self.may_be_committed(&error)
                        && let Some(committed) = committed_at(txn, &key, self.start_ts)?
                    {
                        txn.clear();
                        return Ok(self.answer(committed));
                    }
                    match error {
                        MvccError::CommitTsTooLarge { .. } => {
                            // The lock itself is among those pending.
                            self.fall_back(txn, &mut pending);
                            commit_ts = TimeStamp::ZERO;
                        }
                        error @ MvccError::KeyIsLocked(_) => locked.push(error.key_error()),
                        error @ MvccError::AssertionFailed { .. } => {
                            assertion_failure.get_or_insert(error);
                        }
                        error => return Err(error),
                    }
                }
            }
        }
        if let Some(error) = assertion_failure {
            return Err(error);
        }
        if !locked.is_empty() {
            txn.clear();
            return Ok(PrewriteResponse {
                errors: locked,
                ..Default::default()
            });
        }
        for done in pending {
            if self.mode == CommitMode::OnePhase {
                txn.commit_lock(&done.key, done.lock, commit_ts, done.had_pessimistic_lock);
            } else {
                txn.put_lock(&done.key, &done.lock);
            }
        }
        Ok(self.answer(commit_ts))
    }

    /// Whether an error may come from a prewrite that arrives again after its transaction has
    /// committed.
    fn may_be_committed(&self, error: &MvccError) -> bool {
        match error {
            MvccError::WriteConflict {
                conflict_commit_ts, ..
            } => *conflict_commit_ts > self.start_ts,
            MvccError::PessimisticLockNotFound { .. }
            | MvccError::CommitTsTooLarge { .. }
            | MvccError::KeyIsLocked(_) => true,
            _ => false,
        }
    }

    /// Goes on as a transaction of two phases, the keys done so far included.
    fn fall_back(&mut self, txn: &mut WriteTxn<'_>, pending: &mut [Prewritten]) {
        self.mode = CommitMode::TwoPhase;
        self.is_async_asked = false;
        for done in pending {
            done.lock.async_commit = None;
        }
        txn.clear_memory_locks();
    }

    fn answer(&self, commit_ts: TimeStamp) -> PrewriteResponse {
        PrewriteResponse {
            min_commit_ts: if self.is_async_asked { commit_ts.0 } else { 0 },
            one_pc_commit_ts: if self.mode == CommitMode::OnePhase {
                commit_ts.0
            } else {
                0
            },
            ..Default::default()
        }
    }

    /// What the lock of a key tells of the other keys; `None`: no async commit.
    fn secondaries_in_lock(&self, raw_key: &[u8]) -> Option<Vec<Vec<u8>>> {
        self.is_async_asked.then(|| {
            if raw_key == self.primary {
                self.secondaries.clone()
            } else {
                Vec::new()
            }
        })
    }

    fn new_lock(&self, kind: br_codec::LockKind) -> Lock {
        let mut lock = Lock::new(kind, self.primary.clone(), self.start_ts, self.lock_ttl_ms);
        lock.txn_size = self.txn_size;
        lock.min_commit_ts = self.min_commit_ts;
        lock.txn_source = self.txn_source;
        lock
    }
}

/// For each mutation, the timestamp that its pessimistic lock has to have.
fn expected_for_update_ts(request: &PrewriteRequest) -> Result<Vec<Option<TimeStamp>>, MvccError> {
    let mut expected = Vec::new();
    if request.for_update_ts_constraints.is_empty() {
        return Ok(expected);
    }
    expected.resize(request.mutations.len(), None);
    for constraint in &request.for_update_ts_constraints {
        let place = expected
            .get_mut(constraint.index as usize)
            .ok_or(MvccError::Invalid(
                "a constraint on for_update_ts names a mutation that is not there",
            ))?;
        *place = Some(TimeStamp(constraint.expected_for_update_ts));
    }
    Ok(expected)
}

/// When the transaction has committed the key: this prewrite is a late repetition then.
fn committed_at(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    start_ts: TimeStamp,
) -> Result<Option<TimeStamp>, MvccError> {
    Ok(match txn.reader.commit_record(key, start_ts)? {
        CommitRecord::Found { commit_ts, write } if write.kind != WriteKind::Rollback => {
            Some(commit_ts)
        }
        _ => None,
    })
}
