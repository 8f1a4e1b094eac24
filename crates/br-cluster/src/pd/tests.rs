use std::{collections::HashSet, time::Duration};

use br_rt::CancellationToken;
use br_types::{Classify as _, EncodedKey, KeyRange, Kind, RegionId, StoreId, TimeStamp};
use futures::future::try_join_all;

use super::{GcKeeper, GcProtection, GcScope, PdError};
use crate::test_cluster::{TestCluster, encoded};

#[tokio::test]
async fn callers_share_requests_for_timestamps() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    let before = client.pd().tso().await.expect("a timestamp");
    let asked = || cluster.state().tso_counts.len();
    let asked_before = asked();
    let all: Vec<TimeStamp> = try_join_all((0..500).map(|_| client.pd().tso()))
        .await
        .expect("timestamps");
    assert!(all.iter().all(|ts| *ts > before));
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert!(
        asked() - asked_before < 100,
        "{} requests",
        asked() - asked_before
    );
    let after = client.pd().tso().await.expect("a timestamp");
    assert!(all.iter().all(|ts| *ts < after));
}

#[tokio::test]
async fn a_new_leader_is_found_and_timestamps_go_on() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    let first_address = client.pd().addresses()[0].clone();
    let before = client.pd().tso().await.expect("a timestamp");
    cluster.state().pd_leader = 1;
    let after = client
        .pd()
        .tso()
        .await
        .expect("a timestamp of the new leader");
    assert!(after > before);
    let region = client
        .pd()
        .region_of(&EncodedKey::default())
        .await
        .expect("the new leader");
    assert_eq!(region.map(|region| region.id()), Some(RegionId(1)));
    assert_ne!(client.pd().addresses()[0], first_address);
}

#[tokio::test]
async fn an_oracle_that_goes_back_is_refused() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    cluster.state().advance_ms(1_000);
    client.pd().tso().await.expect("a timestamp");
    cluster.state().rewind_ms(500);
    let error = client
        .pd()
        .tso()
        .await
        .expect_err("older than the one before");
    assert!(matches!(error, PdError::InvalidResponse { .. }), "{error}");
}

#[tokio::test]
async fn cancellation_ends_a_call_to_a_cluster_without_leader() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    // Nobody leads: each member points at one that refuses.
    cluster.state().members.swap(0, 1);
    let cancel = CancellationToken::new();
    let cancelled = client.with_cancel(&cancel);
    cancel.cancel();
    let error = cancelled
        .pd()
        .store(StoreId(1))
        .await
        .expect_err("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
    let error = cancelled.pd().tso().await.expect_err("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[tokio::test]
async fn regions_come_in_pages_without_holes() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    for number in 0..300 {
        cluster.state().split(&encoded(&format!("k{number:03}")), 1);
    }
    let all = client
        .pd()
        .all_regions(&KeyRange::default())
        .await
        .expect("regions");
    assert_eq!(all.len(), 301);
    assert!(
        all.windows(2)
            .all(|pair| pair[0].region.end_key == pair[1].region.start_key)
    );
    let some = KeyRange::new(encoded("k010"), encoded("k020"));
    let some = client.pd().all_regions(&some).await.expect("regions");
    assert_eq!(some.len(), 10);
}

#[tokio::test]
async fn protection_from_gc_is_set_watched_and_taken_back() {
    let cluster = TestCluster::start().await;
    let client = cluster.connect().await;
    let protection = |ts| GcProtection {
        scope: GcScope::Cluster,
        id: "br-test".into(),
        ts: TimeStamp(ts),
        ttl: Duration::from_secs(3),
    };
    cluster.state().safe_point = 100;
    let late = GcKeeper::start(client.pd(), protection(99))
        .await
        .map(|_| ());
    assert!(matches!(
        late,
        Err(PdError::SafePointExceeded {
            wanted: TimeStamp(99),
            safe_point: TimeStamp(100)
        })
    ));

    let keeper = GcKeeper::start(client.pd(), protection(150))
        .await
        .expect("in time");
    assert_eq!(cluster.state().protections.get("br-test"), Some(&150));
    keeper.check().expect("all is well");
    cluster.state().safe_point = 151;
    let error = keeper.lost().await;
    assert!(
        matches!(error, PdError::SafePointExceeded { .. }),
        "{error}"
    );
    keeper.check().expect_err("the versions may be gone");
    keeper.close().await.expect("taken back");
    assert!(cluster.state().protections.is_empty());
}
