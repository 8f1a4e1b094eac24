//! Pessimistic locks over the wire: waiting, waking up, giving up, deadlock.

use br_codec::{ApiVersion, key};
use br_embed::Cluster;
use br_proto::kvrpcpb;
use br_rt::Rt;

use crate::client::{Client, options};

/// Transactions that lock keys of one region.
struct Locker {
    client: Client,
    cluster: Cluster,
}

impl Locker {
    async fn start() -> Locker {
        let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
        let client = Client::connect(&cluster).await;
        Locker { client, cluster }
    }

    /// Asks for a lock; the answer comes when it comes.
    async fn lock(
        &mut self,
        start_version: u64,
        name: &str,
        wait_timeout: i64,
    ) -> impl Future<Output = Vec<kvrpcpb::KeyError>> + use<> {
        let (mut store, context) = self
            .client
            .route(key::encode(name.as_bytes()).into_bytes())
            .await;
        let request = kvrpcpb::PessimisticLockRequest {
            context: Some(context),
            mutations: vec![kvrpcpb::Mutation {
                op: kvrpcpb::Op::PessimisticLock.into(),
                key: name.into(),
                ..Default::default()
            }],
            primary_lock: name.into(),
            start_version,
            for_update_ts: start_version,
            lock_ttl: 60_000,
            wait_timeout,
            ..Default::default()
        };
        let answer = Rt::real().spawn(async move { store.kv_pessimistic_lock(request).await });
        async move {
            let answer = answer.await.unwrap().into_inner();
            assert_eq!(answer.region_error, None);
            answer.errors
        }
    }

    async fn roll_back(&mut self, start_version: u64, name: &str) {
        let (mut store, context) = self
            .client
            .route(key::encode(name.as_bytes()).into_bytes())
            .await;
        let request = kvrpcpb::PessimisticRollbackRequest {
            context: Some(context),
            start_version,
            for_update_ts: start_version,
            keys: vec![name.into()],
        };
        let answer = store.kv_pessimistic_rollback(request).await.unwrap();
        assert_eq!(answer.into_inner().errors, []);
    }

    /// Returns when the transaction waits for the other one.
    async fn until_waits(&mut self, waiter: u64, holder: u64, name: &str) {
        let (mut store, _) = self
            .client
            .route(key::encode(name.as_bytes()).into_bytes())
            .await;
        loop {
            let request = kvrpcpb::GetLockWaitInfoRequest::default();
            let answer = store.get_lock_wait_info(request).await.unwrap();
            let entries = answer.into_inner().entries;
            if entries.iter().any(|entry| {
                (entry.txn, entry.wait_for_txn, &entry.key[..]) == (waiter, holder, name.as_bytes())
            }) {
                return;
            }
            Rt::real().sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn who_waits_is_woken_when_the_lock_goes() {
    let mut locker = Locker::start().await;
    let (first, second) = (locker.client.tso().await, locker.client.tso().await);
    assert_eq!(locker.lock(first, "a", 0).await.await, []);
    // Without waiting, and with a time to wait that ends.
    for wait_timeout in [-1, 20] {
        let errors = locker.lock(second, "a", wait_timeout).await.await;
        let locked = errors[0].locked.as_ref().unwrap();
        assert_eq!((locked.lock_version, &locked.key[..]), (first, &b"a"[..]));
    }
    // However long a wait takes until the rollback, the request is sent again as clients do.
    let mut waiting = locker.lock(second, "a", 0).await;
    locker.until_waits(second, first, "a").await;
    locker.roll_back(first, "a").await;
    let errors = loop {
        let errors = waiting.await;
        if errors.iter().all(|error| error.locked.is_none()) {
            break errors;
        }
        waiting = locker.lock(second, "a", 0).await;
    };
    assert_eq!(errors, []);
    locker.cluster.stop().await;
}

#[tokio::test]
async fn who_closes_a_circle_is_told_of_all_of_it() {
    let mut locker = Locker::start().await;
    let mut txns = Vec::new();
    for name in ["a", "b", "c"] {
        let txn = locker.client.tso().await;
        assert_eq!(locker.lock(txn, name, 0).await.await, []);
        txns.push(txn);
    }
    let [a, b, c] = txns[..] else { unreachable!() };
    // A wait ends after a second: each is taken up again until the circle has been closed.
    let told = loop {
        let a_waits = locker.lock(a, "b", 0).await;
        let b_waits = locker.lock(b, "c", 0).await;
        locker.until_waits(a, b, "b").await;
        locker.until_waits(b, c, "c").await;
        let errors = locker.lock(c, "a", 0).await.await;
        for waiting in [a_waits.await, b_waits.await] {
            assert!(waiting[0].locked.is_some(), "{waiting:?}");
        }
        if let Some(deadlock) = errors[0].deadlock.clone() {
            break deadlock;
        }
    };
    assert_eq!((told.lock_ts, &told.lock_key[..]), (a, &b"a"[..]));
    assert_eq!(told.deadlock_key, b"c");
    let chain: Vec<_> = told
        .wait_chain
        .iter()
        .map(|entry| (entry.txn, entry.wait_for_txn, entry.key.as_slice()))
        .collect();
    assert_eq!(chain, [(a, b, &b"b"[..]), (b, c, b"c"), (c, a, b"a")]);
    locker.cluster.stop().await;
}
