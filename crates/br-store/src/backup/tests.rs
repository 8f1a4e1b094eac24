use std::collections::BTreeMap;

use br_codec::ApiVersion;
use br_proto::{
    backup::{
        BackupRequest, BackupResponse, CipherInfo, CompressionType, File, StorageBackend,
        error::Detail,
    },
    kvrpcpb,
};
use br_types::{EncodedKey, RegionId, TimeStamp};
use tokio::sync::mpsc;

use super::job::serve;
use crate::{
    context::{StoreConfig, StoreContext},
    testing::{Fixture, GOLDEN, Golden, Sums, local, simulate},
    topology::Topology,
};

/// Every answer to a request.
async fn backup(store: &StoreContext, request: BackupRequest) -> Vec<BackupResponse> {
    let (answers, mut stream) = mpsc::channel(1000);
    serve(store.clone(), request, answers).await;
    let mut all = Vec::new();
    while let Some(answer) = stream.recv().await {
        all.push(answer.unwrap());
    }
    all
}

fn request(target: &StorageBackend, backup_ts: TimeStamp) -> BackupRequest {
    BackupRequest {
        end_version: backup_ts.0,
        storage_backend: Some(target.clone()),
        compression_type: CompressionType::Zstd.into(),
        ..Default::default()
    }
}

/// The answers' ranges in order, each joined to the next where they touch.
fn covered(answers: &[BackupResponse]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut ranges: Vec<_> = answers
        .iter()
        .map(|answer| (answer.start_key.clone(), answer.end_key.clone()))
        .collect();
    ranges.sort();
    let mut joined: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}

fn files(answers: Vec<BackupResponse>) -> Vec<File> {
    answers
        .into_iter()
        .flat_map(|answer| {
            assert_eq!(answer.error, None);
            answer.files
        })
        .collect()
}

/// What the official tool backed up comes back from our store with the same sums: restored, backed
/// up again in many small encrypted files from split regions, restored again.
#[test]
fn golden_data_survives_restore_backup_and_restore() {
    simulate(async |rt| {
        let golden = Golden::open(&format!("{GOLDEN}/full"));
        let mut fixture = Fixture::new(&rt, ApiVersion::V1);
        golden.restore(&fixture, 0).await;
        fixture.store.config = StoreConfig {
            backup_sst_bytes_max: 50_000,
            ..Default::default()
        }
        .into();
        let split: Vec<EncodedKey> = golden
            .tables
            .keys()
            .map(|id| br_codec::key::encode(&crate::testing::table_prefix(*id)))
            .collect();
        fixture.topology.split(RegionId(2), 1, &split).unwrap();

        let target = fixture.dir.path().join("again");
        std::fs::create_dir(&target).unwrap();
        let cipher = CipherInfo {
            cipher_type: 4,
            cipher_key: vec![7; 32],
        };
        let request = BackupRequest {
            cipher_info: Some(cipher.clone()),
            ..request(&local(&target), golden.backup_ts)
        };
        let answers = backup(&fixture.store, request).await;
        assert_eq!(covered(&answers), [(vec![], vec![])]);
        let again = Golden::new(target, files(answers), golden.backup_ts, Some(cipher));
        assert!(again.files.len() > golden.files.len());
        assert_eq!(again.sums(), golden.sums());

        let other = Fixture::new(&rt, ApiVersion::V1);
        again.restore(&other, 1000).await;
        for (id, sums) in golden.sums() {
            assert_eq!(
                Golden::checksum(&other, id, 1000, golden.backup_ts).await,
                sums,
                "{id}"
            );
        }
    });
}

#[test]
fn other_stores_regions_are_skipped_and_empty_ones_answered() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let key = br_codec::key::encode(b"m");
        fixture.topology.split(RegionId(2), 1, &[key]).unwrap();
        fixture
            .topology
            .move_leader(RegionId(2), br_types::StoreId(2));
        let target = local(fixture.dir.path());
        let answers = backup(&fixture.store, request(&target, TimeStamp(5000))).await;
        assert_eq!(covered(&answers), [(vec![], b"m".to_vec())]);
        assert!(
            answers
                .iter()
                .all(|answer| answer.files.is_empty() && answer.error.is_none())
        );
    });
}

#[test]
fn a_lock_is_answered_without_a_range() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let prewrite = kvrpcpb::PrewriteRequest {
            mutations: vec![kvrpcpb::Mutation {
                key: b"k".to_vec(),
                ..Default::default()
            }],
            primary_lock: b"k".to_vec(),
            start_version: 50,
            lock_ttl: 3000,
            ..Default::default()
        };
        fixture.store.storage.prewrite(prewrite).await;
        let target = local(fixture.dir.path());
        let answers = backup(&fixture.store, request(&target, TimeStamp(100))).await;
        let [answer] = &answers[..] else {
            panic!("{answers:?}")
        };
        let error = answer.error.clone().unwrap();
        let Some(Detail::KvError(error)) = error.detail else {
            panic!("{error:?}")
        };
        assert_eq!(error.locked.unwrap().lock_version, 50);
        assert_eq!(
            (&answer.start_key[..], &answer.end_key[..]),
            (&b""[..], &b""[..])
        );
        // Below the lock, and for one who knows that the transaction is not committed below.
        let answers = backup(&fixture.store, request(&target, TimeStamp(49))).await;
        assert_eq!(covered(&answers).len(), 1);
        let context = kvrpcpb::Context {
            resolved_locks: vec![50],
            ..Default::default()
        };
        let known = BackupRequest {
            context: Some(context),
            ..request(&target, TimeStamp(100))
        };
        let answers = backup(&fixture.store, known).await;
        assert_eq!((answers.len(), &answers[0].error), (1, &None));
    });
}

#[test]
fn requests_that_cannot_be_served_are_answered_with_a_text() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let text = async |request: BackupRequest| {
            let answers = backup(&fixture.store, request).await;
            assert_eq!(answers.len(), 1);
            answers[0].error.clone().unwrap().msg
        };
        let missing = local(&fixture.dir.path().join("missing"));
        // The official tool looks for these words.
        let msg = text(request(&missing, TimeStamp(1))).await.to_lowercase();
        assert!(msg.contains("io") && msg.contains("notfound"), "{msg}");
        let target = local(fixture.dir.path());
        let version = BackupRequest {
            is_raw_kv: true,
            dst_api_version: 1,
            ..request(&target, TimeStamp(0))
        };
        assert!(text(version).await.contains("invalid backup version"));
        let (answers, mut stream) = mpsc::channel(10);
        let unknown = BackupRequest {
            cf: "raft".into(),
            ..request(&target, TimeStamp(1))
        };
        serve(fixture.store.clone(), unknown, answers).await;
        assert_eq!(
            stream.recv().await.unwrap().unwrap_err().code(),
            tonic::Code::Unknown
        );
    });
}

#[test]
fn raw_data_goes_out_as_it_is_or_in_the_form_of_v2() {
    let put = |key: &[u8], ttl| kvrpcpb::RawPutRequest {
        key: key.to_vec(),
        value: b"value".to_vec(),
        ttl,
        ..Default::default()
    };
    for (api_version, wanted, start) in [
        (ApiVersion::V1Ttl, ApiVersion::V1Ttl, &b"a"[..]),
        (ApiVersion::V1Ttl, ApiVersion::V2, &b"a"[..]),
        (ApiVersion::V2, ApiVersion::V2, &b"r\0\0\0a"[..]),
    ] {
        simulate(async |rt| {
            let fixture = Fixture::new(&rt, api_version);
            let prefix = &start[..start.len() - 1];
            for (key, ttl) in [(&b"b"[..], 0), (b"c", 100), (b"d", 5)] {
                let answer = fixture
                    .store
                    .storage
                    .raw_put(put(&[prefix, key].concat(), ttl))
                    .await;
                assert_eq!(answer.error, "");
            }
            rt.sleep(std::time::Duration::from_secs(10)).await;
            let target = local(fixture.dir.path());
            let request = BackupRequest {
                is_raw_kv: true,
                dst_api_version: wanted as i32,
                start_key: start.to_vec(),
                end_key: [prefix, b"z"].concat(),
                ..request(&target, TimeStamp(0))
            };
            let answers = backup(&fixture.store, request).await;
            assert_eq!(answers[0].start_key, start);
            assert_eq!(answers[0].api_version, wanted as i32);
            let files = files(answers);
            let [file] = &files[..] else {
                panic!("{files:?}")
            };
            // The third key has expired. Of V2 the prefix of keys counts, flags and expiry never do.
            let key_len = if wanted == ApiVersion::V2 { 5 } else { 1 };
            assert_eq!((file.total_kvs, file.total_bytes), (2, 2 * (key_len + 5)));
            let start_in_file = if wanted == ApiVersion::V2 {
                &b"r\0\0\0a"[..]
            } else {
                b"a"
            };
            assert_eq!((&file.start_key[..], file.end_version), (start_in_file, 0));
        });
    }
}

/// Sums of each table over files.
pub(crate) fn sums_of(files: &[File]) -> BTreeMap<i64, Sums> {
    let mut all: BTreeMap<i64, Sums> = BTreeMap::new();
    for file in files.iter().filter(|file| file.total_kvs > 0) {
        let sums = all
            .entry(crate::testing::table_of(&file.start_key).unwrap())
            .or_default();
        sums.crc64xor ^= file.crc64xor;
        sums.kvs += file.total_kvs;
        sums.bytes += file.total_bytes;
    }
    all
}
