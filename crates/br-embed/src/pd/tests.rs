use std::time::Duration;

use br_proto::pdpb::{self as pb, ErrorType, pd_server::Pd as _};
use meta_kv::MemoryKv;
use stores::StoreRecord;
use tonic::Request;

use super::{grpc::PdService, *};

/// A PD with three stores, all up, and one region.
fn pd_on(rt: &Rt, kv: Arc<MemoryKv>) -> Arc<Pd> {
    let pd = Pd::open(rt.clone(), kv, Arc::new(()), REPLICAS).unwrap();
    for id in 1..=3 {
        pd.stores.put(StoreId(id), StoreRecord::default()).unwrap();
        pd.store_up(StoreId(id));
    }
    pd.bootstrap().unwrap();
    Arc::new(pd)
}

fn key(text: &str) -> EncodedKey {
    EncodedKey::from(text.as_bytes())
}

fn split(pd: &Pd, keys: &[&str]) -> Vec<RegionState> {
    for name in keys {
        let state = pd.regions.find(&key(name)).unwrap();
        let version = state.region.region_epoch.unwrap().version;
        pd.regions.split(state.id(), version, &[key(name)]).unwrap();
    }
    pd.regions.all()
}

fn request_header(pd: &Pd) -> Option<pb::RequestHeader> {
    Some(pb::RequestHeader {
        cluster_id: pd.cluster_id.0,
        ..Default::default()
    })
}

#[test]
fn a_restart_is_the_same_cluster() {
    simulate(1_795_249_703_000, async |rt| {
        let kv: Arc<MemoryKv> = Arc::default();
        let pd = pd_on(&rt, kv.clone());
        assert_eq!(pd.cluster_id.0 >> 32, 1_795_249_703);
        split(&pd, &["g", "p"]);
        pd.regions
            .transfer_leader(pd.regions.all()[1].id(), StoreId(3))
            .unwrap();
        let again = pd_on(&rt, kv);
        assert_eq!(again.cluster_id, pd.cluster_id);
        assert_eq!(again.member_id, pd.member_id);
        assert_eq!(again.regions.all(), pd.regions.all());
    });
}

#[test]
fn a_failed_store_loses_its_leaders_evenly_and_gets_some_back() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        let names: Vec<_> = ('a'..='t').map(String::from).collect();
        split(&pd, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let leader = pd.regions.all()[0].leader_store();
        assert_eq!(pd.store_down(leader).unwrap(), 21);
        let counts = pd.regions.store_counts();
        assert_eq!(counts[&leader].0, 0);
        assert!(
            counts
                .values()
                .all(|(leaders, _)| [0, 10, 11].contains(leaders)),
            "{counts:?}"
        );
        assert!(!pd.is_up(leader));

        pd.store_up(leader);
        let background = rt.spawn(balance::run(pd.clone()));
        rt.sleep(Duration::from_secs(20)).await;
        drop(background);
        assert!(pd.regions.store_counts()[&leader].0 >= 6);
    });
}

#[test]
fn new_regions_of_a_split_for_space_are_spread_unless_leaders_must_stay() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        let spread = |bounds: &[&str]| {
            let state = pd.regions.find(&key(bounds[0])).unwrap();
            let version = state.region.region_epoch.unwrap().version;
            let keys: Vec<_> = bounds.iter().map(|name| key(name)).collect();
            let parts = pd.split_and_spread(state.id(), version, &keys).unwrap();
            assert_eq!(parts.last().unwrap().leader, state.leader);
            pd.regions.store_counts()
        };
        let counts = spread(&["b", "c", "d", "e", "f"]);
        assert!(
            counts.values().all(|(leaders, _)| *leaders == 2),
            "{counts:?}"
        );
        assert_eq!(balance::round(&pd).unwrap(), 0);
        pd.schedulers
            .pause(schedulers::BALANCE_LEADER, Duration::from_secs(60))
            .unwrap();
        let held = pd.regions.find(&key("x")).unwrap().leader_store();
        let counts = spread(&["x", "y", "z"]);
        assert_eq!(counts[&held].0, 5);
    });
}

#[test]
fn balancing_respects_pauses_settings_and_labels() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        split(&pd, &["b", "d", "f", "h", "j", "l", "n", "p"]);
        pd.schedulers
            .pause(schedulers::BALANCE_LEADER, Duration::from_secs(60))
            .unwrap();
        assert_eq!(balance::round(&pd).unwrap(), 0);
        pd.schedulers.pause("all", Duration::ZERO).unwrap();

        let none = serde_json::json!({ "schedule.leader-schedule-limit": 0 });
        let none = none.as_object().cloned().unwrap();
        pd.config
            .set_temporary(&none, Duration::from_secs(60))
            .unwrap();
        assert_eq!(balance::round(&pd).unwrap(), 0);
        pd.config.set_temporary(&none, Duration::ZERO).unwrap();

        let everywhere = serde_json::json!({ "sets": [{
            "id": "x", "rule_type": "key-range",
            "labels": [{ "key": "schedule", "value": "deny", "ttl": "1m" }],
            "data": [{ "start_key": "", "end_key": "" }],
        }]});
        pd.labels
            .patch(serde_json::from_value(everywhere).unwrap())
            .unwrap();
        assert_eq!(balance::round(&pd).unwrap(), 0);
        rt.sleep(Duration::from_secs(61)).await;
        assert_eq!(balance::round(&pd).unwrap(), 4);
    });
}

#[test]
fn requests_for_another_cluster_are_refused() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        let service = PdService(pd.clone());
        let wrong = pb::GetAllStoresRequest::default();
        let status = service
            .get_all_stores(Request::new(wrong))
            .await
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().starts_with("mismatch cluster id, need"));
        assert!(
            service
                .get_members(Request::new(pb::GetMembersRequest::default()))
                .await
                .is_ok()
        );
    });
}

#[test]
fn lookups_answer_as_clients_expect() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        split(&pd, &["g", "p"]);
        let service = PdService(pd.clone());
        let scan = pb::BatchScanRegionsRequest {
            header: request_header(&pd),
            ranges: vec![
                pb::KeyRange {
                    start_key: b"a".to_vec(),
                    end_key: b"b".to_vec(),
                },
                pb::KeyRange {
                    start_key: b"c".to_vec(),
                    end_key: b"h".to_vec(),
                },
            ],
            contain_all_key_range: true,
            ..Default::default()
        };
        let found = service
            .batch_scan_regions(Request::new(scan.clone()))
            .await
            .unwrap();
        assert_eq!(found.get_ref().regions.len(), 2);
        let mut unsorted = scan;
        unsorted.ranges.reverse();
        let refused = service
            .batch_scan_regions(Request::new(unsorted))
            .await
            .unwrap();
        assert!(refused.into_inner().header.unwrap().error.is_some());

        let missing = pb::GetRegionByIdRequest {
            header: request_header(&pd),
            region_id: 9999,
            ..Default::default()
        };
        let answer = service
            .get_region_by_id(Request::new(missing))
            .await
            .unwrap()
            .into_inner();
        assert_eq!((answer.region, answer.header.unwrap().error), (None, None));

        pd.store_down(StoreId(2)).unwrap();
        rt.sleep(Duration::from_secs(42)).await;
        let ask = pb::GetRegionRequest {
            header: request_header(&pd),
            region_key: b"h".to_vec(),
            ..Default::default()
        };
        let answer = service
            .get_prev_region(Request::new(ask))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.region.unwrap().end_key, b"g");
        assert_eq!(answer.down_peers[0].down_seconds, 42);
    });
}

#[test]
fn scatter_is_done_at_once_and_leaves_an_operator() {
    simulate(1_000, async |rt| {
        let pd = pd_on(&rt, Arc::default());
        let ids: Vec<_> = split(&pd, &["b", "d", "f"])
            .iter()
            .map(|s| s.region.id)
            .collect();
        let service = PdService(pd.clone());
        let request = pb::ScatterRegionRequest {
            header: request_header(&pd),
            regions_id: ids.iter().copied().chain([424_242]).collect(),
            skip_store_limit: true,
            ..Default::default()
        };
        let done = service
            .scatter_region(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (done.finished_percentage, done.failed_regions_id),
            (80, vec![424_242])
        );
        let operator = async |region_id| {
            let header = request_header(&pd);
            let request = pb::GetOperatorRequest { header, region_id };
            service
                .get_operator(Request::new(request))
                .await
                .unwrap()
                .into_inner()
        };
        let known = operator(ids[0]).await;
        assert_eq!(known.desc, b"scatter-region");
        assert_eq!(known.status(), pb::OperatorStatus::Success);
        let unknown = operator(424_242).await.header.unwrap().error.unwrap();
        assert_eq!(unknown.r#type(), ErrorType::RegionNotFound);
    });
}
