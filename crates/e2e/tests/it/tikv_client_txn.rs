//! The `tikv-client` crate runs transactions on the embedded cluster, through splits, merges and
//! leader transfers. Its history has to be one that snapshot isolation allows: what a transaction
//! read is what was committed before it began, and nobody wrote below it what it wrote.

use std::{collections::BTreeMap, time::Duration};

use br_codec::{ApiVersion, key};
use br_proto::kvrpcpb;
use br_rt::{CancellationToken, Rt};
use br_types::RawKey;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::disturbance::Disturbance;
use tikv_client::{
    BoundRange, CheckLevel, Config, Error, Key, KvPair, Timestamp, TimestampExt, Transaction,
    TransactionClient, TransactionOptions,
    transaction::{HeartbeatOption, Mutation, ResolveLocksOptions},
};

use crate::site::{Site, options};

const KEYS: u32 = 60;
const WORKERS: u64 = 4;
const TRANSACTIONS: usize = 60;

type Value = Vec<u8>;
type Versions = BTreeMap<u64, Option<Value>>;
type Pairs = BTreeMap<Vec<u8>, Value>;

/// A transaction that was committed, or that only read.
#[derive(Default)]
struct Done {
    is_committing: bool,
    start: u64,
    /// `None`: it wrote nothing.
    commit: Option<u64>,
    is_pessimistic: bool,
    /// Of its start.
    reads: Vec<(Vec<u8>, Option<Value>)>,
    /// Of its start.
    scans: Vec<Scan>,
    /// Read under a lock that it kept until its commit.
    locked_reads: Vec<(Vec<u8>, Option<Value>)>,
    /// Must not have existed before.
    inserts: Vec<Vec<u8>>,
    writes: BTreeMap<Vec<u8>, Option<Value>>,
}

struct Scan {
    from: u32,
    to: u32,
    limit: usize,
    is_reverse: bool,
    found: Vec<(Vec<u8>, Value)>,
}

fn user_key(number: u32) -> Vec<u8> {
    format!("k{number:04}").into_bytes()
}

fn pair(pair: KvPair) -> (Vec<u8>, Value) {
    let KvPair(key, value) = pair;
    (key.into(), value)
}

fn range(from: u32, to: u32) -> BoundRange {
    (user_key(from)..user_key(to)).into()
}

async fn start(api_version: ApiVersion) -> (Site, TransactionClient) {
    let mut options = options();
    options.api_version = api_version;
    options.region_split_keys = 7;
    let site = Site::start(options).await;
    let config = match api_version {
        ApiVersion::V2 => Config::default().with_default_keyspace(),
        ApiVersion::V1 | ApiVersion::V1Ttl => Config::default(),
    };
    let client = TransactionClient::new_with_config(vec![site.embedded.pd_addr()], config)
        .await
        .unwrap();
    (site, client)
}

/// What stands before the keys of users in the default keyspace.
fn prefix(api_version: ApiVersion) -> &'static [u8] {
    match api_version {
        ApiVersion::V2 => b"x\0\0\0",
        ApiVersion::V1 | ApiVersion::V1Ttl => b"",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_snapshot_isolated_in_api_v1() {
    Box::pin(history(ApiVersion::V1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_snapshot_isolated_in_api_v2() {
    Box::pin(history(ApiVersion::V2, 2)).await;
}

async fn history(api_version: ApiVersion, seed: u64) {
    let (site, client) = start(api_version).await;
    let stop = CancellationToken::new();
    let split_key = |rng: &mut StdRng| {
        let number = rng.random_range(0..KEYS);
        key::encode(&[prefix(api_version), &user_key(number)].concat())
    };
    let disturbance = Disturbance {
        merges: true,
        ..Disturbance::default()
    };
    let workers = async {
        let workers = (0..WORKERS).map(|worker| work(&client, seed * 100 + worker));
        let done = futures::future::join_all(workers).await;
        stop.cancel();
        done.into_iter().flatten().collect::<Vec<_>>()
    };
    let rt = Rt::real();
    let disturbed = async {
        disturbance
            .run(&rt, &site.embedded, seed, split_key, &stop)
            .await
            .unwrap()
    };
    let (done, disturbed) = futures::join!(workers, disturbed);
    let committed = done.iter().filter(|done| done.commit.is_some()).count();
    println!(
        "{committed} of {} committed, {disturbed:?}, {} regions",
        done.len(),
        site.embedded.regions().len()
    );
    assert!(committed > TRANSACTIONS && disturbed.splits + disturbed.transfers > 0);
    let versions = check_history(&done);
    Box::pin(check_content(&client, &versions)).await;
    site.stop().await;
}

async fn work(client: &TransactionClient, seed: u64) -> Vec<Done> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all = Vec::new();
    for number in 0..TRANSACTIONS {
        let mut done = Done::default();
        let mut txn = client
            .begin_with_options(random_options(&mut rng, &mut done))
            .await
            .unwrap();
        done.start = txn.start_timestamp().version();
        let label = format!("{seed}-{number}");
        match Box::pin(run(&mut txn, &mut rng, &label, &mut done)).await {
            Ok(()) => all.push(done),
            Err(error) => {
                // The client tries a region that is split again and again some ten times only.
                let gave_up = matches!(error, Error::RegionError(_)) && !done.is_committing;
                assert!(is_conflict(&error) || gave_up, "seed {seed}: {error:?}");
                // What could not be committed may be rolled back already.
                txn.rollback().await.ok();
            }
        }
    }
    all
}

fn random_options(rng: &mut StdRng, done: &mut Done) -> TransactionOptions {
    done.is_pessimistic = rng.random();
    let mut options = if done.is_pessimistic {
        TransactionOptions::new_pessimistic()
    } else {
        TransactionOptions::new_optimistic()
    };
    if rng.random() {
        options = options.use_async_commit();
    }
    if rng.random() {
        options = options.try_one_pc();
    }
    options.drop_check(CheckLevel::None)
}

async fn run(
    txn: &mut Transaction,
    rng: &mut StdRng,
    label: &str,
    done: &mut Done,
) -> Result<(), Error> {
    for _ in 0..rng.random_range(0..4) {
        read(txn, rng, done).await?;
    }
    for _ in 0..rng.random_range(0..5) {
        write(txn, rng, label, done).await?;
    }
    // Its own writes are there, and nobody else's.
    for (key, value) in done.writes.iter().take(2) {
        assert_eq!(txn.get(key.clone()).await?, *value);
    }
    if done.writes.is_empty() && done.locked_reads.is_empty() {
        txn.rollback().await?;
        return Ok(());
    }
    done.is_committing = true;
    let commit = txn.commit().await?;
    done.commit = commit.map(|ts| ts.version());
    assert!(done.writes.is_empty() || done.commit.is_some());
    Ok(())
}

async fn read(txn: &mut Transaction, rng: &mut StdRng, done: &mut Done) -> Result<(), Error> {
    let from = rng.random_range(0..KEYS);
    match rng.random_range(0..5) {
        0 => {
            let value = txn.get(user_key(from)).await?;
            done.reads.push((user_key(from), value));
        }
        1 => {
            let keys: Vec<_> = (from..KEYS).step_by(7).map(user_key).collect();
            let found: Pairs = txn.batch_get(keys.clone()).await?.map(pair).collect();
            let found = keys.into_iter().map(|key| {
                let value = found.get(&key).cloned();
                (key, value)
            });
            done.reads.extend(found);
        }
        2 if done.is_pessimistic => {
            let value = txn.get_for_update(user_key(from)).await?;
            done.locked_reads.push((user_key(from), value));
        }
        _ => {
            let (to, limit) = (rng.random_range(from..=KEYS), rng.random_range(1..2 * KEYS));
            let is_reverse = rng.random();
            let range = range(from, to);
            let found: Vec<_> = if is_reverse {
                txn.scan_reverse(range, limit).await?.map(pair).collect()
            } else {
                txn.scan(range, limit).await?.map(pair).collect()
            };
            done.scans.push(Scan {
                from,
                to,
                limit: limit as usize,
                is_reverse,
                found,
            });
        }
    }
    Ok(())
}

async fn write(
    txn: &mut Transaction,
    rng: &mut StdRng,
    label: &str,
    done: &mut Done,
) -> Result<(), Error> {
    let number = rng.random_range(0..KEYS);
    let other = user_key((number + 17) % KEYS);
    let key = user_key(number);
    // What is inserted stays so: deleted again, it would only be checked, not locked.
    if done.inserts.contains(&key) || done.inserts.contains(&other) {
        return Ok(());
    }
    let value = |key: &[u8]| {
        // Some are long enough for the default column family.
        let padding = if number.is_multiple_of(3) { 300 } else { 0 };
        let text = format!("{label} {} {}", key.escape_ascii(), "x".repeat(padding));
        text.into_bytes()
    };
    match rng.random_range(0..8) {
        0 if !done.writes.contains_key(&key) => {
            txn.insert(key.clone(), value(&key)).await?;
            done.inserts.push(key.clone());
            done.writes.insert(key.clone(), Some(value(&key)));
        }
        1..3 => {
            txn.delete(key.clone()).await?;
            done.writes.insert(key, None);
        }
        3 => {
            let mutations = vec![
                Mutation::Put(other.clone().into(), value(&other)),
                Mutation::Delete(key.clone().into()),
            ];
            txn.batch_mutate(mutations).await?;
            done.writes.insert(other.clone(), Some(value(&other)));
            done.writes.insert(key, None);
        }
        _ => {
            txn.put(key.clone(), value(&key)).await?;
            done.writes.insert(key.clone(), Some(value(&key)));
        }
    }
    Ok(())
}

/// Whether somebody else was faster: nothing was committed then.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::KeyError(key) => {
            key.conflict.is_some()
                || key.already_exist.is_some()
                || key.deadlock.is_some()
                || key.commit_ts_expired.is_some()
                // A secondary lock was met before its primary was there; the client gives up.
                || key.txn_not_found.is_some()
                || !key.retryable.is_empty()
        }
        Error::ExtractedErrors(all) | Error::MultipleKeyErrors(all) => all.iter().all(is_conflict),
        Error::PessimisticLockError { inner, .. } => is_conflict(inner),
        Error::DuplicateKeyInsertion => true,
        _ => false,
    }
}

/// Checks every transaction against the others. Gives all versions of each key.
fn check_history(all: &[Done]) -> BTreeMap<Vec<u8>, Versions> {
    let mut versions: BTreeMap<Vec<u8>, Versions> = BTreeMap::new();
    for done in all {
        for (key, value) in &done.writes {
            let commit = done.commit.unwrap();
            let before = versions
                .entry(key.clone())
                .or_default()
                .insert(commit, value.clone());
            assert!(before.is_none(), "two transactions committed at {commit}");
        }
    }
    for done in all {
        check_one(done, &versions);
    }
    versions
}

fn check_one(done: &Done, versions: &BTreeMap<Vec<u8>, Versions>) {
    let start = done.start;
    let at = |key: &[u8], ts: u64| -> Option<Value> {
        versions.get(key)?.range(..=ts).next_back()?.1.clone()
    };
    for (key, value) in &done.reads {
        assert_eq!(*value, at(key, start), "{} at {start}", key.escape_ascii());
    }
    for scan in &done.scans {
        let keys = (scan.from..scan.to).map(user_key);
        let mut expected: Vec<_> = keys
            .filter_map(|key| at(&key, start).map(|value| (key, value)))
            .collect();
        if scan.is_reverse {
            expected.reverse();
        }
        expected.truncate(scan.limit);
        assert!(
            scan.found == expected,
            "scan {}..{} limit {} reverse {} at {start}: {} found, {} expected",
            scan.from,
            scan.to,
            scan.limit,
            scan.is_reverse,
            scan.found.len(),
            expected.len()
        );
    }
    let Some(commit) = done.commit else {
        return;
    };
    assert!(commit > start);
    for (key, value) in &done.locked_reads {
        assert_eq!(*value, at(key, commit - 1), "locked read before {commit}");
    }
    for key in &done.inserts {
        assert_eq!(at(key, commit - 1), None, "insert at {commit}");
    }
    // A pessimistic transaction takes its locks later than it begins.
    for key in done.writes.keys().filter(|_| !done.is_pessimistic) {
        let between = versions[key].range(start + 1..commit).next();
        assert!(between.is_none(), "lost update of {}", key.escape_ascii());
    }
}

/// Compares what the cluster holds with the history: now in several ways, and at old timestamps.
async fn check_content(client: &TransactionClient, versions: &BTreeMap<Vec<u8>, Versions>) {
    let commits: Vec<u64> = versions
        .values()
        .flat_map(|all| all.keys().copied())
        .collect();
    let now = client.current_timestamp().await.unwrap().version();
    for ts in commits.iter().step_by(29).copied().chain([now]) {
        let expected: Vec<(Vec<u8>, Value)> = versions
            .iter()
            .filter_map(|(key, all)| {
                let (_, value) = all.range(..=ts).next_back()?;
                Some((key.clone(), value.clone()?))
            })
            .collect();
        let options = TransactionOptions::new_optimistic().read_only();
        let mut snapshot = client.snapshot(Timestamp::from_version(ts), options);
        let forth: Vec<_> = snapshot.scan(.., 1000).await.unwrap().map(pair).collect();
        assert!(forth == expected, "{} of {}", forth.len(), expected.len());
        let back = snapshot.scan_reverse(.., 1000).await.unwrap();
        let mut back: Vec<_> = back.map(pair).collect();
        back.reverse();
        assert!(back == expected, "{} of {}", back.len(), expected.len());
        let keys: Vec<Vec<u8>> = snapshot
            .scan_keys(range(0, KEYS), 1000)
            .await
            .unwrap()
            .map(Vec::from)
            .collect();
        assert!(keys.iter().eq(expected.iter().map(|(key, _)| key)));
        let all = (0..KEYS).map(user_key);
        let got: Pairs = snapshot.batch_get(all).await.unwrap().map(pair).collect();
        assert!(got.into_iter().eq(expected.iter().cloned()));
        for number in [0, KEYS / 2, KEYS] {
            let there = expected.iter().any(|(key, _)| *key == user_key(number));
            let found = snapshot.key_exists(user_key(number)).await.unwrap();
            assert_eq!(found, there);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_were_left_behind_are_cleaned_up() {
    let (site, client) = start(ApiVersion::V1).await;
    let mut txn = client.begin_optimistic().await.unwrap();
    for number in 0..KEYS {
        txn.put(user_key(number), b"first".to_vec()).await.unwrap();
    }
    txn.commit().await.unwrap();
    // Of another client, in the middle of its commit.
    let mut ours = site.cluster.begin().await.unwrap();
    for number in (0..KEYS).step_by(2) {
        ours.put(RawKey::from(user_key(number)), b"never".to_vec())
            .unwrap();
    }
    ours.leave_locks(Duration::from_secs(10)).await.unwrap();
    // Before its commit.
    let options = TransactionOptions::new_pessimistic()
        .drop_check(CheckLevel::None)
        .heartbeat_option(HeartbeatOption::NoHeartbeat);
    let mut dropped = client.begin_with_options(options).await.unwrap();
    dropped
        .lock_keys((1..KEYS).step_by(2).map(user_key))
        .await
        .unwrap();
    drop(dropped);

    let now = client.current_timestamp().await.unwrap();
    let locks = client.scan_locks(&now, .., 1000).await.unwrap();
    let locked: Vec<Vec<u8>> = locks.into_iter().map(|lock| lock.key).collect();
    assert_eq!(locked, (0..KEYS).map(user_key).collect::<Vec<_>>());
    client
        .cleanup_locks(.., &now, ResolveLocksOptions::default())
        .await
        .unwrap();
    assert!(client.scan_locks(&now, .., 1000).await.unwrap().is_empty());
    let mut txn = client.begin_optimistic().await.unwrap();
    let found: Vec<_> = txn.scan(.., 1000).await.unwrap().map(pair).collect();
    assert_eq!(found.len(), KEYS as usize);
    assert!(found.iter().all(|(_, value)| value == b"first"));
    txn.put(user_key(0), b"second".to_vec()).await.unwrap();
    txn.commit().await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_meets_a_lock_and_resolves_it() {
    let (site, client) = start(ApiVersion::V1).await;
    // Of a client that died in the middle of its commit, as its time to live tells.
    let mutations = (0..KEYS).map(|number| kvrpcpb::Mutation {
        key: user_key(number),
        value: b"never".to_vec(),
        ..Default::default()
    });
    let prewrite = kvrpcpb::PrewriteRequest {
        mutations: mutations.collect(),
        primary_lock: user_key(0),
        start_version: site.now().await.0,
        lock_ttl: 1,
        ..Default::default()
    };
    let answer = site.embedded.storage().prewrite(prewrite).await;
    assert_eq!(answer.errors, []);
    let mut txn = client.begin_optimistic().await.unwrap();
    assert_eq!(txn.get(user_key(5)).await.unwrap(), None);
    assert_eq!(txn.scan(.., 1000).await.unwrap().count(), 0);
    txn.rollback().await.unwrap();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_destroyed_with_all_its_versions() {
    for api_version in [ApiVersion::V1, ApiVersion::V2] {
        let (site, client) = start(api_version).await;
        for round in 0..3 {
            let mut txn = client.begin_pessimistic().await.unwrap();
            for number in 0..KEYS {
                let value = format!("{round}").into_bytes();
                txn.put(user_key(number), value).await.unwrap();
            }
            txn.commit().await.unwrap();
        }
        let before = client.current_timestamp().await.unwrap();
        client.unsafe_destroy_range(range(10, 50)).await.unwrap();
        let options = TransactionOptions::new_optimistic().read_only();
        let mut snapshot = client.snapshot(before, options);
        let keys: Vec<Key> = snapshot.scan_keys(.., 1000).await.unwrap().collect();
        let expected: Vec<Key> = (0..10)
            .chain(50..KEYS)
            .map(|n| user_key(n).into())
            .collect();
        assert_eq!(keys, expected);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_wait_for_each_other_do_not_wait_for_ever() {
    let (site, client) = start(ApiVersion::V2).await;
    let options = || TransactionOptions::new_pessimistic().drop_check(CheckLevel::None);
    let mut a = client.begin_with_options(options()).await.unwrap();
    let mut b = client.begin_with_options(options()).await.unwrap();
    a.put(user_key(1), b"a".to_vec()).await.unwrap();
    b.put(user_key(2), b"b".to_vec()).await.unwrap();
    // Whoever loses lets the other one pass.
    let cross = async |mut txn: Transaction, number: u32, value: &[u8]| {
        let put = txn.put(user_key(number), value.to_vec()).await;
        let Err(error) = put else {
            txn.commit().await.unwrap();
            return true;
        };
        assert!(is_conflict(&error), "{error:?}");
        txn.rollback().await.unwrap();
        false
    };
    let crossed = futures::future::join(cross(a, 2, b"a"), cross(b, 1, b"b"));
    let limit = Duration::from_secs(60);
    let (a_won, b_won) = Rt::real().timeout(limit, crossed).await.unwrap();
    assert!(a_won != b_won);
    let winner: &[u8] = if a_won { b"a" } else { b"b" };
    let mut txn = client.begin_optimistic().await.unwrap();
    for number in [1, 2] {
        let value = txn.get(user_key(number)).await.unwrap();
        assert_eq!(value.as_deref(), Some(winner));
    }
    txn.rollback().await.unwrap();
    site.stop().await;
}
