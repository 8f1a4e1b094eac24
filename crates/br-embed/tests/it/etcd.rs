//! etcd on PD's port: keys, watches, leases, transactions.

use br_codec::ApiVersion;
use br_embed::Cluster;
use br_proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    lease_client::LeaseClient,
    request_op::Request,
    watch_client::WatchClient,
    watch_request::RequestUnion,
};

use crate::client::options;

#[tokio::test]
async fn etcd_answers_and_watches_on_pds_port() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let url = format!("http://{}", cluster.pd_addr());
    let mut kv = KvClient::connect(url.clone()).await.unwrap();
    let mut watch = WatchClient::connect(url).await.unwrap();
    let create = WatchCreateRequest {
        key: b"/tidb/".to_vec(),
        range_end: b"/tidb0".to_vec(),
        ..Default::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(create).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut events = watch.watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);
    let put = PutRequest {
        key: b"/tidb/ddl/global_schema_version".to_vec(),
        value: b"7".to_vec(),
        ..Default::default()
    };
    let revision = kv
        .put(put.clone())
        .await
        .unwrap()
        .into_inner()
        .header
        .unwrap()
        .revision;
    let seen = events.message().await.unwrap().unwrap();
    let pair = seen.events[0].kv.clone().unwrap();
    assert_eq!((pair.value, pair.mod_revision), (b"7".to_vec(), revision));
    let range = RangeRequest {
        key: put.key,
        ..Default::default()
    };
    let found = kv.range(range).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, b"7");
    cluster.stop().await;
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        ..Default::default()
    }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn keys_go_with_their_lease_and_watchers_learn_of_it() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let url = format!("http://{}", cluster.pd_addr());
    let mut kv = KvClient::connect(url.clone()).await.unwrap();
    let mut leases = LeaseClient::connect(url.clone()).await.unwrap();
    let grant = LeaseGrantRequest { ttl: 600, id: 0 };
    let lease = leases.lease_grant(grant).await.unwrap().into_inner();
    assert_eq!((lease.ttl, lease.error.as_str()), (600, ""));
    let alive = LeaseKeepAliveRequest { id: lease.id };
    let alive = leases.lease_keep_alive(futures::stream::iter([alive]));
    let mut alive = alive.await.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 600);

    let first = kv.put(put("/owner", "me", lease.id)).await.unwrap();
    let revision = first.into_inner().header.unwrap().revision;
    let unknown = kv.put(put("/owner", "you", lease.id ^ 1)).await;
    assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
    let asked = LeaseTimeToLiveRequest {
        id: lease.id,
        keys: true,
    };
    let held = leases.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!(
        (held.granted_ttl, held.keys),
        (600, vec![b"/owner".to_vec()])
    );

    // From the past on: the put that was, and then the end.
    let create = WatchCreateRequest {
        key: b"/owner".to_vec(),
        start_revision: revision,
        prev_kv: true,
        ..Default::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let mut watch = WatchClient::connect(url).await.unwrap();
    let requests =
        futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
    let mut events = watch.watch(requests).await.unwrap().into_inner();
    let revoke = LeaseRevokeRequest { id: lease.id };
    leases.lease_revoke(revoke).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(events.message().await.unwrap().unwrap().events);
    }
    let value = |at: usize| seen[at].kv.as_ref().unwrap().value.as_slice();
    assert_eq!((seen[0].r#type, value(0)), (0, &b"me"[..]));
    assert_eq!((seen[1].r#type, value(1)), (1, &b""[..]));
    assert_eq!(seen[1].prev_kv.as_ref().unwrap().value, b"me");
    assert_eq!(kv.range(get("/owner")).await.unwrap().into_inner().count, 0);
    let alive = LeaseKeepAliveRequest { id: lease.id };
    let alive = leases.lease_keep_alive(futures::stream::iter([alive]));
    let mut alive = alive.await.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_transaction_does_what_its_comparison_says() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let url = format!("http://{}", cluster.pd_addr());
    let mut kv = KvClient::connect(url).await.unwrap();
    // How a campaign works: whoever creates the key wins, the others see who it was.
    let campaign = |name: &str| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: b"/leader".to_vec(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put("/leader", name, 0))),
        }],
        failure: vec![RequestOp {
            request: Some(Request::RequestRange(get("/leader"))),
        }],
    };
    let won = kv.txn(campaign("a")).await.unwrap().into_inner();
    assert!(won.succeeded);
    let lost = kv.txn(campaign("b")).await.unwrap().into_inner();
    assert!(!lost.succeeded);
    assert_eq!(lost.header.unwrap().revision, won.header.unwrap().revision);
    let found = kv.range(get("/leader")).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].value, b"a");
    assert_eq!((found.kvs[0].version, found.count), (1, 1));
    cluster.stop().await;
}
