//! Servers that are busy, break off, or answer late, by way of a proxy.

use std::time::Duration;

use br_rt::{RetryPolicy, Rt};
use br_storage::{PART_BYTES, Storage};
use br_types::{Classify, Kind};
use futures::TryStreamExt;
use test_servers::{Fault, Proxy};

use crate::backends::{Server, on_servers, run};

on_servers!(super::on_server:
    throttled,
    busy,
    resets,
    lost_answers,
    truncated_reads,
    stalled_reads,
    broken_parts,
    lasting_trouble,
    refused_credentials,
);

fn on_server<F: Future<Output = ()>>(
    server: Server,
    name: &str,
    case: impl FnOnce(Storage, Proxy) -> F,
) {
    let (proxy, url) = server.by_proxy(&format!("faults/{name}"));
    run(&url, |storage| case(storage, proxy));
}

/// Each operation meets the fault and does its work nevertheless.
async fn all_operations(storage: &Storage, proxy: &Proxy, fault: Fault) {
    for (method, times) in [("PUT", 2), ("GET", 1), ("HEAD", 2)] {
        proxy.plan(Some(method), fault, times);
    }
    storage.write("a/b", "one").await.expect("written");
    assert_eq!(storage.read("a/b").await.expect("there"), "one");
    assert_eq!(storage.size("a/b").await.expect("there"), 3);
    proxy.plan(Some("GET"), fault, 1);
    let listed: Vec<_> = storage.list("a/").try_collect().await.expect("a listing");
    assert_eq!(listed.len(), 1);
    assert_eq!(proxy.left(), 0, "a fault was not met");
}

async fn throttled(storage: Storage, proxy: Proxy) {
    for status in [503, 429, 500] {
        all_operations(&storage, &proxy, Fault::Status(status)).await;
    }
}

/// A server that says when to come again is not asked before.
async fn busy(storage: Storage, proxy: Proxy) {
    storage.write("r", "one").await.expect("written");
    proxy.plan(Some("GET"), Fault::Busy(2), 1);
    let rt = Rt::real();
    let begun = rt.now();
    assert_eq!(storage.read("r").await.expect("there"), "one");
    assert!(rt.now().since(begun) >= Duration::from_secs(2));
    assert_eq!(proxy.left(), 0);
}

async fn resets(storage: Storage, proxy: Proxy) {
    all_operations(&storage, &proxy, Fault::Reset).await;
}

/// The server did it, and the answer was lost: the repeated attempt finds its own object.
async fn lost_answers(storage: Storage, proxy: Proxy) {
    proxy.plan(Some("PUT"), Fault::LostAnswer, 1);
    storage.write("w", "one").await.expect("written");
    assert_eq!(storage.read("w").await.expect("there"), "one");
    proxy.plan(Some("PUT"), Fault::LostAnswer, 1);
    storage
        .create("lock", "mine")
        .await
        .expect("created by the first attempt");
    let error = storage.create("lock", "mine").await.expect_err("there");
    assert!(error.is_already_exists(), "{error}");
    assert_eq!(proxy.left(), 0);
}

async fn truncated_reads(storage: Storage, proxy: Proxy) {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    storage.write("r", bytes.clone()).await.expect("written");
    proxy.plan(Some("GET"), Fault::Truncated, 3);
    assert!(storage.read("r").await.expect("there") == bytes);
    proxy.plan(Some("GET"), Fault::Truncated, 2);
    let range = storage.read_range("r", 1000..2_000_000).await;
    assert!(range.expect("there") == bytes[1000..2_000_000]);
    assert_eq!(proxy.left(), 0);
}

/// Takes as long as a stall takes to be noticed.
async fn stalled_reads(storage: Storage, proxy: Proxy) {
    let bytes = vec![7; 1_000_000];
    storage.write("r", bytes.clone()).await.expect("written");
    proxy.plan(Some("GET"), Fault::Stalled, 1);
    assert!(storage.read("r").await.expect("there") == bytes);
    assert_eq!(proxy.left(), 0);
}

async fn broken_parts(storage: Storage, proxy: Proxy) {
    let piece: Vec<u8> = (0..PART_BYTES as u32)
        .map(|i| ((i * 31) >> 3) as u8)
        .collect();
    proxy.plan(Some("PUT"), Fault::Status(503), 1);
    proxy.plan(Some("PUT"), Fault::Reset, 1);
    proxy.plan(Some("PUT"), Fault::Late(Duration::from_millis(300)), 1);
    let mut writer = storage.writer("large").expect("a writer");
    for _ in 0..3 {
        writer.write(&piece).await.expect("taken");
    }
    writer.finish().await.expect("written");
    assert_eq!(proxy.left(), 0);
    assert!(storage.read("large").await.expect("there") == piece.repeat(3));
}

/// What does not end is told, as something to try again later.
async fn lasting_trouble(storage: Storage, proxy: Proxy) {
    proxy.plan(None, Fault::Status(503), 1000);
    let once = RetryPolicy {
        pause_min: Duration::from_millis(1),
        pause_max: Duration::from_millis(1),
        attempts_max: 1,
        elapsed_max: Duration::from_secs(60),
    };
    let error = storage.with_retry(once).read("r").await.expect_err("busy");
    assert_eq!(error.kind(), Kind::Retry, "{error}");
    assert!(error.to_string().contains("503"), "{error}");
    assert!(error.next_step().is_some());
}

/// Not tried again.
async fn refused_credentials(storage: Storage, proxy: Proxy) {
    for status in [401, 403] {
        let before = proxy.requests();
        proxy.plan(None, Fault::Status(status), 1);
        let error = storage.read("r").await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(error.code(), br_types::Code::STORAGE_INVALID_PERMISSION);
        assert_eq!(proxy.requests(), before + 1);
    }
}
