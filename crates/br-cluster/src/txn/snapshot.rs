use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use br_codec::key;
use br_proto::kvrpcpb;
use br_rt::Backoff;
use br_types::{EncodedKey, KeyRange, RawKey, TimeStamp};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    KeyPrefix, LockResolver,
    batches::{CONCURRENCY, group, send_run},
};
use crate::{KEY_ERROR_RETRY, KvError, RegionRoute, Router};

/// Pairs of one page of a scan: some 100 KiB of usual rows, and no more than 6 MiB each at the
/// longest, which the message limit lets through in most cases.
const PAGE_PAIRS: u32 = 256;

/// Times that a request is repeated at once because all locks in its way were removed; after that
/// with pauses.
const REPEATS_AT_ONCE: u32 = 16;

/// Where a scan downwards begins if there is no bound: no key of a cluster lies behind it.
const LAST_KEY: [u8; 64] = [0xFF; 64];

/// The data as of one timestamp. Cheap to clone; clones share which locks may be passed.
///
/// Reads see exactly what was committed at or before the timestamp. Locks in the way are resolved
/// or, while their owners live, waited for by [`KEY_ERROR_RETRY`].
#[derive(Clone)]
pub struct Snapshot {
    router: Router,
    resolver: LockResolver,
    prefix: KeyPrefix,
    ts: TimeStamp,
    passable: Arc<Mutex<Passable>>,
}

/// Start timestamps of transactions whose locks requests may pass.
#[derive(Default)]
struct Passable {
    resolved: Vec<u64>,
    committed: Vec<u64>,
}

/// Locks that may be passed are remembered for the last so many; each request carries them.
const PASSABLE_MAX: usize = 64;

/// The patience of one request.
struct LockWait {
    backoff: Backoff,
    at_once: u32,
}

impl Snapshot {
    pub(crate) fn new(
        router: Router,
        resolver: LockResolver,
        prefix: KeyPrefix,
        ts: TimeStamp,
    ) -> Self {
        Self {
            router,
            resolver,
            prefix,
            ts,
            passable: Arc::default(),
        }
    }

    /// The timestamp.
    pub fn ts(&self) -> TimeStamp {
        self.ts
    }

    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn resolver(&self) -> &LockResolver {
        &self.resolver
    }

    pub(crate) fn prefix(&self) -> KeyPrefix {
        self.prefix
    }

    /// The value of a key; `None` if it does not exist.
    ///
    /// # Errors
    /// PD or a store is out of reach, a living transaction keeps the key locked for too long, or
    /// garbage collection has passed the timestamp.
    pub async fn get(&self, key: &RawKey) -> Result<Option<Vec<u8>>, KvError> {
        let wire = self.prefix.wire(key);
        let routing = KeyPrefix::routing(&wire);
        let mut wait = self.patience();
        loop {
            let (answer, _): (kvrpcpb::GetResponse, _) = self
                .router
                .send(&routing, |client, route| {
                    let request = kvrpcpb::GetRequest {
                        context: Some(self.context(&route)),
                        key: wire.as_bytes().to_vec(),
                        version: self.ts.0,
                        ..Default::default()
                    };
                    async move { client.get(request).await }
                })
                .await?;
            match answer.error {
                None if answer.not_found => return Ok(None),
                None => return Ok(Some(answer.value)),
                Some(error) => self.clear_way("KvGet", vec![error], &mut wait).await?,
            }
        }
    }

    /// The values of those keys that exist, in key order.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn batch_get(
        &self,
        keys: impl IntoIterator<Item = RawKey>,
    ) -> Result<Vec<(RawKey, Vec<u8>)>, KvError> {
        let mut wire: Vec<RawKey> = keys.into_iter().map(|key| self.prefix.wire(&key)).collect();
        wire.sort();
        wire.dedup();
        let runs = group(&self.router, wire).await?;
        let parts: Vec<_> = futures::stream::iter(runs)
            .map(|run| self.get_run(run))
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(parts.into_iter().flatten().collect())
    }

    async fn get_run(&self, run: Vec<RawKey>) -> Result<Vec<(RawKey, Vec<u8>)>, KvError> {
        let mut found = Vec::new();
        let mut pending = run;
        let mut wait = self.patience();
        while !pending.is_empty() {
            let answers = send_run(&self.router, pending, |client, route, part: &[RawKey]| {
                let request = kvrpcpb::BatchGetRequest {
                    context: Some(self.context(&route)),
                    keys: part.iter().map(|key| key.as_bytes().to_vec()).collect(),
                    version: self.ts.0,
                    ..Default::default()
                };
                async move { client.batch_get(request).await }
            })
            .await?;
            pending = Vec::new();
            let mut errors = Vec::new();
            for (answer, part) in answers {
                let answer: kvrpcpb::BatchGetResponse = answer;
                let mut locked: Vec<RawKey> = Vec::new();
                let mut pairs = Vec::new();
                for pair in answer.pairs {
                    match pair.error {
                        None => pairs.push((pair.key, pair.value)),
                        Some(error) => {
                            let lock = error.locked.as_ref();
                            locked.extend(lock.map(|lock| RawKey::from(lock.key.as_slice())));
                            errors.push(error);
                        }
                    }
                }
                if let Some(error) = answer.error {
                    // Nothing of the whole answer counts.
                    errors.push(error);
                    pending.extend(part);
                } else {
                    pending.extend(locked);
                    for (key, value) in pairs {
                        found.extend(self.prefix.user(key).map(|key| (key, value)));
                    }
                }
            }
            if !errors.is_empty() {
                self.clear_way("KvBatchGet", errors, &mut wait).await?;
            }
            pending.sort();
            pending.dedup();
        }
        found.sort();
        Ok(found)
    }

    /// Reads a range upwards.
    pub fn scan(&self, range: &KeyRange<RawKey>) -> Scanner {
        Scanner::new(self.clone(), range, false)
    }

    /// Reads a range downwards.
    pub fn scan_reverse(&self, range: &KeyRange<RawKey>) -> Scanner {
        Scanner::new(self.clone(), range, true)
    }

    /// The first `limit` pairs of a range.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn scan_all(
        &self,
        range: &KeyRange<RawKey>,
        limit: usize,
    ) -> Result<Vec<(RawKey, Vec<u8>)>, KvError> {
        let mut scanner = self.scan(range);
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            match scanner.next().await? {
                Some(pair) => pairs.push(pair),
                None => break,
            }
        }
        Ok(pairs)
    }

    fn patience(&self) -> LockWait {
        LockWait {
            backoff: Backoff::new(KEY_ERROR_RETRY, self.router.rt()),
            at_once: 0,
        }
    }

    fn context(&self, route: &RegionRoute) -> kvrpcpb::Context {
        let mut context = route.context();
        self.prefix.mark(&mut context);
        let passable = self.passable.lock().unwrap_or_else(PoisonError::into_inner);
        context.resolved_locks = passable.resolved.clone();
        context.committed_locks = passable.committed.clone();
        context
    }

    /// Resolves the locks among the errors and waits while owners of others live.
    async fn clear_way(
        &self,
        method: &'static str,
        errors: Vec<kvrpcpb::KeyError>,
        wait: &mut LockWait,
    ) -> Result<(), KvError> {
        let mut locks = Vec::new();
        for mut error in errors {
            match error.locked.take() {
                Some(lock) => locks.push(lock),
                None => return Err(KvError::from_key_error(method, self.ts, error)),
            }
        }
        let resolution = self.resolver.resolve_for_read(&locks, self.ts).await?;
        self.remember(&resolution.resolved, &resolution.committed);
        wait.at_once += 1;
        if resolution.alive.is_empty() && wait.at_once <= REPEATS_AT_ONCE {
            return Ok(());
        }
        let (rt, cancel) = (self.router.rt(), self.router.cancel());
        if wait.backoff.pause(rt, cancel).await {
            return Ok(());
        }
        if cancel.is_cancelled() {
            return Err(KvError::Cancelled);
        }
        let lock = resolution
            .alive
            .into_iter()
            .chain(locks)
            .next()
            .unwrap_or_default();
        Err(KvError::Locked {
            key: RawKey::from(lock.key),
            owner: TimeStamp(lock.lock_version),
        })
    }

    fn remember(&self, resolved: &[TimeStamp], committed: &[TimeStamp]) {
        let mut passable = self.passable.lock().unwrap_or_else(PoisonError::into_inner);
        let Passable {
            resolved: known_resolved,
            committed: known_committed,
        } = &mut *passable;
        for (known, new) in [(known_resolved, resolved), (known_committed, committed)] {
            known.extend(new.iter().map(|ts| ts.0));
            known.sort_unstable();
            known.dedup();
            let surplus = known.len().saturating_sub(PASSABLE_MAX);
            known.drain(..surplus);
        }
    }
}

/// A scan under way, page by page.
pub struct Scanner {
    snapshot: Snapshot,
    /// What is still to be read, in keys of requests.
    rest: KeyRange<RawKey>,
    reverse: bool,
    page: VecDeque<(RawKey, Vec<u8>)>,
    done: bool,
}

impl Scanner {
    fn new(snapshot: Snapshot, range: &KeyRange<RawKey>, reverse: bool) -> Self {
        let mut rest = snapshot.prefix.wire_range(range);
        if reverse && rest.end.is_empty() {
            rest.end = RawKey::from(&LAST_KEY[..]);
        }
        let done = rest.is_empty();
        Self {
            snapshot,
            rest,
            reverse,
            page: VecDeque::new(),
            done,
        }
    }

    /// The next pair; `None` at the end of the range.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn next(&mut self) -> Result<Option<(RawKey, Vec<u8>)>, KvError> {
        while self.page.is_empty() && !self.done {
            self.load().await?;
        }
        Ok(self.page.pop_front())
    }

    /// Reads one page of one region.
    async fn load(&mut self) -> Result<(), KvError> {
        let mut wait = self.snapshot.patience();
        loop {
            let (answer, route) = self.request().await?;
            if let Some(error) = answer.error {
                self.snapshot
                    .clear_way("KvScan", vec![error], &mut wait)
                    .await?;
                continue;
            }
            if self.reverse && !reaches(&route, &self.rest.end) {
                // Split meanwhile: another region lies between.
                continue;
            }
            let is_full = answer.pairs.len() >= PAGE_PAIRS as usize;
            let mut locked = None;
            for pair in answer.pairs {
                if let Some(error) = pair.error {
                    locked = Some(error);
                    break;
                }
                self.advance_past(&pair.key);
                let user = self.snapshot.prefix.user(pair.key);
                self.page.extend(user.map(|key| (key, pair.value)));
            }
            match locked {
                // What came before the lock is good.
                Some(error) => {
                    self.snapshot
                        .clear_way("KvScan", vec![error], &mut wait)
                        .await?
                }
                None if is_full => return Ok(()),
                None => return self.advance_to_next_region(&route),
            }
            if !self.page.is_empty() {
                return Ok(());
            }
        }
    }

    async fn request(&self) -> Result<(kvrpcpb::ScanResponse, RegionRoute), KvError> {
        let snapshot = &self.snapshot;
        let routing = if self.reverse {
            self.region_below_end().await?
        } else {
            KeyPrefix::routing(&self.rest.start)
        };
        snapshot
            .router
            .send(&routing, |client, route| {
                let part = within(&self.rest, &route);
                let (start_key, end_key) = if self.reverse {
                    (part.end, part.start)
                } else {
                    (part.start, part.end)
                };
                let request = kvrpcpb::ScanRequest {
                    context: Some(snapshot.context(&route)),
                    start_key: start_key.into_bytes(),
                    end_key: end_key.into_bytes(),
                    limit: PAGE_PAIRS,
                    version: snapshot.ts.0,
                    reverse: self.reverse,
                    ..Default::default()
                };
                async move { client.scan(request).await }
            })
            .await
    }

    /// The first key of the region with the greatest keys below the end of what is to be read.
    async fn region_below_end(&self) -> Result<EncodedKey, KvError> {
        let router = &self.snapshot.router;
        let end = KeyPrefix::routing(&self.rest.end);
        let mut backoff = Backoff::new(crate::REGION_RETRY, router.rt());
        loop {
            let holder = router.locate(&end).await?;
            if holder.range().start < end {
                return Ok(holder.range().start);
            }
            if let Some(before) = router.pd().region_before(&end).await?
                && reaches(&before, &self.rest.end)
                && before.range().start < end
            {
                let start = before.range().start;
                router.cache().insert(before);
                return Ok(start);
            }
            router.cache().forget(&holder);
            if !backoff.pause(router.rt(), router.cancel()).await {
                return Err(KvError::NoRegion { key: end });
            }
        }
    }

    fn advance_past(&mut self, key: &[u8]) {
        if self.reverse {
            self.rest.end = RawKey::from(key);
        } else {
            self.rest.start = RawKey::from(key).successor();
        }
        self.done = self.rest.is_empty();
    }

    fn advance_to_next_region(&mut self, route: &RegionRoute) -> Result<(), KvError> {
        let bound = if self.reverse {
            route.range().start
        } else {
            route.range().end
        };
        if bound.is_empty() {
            self.done = true;
            return Ok(());
        }
        if !self.reverse {
            let next = key::first_at(bound.as_bytes());
            self.done = !self.rest.is_before_end(&next);
            self.rest.start = next;
            return Ok(());
        }
        let bound = key::decode(bound.as_bytes()).map_err(|error| KvError::InvalidResponse {
            method: "KvScan",
            what: format!(
                "is of region {}, whose bound is no key: {error}",
                route.id()
            ),
        })?;
        self.done = bound <= self.rest.start;
        self.rest.end = bound;
        Ok(())
    }
}

/// The part of a range that a region has: a store refuses a scan that goes beyond its region. A
/// bound that is no key of a transaction cannot be asked for, and is left to the store.
fn within(range: &KeyRange<RawKey>, route: &RegionRoute) -> KeyRange<RawKey> {
    let mut part = range.clone();
    let region = route.range();
    if let Ok(start) = key::decode(region.start.as_bytes()) {
        part.start = part.start.max(start);
    }
    let goes_beyond = range.end.is_empty() || KeyPrefix::routing(&range.end) > region.end;
    if goes_beyond && !region.end.is_empty() {
        part.end = key::decode(region.end.as_bytes()).unwrap_or_default();
    }
    part
}

/// Whether a region holds everything between its start and `end`.
fn reaches(route: &RegionRoute, end: &RawKey) -> bool {
    let region_end = route.range().end;
    region_end.is_empty() || region_end >= KeyPrefix::routing(end)
}
