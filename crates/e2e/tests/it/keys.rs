//! Backups without schemas: transactional keys under load, and raw keys of each API version.

use std::{collections::BTreeMap, time::Duration};

use br_cluster::RawLayout;
use br_codec::{ApiVersion, api_version::KeyspaceId, key};
use br_proto::kvrpcpb;
use br_rt::{CancellationToken, Rt};
use br_snapshot::{
    backup::{self, BackupOptions},
    restore::{self, RestoreOptions},
};
use br_types::{Cf, KeyRange, RawKey};
use br_workload::{Kinds, Workload, check};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sim::disturbance::Disturbance;

use crate::site::{Place, Site, options};

type Pairs = BTreeMap<RawKey, Vec<u8>>;

#[tokio::test(flavor = "multi_thread")]
async fn transactional_keys_under_load() {
    const DB: &str = "bank";
    let mut small = options();
    small.region_split_keys = 100;
    let source = Site::start(small).await;
    let kinds = Kinds::Bank { accounts: 300 };
    let workload = Workload::create(&source.cluster, kinds, 11, DB, None)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let disturbance = Disturbance {
        merges: true,
        store_failures: 1,
        ..Disturbance::default()
    };
    let tables: Vec<_> = workload
        .model()
        .tables()
        .map(|(_, table)| table.clone())
        .collect();
    let split_key = |rng: &mut StdRng| {
        let handle = br_workload::Handle::Int(rng.random_range(0..300));
        key::encode(tables[0].record_key(&handle).as_bytes())
    };
    let place = Place::temporary();
    let backed_up = async {
        Rt::real().sleep(Duration::from_millis(500)).await;
        let scope = backup::Scope::Txn {
            range: KeyRange::default(),
        };
        let summary = source
            .back_up(&place, &BackupOptions::new(scope, "e2e"))
            .await;
        stop.cancel();
        summary
    };
    let rt = Rt::real();
    let disturbed = async {
        disturbance
            .run(&rt, &source.embedded, 11, split_key, &stop)
            .await
            .unwrap()
    };
    let (committed, _, summary) = futures::join!(workload.run(4, &stop), disturbed, backed_up);
    assert!(committed.unwrap() > 0);
    let backup_ts = summary.backup_ts.unwrap();
    let expected = source
        .cluster
        .snapshot(backup_ts)
        .scan_all(&KeyRange::default(), usize::MAX)
        .await
        .unwrap();
    source.stop().await;

    let target = Site::start(options()).await;
    let options = RestoreOptions::new(restore::Scope::Txn);
    target.restore(&place, &options).await;
    let now = target.now().await;
    let found = target
        .cluster
        .snapshot(now)
        .scan_all(&KeyRange::default(), usize::MAX)
        .await
        .unwrap();
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
    let checked = check(&target.cluster, DB, &workload.model(), backup_ts, now)
        .await
        .unwrap();
    assert!(checked.entries > 300, "{checked:?}");
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_of_api_v1() {
    Box::pin(raw_round_trip(ApiVersion::V1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_of_api_v1_with_ttl() {
    Box::pin(raw_round_trip(ApiVersion::V1Ttl)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_of_api_v2() {
    Box::pin(raw_round_trip(ApiVersion::V2)).await;
}

async fn start(api_version: ApiVersion, region_split_size_bytes: u64) -> Site {
    let mut options = options();
    options.api_version = api_version;
    options.region_split_size_bytes = region_split_size_bytes;
    Site::start(options).await
}

async fn raw_round_trip(version: ApiVersion) {
    let source = start(version, 8 << 10).await;
    let pairs = Box::pin(fill(&source, version)).await;
    let ttls = ttls(&source, version, &pairs);
    assert_eq!(ttls.is_empty(), version == ApiVersion::V1);

    let all = KeyRange::default();
    let whole = Box::pin(raw_copy(&source, version, &all, &all)).await;
    assert!(scan(&whole, version).await == pairs);
    for (key, ttl) in &ttls {
        let left = ttl_of(&whole, version, key).unwrap();
        // Time has passed, but not ten minutes.
        assert!(left <= *ttl && left + 600 > *ttl, "{key}: {left} of {ttl}");
    }
    // Some of the keys into a cluster that has others; they do not touch.
    let bound = |place: usize| pairs.keys().nth(place * pairs.len() / 4).unwrap().clone();
    let (saved, wanted) = (
        KeyRange {
            start: bound(1),
            end: RawKey::default(),
        },
        KeyRange {
            start: bound(2),
            end: bound(3),
        },
    );
    let part = Box::pin(raw_copy(&source, version, &saved, &wanted)).await;
    let expected: Pairs = pairs
        .range(bound(2)..bound(3))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert!(expected.len() > 10);
    assert!(scan(&part, version).await == expected);
    for site in [source, whole, part] {
        site.stop().await;
    }
}

/// Random keys and values, some of them overwritten, deleted, or with an expiry; one has expired.
async fn fill(site: &Site, version: ApiVersion) -> Pairs {
    let raw = site.cluster.raw(version);
    let mut rng = StdRng::seed_from_u64(version as u64);
    let mut model = Pairs::new();
    let short = (version != ApiVersion::V1).then_some(Duration::from_secs(1));
    if short.is_some() {
        raw.put(&RawKey::from(&b"gone"[..]), b"soon", short)
            .await
            .unwrap();
    }
    for _ in 0..1500 {
        let key = random_key(&mut rng);
        if rng.random_bool(0.2) {
            raw.delete(&key).await.unwrap();
            model.remove(&key);
            continue;
        }
        let mut value = vec![0; rng.random_range(1..400)];
        rng.fill_bytes(&mut value);
        let expires = version != ApiVersion::V1 && rng.random_bool(0.3);
        let ttl = expires.then(|| Duration::from_secs(rng.random_range(3600..1_000_000)));
        raw.put(&key, &value, ttl).await.unwrap();
        model.insert(key, value);
    }
    if short.is_some() {
        Rt::real().sleep(Duration::from_millis(2100)).await;
    }
    assert!(scan(site, version).await == model);
    model
}

/// Short ones, so that they repeat; with bytes at which encodings differ.
fn random_key(rng: &mut StdRng) -> RawKey {
    let alphabet = [0, 1, b'r', b's', b't', b'x', 0xfe, 0xff];
    let bytes: Vec<u8> = (0..rng.random_range(1..12))
        .map(|_| alphabet[rng.random_range(0..alphabet.len())])
        .collect();
    RawKey::from(bytes)
}

async fn scan(site: &Site, version: ApiVersion) -> Pairs {
    let raw = site.cluster.raw(version);
    let pairs = raw.scan(&KeyRange::default(), usize::MAX).await.unwrap();
    pairs.into_iter().collect()
}

/// The keys that expire, with the seconds that they have left.
fn ttls(site: &Site, version: ApiVersion, pairs: &Pairs) -> BTreeMap<RawKey, u64> {
    let ttl = |key: &RawKey| ttl_of(site, version, key);
    pairs
        .keys()
        .filter_map(|key| Some((key.clone(), ttl(key).filter(|ttl| *ttl > 0)?)))
        .collect()
}

fn ttl_of(site: &Site, version: ApiVersion, key: &RawKey) -> Option<u64> {
    let wire = site.cluster.raw(version).layout().wire(key);
    let request = kvrpcpb::RawGetKeyTtlRequest {
        key: wire.into_bytes(),
        ..Default::default()
    };
    let answer = site.embedded.storage().raw_get_key_ttl(&request);
    (version != ApiVersion::V1).then(|| {
        assert!(answer.error.is_empty() && !answer.not_found, "{answer:?}");
        answer.ttl
    })
}

/// Backs up the keys in `saved`, and restores those in `wanted` into a new cluster. Ranges are of
/// users' keys.
async fn raw_copy(
    source: &Site,
    version: ApiVersion,
    saved: &KeyRange<RawKey>,
    wanted: &KeyRange<RawKey>,
) -> Site {
    let place = Place::temporary();
    let scope = backup::Scope::Raw {
        range: source.cluster.raw(version).layout().wire_range(saved),
        cf: Cf::Default,
    };
    source
        .back_up(&place, &BackupOptions::new(scope, "e2e"))
        .await;
    let target = start(version, 16 << 10).await;
    let scope = restore::Scope::Raw {
        range: source.cluster.raw(version).layout().wire_range(wanted),
        cf: Cf::Default,
    };
    target.restore(&place, &RestoreOptions::new(scope)).await;
    target
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_of_every_keyspace() {
    let version = ApiVersion::V2;
    let layout = |keyspace| RawLayout::keyspace(KeyspaceId::new(keyspace).unwrap());
    let source = start(version, 1 << 10).await;
    let everywhere = source
        .cluster
        .raw(version)
        .with_layout(RawLayout::all_keyspaces(version));
    for keyspace in [0, 7, 0xff_ffff] {
        let client = everywhere.with_layout(layout(keyspace));
        for number in 0..100_u8 {
            let key = RawKey::from(vec![number]);
            let value = format!("{keyspace} {number}").into_bytes();
            client.put(&key, &value, None).await.unwrap();
        }
    }
    let all = KeyRange::default();
    let place = Place::temporary();
    let scope = backup::Scope::Raw {
        range: all.clone(),
        cf: Cf::Default,
    };
    source
        .back_up(&place, &BackupOptions::new(scope, "e2e"))
        .await;
    let target = start(version, 1 << 10).await;
    let scope = restore::Scope::Raw {
        range: all.clone(),
        cf: Cf::Default,
    };
    target.restore(&place, &RestoreOptions::new(scope)).await;
    let expected = everywhere.scan(&all, usize::MAX).await.unwrap();
    let found = target.cluster.raw(version).with_layout(everywhere.layout());
    let found = found.scan(&all, usize::MAX).await.unwrap();
    assert_eq!(expected.len(), 300);
    assert!(found == expected);
    for site in [source, target] {
        site.stop().await;
    }
}
