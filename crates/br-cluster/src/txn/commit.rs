use std::{sync::Arc, time::Duration};

use br_proto::kvrpcpb;
use br_rt::{Backoff, CancellationToken, Monotonic, RetryPolicy, Task};
use br_types::{RawKey, TimeStamp};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    KeyPrefix, Snapshot,
    batches::{CONCURRENCY, group, send_run},
    transaction::Mutation,
};
use crate::{KvError, RegionRoute, Router};

/// How long locks of a transaction live without a sign of life. Long enough for a leader election
/// within it, short enough that a client that died does not hold up readers for long.
pub(super) const LOCK_TTL: Duration = Duration::from_secs(10);

/// How long a lock of another living transaction is waited for: only if that is rolled back can this
/// one still succeed, and two that wait for each other would do so for as long as both are patient.
const LIVE_LOCK_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_millis(500),
    attempts_max: 20,
    elapsed_max: Duration::from_secs(3),
};

/// Signs of life within one time to live.
const BEATS_PER_TTL: u32 = 3;

/// Two-phase commit of one transaction.
pub(super) struct Committer {
    shared: Arc<Shared>,
    mutations: Vec<Mutation>,
}

struct Shared {
    snapshot: Snapshot,
    begun: Monotonic,
    lock_ttl: Duration,
    primary: RawKey,
    keys: u64,
}

impl Committer {
    pub(super) fn new(
        snapshot: Snapshot,
        begun: Monotonic,
        lock_ttl: Duration,
        primary: RawKey,
        mutations: Vec<Mutation>,
    ) -> Self {
        let keys = mutations.len() as u64;
        Self {
            shared: Arc::new(Shared {
                snapshot,
                begun,
                lock_ttl,
                primary,
                keys,
            }),
            mutations,
        }
    }

    pub(super) async fn commit(self) -> Result<TimeStamp, KvError> {
        let shared = &self.shared;
        let keys: Vec<RawKey> = self
            .mutations
            .iter()
            .map(|write| write.key.clone())
            .collect();
        let beating = match shared.prewrite(self.mutations).await {
            Ok(beating) => beating,
            Err(error) => {
                shared.rollback(keys).await;
                return Err(error);
            }
        };
        // From here on it goes to its end: half a commit would leave the outcome open.
        let router = shared.router().with_cancel(&CancellationToken::new());
        let committed = match shared.commit_primary(&router, &keys).await {
            Ok(committed) => committed,
            Err(error @ KvError::Undetermined { .. }) => return Err(error),
            Err(error) => {
                shared.rollback(keys).await;
                return Err(error);
            }
        };
        drop(beating);
        let (commit_ts, rest) = committed;
        shared.commit_secondaries(&router, commit_ts, rest).await;
        Ok(commit_ts)
    }

    pub(super) async fn leave_locks(self) -> Result<(), KvError> {
        let keys: Vec<RawKey> = self
            .mutations
            .iter()
            .map(|write| write.key.clone())
            .collect();
        match self.shared.prewrite(self.mutations).await {
            Ok(_beating) => Ok(()),
            Err(error) => {
                self.shared.rollback(keys).await;
                Err(error)
            }
        }
    }
}

impl Shared {
    fn router(&self) -> &Router {
        self.snapshot.router()
    }

    fn start(&self) -> TimeStamp {
        self.snapshot.ts()
    }

    fn context(&self, route: &RegionRoute) -> kvrpcpb::Context {
        let mut context = route.context();
        self.snapshot.prefix().mark(&mut context);
        context
    }

    /// Milliseconds from the start on until which the locks shall live, from now.
    fn lock_ttl_ms(&self) -> u64 {
        let lived = self.router().rt().now().since(self.begun);
        u64::try_from((lived + self.lock_ttl).as_millis()).unwrap_or(u64::MAX)
    }

    /// Prewrites all: the run with the primary first, then the others side by side. The signs of
    /// life go on until what it gives is dropped.
    async fn prewrite(
        self: &Arc<Self>,
        mutations: Vec<Mutation>,
    ) -> Result<Option<Task<()>>, KvError> {
        let mut runs = group(self.router(), mutations).await?.into_iter();
        if let Some(first) = runs.next() {
            self.prewrite_run(first).await?;
        }
        let shared = self.clone();
        let beating = self.router().rt().spawn(async move { shared.beat().await });
        futures::stream::iter(runs)
            .map(|run| self.prewrite_run(run))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await?;
        Ok(Some(beating))
    }

    async fn prewrite_run(&self, run: Vec<Mutation>) -> Result<(), KvError> {
        const METHOD: &str = "KvPrewrite";
        let mut pending = run;
        let mut backoff = Backoff::new(LIVE_LOCK_RETRY, self.router().rt());
        while !pending.is_empty() {
            let answers = send_run(
                self.router(),
                pending,
                |client, route, part: &[Mutation]| {
                    let request = kvrpcpb::PrewriteRequest {
                        context: Some(self.context(&route)),
                        mutations: part.iter().map(Mutation::to_proto).collect(),
                        primary_lock: self.primary.as_bytes().to_vec(),
                        start_version: self.start().0,
                        lock_ttl: self.lock_ttl_ms(),
                        txn_size: self.keys,
                        ..Default::default()
                    };
                    async move { client.prewrite(request).await }
                },
            )
            .await?;
            pending = Vec::new();
            let mut locks = Vec::new();
            for (answer, part) in answers {
                let answer: kvrpcpb::PrewriteResponse = answer;
                if answer.errors.is_empty() {
                    continue;
                }
                for mut error in answer.errors {
                    match error.locked.take() {
                        Some(lock) => locks.push(lock),
                        None => return Err(KvError::from_key_error(METHOD, self.start(), error)),
                    }
                }
                pending.extend(part);
            }
            if locks.is_empty() {
                continue;
            }
            let resolution = self.snapshot.resolver().resolve_for_write(&locks).await?;
            let (rt, cancel) = (self.router().rt(), self.router().cancel());
            if !backoff.pause(rt, cancel).await {
                if cancel.is_cancelled() {
                    return Err(KvError::Cancelled);
                }
                let lock = resolution
                    .alive
                    .into_iter()
                    .chain(locks)
                    .next()
                    .unwrap_or_default();
                let owner = TimeStamp(lock.lock_version);
                return Err(KvError::Locked {
                    key: RawKey::from(lock.key),
                    owner,
                });
            }
        }
        Ok(())
    }

    /// Prolongs the life of the primary lock until it is gone.
    async fn beat(&self) {
        let routing = KeyPrefix::routing(&self.primary);
        loop {
            self.router()
                .rt()
                .sleep(self.lock_ttl / BEATS_PER_TTL)
                .await;
            let sent = self
                .router()
                .send(&routing, |client, route| {
                    let request = kvrpcpb::TxnHeartBeatRequest {
                        context: Some(self.context(&route)),
                        primary_lock: self.primary.as_bytes().to_vec(),
                        start_version: self.start().0,
                        advise_lock_ttl: self.lock_ttl_ms(),
                        ..Default::default()
                    };
                    async move { client.txn_heart_beat(request).await }
                })
                .await;
            match sent {
                Ok((kvrpcpb::TxnHeartBeatResponse { error: None, .. }, _)) => {}
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "a sign of life did not get through"),
            }
        }
    }

    /// Commits the primary with its neighbours in the region. Gives the commit timestamp and the
    /// keys that are left.
    async fn commit_primary(
        &self,
        router: &Router,
        keys: &[RawKey],
    ) -> Result<(TimeStamp, Vec<RawKey>), KvError> {
        let routing = KeyPrefix::routing(&self.primary);
        // The primary is the least key: its neighbours come first.
        let neighbours = |route: &RegionRoute| {
            let range = route.range();
            let held = keys.iter().take(COMMIT_KEYS_MAX);
            held.take_while(|key| range.is_before_end(&KeyPrefix::routing(key)))
                .count()
        };
        loop {
            let commit_ts = router.pd().tso().await?;
            let sent = router
                .send(&routing, |client, route| {
                    let part = keys.get(..neighbours(&route)).unwrap_or_default();
                    let request = self.commit_request(&route, commit_ts, part);
                    async move { client.commit(request).await }
                })
                .await;
            let (answer, route): (kvrpcpb::CommitResponse, _) = match sent {
                Ok(sent) => sent,
                Err(KvError::AnswerLost(cause)) => {
                    return Err(KvError::Undetermined {
                        start: self.start(),
                        cause,
                    });
                }
                Err(error) => return Err(error),
            };
            match answer.error {
                None => {
                    let rest = keys.get(neighbours(&route)..).unwrap_or_default().to_vec();
                    return Ok((commit_ts, rest));
                }
                // A reader moved the least commit timestamp; a new one is above it.
                Some(error) if error.commit_ts_expired.is_some() => {}
                Some(error) => {
                    return Err(KvError::from_key_error("KvCommit", self.start(), error));
                }
            }
        }
    }

    fn commit_request(
        &self,
        route: &RegionRoute,
        commit_ts: TimeStamp,
        keys: &[RawKey],
    ) -> kvrpcpb::CommitRequest {
        kvrpcpb::CommitRequest {
            context: Some(self.context(route)),
            start_version: self.start().0,
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            commit_version: commit_ts.0,
            ..Default::default()
        }
    }

    /// Commits the other keys. What fails stays locked until a reader resolves it: the transaction
    /// is committed all the same.
    async fn commit_secondaries(&self, router: &Router, commit_ts: TimeStamp, keys: Vec<RawKey>) {
        let runs = match group(router, keys).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::warn!(%error, start = %self.start(), "locks stay behind a commit");
                return;
            }
        };
        futures::stream::iter(runs)
            .for_each_concurrent(CONCURRENCY, |run| async move {
                let sent: Result<Vec<(kvrpcpb::CommitResponse, _)>, _> =
                    send_run(router, run, |client, route, part: &[RawKey]| {
                        let request = self.commit_request(&route, commit_ts, part);
                        async move { client.commit(request).await }
                    })
                    .await;
                let error = match sent {
                    Ok(answers) => answers
                        .into_iter()
                        .find_map(|(answer, _)| answer.error)
                        .map(|error| KvError::from_key_error("KvCommit", self.start(), error)),
                    Err(error) => Some(error),
                };
                if let Some(error) = error {
                    tracing::warn!(%error, start = %self.start(), "locks stay behind a commit");
                }
            })
            .await;
    }

    /// Takes back what may be prewritten, whatever state the client's token is in. What fails is
    /// rolled back by whoever meets it.
    async fn rollback(&self, keys: Vec<RawKey>) {
        let router = &self.router().with_cancel(&CancellationToken::new());
        let runs = match group(router, keys).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::warn!(%error, start = %self.start(), "locks stay behind a rollback");
                return;
            }
        };
        futures::stream::iter(runs)
            .for_each_concurrent(CONCURRENCY, |run| async move {
                let sent: Result<Vec<(kvrpcpb::BatchRollbackResponse, _)>, _> =
                    send_run(router, run, |client, route, part: &[RawKey]| {
                        let request = kvrpcpb::BatchRollbackRequest {
                            context: Some(self.context(&route)),
                            start_version: self.start().0,
                            keys: part.iter().map(|key| key.as_bytes().to_vec()).collect(),
                            ..Default::default()
                        };
                        async move { client.batch_rollback(request).await }
                    })
                    .await;
                if let Err(error) = sent {
                    tracing::warn!(%error, start = %self.start(), "locks stay behind a rollback");
                }
            })
            .await;
    }
}

/// Keys of one commit: they carry no values, so their number bounds the request.
const COMMIT_KEYS_MAX: usize = 4096;
