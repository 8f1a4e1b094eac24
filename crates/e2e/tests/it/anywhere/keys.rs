//! Keys that belong to no table: transactional ones, and raw ones where no TiDB is near.

use std::collections::BTreeMap;

use br_codec::{ApiVersion, key};
use br_snapshot::{
    backup::{self, BackupOptions},
    restore::{self, RestoreOptions},
};
use br_types::{Cf, KeyRange, RawKey};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{Anywhere, PREFIX, delete, named, own_keys};
use crate::site::{back_up, restore_from};

type Pairs = BTreeMap<RawKey, Vec<u8>>;

const KEYS: usize = 400;

/// Raw keys as a transaction's keys lie in the store: what backs them up and restores them splits
/// regions between them, and where a bound is no such key, clients of transactions give up.
fn as_stored(key: &RawKey) -> RawKey {
    RawKey::from(key::encode(key.as_bytes()).into_bytes())
}

/// Our raw keys.
pub(super) fn own_raw_keys() -> KeyRange<RawKey> {
    let own = own_keys();
    KeyRange {
        start: as_stored(&own.start),
        end: as_stored(&own.end),
    }
}

fn pairs(seed: u64) -> Pairs {
    let mut rng = StdRng::seed_from_u64(seed);
    let pair = |place| {
        let mut value = vec![0; rng.random_range(1..600)];
        rng.fill_bytes(&mut value);
        let key = format!("{PREFIX}{place:05}");
        (RawKey::from(key.into_bytes()), value)
    };
    (0..KEYS).map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactional_keys_come_back() {
    if named("E2E_TIDB").is_some() {
        println!("transactional keys are not restored beside tables");
        return;
    }
    let mut on = Anywhere::start().await;
    let expected = pairs(1);
    let mut txn = on.cluster.begin().await.unwrap();
    for (key, value) in &expected {
        txn.put(key.clone(), value.clone()).unwrap();
    }
    // It is not backed up, and does not keep the others from coming back.
    let behind = RawKey::from(format!("{PREFIX}~behind").into_bytes());
    txn.put(behind.clone(), b"stays".to_vec()).unwrap();
    txn.commit().await.unwrap();
    let place = on.place("txn");
    let range = KeyRange::<RawKey>::new(PREFIX.as_bytes(), format!("{PREFIX}~").into_bytes());
    let scope = backup::Scope::Txn {
        range: range.clone(),
    };
    let options = BackupOptions::new(scope, "e2e");
    back_up(&on.cluster, &on.places[place], &options).await;
    // As anybody deletes: older versions and the deletions stay, until GC.
    delete(&on.cluster, &range).await;
    let options = RestoreOptions::new(restore::Scope::Txn);
    restore_from(&on.cluster, &on.places[place], &options).await;
    let snapshot = super::snapshot(&on.cluster).await;
    let found = snapshot.scan_all(&range, usize::MAX).await.unwrap();
    assert!(found.into_iter().eq(expected));
    assert!(snapshot.get(&behind).await.unwrap().is_some());
    on.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_keys_come_back() {
    if named("E2E_TIDB").is_some() {
        println!("raw keys are not written to a cluster that has a TiDB");
        return;
    }
    let mut on = Anywhere::start().await;
    let raw = on.cluster.raw(ApiVersion::V1);
    let expected = pairs(2).into_iter();
    let expected: Pairs = expected
        .map(|(key, value)| (as_stored(&key), value))
        .collect();
    raw.batch_put(expected.clone(), None).await.unwrap();
    let place = on.place("raw");
    let range = own_raw_keys();
    let scope = backup::Scope::Raw {
        range: range.clone(),
        cf: Cf::Default,
    };
    let options = BackupOptions::new(scope, "e2e");
    back_up(&on.cluster, &on.places[place], &options).await;
    raw.delete_range(&range).await.unwrap();
    let options = RestoreOptions::new(restore::Scope::Raw {
        range: range.clone(),
        cf: Cf::Default,
    });
    restore_from(&on.cluster, &on.places[place], &options).await;
    let found = raw.scan(&range, usize::MAX).await.unwrap();
    assert!(found.into_iter().eq(expected));
    raw.delete_range(&range).await.unwrap();
    on.finish().await;
}
