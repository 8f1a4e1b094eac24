//! The duplex stream on which TiDB sends nearly everything.

use br_codec::{ApiVersion, key};
use br_embed::Cluster;
use br_proto::{
    kvrpcpb,
    tikvpb::{
        BatchCommandsEmptyRequest, BatchCommandsRequest,
        batch_commands_request::{Request, request::Cmd},
        batch_commands_response::response::Cmd as Answer,
    },
};
use futures::StreamExt;

use crate::client::{Client, options};

/// Commands under ids from `first_id` on, in one message.
fn message(first_id: u64, commands: Vec<Cmd>) -> BatchCommandsRequest {
    let ids = first_id..first_id + commands.len() as u64;
    BatchCommandsRequest {
        request_ids: ids.collect(),
        requests: commands
            .into_iter()
            .map(|command| Request { cmd: Some(command) })
            .collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn commands_of_one_stream_are_answered_under_their_ids() {
    let cluster = Cluster::start(options(None, ApiVersion::V1)).await.unwrap();
    let mut client = Client::connect(&cluster).await;
    client.txn_put("a", "old").await;
    let (mut store, context) = client.route(key::encode(b"a").into_bytes()).await;
    let holder = client.tso().await;
    let lock = |start_version, wait_timeout| kvrpcpb::PessimisticLockRequest {
        context: Some(context.clone()),
        mutations: vec![kvrpcpb::Mutation {
            op: kvrpcpb::Op::PessimisticLock.into(),
            key: b"a".to_vec(),
            ..Default::default()
        }],
        primary_lock: b"a".to_vec(),
        start_version,
        for_update_ts: start_version,
        lock_ttl: 60_000,
        wait_timeout,
        ..Default::default()
    };
    let answer = store.kv_pessimistic_lock(lock(holder, -1)).await.unwrap();
    assert_eq!(answer.into_inner().errors, []);

    let waiter = client.tso().await;
    let get = kvrpcpb::GetRequest {
        context: Some(context.clone()),
        key: b"a".to_vec(),
        version: waiter,
        ..Default::default()
    };
    let elsewhere = kvrpcpb::GetRequest {
        context: Some(kvrpcpb::Context {
            region_id: 999,
            ..context.clone()
        }),
        ..get.clone()
    };
    let scan = kvrpcpb::ScanRequest {
        context: Some(context.clone()),
        limit: 10,
        version: waiter,
        ..Default::default()
    };
    let empty = BatchCommandsEmptyRequest {
        test_id: 7,
        ..Default::default()
    };
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    // The first one waits for a lock, and holds nobody up.
    let first = message(
        1,
        vec![
            Cmd::PessimisticLock(lock(waiter, 0)),
            Cmd::Get(get),
            Cmd::Get(elsewhere),
        ],
    );
    sender.send(first).await.unwrap();
    sender
        .send(message(10, vec![Cmd::Scan(scan), Cmd::Empty(empty)]))
        .await
        .unwrap();
    let answers = store.batch_commands(requests).await.unwrap().into_inner();
    let mut answers = answers.flat_map(|message| {
        let message = message.unwrap();
        assert_eq!(message.request_ids.len(), message.responses.len());
        let commands = message.responses.into_iter().map(|answer| answer.cmd);
        let pairs: Vec<_> = message.request_ids.into_iter().zip(commands).collect();
        futures::stream::iter(pairs)
    });
    let mut found = std::collections::BTreeMap::new();
    while found.len() < 4 {
        let (id, answer) = answers.next().await.unwrap();
        assert!(found.insert(id, answer.unwrap()).is_none());
    }
    let Some(Answer::Get(answer)) = found.remove(&2) else {
        panic!("{found:?}")
    };
    assert_eq!((answer.value, answer.error), (b"old".to_vec(), None));
    let Some(Answer::Get(answer)) = found.remove(&3) else {
        panic!("{found:?}")
    };
    assert!(answer.region_error.unwrap().region_not_found.is_some());
    let Some(Answer::Scan(answer)) = found.remove(&10) else {
        panic!("{found:?}")
    };
    assert_eq!(
        (answer.pairs.len(), &answer.pairs[0].value[..]),
        (1, &b"old"[..])
    );
    assert!(matches!(found.remove(&11), Some(Answer::Empty(empty)) if empty.test_id == 7));

    let rollback = kvrpcpb::PessimisticRollbackRequest {
        context: Some(context),
        start_version: holder,
        for_update_ts: holder,
        keys: vec![b"a".to_vec()],
    };
    sender
        .send(message(20, vec![Cmd::PessimisticRollback(rollback)]))
        .await
        .unwrap();
    drop(sender);
    let mut rest: Vec<_> = answers.collect().await;
    rest.sort_by_key(|(id, _)| *id);
    let [
        (1, Some(Answer::PessimisticLock(locked))),
        (20, Some(Answer::PessimisticRollback(gone))),
    ] = &rest[..]
    else {
        panic!("{rest:?}")
    };
    assert_eq!((&locked.errors[..], &gone.errors[..]), (&[][..], &[][..]));
    cluster.stop().await;
}
