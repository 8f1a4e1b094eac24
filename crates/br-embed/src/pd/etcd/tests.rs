use std::time::Duration;

use br_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::event::EventType,
};

use super::*;
use crate::pd::{meta_kv::MemoryKv, simulate};

fn with_etcd(run: impl AsyncFnOnce(Rt, Arc<Etcd>)) {
    simulate(1_000, async |rt| {
        let etcd = Etcd::open(rt.clone(), Arc::new(MemoryKv::default())).unwrap();
        run(rt, Arc::new(etcd)).await;
    });
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        prev_kv: true,
        ..Default::default()
    }
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    }
}

fn keys(etcd: &Etcd, request: &RangeRequest) -> Vec<String> {
    let kvs = etcd.range(request).unwrap().kvs;
    kvs.into_iter()
        .map(|kv| String::from_utf8(kv.key).unwrap())
        .collect()
}

fn spec(key: &str, end: &str, start_revision: i64) -> WatchSpec {
    WatchSpec {
        span: KeySpan::new(key.as_bytes(), end.as_bytes()),
        start_revision,
        prev_kv: true,
        no_put: false,
        no_delete: false,
    }
}

#[test]
fn revisions_and_versions_count_changes() {
    with_etcd(async |_, etcd| {
        assert_eq!(etcd.revision(), 1);
        etcd.put(put("a", "1", 0)).unwrap();
        let (second, revision) = etcd.put(put("a", "2", 0)).unwrap();
        assert_eq!(revision, 3);
        assert_eq!(second.prev_kv.unwrap().value, b"1");
        let kv = etcd.range(&range("a", "")).unwrap().kvs.remove(0);
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
        let none = DeleteRangeRequest {
            key: b"x".to_vec(),
            ..Default::default()
        };
        assert_eq!(
            etcd.delete_range(&none).unwrap().1,
            3,
            "removing nothing is no change"
        );
    });
}

#[test]
fn ranges_limit_sort_and_look_back() {
    with_etcd(async |_, etcd| {
        for (key, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
            etcd.put(put(key, value, 0)).unwrap();
        }
        assert_eq!(keys(&etcd, &range("a", "c")), ["a", "b"]);
        assert_eq!(keys(&etcd, &range("b", "\0")), ["b", "c"]);
        let mut request = range("a", "\0");
        request.limit = 2;
        let response = etcd.range(&request).unwrap();
        assert_eq!(
            (response.kvs.len(), response.more, response.count),
            (2, true, 3)
        );
        request.set_sort_target(SortTarget::Value);
        request.set_sort_order(SortOrder::Descend);
        assert_eq!(keys(&etcd, &request), ["a", "b"]);
        request.set_sort_order(SortOrder::Ascend);
        assert_eq!(keys(&etcd, &request), ["c", "b"]);

        etcd.delete_range(&DeleteRangeRequest {
            key: b"a".to_vec(),
            ..Default::default()
        })
        .unwrap();
        etcd.put(put("b", "9", 0)).unwrap();
        let mut old = range("a", "\0");
        old.revision = 4;
        let values: Vec<_> = etcd
            .range(&old)
            .unwrap()
            .kvs
            .into_iter()
            .map(|kv| kv.value)
            .collect();
        assert_eq!(values, [b"3", b"2", b"1"]);
        old.revision = 99;
        assert!(matches!(etcd.range(&old), Err(EtcdError::FutureRevision)));
        etcd.compact(5).unwrap();
        old.revision = 4;
        assert!(matches!(etcd.range(&old), Err(EtcdError::Compacted(5))));
        old.revision = 5;
        assert_eq!(keys(&etcd, &old), ["b", "c"]);
        assert!(matches!(etcd.compact(5), Err(EtcdError::Compacted(5))));
    });
}

fn create_if_absent(key: &str, value: &str) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key.into(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            range_end: Vec::new(),
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put(key, value, 0))),
        }],
        failure: vec![RequestOp {
            request: Some(Request::RequestRange(range(key, ""))),
        }],
    }
}

#[test]
fn a_transaction_compares_then_runs_one_branch() {
    with_etcd(async |_, etcd| {
        let (first, revision) = etcd.txn(create_if_absent("owner", "me")).unwrap();
        assert!(first.succeeded);
        assert_eq!(revision, 2);
        let (second, revision) = etcd.txn(create_if_absent("owner", "you")).unwrap();
        assert!(!second.succeeded);
        assert_eq!(revision, 2);
        let Some(Response::ResponseRange(found)) = &second.responses[0].response else {
            panic!("{second:?}")
        };
        assert_eq!(found.kvs[0].value, b"me");
    });
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    with_etcd(async |_, etcd| {
        let mut request = create_if_absent("a", "1");
        request.success.push(RequestOp {
            request: Some(Request::RequestPut(put("b", "1", 77))),
        });
        assert!(matches!(etcd.txn(request), Err(EtcdError::LeaseNotFound)));
        assert_eq!(keys(&etcd, &range("\0", "\0")), [""; 0]);
        assert_eq!(etcd.revision(), 1);

        let mut twice = create_if_absent("a", "1");
        twice.success.push(twice.success[0].clone());
        assert!(matches!(etcd.txn(twice), Err(EtcdError::DuplicateKey)));
    });
}

#[test]
fn a_lease_takes_its_keys_with_it() {
    with_etcd(async |rt, etcd| {
        let expiry = etcd.clone();
        let _task = rt.spawn(async move { expiry.expire_leases().await });
        let (id, ttl) = etcd.lease_grant(0, 10).unwrap();
        assert_eq!(ttl, 10);
        assert!(matches!(
            etcd.lease_grant(id, 10),
            Err(EtcdError::LeaseExists)
        ));
        etcd.put(put("leased", "x", id)).unwrap();
        etcd.put(put("moved", "x", id)).unwrap();
        etcd.put(put("moved", "x", 0)).unwrap();
        for _ in 0..5 {
            rt.sleep(Duration::from_secs(8)).await;
            assert_eq!(etcd.lease_keep_alive(id), 10);
        }
        assert_eq!(etcd.lease_info(id).unwrap().keys, [b"leased"]);
        rt.sleep(Duration::from_secs(11)).await;
        assert_eq!(keys(&etcd, &range("\0", "\0")), ["moved"]);
        assert_eq!(etcd.lease_keep_alive(id), 0);
        assert!(matches!(
            etcd.lease_revoke(id),
            Err(EtcdError::LeaseNotFound)
        ));
    });
}

#[test]
fn a_watch_tells_the_past_and_what_comes() {
    with_etcd(async |_, etcd| {
        etcd.put(put("a", "1", 0)).unwrap();
        etcd.put(put("z", "1", 0)).unwrap();
        etcd.put(put("a", "2", 0)).unwrap();
        let mut watch = etcd.watch(spec("a", "b", 2)).unwrap();
        etcd.delete_range(&DeleteRangeRequest {
            key: b"a".to_vec(),
            ..Default::default()
        })
        .unwrap();
        let past = watch.updates.recv().await.unwrap();
        let seen: Vec<_> = past.events.iter().map(revision_of).collect();
        assert_eq!(seen, [2, 4]);
        let removed = watch.updates.recv().await.unwrap();
        assert_eq!(removed.events[0].r#type(), EventType::Delete);
        assert_eq!(removed.events[0].prev_kv.as_ref().unwrap().value, b"2");
        etcd.compact(4).unwrap();
        assert!(matches!(
            etcd.watch(spec("a", "b", 3)),
            Err(EtcdError::Compacted(4))
        ));
    });
}

#[test]
fn a_watcher_that_does_not_read_is_cancelled() {
    with_etcd(async |_, etcd| {
        let mut watch = etcd.watch(spec("a", "b", 0)).unwrap();
        for number in 0..=watch::QUEUE_MAX {
            etcd.put(put("a", &number.to_string(), 0)).unwrap();
        }
        let mut got = 0;
        while watch.updates.recv().await.is_some() {
            got += 1;
        }
        assert_eq!(got, watch::QUEUE_MAX);
    });
}

#[test]
fn a_restart_keeps_keys_revisions_and_leases() {
    simulate(1_000, async |rt| {
        let kv: Arc<MemoryKv> = Arc::default();
        let etcd = Etcd::open(rt.clone(), kv.clone()).unwrap();
        let (id, _) = etcd.lease_grant(7, 30).unwrap();
        etcd.put(put("a", "1", id)).unwrap();
        etcd.put(put("b", "1", 0)).unwrap();
        etcd.delete_range(&DeleteRangeRequest {
            key: b"b".to_vec(),
            ..Default::default()
        })
        .unwrap();
        let before = etcd.range(&range("\0", "\0")).unwrap();
        let again = Etcd::open(rt, kv).unwrap();
        assert_eq!(again.range(&range("\0", "\0")).unwrap(), before);
        assert_eq!(again.revision(), 4);
        // The last change may not have reached a watcher: its past is gone, and it is told so.
        assert!(matches!(
            again.watch(spec("a", "", 4)),
            Err(EtcdError::Compacted(_))
        ));
        assert!(again.watch(spec("a", "", 5)).is_ok());
        assert_eq!(again.lease_revoke(id).unwrap(), 5);
        assert_eq!(again.range(&range("\0", "\0")).unwrap().count, 0);
    });
}
