//! The `tikv-client` crate reads and writes raw keys on the embedded cluster, through splits, merges
//! and leader transfers, next to a model.
//!
//! Two things of the client are left out. Its scan begins anew behind the cluster's last region, so
//! there is a region behind all keys. Its backward scan goes to the region of the lower bound, which
//! stores refuse unless the upper one lies there too (its issue 512), so it is tried in one region.

use std::collections::BTreeMap;

use br_codec::{ApiVersion, key};
use br_embed::Options;
use br_rt::CancellationToken;
use br_types::EncodedKey;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sim::disturbance::Disturbance;
use tikv_client::{Config, KvPair, RawClient};

use crate::site::{Site, options};

const KEYS: u32 = 80;
const WORKERS: u64 = 3;
const STEPS: usize = 250;

/// Behind the keys of all workers.
const AFTER_ALL: &[u8] = b"x";

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

#[tokio::test(flavor = "multi_thread")]
async fn random_commands_in_api_v1() {
    Box::pin(random_commands(ApiVersion::V1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_commands_in_api_v2() {
    Box::pin(random_commands(ApiVersion::V2, 2)).await;
}

async fn random_commands(api_version: ApiVersion, seed: u64) {
    let mut options = options();
    options.region_split_size_bytes = 1 << 10;
    let (site, client) = start(api_version, options).await;
    let stop = CancellationToken::new();
    let workers = async {
        let workers = (0..WORKERS).map(|worker| {
            let worker = Worker {
                client: client.clone(),
                atomic: client.with_atomic_for_cas(),
                has_ttl: api_version != ApiVersion::V1,
                name: format!("w{worker}-"),
                rng: StdRng::seed_from_u64(seed * 100 + worker),
                model: Pairs::new(),
            };
            worker.run()
        });
        let models = futures::future::join_all(workers).await;
        stop.cancel();
        models.into_iter().flatten().collect::<Pairs>()
    };
    let split_key = |rng: &mut StdRng| {
        let name = format!("w{}-", rng.random_range(0..WORKERS));
        routing(api_version, &user_key(&name, rng.random_range(0..KEYS)))
    };
    let disturbance = Disturbance {
        merges: true,
        kept_bound: Some(routing(api_version, AFTER_ALL)),
        ..Disturbance::default()
    };
    let rt = br_rt::Rt::real();
    let disturbed = async {
        disturbance
            .run(&rt, &site.embedded, seed, split_key, &stop)
            .await
            .unwrap()
    };
    let (model, disturbed) = futures::join!(workers, disturbed);
    println!(
        "{} keys, {disturbed:?}, {} regions",
        model.len(),
        site.embedded.regions().len()
    );
    assert!(model.len() > 10 && disturbed.splits + disturbed.transfers > 0);
    let everything = || Vec::new()..AFTER_ALL.to_vec();
    let all = client.scan(everything(), 10_000).await.unwrap();
    assert!(all.into_iter().map(pair).eq(model));
    client.delete_range(..).await.unwrap();
    assert_eq!(client.scan_keys(everything(), 10_000).await.unwrap(), []);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backward_scans_within_a_region() {
    for api_version in [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2] {
        let (site, client) = start(api_version, options()).await;
        let pairs: Vec<_> = (0..KEYS)
            .map(|number| (user_key("b", number), vec![b'v'; number as usize]))
            .collect();
        client.batch_put(pairs.clone()).await.unwrap();
        for (from, to, limit) in [
            (0, KEYS, 2 * KEYS),
            (10, 70, 20),
            (30, 30, 5),
            (79, KEYS, 1),
        ] {
            let range = user_key("b", from)..user_key("b", to);
            let expected: Vec<_> = pairs[from as usize..to as usize]
                .iter()
                .rev()
                .take(limit as usize)
                .cloned()
                .collect();
            let found = client.scan_reverse(range.clone(), limit).await.unwrap();
            assert!(found.into_iter().map(pair).eq(expected.iter().cloned()));
            let keys = client.scan_keys_reverse(range, limit).await.unwrap();
            let keys = keys.into_iter().map(Vec::from);
            assert!(keys.eq(expected.into_iter().map(|(key, _)| key)));
        }
        site.stop().await;
    }
}

async fn start(api_version: ApiVersion, mut options: Options) -> (Site, RawClient) {
    options.api_version = api_version;
    let site = Site::start(options).await;
    let config = match api_version {
        ApiVersion::V2 => Config::default().with_default_keyspace(),
        ApiVersion::V1 | ApiVersion::V1Ttl => Config::default(),
    };
    let client = RawClient::new_with_config(vec![site.embedded.pd_addr()], config)
        .await
        .unwrap();
    let bound = routing(api_version, AFTER_ALL);
    site.embedded.split_at(&[bound]).unwrap();
    (site, client)
}

fn user_key(worker: &str, number: u32) -> Vec<u8> {
    format!("{worker}{number:04}").into_bytes()
}

/// A user's key as regions know it.
fn routing(api_version: ApiVersion, user: &[u8]) -> EncodedKey {
    match api_version {
        ApiVersion::V2 => key::encode(&[b"r\0\0\0", user].concat()),
        ApiVersion::V1 | ApiVersion::V1Ttl => EncodedKey::from(user),
    }
}

fn pair(pair: KvPair) -> (Vec<u8>, Vec<u8>) {
    let KvPair(key, value) = pair;
    (key.into(), value)
}

/// Works on its own keys, one command after the other.
struct Worker {
    client: RawClient,
    atomic: RawClient,
    has_ttl: bool,
    name: String,
    rng: StdRng,
    model: Pairs,
}

impl Worker {
    async fn run(mut self) -> Pairs {
        for step in 0..STEPS {
            if self.rng.random() {
                self.write(step).await;
            } else {
                self.read().await;
            }
        }
        self.model
    }

    fn key(&mut self) -> Vec<u8> {
        user_key(&self.name, self.rng.random_range(0..KEYS))
    }

    fn range(&mut self, width: u32) -> std::ops::Range<Vec<u8>> {
        let from = self.rng.random_range(0..KEYS);
        let to = from + self.rng.random_range(0..=width);
        user_key(&self.name, from)..user_key(&self.name, to)
    }

    fn value(&mut self, step: usize) -> Vec<u8> {
        let padding = self.rng.random_range(0..300);
        format!("{}{step}{}", self.name, "x".repeat(padding)).into_bytes()
    }

    async fn write(&mut self, step: usize) {
        let (key, value) = (self.key(), self.value(step));
        match self.rng.random_range(0..12) {
            0 => {
                self.client.delete(key.clone()).await.unwrap();
                self.model.remove(&key);
            }
            1 => {
                let keys: Vec<_> = (0..10).map(|_| self.key()).collect();
                self.client.batch_delete(keys.clone()).await.unwrap();
                self.model.retain(|key, _| !keys.contains(key));
            }
            2 => {
                let range = self.range(20);
                self.client.delete_range(range.clone()).await.unwrap();
                self.model.retain(|key, _| !range.contains(key));
            }
            3..6 => {
                let pairs: Pairs = (0..20).map(|_| (self.key(), value.clone())).collect();
                self.client.batch_put(pairs.clone()).await.unwrap();
                self.model.extend(pairs);
            }
            6..8 => self.compare_and_swap(key, value).await,
            8 if self.has_ttl => {
                let ttl = self.rng.random_range(3600..100_000);
                let put = self.client.put_with_ttl(key.clone(), value.clone(), ttl);
                put.await.unwrap();
                let left = self.client.get_key_ttl_secs(key.clone()).await.unwrap();
                assert!(left.is_some_and(|left| left <= ttl && left + 600 > ttl));
                self.model.insert(key, value);
            }
            _ => {
                self.client.put(key.clone(), value.clone()).await.unwrap();
                self.model.insert(key, value);
            }
        }
    }

    async fn compare_and_swap(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let held = self.model.get(&key).cloned();
        let guess = if self.rng.random_bool(0.7) {
            held.clone()
        } else {
            Some(b"something else".to_vec())
        };
        let swap = self
            .atomic
            .compare_and_swap(key.clone(), guess.clone(), value.clone());
        let (before, swapped) = swap.await.unwrap();
        assert_eq!((before, swapped), (held.clone(), held == guess));
        if swapped {
            self.model.insert(key, value);
        }
    }

    async fn read(&mut self) {
        let key = self.key();
        let range = self.range(KEYS);
        let limit = self.rng.random_range(1..2 * KEYS);
        let held = self.model.range(range.clone());
        let held: Vec<_> = held.map(|(k, v)| (k.clone(), v.clone())).collect();
        let forth = held.iter().take(limit as usize);
        match self.rng.random_range(0..5) {
            0 => {
                let found = self.client.get(key.clone()).await.unwrap();
                assert_eq!(found.as_ref(), self.model.get(&key));
            }
            1 => {
                let keys: Vec<_> = (0..15).map(|_| self.key()).collect();
                let found = self.client.batch_get(keys.clone()).await.unwrap();
                let found: Pairs = found.into_iter().map(pair).collect();
                let mut expected = self.model.clone();
                expected.retain(|key, _| keys.contains(key));
                assert_eq!(found, expected);
            }
            2 => {
                let found = self.client.scan(range, limit).await.unwrap();
                let found: Vec<_> = found.into_iter().map(pair).collect();
                assert!(found.iter().eq(forth), "{} of {}", found.len(), held.len());
            }
            3 => {
                let found = self.client.scan_keys(range, limit).await.unwrap();
                let found: Vec<Vec<u8>> = found.into_iter().map(Vec::from).collect();
                assert!(found.iter().eq(forth.map(|(key, _)| key)));
            }
            _ => {
                // The limit is one of each region; without effect here, so that all is certain.
                let found = self.client.batch_scan([range], 2 * KEYS).await.unwrap();
                assert_eq!(found.into_iter().map(pair).collect::<Vec<_>>(), held);
            }
        }
    }
}
