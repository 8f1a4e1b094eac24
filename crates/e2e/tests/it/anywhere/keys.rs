//! Keys that belong to no table: transactional ones, and raw ones where no TiDB is near.

use std::collections::BTreeMap;

use br_codec::ApiVersion;
use br_snapshot::{
    backup::{self, BackupOptions},
    restore::{self, RestoreOptions},
};
use br_types::{Cf, RawKey};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tikv_client::TransactionClient;

use super::{Anywhere, PREFIX, named, own_keys};
use crate::site::{back_up, restore_from};

type Pairs = BTreeMap<RawKey, Vec<u8>>;

const KEYS: usize = 400;

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
    txn.commit().await.unwrap();
    let place = on.place("txn");
    let range = own_keys();
    let scope = backup::Scope::Txn {
        range: range.clone(),
    };
    let options = BackupOptions::new(scope, "e2e");
    back_up(&on.cluster, &on.places[place], &options).await;
    // With all its versions: what is restored has the timestamps of the backup, and would lie below
    // a deletion.
    let client = TransactionClient::new(vec![on.pd.clone()]).await.unwrap();
    let bounds = range.start.clone().into_bytes()..range.end.clone().into_bytes();
    client.unsafe_destroy_range(bounds).await.unwrap();
    let options = RestoreOptions::new(restore::Scope::Txn);
    restore_from(&on.cluster, &on.places[place], &options).await;
    let snapshot = super::snapshot(&on.cluster).await;
    let found = snapshot.scan_all(&range, usize::MAX).await.unwrap();
    assert!(found.into_iter().eq(expected));
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
    let expected = pairs(2);
    raw.batch_put(expected.clone(), None).await.unwrap();
    let place = on.place("raw");
    let range = own_keys();
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
