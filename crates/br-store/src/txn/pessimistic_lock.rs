//! Pessimistic locks: taken before a transaction writes, waited for, given up on deadlock.

use std::time::Duration;

use br_codec::{Lock, LockKind, WriteKind, key};
use br_proto::{
    deadlock::WaitForEntry,
    kvrpcpb::{
        Assertion, LockInfo, Op, PessimisticLockKeyResult,
        PessimisticLockKeyResultType as ResultType, PessimisticLockRequest,
        PessimisticLockResponse, PessimisticLockWakeUpMode, write_conflict::Reason,
    },
};
use br_types::{EncodedKey, TimeStamp};

use super::{check_not_exist, is_rollback_of, raw_key, waits::Waiting};
use crate::{
    mvcc::{MvccError, WriteTxn, lock_info},
    storage::{Answer, Storage},
};

/// How long a request waits for a lock at most; TiKV's `wait-for-lock-timeout`. The client asks
/// again after it.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What a request asks for, without its keys.
#[derive(Clone, Debug)]
struct Wish {
    start_ts: TimeStamp,
    for_update_ts: TimeStamp,
    min_commit_ts: TimeStamp,
    primary: Vec<u8>,
    lock_ttl_ms: u64,
    returns_values: bool,
    checks_existence: bool,
    only_if_exists: bool,
    /// Whether to lock even though a newer version exists, and tell of it.
    allows_conflict: bool,
}

/// A key that was locked, or found locked by the transaction before.
#[derive(Clone, Debug, Default)]
struct Granted {
    value: Option<Vec<u8>>,
    /// Zero: without conflict.
    conflict_ts: TimeStamp,
}

/// How one try went.
enum Try {
    Granted(Vec<Granted>),
    /// Locked by another transaction.
    Locked(Box<LockInfo>, Option<Waiting>),
}

impl Storage {
    /// Takes pessimistic locks, all or none. Waits for those of other transactions, as long as the
    /// request allows and no longer than a second.
    pub async fn pessimistic_lock(
        &self,
        request: PessimisticLockRequest,
    ) -> PessimisticLockResponse {
        let is_force = request.wake_up_mode() == PessimisticLockWakeUpMode::WakeUpModeForceLock;
        match self.try_pessimistic_lock(&request, is_force).await {
            Ok(granted) if is_force => force_answer(&request, granted),
            Ok(granted) => answer(&request, granted),
            Err(error) => {
                let mut answer = PessimisticLockResponse::failed(&error);
                if is_force && answer.region_error.is_none() {
                    answer.results.push(PessimisticLockKeyResult {
                        r#type: ResultType::LockResultFailed.into(),
                        ..Default::default()
                    });
                }
                answer
            }
        }
    }

    /// Who waits for whose lock.
    pub fn lock_waits(&self) -> Vec<WaitForEntry> {
        self.0.waits.all()
    }

    async fn try_pessimistic_lock(
        &self,
        request: &PessimisticLockRequest,
        is_force: bool,
    ) -> Result<Vec<Granted>, MvccError> {
        let keys = wanted_keys(request)?;
        if is_force && keys.len() > 1 {
            return Err(MvccError::Invalid(
                "a lock with conflict takes one key at a time",
            ));
        }
        let wish = Wish::new(request, is_force);
        if wish.only_if_exists && !wish.returns_values {
            return Err(MvccError::Invalid(
                "a lock only if the key exists must return values",
            ));
        }
        let may_wait = request.wait_timeout >= 0;
        let limit = match request.wait_timeout {
            0 => WAIT_MAX,
            millis => Duration::from_millis(millis.unsigned_abs()).min(WAIT_MAX),
        };
        let deadline = self.0.rt.now().plus(limit);
        loop {
            match self.lock_once(keys.clone(), wish.clone(), may_wait).await? {
                Try::Granted(granted) => return Ok(granted),
                Try::Locked(info, None) => return Err(MvccError::KeyIsLocked(info)),
                Try::Locked(info, Some(mut waiting)) => {
                    let rest = deadline.since(self.0.rt.now());
                    if rest.is_zero() || self.0.rt.timeout(rest, &mut waiting.woken).await.is_err()
                    {
                        return Err(MvccError::KeyIsLocked(info));
                    }
                }
            }
        }
    }

    /// One try under the latches; enters the list of waiters before it lets go of them.
    async fn lock_once(
        &self,
        keys: Vec<(EncodedKey, bool)>,
        wish: Wish,
        may_wait: bool,
    ) -> Result<Try, MvccError> {
        let waits = self.0.waits.clone();
        let latched = keys.iter().map(|(key, _)| key.clone()).collect();
        self.run_write(latched, move |txn| {
            let mut granted = Vec::with_capacity(keys.len());
            for (key, should_not_exist) in &keys {
                match lock_key(txn, key, *should_not_exist, &wish) {
                    Ok(done) => granted.push(done),
                    Err(MvccError::KeyIsLocked(info)) => {
                        txn.clear();
                        let waiting = match may_wait {
                            true => waits.enter(
                                wish.start_ts,
                                TimeStamp(info.lock_version),
                                key::data_key(key.as_bytes()).into_bytes(),
                                info.key.clone(),
                            )?,
                            false => None,
                        };
                        return Ok(Try::Locked(info, waiting));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(Try::Granted(granted))
        })
        .await
    }
}

impl Wish {
    fn new(request: &PessimisticLockRequest, allows_conflict: bool) -> Self {
        Self {
            start_ts: TimeStamp(request.start_version),
            for_update_ts: TimeStamp(request.for_update_ts),
            min_commit_ts: TimeStamp(request.min_commit_ts),
            primary: request.primary_lock.clone(),
            lock_ttl_ms: request.lock_ttl,
            returns_values: request.return_values,
            checks_existence: request.check_existence,
            only_if_exists: request.lock_only_if_exists,
            allows_conflict,
        }
    }

    fn rolled_back(&self, key: &EncodedKey) -> Result<MvccError, MvccError> {
        let key = raw_key(key)?;
        Ok(MvccError::PessimisticLockRolledBack {
            start_ts: self.start_ts,
            key,
        })
    }

    fn conflict(
        &self,
        key: &EncodedKey,
        conflict_start_ts: TimeStamp,
        conflict_commit_ts: TimeStamp,
    ) -> Result<MvccError, MvccError> {
        Ok(MvccError::WriteConflict {
            start_ts: self.start_ts,
            conflict_start_ts,
            conflict_commit_ts,
            key: raw_key(key)?,
            primary: self.primary.clone(),
            reason: Reason::PessimisticRetry,
        })
    }
}

/// The keys, each with whether it should not exist.
fn wanted_keys(request: &PessimisticLockRequest) -> Result<Vec<(EncodedKey, bool)>, MvccError> {
    request
        .mutations
        .iter()
        .map(|mutation| {
            if mutation.op() != Op::PessimisticLock {
                return Err(MvccError::Invalid(
                    "only exclusive pessimistic locks are granted",
                ));
            }
            Ok((
                key::encode(&mutation.key),
                mutation.assertion() == Assertion::NotExist,
            ))
        })
        .collect()
}

fn lock_key(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    should_not_exist: bool,
    wish: &Wish,
) -> Result<Granted, MvccError> {
    if should_not_exist || wish.returns_values || wish.checks_existence {
        txn.update_max_ts(wish.for_update_ts);
    }
    if let Some(lock) = txn.reader.load_lock(key)? {
        if lock.start_ts != wish.start_ts {
            return Err(MvccError::KeyIsLocked(Box::new(lock_info(
                raw_key(key)?,
                &lock,
            ))));
        }
        return lock_again(txn, key, should_not_exist, wish, lock);
    }
    let mut granted = Granted::default();
    let mut for_update_ts = wish.for_update_ts;
    if let Some((commit_ts, write)) = txn.reader.seek_write(key, TimeStamp::MAX)? {
        let conflict_start_ts = write.start_ts;
        if commit_ts > wish.for_update_ts {
            if !wish.allows_conflict {
                return Err(wish.conflict(key, conflict_start_ts, commit_ts)?);
            }
            granted.conflict_ts = commit_ts;
            for_update_ts = commit_ts;
        }
        if is_rollback_of(&write, commit_ts, wish.start_ts) {
            return Err(wish.rolled_back(key)?);
        }
        if commit_ts > wish.start_ts
            && let Some((older_ts, older)) = txn.reader.seek_write(key, wish.start_ts)?
            && is_rollback_of(&older, older_ts, wish.start_ts)
        {
            return Err(wish.rolled_back(key)?);
        }
        if should_not_exist {
            match check_not_exist(txn, key, commit_ts, &write) {
                // The client has to see the newer version first.
                Err(MvccError::AlreadyExist { .. }) if !granted.conflict_ts.is_zero() => {
                    return Err(wish.conflict(key, conflict_start_ts, commit_ts)?);
                }
                result => result?,
            }
        }
        if wish.returns_values || wish.checks_existence || !granted.conflict_ts.is_zero() {
            let newest = match write.kind {
                WriteKind::Put if write.is_valid_as_newest(wish.start_ts) => Some(write),
                WriteKind::Put | WriteKind::Delete => None,
                WriteKind::Lock | WriteKind::Rollback => txn
                    .reader
                    .get_write(key, commit_ts.prev())?
                    .map(|(_, write)| write),
            };
            let needs_value = wish.returns_values || !granted.conflict_ts.is_zero();
            granted.value = match newest {
                Some(write) if needs_value => Some(txn.reader.load_value(key, write)?),
                Some(_) => Some(Vec::new()),
                None => None,
            };
        }
        if wish.only_if_exists && granted.value.is_none() && !granted.conflict_ts.is_zero() {
            return Err(wish.conflict(key, conflict_start_ts, commit_ts)?);
        }
    }
    if !wish.only_if_exists || granted.value.is_some() {
        let mut lock = new_lock(wish, for_update_ts);
        lock.is_locked_with_conflict = !granted.conflict_ts.is_zero();
        txn.put_lock(key, &lock);
    }
    Ok(granted)
}

/// The transaction holds the key already: a repetition, or a later statement.
fn lock_again(
    txn: &mut WriteTxn<'_>,
    key: &EncodedKey,
    should_not_exist: bool,
    wish: &Wish,
    lock: Lock,
) -> Result<Granted, MvccError> {
    if lock.kind != LockKind::Pessimistic {
        return Err(MvccError::LockTypeNotMatch {
            start_ts: wish.start_ts,
            key: raw_key(key)?,
            is_pessimistic: false,
        });
    }
    let mut granted = Granted::default();
    let mut for_update_ts = wish.for_update_ts;
    if wish.allows_conflict && for_update_ts < lock.for_update_ts {
        for_update_ts = lock.for_update_ts;
        granted.conflict_ts = for_update_ts;
    }
    let needs_value = wish.returns_values || !granted.conflict_ts.is_zero();
    if (needs_value || wish.checks_existence || should_not_exist)
        && let Some((commit_ts, write)) = txn.reader.get_write(key, for_update_ts)?
    {
        if should_not_exist {
            if commit_ts > wish.for_update_ts {
                return Err(wish.conflict(key, write.start_ts, commit_ts)?);
            }
            return Err(MvccError::AlreadyExist { key: raw_key(key)? });
        }
        granted.value = match needs_value {
            true => Some(txn.reader.load_value(key, write)?),
            false => Some(Vec::new()),
        };
    }
    if for_update_ts > lock.for_update_ts {
        let mut renewed = new_lock(wish, for_update_ts);
        renewed.last_change = lock.last_change;
        renewed.is_locked_with_conflict = lock.is_locked_with_conflict;
        txn.put_lock(key, &renewed);
    }
    Ok(granted)
}

fn new_lock(wish: &Wish, for_update_ts: TimeStamp) -> Lock {
    let kind = LockKind::Pessimistic;
    let mut lock = Lock::new(kind, wish.primary.clone(), wish.start_ts, wish.lock_ttl_ms);
    lock.for_update_ts = for_update_ts;
    lock.min_commit_ts = wish.min_commit_ts;
    lock
}

fn answer(request: &PessimisticLockRequest, granted: Vec<Granted>) -> PessimisticLockResponse {
    let mut answer = PessimisticLockResponse::default();
    if request.return_values || request.check_existence {
        answer.not_founds = granted.iter().map(|key| key.value.is_none()).collect();
    }
    if request.return_values {
        answer.values = granted
            .into_iter()
            .map(|key| key.value.unwrap_or_default())
            .collect();
    }
    answer
}

fn force_answer(
    request: &PessimisticLockRequest,
    granted: Vec<Granted>,
) -> PessimisticLockResponse {
    let results = granted.into_iter().map(|key| {
        let has_conflict = !key.conflict_ts.is_zero();
        let kind = if has_conflict {
            ResultType::LockResultLockedWithConflict
        } else {
            ResultType::LockResultNormal
        };
        let tells_existence = has_conflict || request.return_values || request.check_existence;
        let tells_value = has_conflict || request.return_values;
        PessimisticLockKeyResult {
            r#type: kind.into(),
            existence: tells_existence && key.value.is_some(),
            value: key.value.filter(|_| tells_value).unwrap_or_default(),
            locked_with_conflict_ts: key.conflict_ts.0,
            ..Default::default()
        }
    });
    PessimisticLockResponse {
        results: results.collect(),
        ..Default::default()
    }
}
