use br_proto::kvrpcpb;
use br_types::{KeyRange, TimeStamp};

use super::commit::LOCK_TTL;

use crate::{
    Cluster, KvError,
    test_cluster::{FakeLock, TestCluster, encoded, raw},
};

async fn put(client: &Cluster, pairs: &[(&str, &str)]) -> TimeStamp {
    let mut txn = client.begin().await.expect("a transaction");
    for (key, value) in pairs {
        txn.put(raw(key), value.as_bytes().to_vec()).expect("small");
    }
    txn.commit().await.expect("committed")
}

async fn get(client: &Cluster, key: &str) -> Option<String> {
    let ts = client.pd().tso().await.expect("a timestamp");
    let value = client.snapshot(ts).get(&raw(key)).await.expect("readable");
    value.map(|value| String::from_utf8(value).expect("text"))
}

/// Three regions: up to g, up to p, and the rest.
async fn three_regions() -> (TestCluster, Cluster) {
    let cluster = TestCluster::start().await;
    cluster.state().split(&encoded("g"), 1);
    cluster.state().split(&encoded("p"), 2);
    let client = cluster.connect().await;
    (cluster, client)
}

#[tokio::test]
async fn a_transaction_over_regions_is_seen_as_a_whole() {
    let (cluster, client) = three_regions().await;
    let before = client.pd().tso().await.expect("a timestamp");
    let commit = put(&client, &[("a", "1"), ("h", "2"), ("z", "3")]).await;
    assert!(cluster.state().locks.is_empty());
    let keys = || ["a", "b", "h", "z"].map(raw);
    let found = client
        .snapshot(commit)
        .batch_get(keys())
        .await
        .expect("readable");
    let found: Vec<_> = found
        .iter()
        .map(|(key, value)| (key.as_bytes(), value.as_slice()))
        .collect();
    assert_eq!(found, [(&b"a"[..], &b"1"[..]), (b"h", b"2"), (b"z", b"3")]);
    assert_eq!(
        client
            .snapshot(before)
            .batch_get(keys())
            .await
            .expect("readable"),
        []
    );
}

#[tokio::test]
async fn requests_follow_moved_leaders_and_splits() {
    let (cluster, client) = three_regions().await;
    put(&client, &[("a", "1"), ("h", "2"), ("z", "3")]).await;
    for region in &mut cluster.state().regions {
        region.leader = 3 - region.leader;
    }
    assert_eq!(get(&client, "a").await.as_deref(), Some("1"));
    cluster.state().split(&encoded("c"), 2);
    cluster.state().split(&encoded("t"), 1);
    put(
        &client,
        &[("b", "4"), ("d", "5"), ("h", "6"), ("s", "7"), ("u", "8")],
    )
    .await;
    assert_eq!(get(&client, "d").await.as_deref(), Some("5"));
    assert_eq!(get(&client, "u").await.as_deref(), Some("8"));
}

#[tokio::test]
async fn scans_go_both_ways_over_regions() {
    let (_cluster, client) = three_regions().await;
    let keys: Vec<String> = (b'a'..=b'z').map(|c| char::from(c).to_string()).collect();
    let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    let ts = put(&client, &pairs).await;
    let range = KeyRange {
        start: raw("c"),
        end: raw("y"),
    };
    let collect = async |mut scanner: super::Scanner| {
        let mut read = String::new();
        while let Some((key, _)) = scanner.next().await.expect("readable") {
            read.push_str(&String::from_utf8_lossy(key.as_bytes()));
        }
        read
    };
    let snapshot = client.snapshot(ts);
    let upwards = collect(snapshot.scan(&range)).await;
    assert_eq!(upwards, "cdefghijklmnopqrstuvwx");
    let downwards = collect(snapshot.scan_reverse(&range)).await;
    assert_eq!(downwards, upwards.chars().rev().collect::<String>());
    let all = collect(snapshot.scan_reverse(&KeyRange::default())).await;
    assert_eq!(all.len(), 26);
}

/// As where raw keys are, or were: a store knows regions by bounds that no transaction can have.
#[tokio::test]
async fn scans_pass_bounds_that_are_no_keys() {
    let (cluster, client) = three_regions().await;
    let ts = put(&client, &[("a", "v"), ("holdfast", "v"), ("k", "v")]).await;
    for bound in [&b"b"[..], b"holdfast_raw", b"holdfast\xff"] {
        cluster.state().split(bound, 1);
    }
    let snapshot = client.snapshot(ts);
    for (end, expected) in [("", 3), ("holdfast", 1), ("holdfast\0", 2), ("c", 1)] {
        let range = KeyRange {
            start: raw(""),
            end: raw(end),
        };
        let found = snapshot.scan_all(&range, 10).await.expect("readable");
        assert_eq!(found.len(), expected, "before {end:?}");
    }
}

#[tokio::test]
async fn conflicts_and_existing_keys_stop_a_commit() {
    let (cluster, client) = three_regions().await;
    let mut late = client.begin().await.expect("a transaction");
    late.put(raw("a"), b"late".to_vec()).expect("small");
    late.put(raw("z"), b"late".to_vec()).expect("small");
    put(&client, &[("z", "early")]).await;
    let error = late.commit().await.expect_err("somebody was faster");
    assert!(
        matches!(&error, KvError::WriteConflict { key, .. } if *key == raw("z")),
        "{error}"
    );
    assert!(
        cluster.state().locks.is_empty(),
        "the prewrite is taken back"
    );
    assert_eq!(get(&client, "a").await, None);

    let mut twice = client.begin().await.expect("a transaction");
    twice.insert(raw("z"), b"again".to_vec()).expect("small");
    let error = twice.commit().await.expect_err("it exists");
    assert!(matches!(error, KvError::AlreadyExists { .. }), "{error}");
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_asked_for_again() {
    let (cluster, client) = three_regions().await;
    cluster.state().lose_commit_answers = 2;
    put(&client, &[("a", "1"), ("z", "2")]).await;
    assert_eq!(get(&client, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&client, "z").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn own_writes_are_read_before_the_commit() {
    let (_cluster, client) = three_regions().await;
    put(&client, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let mut txn = client.begin().await.expect("a transaction");
    txn.delete(raw("a")).expect("small");
    txn.put(raw("d"), b"4".to_vec()).expect("small");
    assert_eq!(txn.get(&raw("a")).await.expect("readable"), None);
    let read = txn.scan(&KeyRange::default(), 2).await.expect("readable");
    let keys: Vec<_> = read.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [raw("b"), raw("c")]);
}

async fn leave_locks(client: &Cluster, pairs: &[(&str, &str)]) -> TimeStamp {
    let mut txn = client.begin().await.expect("a transaction");
    let start = txn.start_ts();
    for (key, value) in pairs {
        txn.put(raw(key), value.as_bytes().to_vec()).expect("small");
    }
    txn.leave_locks(LOCK_TTL).await.expect("prewritten");
    start
}

#[tokio::test]
async fn locks_of_a_dead_transaction_are_rolled_back() {
    let (cluster, client) = three_regions().await;
    put(&client, &[("a", "old"), ("z", "old")]).await;
    leave_locks(&client, &[("a", "new"), ("z", "new")]).await;
    cluster.state().advance_ms(60_000);
    assert_eq!(get(&client, "z").await.as_deref(), Some("old"));
    assert_eq!(get(&client, "a").await.as_deref(), Some("old"));
    assert!(cluster.state().locks.is_empty());
}

#[tokio::test]
async fn locks_behind_a_committed_primary_are_committed() {
    let (cluster, client) = three_regions().await;
    let start = leave_locks(&client, &[("a", "new"), ("h", "new"), ("z", "new")]).await;
    let commit = client.pd().tso().await.expect("a timestamp");
    cluster.state().finish(b"a", start.0, commit.0);
    assert_eq!(get(&client, "z").await.as_deref(), Some("new"));
    // A writer resolves as well.
    put(&client, &[("h", "newer")]).await;
    assert_eq!(get(&client, "h").await.as_deref(), Some("newer"));
    assert!(cluster.state().locks.is_empty());
}

/// Several who met one lock may report it together.
#[tokio::test]
async fn a_lock_that_was_met_twice_is_resolved_once() {
    let (cluster, client) = three_regions().await;
    let start = leave_locks(&client, &[("a", "new"), ("b", "new"), ("c", "new")]).await;
    let commit = client.pd().tso().await.expect("a timestamp");
    cluster.state().finish(b"a", start.0, commit.0);
    let locks: Vec<_> = cluster
        .state()
        .locks
        .values()
        .map(|lock| lock.info.clone())
        .collect();
    let twice = [&locks[..], &locks[..]].concat();
    let now = client.pd().tso().await.expect("a timestamp");
    let resolved = client.lock_resolver().resolve_for_read(&twice, now).await;
    assert_eq!(resolved.expect("a resolution").committed, [start]);
    assert!(cluster.state().locks.is_empty());
}

/// Waiting longer, two that hold what the other wants would keep each other alive.
#[tokio::test]
async fn a_writer_gives_way_to_a_living_owner() {
    let (cluster, client) = three_regions().await;
    let owner = leave_locks(&client, &[("h", "theirs")]).await;
    let mut txn = client.begin().await.expect("a transaction");
    txn.put(raw("a"), b"ours".to_vec()).expect("small");
    txn.put(raw("h"), b"ours".to_vec()).expect("small");
    let error = txn.commit().await.expect_err("h is locked");
    let holder = match error {
        KvError::Locked { owner, .. } => owner,
        other => panic!("{other}"),
    };
    assert_eq!(holder, owner);
    let left: Vec<_> = cluster.state().locks.keys().cloned().collect();
    assert_eq!(left.len(), 1, "its own are gone: {left:?}");
}

#[tokio::test]
async fn a_living_owner_is_reported() {
    let (cluster, client) = three_regions().await;
    let start = leave_locks(&client, &[("a", "new")]).await;
    let locks: Vec<_> = cluster
        .state()
        .locks
        .values()
        .map(|lock| lock.info.clone())
        .collect();
    let ts = client.pd().tso().await.expect("a timestamp");
    let resolution = client
        .lock_resolver()
        .resolve_for_read(&locks, ts)
        .await
        .expect("a resolution");
    assert_eq!(
        (resolution.resolved, resolution.committed),
        (vec![], vec![])
    );
    assert_eq!(
        resolution.alive.first().map(|lock| lock.lock_version),
        Some(start.0)
    );
    assert_eq!(cluster.state().locks.len(), 1);
}

/// Locks of an async commit on a (primary), h and z, with those least commit timestamps.
fn lock_async(cluster: &TestCluster, start: TimeStamp, min_commit: [Option<u64>; 3]) {
    let mut state = cluster.state();
    for (key, min_commit_ts) in ["a", "h", "z"].into_iter().zip(min_commit) {
        let Some(min_commit_ts) = min_commit_ts else {
            continue;
        };
        let is_primary = key == "a";
        let info = kvrpcpb::LockInfo {
            primary_lock: b"a".to_vec(),
            lock_version: start.0,
            key: key.as_bytes().to_vec(),
            lock_ttl: 1_000,
            txn_size: 3,
            use_async_commit: true,
            min_commit_ts,
            secondaries: if is_primary {
                vec![b"h".to_vec(), b"z".to_vec()]
            } else {
                vec![]
            },
            ..Default::default()
        };
        let lock = FakeLock {
            info,
            value: Some(b"async".to_vec()),
        };
        state.locks.insert(key.as_bytes().to_vec(), lock);
    }
}

#[tokio::test]
async fn an_async_commit_is_decided_by_all_of_its_keys() {
    let (cluster, client) = three_regions().await;
    let start = client.pd().tso().await.expect("a timestamp");
    lock_async(
        &cluster,
        start,
        [Some(start.0 + 1), Some(start.0 + 3), Some(start.0 + 2)],
    );
    cluster.state().advance_ms(60_000);
    assert_eq!(get(&client, "z").await.as_deref(), Some("async"));
    assert_eq!(cluster.state().commit_of(b"a", start.0), Some(start.0 + 3));
    assert!(cluster.state().locks.is_empty());
}

#[tokio::test]
async fn an_async_commit_with_a_missing_key_is_rolled_back() {
    let (cluster, client) = three_regions().await;
    let start = client.pd().tso().await.expect("a timestamp");
    lock_async(
        &cluster,
        start,
        [Some(start.0 + 1), None, Some(start.0 + 2)],
    );
    cluster.state().advance_ms(60_000);
    assert_eq!(get(&client, "z").await, None);
    assert!(cluster.state().locks.is_empty());
    assert_eq!(cluster.state().commit_of(b"a", start.0), None);
}

#[tokio::test]
async fn a_lock_without_its_primary_waits_for_its_time_and_goes() {
    let (cluster, client) = three_regions().await;
    let start = leave_locks(&client, &[("a", "new"), ("z", "new")]).await;
    cluster.state().locks.remove(&b"a"[..]);
    let lock = cluster.state().locks[&b"z"[..]].info.clone();
    let ts = client.pd().tso().await.expect("a timestamp");
    let resolver = client.lock_resolver();
    let early = resolver
        .resolve_for_read(std::slice::from_ref(&lock), ts)
        .await
        .expect("asked");
    assert_eq!(early.alive.len(), 1);
    cluster.state().advance_ms(60_000);
    let late = resolver.resolve_for_read(&[lock], ts).await.expect("asked");
    assert_eq!(late.resolved, [start]);
    assert!(
        cluster
            .state()
            .rollbacks
            .contains(&(b"a".to_vec(), start.0))
    );
    assert!(cluster.state().locks.is_empty());
}
