use br_codec::ApiVersion;
use br_proto::{kvrpcpb, tikvpb::tikv_server::Tikv};
use br_types::{EncodedKey, RegionId};
use tonic::Request;

use super::kv::KvService;
use crate::testing::{Fixture, simulate};

const REGION: RegionId = RegionId(2);

async fn put(service: &KvService, fixture: &Fixture, key: &[u8], value: &[u8]) {
    let start_ts = crate::topology::Topology::tso(&*fixture.topology).0;
    let mutation = kvrpcpb::Mutation {
        key: key.to_vec(),
        value: value.to_vec(),
        ..Default::default()
    };
    let region =
        crate::topology::Topology::region_of(&*fixture.topology, &br_codec::key::encode(key));
    let context = Some(fixture.context(region.unwrap().id()));
    let prewrite = kvrpcpb::PrewriteRequest {
        context: context.clone(),
        mutations: vec![mutation],
        primary_lock: key.to_vec(),
        start_version: start_ts,
        lock_ttl: 3000,
        ..Default::default()
    };
    let answer = service
        .kv_prewrite(Request::new(prewrite))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.region_error, answer.errors), (None, vec![]));
    let commit = kvrpcpb::CommitRequest {
        context,
        start_version: start_ts,
        keys: vec![key.to_vec()],
        commit_version: crate::topology::Topology::tso(&*fixture.topology).0,
        ..Default::default()
    };
    let answer = service
        .kv_commit(Request::new(commit))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.region_error, answer.error), (None, None));
}

fn scan(fixture: &Fixture, region: RegionId, start: &[u8]) -> kvrpcpb::ScanRequest {
    kvrpcpb::ScanRequest {
        context: Some(fixture.context(region)),
        start_key: start.to_vec(),
        limit: 100,
        version: u64::MAX >> 1,
        ..Default::default()
    }
}

#[test]
fn commands_are_served_and_scans_end_with_the_region() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let service = KvService::new(fixture.store.clone());
        for key in [b"a", b"m", b"z"] {
            put(&service, &fixture, key, b"value").await;
        }
        let split = kvrpcpb::SplitRegionRequest {
            context: Some(fixture.context(REGION)),
            split_keys: vec![b"m".to_vec()],
            ..Default::default()
        };
        let answer = service
            .split_region(Request::new(split))
            .await
            .unwrap()
            .into_inner();
        let regions: Vec<u64> = answer.regions.iter().map(|region| region.id).collect();
        assert_eq!(regions, [110, 2]);
        let request = scan(&fixture, RegionId(110), b"");
        let answer = service
            .kv_scan(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        let keys: Vec<_> = answer.pairs.into_iter().map(|pair| pair.key).collect();
        assert_eq!(keys, [b"a"]);
        let request = scan(&fixture, REGION, b"m");
        let answer = service
            .kv_scan(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.pairs.len(), 2);
        let request = scan(&fixture, REGION, b"a");
        let answer = service
            .kv_scan(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert!(answer.region_error.unwrap().key_not_in_region.is_some());
    });
}

#[test]
fn impossible_splits_are_refused() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let service = KvService::new(fixture.store.clone());
        let mut context = fixture.context(REGION);
        let split = async |context: &kvrpcpb::Context, keys: &[&[u8]]| {
            let request = kvrpcpb::SplitRegionRequest {
                context: Some(context.clone()),
                split_keys: keys.iter().map(|key| key.to_vec()).collect(),
                ..Default::default()
            };
            service
                .split_region(Request::new(request))
                .await
                .unwrap()
                .into_inner()
        };
        let answer = split(&context, &[]).await;
        assert!(
            answer
                .region_error
                .unwrap()
                .message
                .contains("invalid split request")
        );
        let answer = split(&context, &[b"m", b"m"]).await;
        assert!(
            answer
                .region_error
                .unwrap()
                .message
                .contains("invalid split request")
        );
        assert_eq!(split(&context, &[b"m"]).await.regions.len(), 2);
        let answer = split(&context, &[b"p"]).await;
        assert!(answer.region_error.unwrap().epoch_not_match.is_some());
        context = fixture.context(REGION);
        let answer = split(&context, &[b"m"]).await;
        assert!(
            answer
                .region_error
                .unwrap()
                .message
                .contains("the region's start")
        );
        let answer = split(&context, &[b"a"]).await;
        assert!(answer.region_error.unwrap().key_not_in_region.is_some());
    });
}

#[test]
fn a_range_is_deleted_only_within_its_region() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let service = KvService::new(fixture.store.clone());
        put(&service, &fixture, b"a", b"1").await;
        put(&service, &fixture, b"z", b"2").await;
        let keys = [br_codec::key::encode(b"m")];
        crate::topology::Topology::split(&*fixture.topology, REGION, 1, &keys).unwrap();
        let delete = |end: &[u8]| kvrpcpb::DeleteRangeRequest {
            context: Some(fixture.context(RegionId(110))),
            start_key: b"a".to_vec(),
            end_key: end.to_vec(),
            ..Default::default()
        };
        let answer = service
            .kv_delete_range(Request::new(delete(b"zz")))
            .await
            .unwrap();
        assert!(
            answer
                .into_inner()
                .region_error
                .unwrap()
                .key_not_in_region
                .is_some()
        );
        let answer = service
            .kv_delete_range(Request::new(delete(b"m")))
            .await
            .unwrap();
        assert_eq!(answer.into_inner().region_error, None);
        let request = scan(&fixture, REGION, b"m");
        let answer = service
            .kv_scan(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.pairs.len(), 1);
        let request = scan(&fixture, RegionId(110), b"");
        let answer = service
            .kv_scan(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.pairs.len(), 0);
    });
}

#[test]
fn a_backward_raw_scan_begins_in_its_region() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let service = KvService::new(fixture.store.clone());
        let keys = [EncodedKey::from(&b"m"[..])];
        crate::topology::Topology::split(&*fixture.topology, REGION, 1, &keys).unwrap();
        let pair = |key: &[u8]| kvrpcpb::KvPair {
            key: key.to_vec(),
            value: b"value".to_vec(),
            ..Default::default()
        };
        for (region, key) in [(RegionId(110), b"a"), (REGION, b"n")] {
            let request = kvrpcpb::RawBatchPutRequest {
                context: Some(fixture.context(region)),
                pairs: vec![pair(key)],
                ..Default::default()
            };
            let answer = service.raw_batch_put(Request::new(request)).await.unwrap();
            assert_eq!(answer.into_inner().region_error, None);
        }
        let scan = async |region, upper: &[u8]| {
            let request = kvrpcpb::RawScanRequest {
                context: Some(fixture.context(region)),
                start_key: upper.to_vec(),
                limit: 10,
                reverse: true,
                ..Default::default()
            };
            let answer = service.raw_scan(Request::new(request)).await.unwrap();
            answer.into_inner()
        };
        let answer = scan(RegionId(110), b"n").await;
        assert!(answer.region_error.unwrap().key_not_in_region.is_some());
        for (region, upper, found) in [
            (RegionId(110), &b"m"[..], b"a"),
            (RegionId(110), b"", b"a"),
            (REGION, b"", b"n"),
            (REGION, b"z", b"n"),
        ] {
            let answer = scan(region, upper).await;
            assert_eq!((answer.region_error, answer.kvs), (None, vec![pair(found)]));
        }
    });
}
