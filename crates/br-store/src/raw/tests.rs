use std::{future::Future, sync::Arc, time::Duration};

use br_codec::{ApiVersion, checksum::crc64_of_pair};
use br_proto::kvrpcpb::{
    self, KvPair, RawBatchPutRequest, RawBatchScanRequest, RawCasRequest, RawChecksumRequest,
    RawDeleteRangeRequest, RawDeleteRequest, RawGetKeyTtlRequest, RawGetRequest, RawPutRequest,
    RawScanRequest,
};
use br_rt::{Rt, UnixMillis};
use br_types::KeyRange;

use crate::{engine::memory::MemoryEngine, storage::Storage, testing::FakeTopology};

const ALL: [ApiVersion; 3] = [ApiVersion::V1, ApiVersion::V1Ttl, ApiVersion::V2];

fn simulate<F: Future<Output = ()>>(version: ApiVersion, test: impl FnOnce(Storage, Rt) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let rt = Rt::simulated(1, UnixMillis(1_000_000));
        let engine = Arc::new(MemoryEngine::new("unused"));
        let storage = Storage::new(rt.clone(), engine, Arc::new(FakeTopology::new()), version);
        test(storage, rt).await;
    });
}

/// A key that is good in every version.
fn key(name: &str) -> Vec<u8> {
    [b"r\0\0\0", name.as_bytes()].concat()
}

async fn put(storage: &Storage, name: &str, value: &str, ttl: u64) -> String {
    let request = RawPutRequest {
        key: key(name),
        value: value.into(),
        ttl,
        ..Default::default()
    };
    storage.raw_put(request).await.error
}

fn get(storage: &Storage, name: &str) -> Option<Vec<u8>> {
    let answer = storage.raw_get(&RawGetRequest {
        key: key(name),
        ..Default::default()
    });
    assert_eq!(answer.error, "");
    (!answer.not_found).then_some(answer.value)
}

fn scan(storage: &Storage, from: &str, to: &str, reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let request = RawScanRequest {
        start_key: key(from),
        end_key: key(to),
        limit: 100,
        reverse,
        ..Default::default()
    };
    pairs(storage.raw_scan(&request, &KeyRange::default()).kvs)
}

fn pairs(kvs: Vec<KvPair>) -> Vec<(Vec<u8>, Vec<u8>)> {
    kvs.into_iter()
        .map(|pair| {
            assert_eq!(pair.error, None);
            (pair.key, pair.value)
        })
        .collect()
}

fn pair(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (key(name), value.as_bytes().to_vec())
}

#[test]
fn put_get_scan_delete_in_every_version() {
    for version in ALL {
        simulate(version, async |storage, _| {
            for (name, value) in [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4")] {
                assert_eq!(put(&storage, name, value, 0).await, "");
            }
            // More versions than a scan steps over.
            for n in 0..20 {
                assert_eq!(put(&storage, "a", &n.to_string(), 0).await, "");
            }
            assert_eq!(get(&storage, "b"), Some(b"4".to_vec()));
            let all = vec![pair("a", "19"), pair("b", "4"), pair("c", "3")];
            assert_eq!(scan(&storage, "", "z", false), all, "{version:?}");
            assert_eq!(
                scan(&storage, "z", "", true),
                all.iter().rev().cloned().collect::<Vec<_>>()
            );
            assert_eq!(scan(&storage, "a", "b", false), all[..1]);
            assert_eq!(scan(&storage, "c", "b", true), all[1..2]);

            let delete = RawDeleteRequest {
                key: key("b"),
                ..Default::default()
            };
            assert_eq!(storage.raw_delete(delete).await.error, "");
            assert_eq!(get(&storage, "b"), None);
            assert_eq!(
                scan(&storage, "", "z", false),
                vec![pair("a", "19"), pair("c", "3")]
            );

            let ranges = vec![
                kvrpcpb::KeyRange {
                    start_key: key("a"),
                    end_key: vec![],
                },
                kvrpcpb::KeyRange {
                    start_key: key("c"),
                    end_key: key("z"),
                },
            ];
            let request = RawBatchScanRequest {
                ranges: ranges.clone(),
                each_limit: 10,
                ..Default::default()
            };
            let found = storage.raw_batch_scan(&request, &KeyRange::default()).kvs;
            assert_eq!(pairs(found), vec![pair("a", "19"), pair("c", "3")]);
            let request = RawChecksumRequest {
                ranges: vec![kvrpcpb::KeyRange {
                    start_key: key(""),
                    end_key: key("z"),
                }],
                ..Default::default()
            };
            let sum = storage.raw_checksum(&request, &KeyRange::default());
            let expected = crc64_of_pair(&key("a"), b"19") ^ crc64_of_pair(&key("c"), b"3");
            assert_eq!(
                (sum.checksum, sum.total_kvs, sum.total_bytes),
                (expected, 2, 13)
            );

            let request = RawDeleteRangeRequest {
                start_key: key("a"),
                end_key: key("c"),
                ..Default::default()
            };
            assert_eq!(
                storage
                    .raw_delete_range(request, KeyRange::default())
                    .await
                    .error,
                ""
            );
            assert_eq!(scan(&storage, "", "z", false), vec![pair("c", "3")]);
        });
    }
}

#[test]
fn values_expire() {
    for version in [ApiVersion::V1Ttl, ApiVersion::V2] {
        simulate(version, async |storage, rt| {
            assert_eq!(put(&storage, "a", "1", 10).await, "");
            assert_eq!(put(&storage, "b", "2", 0).await, "");
            let ttl = |name| {
                storage.raw_get_key_ttl(&RawGetKeyTtlRequest {
                    key: key(name),
                    ..Default::default()
                })
            };
            rt.sleep(Duration::from_secs(4)).await;
            assert_eq!(
                (ttl("a").ttl, ttl("b").ttl, ttl("c").not_found),
                (6, 0, true)
            );
            rt.sleep(Duration::from_secs(6)).await;
            assert_eq!(get(&storage, "a"), None);
            assert!(ttl("a").not_found);
            assert_eq!(scan(&storage, "", "z", false), vec![pair("b", "2")]);
        });
    }
    simulate(ApiVersion::V1, async |storage, _| {
        assert_ne!(put(&storage, "a", "1", 10).await, "");
    });
}

#[test]
fn compare_and_swap() {
    for version in ALL {
        simulate(version, async |storage, _| {
            let swap = async |previous: Option<&str>, value: &str, delete| {
                let request = RawCasRequest {
                    key: key("a"),
                    value: value.into(),
                    previous_not_exist: previous.is_none(),
                    previous_value: previous.unwrap_or_default().into(),
                    delete,
                    ..Default::default()
                };
                let answer = storage.raw_compare_and_swap(request).await;
                assert_eq!(answer.error, "");
                let found = (!answer.previous_not_exist).then_some(answer.previous_value);
                (answer.succeed, found)
            };
            assert_eq!(swap(None, "1", false).await, (true, None));
            assert_eq!(swap(None, "2", false).await, (false, Some(b"1".to_vec())));
            assert_eq!(
                swap(Some("1"), "2", false).await,
                (true, Some(b"1".to_vec()))
            );
            assert_eq!(swap(Some("2"), "", true).await, (true, Some(b"2".to_vec())));
            assert_eq!(get(&storage, "a"), None, "{version:?}");
        });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    simulate(ApiVersion::V2, async |storage, _| {
        let answer = storage.raw_get(&RawGetRequest {
            key: b"k".to_vec(),
            ..Default::default()
        });
        assert_ne!(answer.error, "");
        let request = RawGetRequest {
            key: key("a"),
            cf: "lock".into(),
            ..Default::default()
        };
        assert_ne!(storage.raw_get(&request).error, "");
        let request = RawBatchPutRequest {
            pairs: vec![
                KvPair {
                    key: key("a"),
                    ..Default::default()
                };
                3
            ],
            ttls: vec![1, 2],
            ..Default::default()
        };
        assert_ne!(storage.raw_batch_put(request).await.error, "");
    });
    simulate(ApiVersion::V1, async |storage, _| {
        let request = RawPutRequest {
            key: key("a"),
            cf: "lock".into(),
            ..Default::default()
        };
        assert_eq!(storage.raw_put(request).await.error, "");
        let request = RawGetRequest {
            key: key("a"),
            cf: "lock".into(),
            ..Default::default()
        };
        assert!(!storage.raw_get(&request).not_found);
        assert_eq!(get(&storage, "a"), None);
        let request = RawGetRequest {
            key: key("a"),
            cf: "x".into(),
            ..Default::default()
        };
        assert_ne!(storage.raw_get(&request).error, "");
    });
}
