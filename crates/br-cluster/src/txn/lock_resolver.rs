//! # What it does
//! Finds out how the transactions behind locks stand, and removes the locks of those that have
//! ended: commits them where the transaction is committed, rolls them back where it is rolled back
//! or its time is over.
//!
//! # Ordering and invariants
//! The primary key decides. A transaction is rolled back only by its primary, after its time to
//! live; an async commit is decided by all of its keys together. A lock is touched only after its
//! transaction is decided.
//!
//! # Retries
//! Each request by the router's policy. Living transactions are not waited for here; the caller
//! pauses and comes again.
//!
//! # After a crash
//! Every step can be repeated, by this client or another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use br_proto::kvrpcpb;
use br_types::{RawKey, TimeStamp};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    KeyPrefix,
    batches::{CONCURRENCY, group, send_run},
    txn_status::{TxnStatus, is_expired},
};
use crate::{KvError, RegionRoute, Router};

/// Transactions whose end is remembered; a restart from nothing costs a request for each.
const ENDED_MAX: usize = 4096;

/// From this many keys on, all locks of the transaction in a region are resolved at once instead
/// of key by key.
const LARGE_TXN_KEYS: u64 = 16;

/// What became of locks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolution {
    /// Start timestamps of transactions whose locks a reader may pass as if they were not there:
    /// rolled back, committed after the reader's timestamp, or sure to commit after it.
    pub resolved: Vec<TimeStamp>,
    /// Start timestamps of transactions that are committed at or before the reader's timestamp.
    pub committed: Vec<TimeStamp>,
    /// One lock of each living transaction that is in the way: pause, then try again.
    pub alive: Vec<kvrpcpb::LockInfo>,
}

/// Resolves locks. Cheap to clone; clones share what they know of ended transactions.
#[derive(Clone)]
pub struct LockResolver {
    router: Router,
    prefix: KeyPrefix,
    ended: Arc<Mutex<BTreeMap<TimeStamp, TxnStatus>>>,
}

impl LockResolver {
    pub(crate) fn new(router: Router, prefix: KeyPrefix) -> Self {
        Self {
            router,
            prefix,
            ended: Arc::default(),
        }
    }

    pub(crate) fn with_router(&self, router: Router) -> LockResolver {
        LockResolver {
            router,
            ..self.clone()
        }
    }

    /// Removes what it can of the locks that a reader at `ts` met. `locks` are as the stores gave
    /// them. Transactions that live are pushed so that they commit after `ts`, where that is
    /// possible.
    ///
    /// # Errors
    /// PD or stores are out of reach, or refuse.
    pub async fn resolve_for_read(
        &self,
        locks: &[kvrpcpb::LockInfo],
        ts: TimeStamp,
    ) -> Result<Resolution, KvError> {
        self.resolve(locks, ts).await
    }

    /// Removes what it can of the locks that a writer met.
    ///
    /// # Errors
    /// PD or stores are out of reach, or refuse.
    pub async fn resolve_for_write(
        &self,
        locks: &[kvrpcpb::LockInfo],
    ) -> Result<Resolution, KvError> {
        self.resolve(locks, TimeStamp::ZERO).await
    }

    async fn resolve(
        &self,
        locks: &[kvrpcpb::LockInfo],
        reader: TimeStamp,
    ) -> Result<Resolution, KvError> {
        let mut by_txn: BTreeMap<u64, Vec<kvrpcpb::LockInfo>> = BTreeMap::new();
        for lock in locks.iter().flat_map(flatten) {
            by_txn.entry(lock.lock_version).or_default().push(lock);
        }
        let outcomes: Vec<_> = futures::stream::iter(by_txn)
            .map(|(start, locks)| self.resolve_txn(TimeStamp(start), locks, reader))
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut resolution = Resolution::default();
        for (start, status, lock) in outcomes {
            match status {
                TxnStatus::Committed(commit) if commit <= reader => {
                    resolution.committed.push(start);
                }
                TxnStatus::Alive {
                    passable: false, ..
                } => resolution.alive.push(lock),
                _ => resolution.resolved.push(start),
            }
        }
        Ok(resolution)
    }

    /// Decides one transaction and removes these locks of it. Gives its status and one of them.
    async fn resolve_txn(
        &self,
        start: TimeStamp,
        locks: Vec<kvrpcpb::LockInfo>,
        reader: TimeStamp,
    ) -> Result<(TimeStamp, TxnStatus, kvrpcpb::LockInfo), KvError> {
        let lock = locks.first().cloned().unwrap_or_default();
        let known = self.ended().get(&start).cloned();
        let status = match known {
            Some(status) => status,
            None => self.decide(&lock, reader).await?,
        };
        match status {
            TxnStatus::Alive { .. } => {}
            TxnStatus::NothingPrewritten => self.remove(start, &status, locks).await?,
            TxnStatus::Committed(_) | TxnStatus::RolledBack => {
                self.remember(start, status.clone());
                self.remove(start, &status, locks).await?;
            }
        }
        Ok((start, status, lock))
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, BTreeMap<TimeStamp, TxnStatus>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, start: TimeStamp, status: TxnStatus) {
        let mut ended = self.ended();
        if ended.len() >= ENDED_MAX {
            ended.clear();
        }
        ended.insert(start, status);
    }

    /// Asks the primary, and all keys of an async commit whose time is over.
    async fn decide(
        &self,
        lock: &kvrpcpb::LockInfo,
        reader: TimeStamp,
    ) -> Result<TxnStatus, KvError> {
        let start = TimeStamp(lock.lock_version);
        let (status, now) = self.ask_primary(lock, reader, false).await?;
        let TxnStatus::Alive {
            primary: Some(primary),
            ttl_ms,
            ..
        } = &status
        else {
            return Ok(status);
        };
        if !primary.use_async_commit || !is_expired(start, *ttl_ms, now) {
            return Ok(status);
        }
        match self.ask_secondaries(primary).await? {
            Some(decided) => {
                self.finish_async_commit(start, &decided, primary).await?;
                Ok(decided)
            }
            // Some of its locks are those of a plain commit: the primary alone decides.
            None => Ok(self.ask_primary(lock, reader, true).await?.0),
        }
    }

    /// The status by the primary key, and the timestamp at which it was asked.
    async fn ask_primary(
        &self,
        lock: &kvrpcpb::LockInfo,
        reader: TimeStamp,
        force_sync_commit: bool,
    ) -> Result<(TxnStatus, TimeStamp), KvError> {
        const METHOD: &str = "KvCheckTxnStatus";
        let primary = RawKey::from(lock.primary_lock.as_slice());
        let start = TimeStamp(lock.lock_version);
        let is_pessimistic = lock.lock_type() == kvrpcpb::Op::PessimisticLock;
        let mut rollback_if_not_exist = false;
        loop {
            let now = self.router.pd().tso().await?;
            let (answer, _): (kvrpcpb::CheckTxnStatusResponse, _) = self
                .router
                .send(&KeyPrefix::routing(&primary), |client, route| {
                    let request = kvrpcpb::CheckTxnStatusRequest {
                        context: Some(self.context(&route)),
                        primary_key: primary.as_bytes().to_vec(),
                        lock_ts: start.0,
                        caller_start_ts: reader.0,
                        current_ts: now.0,
                        rollback_if_not_exist,
                        force_sync_commit,
                        resolving_pessimistic_lock: is_pessimistic,
                        verify_is_primary: true,
                        ..Default::default()
                    };
                    async move { client.check_txn_status(request).await }
                })
                .await?;
            let Some(error) = answer.error else {
                return Ok((TxnStatus::from_answer(answer), now));
            };
            if error.txn_not_found.is_some() && !rollback_if_not_exist {
                // The other keys may be locked before the primary is: as long as the lock's own
                // time is not over, the primary may still come.
                if !is_expired(start, lock.lock_ttl, now) {
                    let alive = TxnStatus::Alive {
                        passable: false,
                        primary: None,
                        ttl_ms: lock.lock_ttl,
                    };
                    return Ok((alive, now));
                }
                rollback_if_not_exist = true;
                continue;
            }
            if error.primary_mismatch.is_some() && is_pessimistic {
                // Left over from an attempt with another primary; nothing hangs on it.
                return Ok((TxnStatus::NothingPrewritten, now));
            }
            return Err(KvError::from_key_error(METHOD, start, error));
        }
    }

    /// How an async commit stands by its secondary keys; `None` if some are of a plain commit.
    /// Keys that are missing are locked out by it, so that the transaction cannot commit any more.
    async fn ask_secondaries(
        &self,
        primary: &kvrpcpb::LockInfo,
    ) -> Result<Option<TxnStatus>, KvError> {
        const METHOD: &str = "KvCheckSecondaryLocks";
        let start = TimeStamp(primary.lock_version);
        let mut keys: Vec<RawKey> = primary
            .secondaries
            .iter()
            .map(|key| RawKey::from(key.as_slice()))
            .collect();
        keys.sort();
        keys.dedup();
        let mut commit_ts = primary.min_commit_ts;
        for run in group(&self.router, keys).await? {
            let answers = send_run(&self.router, run, |client, route, part: &[RawKey]| {
                let request = kvrpcpb::CheckSecondaryLocksRequest {
                    context: Some(self.context(&route)),
                    keys: part.iter().map(|key| key.as_bytes().to_vec()).collect(),
                    start_version: start.0,
                };
                async move { client.check_secondary_locks(request).await }
            })
            .await?;
            for (answer, part) in answers {
                let answer: kvrpcpb::CheckSecondaryLocksResponse = answer;
                if let Some(error) = answer.error {
                    return Err(KvError::from_key_error(METHOD, start, error));
                }
                if answer.commit_ts != 0 {
                    return Ok(Some(TxnStatus::Committed(TimeStamp(answer.commit_ts))));
                }
                if answer.locks.len() < part.len() {
                    return Ok(Some(TxnStatus::RolledBack));
                }
                for lock in &answer.locks {
                    if !lock.use_async_commit {
                        return Ok(None);
                    }
                    commit_ts = commit_ts.max(lock.min_commit_ts);
                }
            }
        }
        Ok(Some(TxnStatus::Committed(TimeStamp(commit_ts))))
    }

    /// Carries out what the keys of an async commit decided; the primary last, so that whoever
    /// comes in between decides the same.
    async fn finish_async_commit(
        &self,
        start: TimeStamp,
        status: &TxnStatus,
        primary: &kvrpcpb::LockInfo,
    ) -> Result<(), KvError> {
        let mut keys: Vec<RawKey> = primary
            .secondaries
            .iter()
            .map(|key| RawKey::from(key.as_slice()))
            .collect();
        keys.sort();
        self.resolve_keys(start, status, keys, false).await?;
        let primary = RawKey::from(primary.primary_lock.as_slice());
        self.resolve_keys(start, status, vec![primary], false).await
    }

    /// Removes locks of a transaction that has ended.
    async fn remove(
        &self,
        start: TimeStamp,
        status: &TxnStatus,
        locks: Vec<kvrpcpb::LockInfo>,
    ) -> Result<(), KvError> {
        let (pessimistic, mut written): (Vec<_>, Vec<_>) = locks
            .into_iter()
            .partition(|lock| lock.lock_type() == kvrpcpb::Op::PessimisticLock);
        for lock in pessimistic {
            self.remove_pessimistic(start, lock).await?;
        }
        if *status == TxnStatus::NothingPrewritten {
            // A lock with a value while the primary has none: the caller comes again, and then
            // asks with the written lock.
            return Ok(());
        }
        let is_large = written.iter().any(|lock| lock.txn_size >= LARGE_TXN_KEYS);
        written.sort_by(|a, b| a.key.cmp(&b.key));
        let keys = written
            .into_iter()
            .map(|lock| RawKey::from(lock.key))
            .collect();
        self.resolve_keys(start, status, keys, is_large).await
    }

    /// Commits or rolls back the locks on these keys, which are sorted; all locks of the
    /// transaction in their regions if `whole_regions`. A key is named once: for one that is named
    /// twice, TiKV 8.5 writes its end twice and then stops, all of the store, at its own check of
    /// what was written (`resolved_ts`, `group_row_changes`).
    async fn resolve_keys(
        &self,
        start: TimeStamp,
        status: &TxnStatus,
        mut keys: Vec<RawKey>,
        whole_regions: bool,
    ) -> Result<(), KvError> {
        const METHOD: &str = "KvResolveLock";
        keys.dedup();
        let commit_version = match status {
            TxnStatus::Committed(commit) => commit.0,
            _ => 0,
        };
        for run in group(&self.router, keys).await? {
            let answers = send_run(&self.router, run, |client, route, part: &[RawKey]| {
                let part = if whole_regions { &[] } else { part };
                let request = kvrpcpb::ResolveLockRequest {
                    context: Some(self.context(&route)),
                    start_version: start.0,
                    commit_version,
                    keys: part.iter().map(|key| key.as_bytes().to_vec()).collect(),
                    ..Default::default()
                };
                async move { client.resolve_lock(request).await }
            })
            .await?;
            for (answer, _) in answers {
                let answer: kvrpcpb::ResolveLockResponse = answer;
                if let Some(error) = answer.error {
                    return Err(KvError::from_key_error(METHOD, start, error));
                }
            }
        }
        Ok(())
    }

    async fn remove_pessimistic(
        &self,
        start: TimeStamp,
        lock: kvrpcpb::LockInfo,
    ) -> Result<(), KvError> {
        let key = RawKey::from(lock.key);
        let for_update_ts = match lock.lock_for_update_ts {
            0 => u64::MAX,
            ts => ts,
        };
        let (answer, _): (kvrpcpb::PessimisticRollbackResponse, _) = self
            .router
            .send(&KeyPrefix::routing(&key), |client, route| {
                let request = kvrpcpb::PessimisticRollbackRequest {
                    context: Some(self.context(&route)),
                    start_version: start.0,
                    for_update_ts,
                    keys: vec![key.as_bytes().to_vec()],
                };
                async move { client.pessimistic_rollback(request).await }
            })
            .await?;
        match answer.errors.into_iter().next() {
            None => Ok(()),
            Some(error) => Err(KvError::from_key_error(
                "KVPessimisticRollback",
                start,
                error,
            )),
        }
    }

    fn context(&self, route: &RegionRoute) -> kvrpcpb::Context {
        let mut context = route.context();
        self.prefix.mark(&mut context);
        context
    }
}

/// The locks that a lock stands for: several transactions may share one.
fn flatten(lock: &kvrpcpb::LockInfo) -> Vec<kvrpcpb::LockInfo> {
    if lock.shared_lock_infos.is_empty() {
        vec![lock.clone()]
    } else {
        lock.shared_lock_infos.clone()
    }
}
