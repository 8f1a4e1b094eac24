use std::time::Duration;

use br_codec::key;
use br_proto::kvrpcpb::{
    Action, Assertion, AssertionLevel, CheckSecondaryLocksRequest, CheckTxnStatusRequest,
    CleanupRequest, Context, Op, PessimisticLockKeyResultType, PessimisticLockWakeUpMode,
    PessimisticRollbackRequest, PrewriteRequest, ResolveLockRequest, ScanRequest,
    TxnHeartBeatRequest, TxnInfo, prewrite_request::PessimisticAction, write_conflict::Reason,
};
use br_types::{KeyRange, TimeStamp};

use super::client::{Client, lock_request, op, pessimistic, put, request, simulate};
use crate::mvcc::ReadContext;

const LONG: &[u8] = &[7; 300];

fn status(primary: &[u8], lock_ts: u64) -> CheckTxnStatusRequest {
    CheckTxnStatusRequest {
        primary_key: primary.to_vec(),
        lock_ts,
        ..Default::default()
    }
}

#[test]
fn versions_are_seen_from_their_commit_on() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"short").await;
        client.write(30, 40, b"a", LONG).await;
        client.remove(50, 60, b"a").await;
        assert_eq!(client.value(19, b"a"), None);
        assert_eq!(client.value(20, b"a"), Some(b"short".to_vec()));
        assert_eq!(client.value(59, b"a"), Some(LONG.to_vec()));
        assert_eq!(client.value(60, b"a"), None);
        assert_eq!(client.scan(45, false), vec![(b"a".to_vec(), LONG.to_vec())]);
        assert_eq!(client.scan(60, true), vec![]);
    });
}

/// As TiKV does it; its clients ask each region for its own part.
#[test]
fn a_scan_beyond_its_region_is_refused() {
    simulate(1, async |client| {
        client.write(10, 20, b"b", b"short").await;
        let region = KeyRange::new(key::encode(b"a"), key::encode(b"c"));
        let scan = |start_key: &[u8], end_key: &[u8]| {
            let request = ScanRequest {
                start_key: start_key.to_vec(),
                end_key: end_key.to_vec(),
                limit: 10,
                version: 30,
                ..Default::default()
            };
            client.storage.scan(&request, &region)
        };
        for end in [&b"c"[..], b""] {
            let answer = scan(b"a", end);
            assert_eq!((answer.pairs.len(), answer.error), (1, None));
        }
        for (start, end) in [(b"a", b"d"), (b"A", b"b")] {
            assert!(scan(start, end).error.is_some());
        }
    });
}

#[test]
fn a_lock_blocks_reads_that_could_miss_its_commit() {
    simulate(1, async |client| {
        client.write(1, 2, b"a", b"old").await;
        client
            .must_prewrite(10, vec![put(b"p", b"1"), put(b"a", LONG)])
            .await;
        assert_eq!(client.value(9, b"a"), Some(b"old".to_vec()));
        let locked = client.get(10, b"a").unwrap_err().locked.unwrap();
        assert_eq!(
            (locked.lock_version, locked.primary_lock),
            (10, b"p".to_vec())
        );
        assert_eq!(
            client.get_knowing(10, b"a", &[10], &[]),
            Ok(Some(b"old".to_vec()))
        );
        assert_eq!(
            client.get_knowing(10, b"a", &[], &[10]),
            Ok(Some(LONG.to_vec()))
        );
        // Whoever reads the newest passes a primary, but no secondary.
        assert_eq!(client.get(u64::MAX, b"p"), Ok(None));
        assert!(client.get(u64::MAX, b"a").is_err());
    });
}

#[test]
fn an_optimistic_prewrite_finds_later_commits_and_other_locks() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        let answer = client.prewrite(request(15, vec![put(b"a", b"2")])).await;
        let conflict = answer.errors[0].conflict.clone().unwrap();
        assert_eq!(
            (conflict.conflict_ts, conflict.conflict_commit_ts),
            (10, 20)
        );
        assert_eq!(conflict.reason(), Reason::Optimistic);

        client.must_prewrite(30, vec![put(b"a", b"3")]).await;
        let both = vec![put(b"b", b"4"), put(b"a", b"4")];
        let answer = client.prewrite(request(40, both)).await;
        assert_eq!(answer.errors.len(), 1);
        assert_eq!(answer.errors[0].locked.as_ref().unwrap().lock_version, 30);
        assert_eq!(
            client.locks(100).len(),
            1,
            "nothing may be written beside a lock"
        );
    });
}

#[test]
fn repeated_commands_do_no_harm() {
    simulate(1, async |client| {
        for _ in 0..2 {
            client.must_prewrite(10, vec![put(b"a", b"1")]).await;
        }
        for _ in 0..2 {
            assert_eq!(client.commit(10, 20, &[b"a"]).await, None);
        }
        // The prewrite comes late.
        client.must_prewrite(10, vec![put(b"a", b"1")]).await;
        assert_eq!(client.locks(100), vec![]);
        let committed = client.rollback(10, &[b"a"]).await.unwrap();
        assert!(committed.abort.contains("Committed"));

        for _ in 0..2 {
            assert_eq!(client.rollback(30, &[b"b"]).await, None);
        }
        let answer = client.prewrite(request(30, vec![put(b"b", b"1")])).await;
        let conflict = answer.errors[0].conflict.clone().unwrap();
        assert_eq!(conflict.reason(), Reason::SelfRolledBack);
        let missing = client.commit(30, 40, &[b"b"]).await.unwrap();
        assert_eq!(missing.txn_lock_not_found.unwrap().key, b"b");
        assert!(
            client
                .commit(50, 50, &[b"b"])
                .await
                .unwrap()
                .abort
                .contains("InvalidTxnTso")
        );
    });
}

#[test]
fn inserts_and_checks_of_absence() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        for kind in [Op::Insert, Op::CheckNotExists] {
            let answer = client.prewrite(request(30, vec![op(kind, b"a")])).await;
            assert_eq!(answer.errors[0].already_exist.as_ref().unwrap().key, b"a");
        }
        client.remove(40, 50, b"a").await;
        client
            .must_prewrite(60, vec![op(Op::CheckNotExists, b"a")])
            .await;
        assert_eq!(client.locks(100), vec![]);
        client.must_prewrite(60, vec![op(Op::Insert, b"a")]).await;
        assert_eq!(client.commit(60, 70, &[b"a"]).await, None);
        assert_eq!(client.value(70, b"a"), Some(b"i".to_vec()));
    });
}

#[test]
fn assertions_are_checked() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        for (start_ts, key, assertion, holds) in [
            (30, b"a", Assertion::Exist, true),
            (31, b"a", Assertion::NotExist, false),
            (32, b"b", Assertion::Exist, false),
            (33, b"b", Assertion::NotExist, true),
        ] {
            let mut mutation = put(key, b"2");
            mutation.assertion = assertion.into();
            let mut prewrite = request(start_ts, vec![mutation]);
            prewrite.assertion_level = AssertionLevel::Fast.into();
            let answer = client.prewrite(prewrite).await;
            assert_eq!(answer.errors.is_empty(), holds, "{key:?} {assertion:?}");
            if !holds {
                assert!(answer.errors[0].assertion_failed.is_some());
            }
            assert_eq!(client.rollback(start_ts, &[key]).await, None);
        }
    });
}

fn async_commit(start_ts: u64, mutations: Vec<br_proto::kvrpcpb::Mutation>) -> PrewriteRequest {
    let secondaries = mutations[1..]
        .iter()
        .map(|mutation| mutation.key.clone())
        .collect();
    PrewriteRequest {
        use_async_commit: true,
        secondaries,
        ..request(start_ts, mutations)
    }
}

#[test]
fn async_commit_stays_above_reads() {
    simulate(1, async |client| {
        assert_eq!(client.value(100, b"a"), None);
        let keys = || vec![put(b"a", b"1"), put(b"b", b"2")];
        let answer = client.prewrite(async_commit(10, keys())).await;
        assert_eq!((answer.errors, answer.min_commit_ts), (vec![], 101));
        let locks = client.locks(1000);
        assert!(locks.iter().all(|lock| lock.use_async_commit));
        assert_eq!(locks[0].secondaries, vec![b"b".to_vec()]);
        // The read is below what the lock promises.
        assert_eq!(client.value(100, b"a"), None);
        assert!(client.get(101, b"a").is_err());

        let checked = CheckSecondaryLocksRequest {
            keys: vec![b"b".to_vec()],
            start_version: 10,
            ..Default::default()
        };
        let answer = client.storage.check_secondary_locks(checked.clone()).await;
        assert_eq!((answer.locks.len(), answer.commit_ts), (1, 0));
        let expired = client
            .commit(10, 100, &[b"a"])
            .await
            .unwrap()
            .commit_ts_expired
            .unwrap();
        assert_eq!(expired.min_commit_ts, 101);
        assert_eq!(client.commit(10, 101, &[b"a", b"b"]).await, None);
        let answer = client.storage.check_secondary_locks(checked).await;
        assert_eq!((answer.locks.len(), answer.commit_ts), (0, 101));
    });
}

#[test]
fn a_missing_secondary_is_rolled_back_for_good() {
    simulate(1, async |client| {
        let checked = CheckSecondaryLocksRequest {
            keys: vec![b"b".to_vec()],
            start_version: 10,
            ..Default::default()
        };
        let answer = client.storage.check_secondary_locks(checked).await;
        assert_eq!((answer.locks.len(), answer.commit_ts), (0, 0));
        let answer = client.prewrite(request(10, vec![put(b"b", b"1")])).await;
        assert!(answer.errors[0].conflict.is_some());
    });
}

#[test]
fn one_phase_commits_at_once_or_falls_back() {
    simulate(1, async |client| {
        let one_pc = |start_ts, max_commit_ts| PrewriteRequest {
            try_one_pc: true,
            max_commit_ts,
            ..async_commit(start_ts, vec![put(b"a", LONG), put(b"b", b"2")])
        };
        let answer = client.prewrite(one_pc(10, 0)).await;
        assert_eq!((answer.errors, answer.one_pc_commit_ts), (vec![], 11));
        assert_eq!(client.locks(100), vec![]);
        assert_eq!(client.value(11, b"a"), Some(LONG.to_vec()));
        // Again, after the answer was lost.
        assert_eq!(client.prewrite(one_pc(10, 0)).await.one_pc_commit_ts, 11);

        assert_eq!(client.value(100, b"c"), None);
        let answer = client.prewrite(one_pc(20, 50)).await;
        assert_eq!((answer.one_pc_commit_ts, answer.min_commit_ts), (0, 0));
        let locks = client.locks(1000);
        assert_eq!(locks.len(), 2);
        assert!(locks.iter().all(|lock| !lock.use_async_commit));
        assert!(client.get(100, b"a").is_err());
        assert_eq!(client.commit(20, 200, &[b"a", b"b"]).await, None);
        assert_eq!(client.value(200, b"b"), Some(b"2".to_vec()));
    });
}

#[test]
fn pessimistic_locks() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        let conflict = client
            .lock(lock_request(15, 15, b"a"))
            .await
            .errors
            .remove(0);
        assert_eq!(
            conflict.conflict.unwrap().reason(),
            Reason::PessimisticRetry
        );
        let mut wanted = lock_request(15, 25, b"a");
        wanted.return_values = true;
        let answer = client.lock(wanted.clone()).await;
        assert_eq!(
            (answer.errors, answer.values),
            (vec![], vec![b"1".to_vec()])
        );
        // They block writers, not readers.
        assert_eq!(client.value(30, b"a"), Some(b"1".to_vec()));
        assert!(
            client.lock(lock_request(30, 30, b"a")).await.errors[0]
                .locked
                .is_some()
        );
        let answer = client
            .prewrite(pessimistic(15, 25, vec![put(b"a", b"2")]))
            .await;
        assert_eq!(answer.errors, vec![]);
        assert_eq!(client.commit(15, 40, &[b"a"]).await, None);
        assert_eq!(client.value(40, b"a"), Some(b"2".to_vec()));

        // Lost, but nobody has changed the key since: it does without.
        let answer = client
            .prewrite(pessimistic(50, 50, vec![put(b"a", b"3")]))
            .await;
        assert_eq!(answer.errors, vec![]);
        assert_eq!(client.rollback(50, &[b"a"]).await, None);
        let answer = client
            .prewrite(pessimistic(30, 30, vec![put(b"a", b"4")]))
            .await;
        assert!(answer.errors[0].abort.contains("PessimisticLockNotFound"));
        let answer = client.lock(lock_request(50, 60, b"a")).await;
        assert!(answer.errors[0].abort.contains("RolledBack"));
    });
}

#[test]
fn a_pessimistic_retry_of_a_key_without_lock_is_checked() {
    simulate(1, async |client| {
        client.write(30, 40, b"i", b"new").await;
        let mut prewrite = pessimistic(10, 20, vec![put(b"i", b"old")]);
        prewrite.pessimistic_actions = vec![PessimisticAction::SkipPessimisticCheck.into()];
        prewrite.context = Some(Context {
            is_retry_request: true,
            ..Default::default()
        });
        let answer = client.prewrite(prewrite).await;
        assert!(answer.errors[0].abort.contains("PessimisticLockNotFound"));
    });
}

#[test]
fn pessimistic_actions_may_be_more_than_the_mutations_but_not_fewer() {
    simulate(1, async |client| {
        client.lock(lock_request(10, 10, b"a")).await;
        let mut few = pessimistic(10, 10, vec![put(b"a", b"1")]);
        let mut many = few.clone();
        few.pessimistic_actions.clear();
        let answer = client.prewrite(few).await;
        assert!(answer.errors[0].abort.contains("pessimistic action"));
        many.pessimistic_actions
            .resize(3, PessimisticAction::DoPessimisticCheck.into());
        assert_eq!(client.prewrite(many).await.errors, vec![]);
        assert_eq!(client.commit(10, 20, &[b"a"]).await, None);
        assert_eq!(client.value(20, b"a"), Some(b"1".to_vec()));
    });
}

#[test]
fn locks_only_if_the_key_exists_and_with_conflict() {
    simulate(1, async |client| {
        let mut wanted = lock_request(10, 10, b"a");
        (wanted.return_values, wanted.lock_only_if_exists) = (true, true);
        assert_eq!(client.lock(wanted).await.not_founds, vec![true]);
        assert_eq!(client.locks(100), vec![]);

        client.write(20, 30, b"a", b"1").await;
        let mut wanted = lock_request(15, 25, b"a");
        wanted.wake_up_mode = PessimisticLockWakeUpMode::WakeUpModeForceLock.into();
        let answer = client.lock(wanted).await;
        assert_eq!(answer.errors, vec![]);
        let result = &answer.results[0];
        assert_eq!(
            result.r#type(),
            PessimisticLockKeyResultType::LockResultLockedWithConflict
        );
        assert_eq!(
            (result.locked_with_conflict_ts, &result.value[..]),
            (30, &b"1"[..])
        );
        assert_eq!(client.locks(100)[0].lock_for_update_ts, 30);
    });
}

#[test]
fn a_waiter_gets_the_lock_when_it_is_released() {
    simulate(1, async |client| {
        assert_eq!(client.lock(lock_request(10, 10, b"a")).await.errors, vec![]);
        let waiter = client.clone();
        let mut wanted = lock_request(20, 20, b"a");
        wanted.wait_timeout = 900;
        let waiting = client.rt.spawn(async move { waiter.lock(wanted).await });
        client.rt.sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        let release = PessimisticRollbackRequest {
            start_version: 10,
            for_update_ts: 10,
            ..Default::default()
        };
        let answer = client
            .storage
            .pessimistic_rollback(release, KeyRange::default())
            .await;
        assert_eq!(answer.errors, vec![]);
        assert_eq!(waiting.await.errors, vec![]);
        assert_eq!(client.locks(100)[0].lock_version, 20);

        let mut wanted = lock_request(30, 30, b"a");
        wanted.wait_timeout = 200;
        let before = client.rt.now();
        assert!(client.lock(wanted).await.errors[0].locked.is_some());
        assert_eq!(client.rt.now().since(before).as_millis() / 100, 2);
    });
}

#[test]
fn a_deadlock_is_told_at_once() {
    simulate(1, async |client| {
        for (ts, key) in [(10, b"a"), (20, b"b")] {
            assert_eq!(client.lock(lock_request(ts, ts, key)).await.errors, vec![]);
        }
        let waiter = client.clone();
        let mut wanted = lock_request(10, 10, b"b");
        wanted.wait_timeout = 0;
        let waiting = client.rt.spawn(async move { waiter.lock(wanted).await });
        client.rt.sleep(Duration::from_millis(10)).await;
        let mut wanted = lock_request(20, 20, b"a");
        wanted.wait_timeout = 0;
        let deadlock = client.lock(wanted).await.errors.remove(0).deadlock.unwrap();
        assert_eq!((deadlock.lock_ts, &deadlock.lock_key[..]), (10, &b"a"[..]));
        assert_eq!(deadlock.deadlock_key, b"b");
        let chain: Vec<_> = deadlock
            .wait_chain
            .iter()
            .map(|entry| (entry.txn, entry.wait_for_txn))
            .collect();
        assert_eq!(chain, vec![(10, 20), (20, 10)]);
        let release = PessimisticRollbackRequest {
            start_version: 20,
            for_update_ts: 20,
            keys: vec![b"b".to_vec()],
            ..Default::default()
        };
        let answer = client
            .storage
            .pessimistic_rollback(release, KeyRange::default())
            .await;
        assert_eq!(answer.errors, vec![]);
        assert_eq!(waiting.await.errors, vec![]);
    });
}

#[test]
fn status_of_transactions() {
    simulate(1, async |client| {
        let check = async |request| client.storage.check_txn_status(request).await;
        let ms = |ms: u64| TimeStamp::compose(ms, 0).0;
        // Alive: pushed above the caller.
        let mut prewrite = request(ms(1000), vec![put(b"p", b"1")]);
        prewrite.min_commit_ts = ms(1000) + 1;
        assert_eq!(client.prewrite(prewrite).await.errors, vec![]);
        let mut asked = status(b"p", ms(1000));
        (asked.caller_start_ts, asked.current_ts) = (ms(2000), ms(2001));
        let answer = check(asked.clone()).await;
        assert_eq!(
            (answer.action(), answer.lock_ttl),
            (Action::MinCommitTsPushed, 3000)
        );
        assert_eq!(client.value(ms(2000), b"p"), None);
        // A heartbeat makes it live longer, then it expires.
        let beat = TxnHeartBeatRequest {
            primary_lock: b"p".to_vec(),
            start_version: ms(1000),
            advise_lock_ttl: 9000,
            ..Default::default()
        };
        assert_eq!(
            client.storage.txn_heart_beat(beat.clone()).await.lock_ttl,
            9000
        );
        asked.current_ts = ms(10_000);
        assert_eq!(check(asked.clone()).await.lock_ttl, 9000);
        asked.current_ts = ms(10_001);
        assert_eq!(
            check(asked.clone()).await.action(),
            Action::TtlExpireRollback
        );
        assert_eq!(check(asked.clone()).await.action(), Action::NoAction);
        assert!(
            client
                .storage
                .txn_heart_beat(beat)
                .await
                .error
                .unwrap()
                .txn_not_found
                .is_some()
        );
        // Committed, and not known.
        client.write(ms(20_000), ms(20_001), b"p", b"2").await;
        assert_eq!(
            check(status(b"p", ms(20_000))).await.commit_version,
            ms(20_001)
        );
        assert!(
            check(status(b"p", 7))
                .await
                .error
                .unwrap()
                .txn_not_found
                .is_some()
        );
        let mut asked = status(b"p", 7);
        asked.rollback_if_not_exist = true;
        assert_eq!(check(asked).await.action(), Action::LockNotExistRollback);
        // Not the primary.
        client
            .must_prewrite(ms(30_000), vec![put(b"q", b"1"), put(b"s", b"1")])
            .await;
        let mut asked = status(b"s", ms(30_000));
        asked.verify_is_primary = true;
        assert!(check(asked).await.error.unwrap().primary_mismatch.is_some());
    });
}

#[test]
fn cleanup_spares_the_living_and_tells_commits() {
    simulate(1, async |client| {
        client.must_prewrite(10, vec![put(b"a", b"1")]).await;
        let cleanup = |current_ts| CleanupRequest {
            key: b"a".to_vec(),
            start_version: 10,
            current_ts,
            ..Default::default()
        };
        let answer = client.storage.cleanup(cleanup(20)).await;
        assert!(answer.error.unwrap().locked.is_some());
        assert_eq!(client.commit(10, 30, &[b"a"]).await, None);
        assert_eq!(client.storage.cleanup(cleanup(0)).await.commit_version, 30);
    });
}

#[test]
fn locks_are_resolved_by_key_and_by_region() {
    simulate(1, async |client| {
        let many: Vec<_> = (0..600_u32).map(|n| put(&n.to_be_bytes(), LONG)).collect();
        client.must_prewrite(10, many.clone()).await;
        client
            .must_prewrite(11, vec![put(b"x", b"1"), put(b"y", b"1")])
            .await;
        let resolve = ResolveLockRequest {
            txn_infos: vec![
                TxnInfo {
                    txn: 10,
                    status: 20,
                    ..Default::default()
                },
                TxnInfo {
                    txn: 11,
                    status: 0,
                    ..Default::default()
                },
            ],
            ..Default::default()
        };
        let answer = client
            .storage
            .resolve_lock(resolve, KeyRange::default())
            .await;
        assert_eq!(answer.error, None);
        assert_eq!(client.locks(100), vec![]);
        assert_eq!(client.scan(20, false).len(), 600);

        client
            .must_prewrite(30, vec![put(b"x", b"1"), put(b"y", b"1")])
            .await;
        let lite = ResolveLockRequest {
            start_version: 30,
            commit_version: 40,
            keys: vec![b"y".to_vec()],
            ..Default::default()
        };
        assert_eq!(
            client
                .storage
                .resolve_lock(lite, KeyRange::default())
                .await
                .error,
            None
        );
        assert_eq!(client.locks(100)[0].key, b"x");
        assert_eq!(client.value(40, b"y"), Some(b"1".to_vec()));
    });
}

/// A rollback whose start is another transaction's commit timestamp.
#[test]
fn overlapped_rollbacks_keep_the_commit() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        client.write(30, 40, b"a", b"2").await;
        let checked = CheckSecondaryLocksRequest {
            keys: vec![b"a".to_vec()],
            start_version: 20,
            ..Default::default()
        };
        assert_eq!(
            client
                .storage
                .check_secondary_locks(checked)
                .await
                .commit_ts,
            0
        );
        assert_eq!(client.value(20, b"a"), Some(b"1".to_vec()));
        let answer = client.prewrite(request(20, vec![put(b"a", b"3")])).await;
        assert!(answer.errors[0].conflict.is_some());
        // Garbage collection takes the newer version: the rewritten one must not come back.
        client.remove(50, 60, b"a").await;
        client
            .storage
            .gc(&KeyRange::default(), TimeStamp(60))
            .unwrap();
        assert_eq!(client.value(100, b"a"), None);
    });
}

#[test]
fn collection_keeps_what_the_safe_point_sees() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", LONG).await;
        client.write(30, 40, b"a", b"2").await;
        client.write(50, 60, b"a", b"3").await;
        client.write(10, 20, b"b", b"1").await;
        client.remove(30, 40, b"b").await;
        let summary = client
            .storage
            .gc(&KeyRange::default(), TimeStamp(45))
            .unwrap();
        assert_eq!((summary.versions_seen, summary.versions_removed), (5, 3));
        assert_eq!(client.value(45, b"a"), Some(b"2".to_vec()));
        assert_eq!(client.value(60, b"a"), Some(b"3".to_vec()));
        assert_eq!(client.value(45, b"b"), None);
        let snapshot = client.storage.engine().snapshot();
        let mut rest = snapshot.iter(br_types::Cf::Default, KeyRange::new(&b"z"[..], &b"{"[..]));
        assert!(
            !rest.seek_to_first().unwrap(),
            "the long value goes with its record"
        );
    });
}

fn entries(client: &Client, after: u64, ts: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>, bool)> {
    let context = ReadContext::at(TimeStamp(ts));
    let view = client
        .storage
        .read_range(&KeyRange::default(), context)
        .unwrap();
    let mut entries = view.entries(TimeStamp(after)).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = entries.next().unwrap() {
        let key = key::decode(entry.encoded_key).unwrap().into_bytes();
        let value = entry.value.map(<[u8]>::to_vec);
        assert_eq!(
            key::split_data_key(entry.write_key).unwrap().0,
            entry.encoded_key
        );
        all.push((key, value, entry.default.is_some()));
    }
    all
}

#[test]
fn entries_of_a_backup() {
    simulate(1, async |client| {
        client.write(10, 20, b"a", b"1").await;
        client.write(10, 20, b"b", LONG).await;
        client.write(10, 20, b"c", b"1").await;
        client.remove(30, 40, b"c").await;
        for n in 0..20 {
            client.write(50 + 10 * n, 55 + 10 * n, b"a", b"later").await;
        }
        client.rollback(45, &[b"b"]).await;
        let row = |key: &[u8], value: &[u8], is_long| (key.to_vec(), Some(value.to_vec()), is_long);
        assert_eq!(
            entries(&client, 0, 45),
            vec![row(b"a", b"1", false), row(b"b", LONG, true)]
        );
        assert_eq!(entries(&client, 20, 45), vec![(b"c".to_vec(), None, false)]);
        assert_eq!(entries(&client, 45, 50), vec![]);
        assert_eq!(entries(&client, 0, 300)[0], row(b"a", b"later", false));
        client.must_prewrite(300, vec![put(b"d", b"1")]).await;
        let context = ReadContext::at(TimeStamp(300));
        let view = client
            .storage
            .read_range(&KeyRange::default(), context)
            .unwrap();
        assert!(view.entries(TimeStamp::ZERO).is_err());
    });
}
