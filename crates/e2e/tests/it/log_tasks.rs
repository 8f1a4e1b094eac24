//! Tasks of log backup on a cluster, and who coordinates them.

use std::time::Duration;

use br_format::log::metadata::{LogGroup, LogLayout, LogMeta};
use br_format::log::task::{END_TS_NONE, Pause, TaskEncryption, TaskKey, TaskName};
use br_log::{
    Operator,
    advancer::{AdvancerConfig, Election, SAFE_POINT_ID},
    read::LogStorage,
    status::{Holdup, StatusRequest, Word, status},
    task::{self, PauseRequest, StartRequest, TaskError, TaskStore},
};
use br_proto::kvrpcpb;
use br_rt::CancellationToken;
use br_storage::{SendCredentials, Storage};
use br_types::{Classify, Code, StoreId, TimeStamp};

use crate::site::{Place, Site, options};

async fn storage(site: &Site, place: &Place) -> Storage {
    Storage::create_base(site.cluster.rt(), &place.backend)
        .await
        .unwrap()
}

pub(crate) fn request(place: &Place, name: &str) -> StartRequest {
    StartRequest {
        name: TaskName::new(name).unwrap(),
        backend: place.backend.to_proto(SendCredentials::Yes).unwrap(),
        start_ts: None,
        end_ts: END_TS_NONE,
        gc_ttl: Duration::from_secs(1800),
        table_filter: vec!["*.*".into()],
        encryption: TaskEncryption::None,
    }
}

async fn code_of_start(site: &Site, place: &Place, request: StartRequest) -> Option<Code> {
    let storage = storage(site, place).await;
    let started = Box::pin(task::start(&site.cluster, &storage, request)).await;
    started.err().map(|error| error.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_started_paused_resumed_and_stopped() {
    let site = Site::start(options()).await;
    let place = Place::temporary();
    let tasks = TaskStore::new(site.cluster.etcd().clone());
    let who = Operator::this();
    let pause = |name| PauseRequest {
        name,
        gc_ttl: Duration::from_secs(60),
        message: "for a test",
        operator: &who,
    };

    let error = task::stop(&site.cluster, "a").await.err().unwrap();
    assert_eq!(error.code(), Code::TASK_NOT_FOUND);
    assert_eq!(
        code_of_start(&site, &place, request(&place, "a")).await,
        None
    );
    let again = code_of_start(&site, &Place::temporary(), request(&place, "b")).await;
    assert_eq!(again, Some(Code::STREAM_LOG_TASK_EXIST));
    let started = tasks.get("a").await.unwrap();
    let range = LogStorage::new(storage(&site, &place).await)
        .bounds()
        .await
        .unwrap();
    assert_eq!(range.min_ts, started.start_ts());
    assert_eq!(range.marker.cluster_id, site.cluster.id());

    assert!(
        tasks
            .raise_checkpoint(&started, TimeStamp(started.start_ts().0 + 5))
            .await
            .unwrap()
    );
    // Whoever read the task before does not set the checkpoint back.
    assert!(
        !tasks
            .raise_checkpoint(&started, started.start_ts())
            .await
            .unwrap()
    );

    task::pause(&site.cluster, &pause("a")).await.unwrap();
    let error = task::pause(&site.cluster, &pause("a")).await.err().unwrap();
    assert!(matches!(error, TaskError::PausedAlready { .. }), "{error}");
    let error = task::pause(&site.cluster, &pause("x")).await.err().unwrap();
    assert!(error.to_string().contains("there is a"), "{error}");
    let wanted = StatusRequest {
        name: "a",
        explain: false,
    };
    let shown = Box::pin(status(&site.cluster, &wanted)).await.unwrap();
    assert_eq!(shown[0].word(), Word::Pause);
    assert!(matches!(shown[0].task.pause, Some(Pause::V2(_))));

    task::resume(&site.cluster, "a").await.unwrap();
    let error = task::resume(&site.cluster, "a").await.err().unwrap();
    assert!(matches!(error, TaskError::NotPaused { .. }), "{error}");

    // Keys of a task whose name begins like this one's are nobody's business.
    let other = TaskKey::StorageCheckpoint(TaskName::new("ab").unwrap(), StoreId(1));
    let etcd = site.cluster.etcd();
    etcd.put(&other.to_bytes(), &[0; 8], None).await.unwrap();
    task::stop(&site.cluster, "a").await.unwrap();
    let left = etcd.get_prefix(b"/tidb/br-stream/").await.unwrap();
    let left: Vec<_> = left.kvs.into_iter().map(|kv| kv.key).collect();
    assert_eq!(left, [other.to_bytes()]);
    // A task that is gone gets no checkpoint.
    assert!(
        !tasks
            .raise_checkpoint(&started, TimeStamp(started.start_ts().0 + 9))
            .await
            .unwrap()
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_could_not_be_restored_from_are_refused() {
    let site = Site::start(options()).await;
    let place = Place::temporary();
    let now = site.now().await;

    let mut future = request(&place, "a");
    future.start_ts = Some(TimeStamp::compose(now.physical_ms() + 3_600_000, 0));
    assert_eq!(
        code_of_start(&site, &place, future).await,
        Some(Code::INVALID_ARGUMENT)
    );

    let etcd = site.cluster.etcd();
    etcd.put(b"/tidb/brie/import/restore/restore-1", b"x", None)
        .await
        .unwrap();
    let code = code_of_start(&site, &place, request(&place, "a")).await;
    assert_eq!(code, Some(Code::INVALID_ARGUMENT));
    etcd.delete(b"/tidb/brie/import/restore/restore-1")
        .await
        .unwrap();

    let mut filtered = request(&place, "a");
    filtered.table_filter = vec!["shop.*".into()];
    let code = code_of_start(&site, &place, filtered).await;
    assert_eq!(code, Some(Code::UNSUPPORTED_OPERATION));

    // A place that has something else.
    let full = "../../tests/golden/tidb-1/full";
    let full = Place::existing(full.into());
    let code = code_of_start(&site, &full, request(&full, "a")).await;
    assert_eq!(code, Some(Code::INVALID_ARGUMENT));
    let of_another = "../../tests/golden/tidb-1/log";
    let of_another = Place::existing(of_another.into());
    let code = code_of_start(&site, &of_another, request(&of_another, "a")).await;
    assert_eq!(code, Some(Code::INVALID_ARGUMENT));
    let remains = Place::temporary();
    storage(&site, &remains)
        .await
        .write("v1/backupmeta/x.meta", "x")
        .await
        .unwrap();
    let code = code_of_start(&site, &remains, request(&remains, "a")).await;
    assert_eq!(code, Some(Code::INVALID_ARGUMENT));
    assert!(
        TaskStore::new(etcd.clone())
            .load()
            .await
            .unwrap()
            .tasks
            .is_empty()
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_where_it_ended_or_not_at_all() {
    let site = Site::start(options()).await;
    let place = Place::temporary();
    let storage = storage(&site, &place).await;
    assert_eq!(
        code_of_start(&site, &place, request(&place, "a")).await,
        None
    );
    task::stop(&site.cluster, "a").await.unwrap();
    let checkpoint = site.now().await;
    let bytes = checkpoint.0.to_le_bytes().to_vec();
    storage
        .write("v1/global_checkpoint/9.ts", bytes)
        .await
        .unwrap();
    let mut later = request(&place, "b");
    later.start_ts = Some(site.now().await);
    let started = Box::pin(task::start(&site.cluster, &storage, later))
        .await
        .unwrap();
    assert_eq!(started.info.start_ts, checkpoint, "without a gap");
    assert!(started.continued.is_some());
    task::stop(&site.cluster, "b").await.unwrap();

    // Part of its end is gone.
    let lost = LogMeta {
        store: StoreId(1),
        resolved_ts: checkpoint,
        min_ts: checkpoint.prev(),
        max_ts: checkpoint,
        layout: LogLayout::V2,
        groups: vec![LogGroup {
            path: "v1/20260101/00/1/lost.log".into(),
            files: Vec::new(),
            min_ts: checkpoint.prev(),
            max_ts: checkpoint,
            min_resolved_ts: checkpoint,
            length: 5,
        }],
        seal: None,
    };
    let name = format!(
        "v1/backupmeta/{0:016X}0000000000000001-d{0:016X}l{0:016X}u{0:016X}p0000000000000000.meta",
        checkpoint.0
    );
    storage.write(&name, lost.encode()).await.unwrap();
    let code = code_of_start(&site, &place, request(&place, "b")).await;
    assert_eq!(code, Some(Code::DATA_DAMAGED));

    // Garbage collection has passed the end of the log.
    let pd = site.cluster.pd();
    pd.unprotect_from_gc(br_cluster::GcScope::Cluster, SAFE_POINT_ID)
        .await
        .unwrap();
    let stale = TimeStamp(1 << 18);
    let stale_bytes = stale.0.to_le_bytes().to_vec();
    let old = Place::temporary();
    let old_storage = self::storage(&site, &old).await;
    let marker = br_format::log::marker::LogMarker {
        cluster_id: site.cluster.id(),
        cluster_version: String::new(),
        start_ts: TimeStamp(1),
    };
    old_storage
        .write("backupmeta", marker.encode())
        .await
        .unwrap();
    old_storage
        .write("v1/global_checkpoint/1.ts", stale_bytes)
        .await
        .unwrap();
    advance_gc(&site).await;
    let code = code_of_start(&site, &old, request(&old, "c")).await;
    assert_eq!(code, Some(Code::BACKUP_GC_SAFEPOINT_EXCEEDED));
    site.stop().await;
}

/// Lets garbage collection pass everything that nobody protects.
async fn advance_gc(site: &Site) {
    let target = TimeStamp(site.now().await.0 - (1 << 18));
    let protected = site
        .cluster
        .pd()
        .protect_from_gc(
            br_cluster::GcScope::Cluster,
            "gc_worker",
            target,
            Duration::from_secs(i64::MAX as u64),
        )
        .await;
    protected.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_candidates_leads_and_the_other_follows() {
    let site = Site::start(options()).await;
    let rt = site.cluster.rt().clone();
    let candidate = |id: &str| {
        let etcd = site.cluster.etcd().clone();
        Election::new(etcd, rt.clone(), id.into(), Duration::from_secs(60))
    };
    let never = CancellationToken::new();
    let first = candidate("a").campaign(&never).await.unwrap().unwrap();
    let (rt2, second, never2) = (rt.clone(), candidate("b"), never.clone());
    let waiting = rt2.spawn(async move { second.campaign(&never2).await });
    rt.sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    let owners = site
        .cluster
        .etcd()
        .get_prefix(b"/tidb/br-stream/owner/")
        .await
        .unwrap();
    assert_eq!(owners.kvs.len(), 2);
    assert!(
        TaskStore::new(site.cluster.etcd().clone())
            .load()
            .await
            .unwrap()
            .has_coordinator
    );
    first.resign().await;
    let second = waiting.await.unwrap().unwrap();
    // Somebody removes the key: that is the end of it.
    let key = owners
        .kvs
        .iter()
        .find(|kv| kv.value == b"b")
        .unwrap()
        .key
        .clone();
    site.cluster.etcd().delete(&key).await.unwrap();
    rt.timeout(Duration::from_secs(20), second.lost())
        .await
        .unwrap();
    // A candidate that gives up leaves nothing.
    let leader = candidate("c").campaign(&never).await.unwrap().unwrap();
    let gives_up = CancellationToken::new();
    gives_up.cancel();
    assert!(candidate("d").campaign(&gives_up).await.unwrap().is_none());
    leader.resign().await;
    second.resign().await;
    let left = site
        .cluster
        .etcd()
        .get_prefix(b"/tidb/br-stream/owner/")
        .await
        .unwrap();
    assert_eq!(left.kvs, []);
    site.stop().await;
}

/// Waits until `done`, looking each half second, for two minutes at most.
async fn wait_for(site: &Site, what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..240 {
        if done().await {
            return;
        }
        site.cluster.rt().sleep(Duration::from_millis(500)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_follows_the_clock_up_to_a_lock_and_passes_it_when_it_is_gone() {
    let site = Site::start(options()).await;
    let place = Place::temporary();
    let tasks = TaskStore::new(site.cluster.etcd().clone());
    assert_eq!(
        code_of_start(&site, &place, request(&place, "a")).await,
        None
    );
    let wanted = StatusRequest {
        name: "a",
        explain: true,
    };
    let shown = Box::pin(status(&site.cluster, &wanted)).await.unwrap();
    let kinds: Vec<_> = shown[0].holdups.iter().map(Holdup::kind).collect();
    assert!(kinds.contains(&"no_coordinator"), "{kinds:?}");

    let end = CancellationToken::new();
    let config = AdvancerConfig {
        tick_interval: Duration::from_secs(1),
        ..AdvancerConfig::new("test".into())
    };
    let (cluster, until) = (site.cluster.clone(), end.clone());
    let rt = site.cluster.rt().clone();
    let coordinator =
        rt.spawn(async move { br_log::advancer::run(&cluster, config, &until).await });

    let mut transaction = site.cluster.begin().await.unwrap();
    transaction
        .put(b"t-some-key".to_vec().into(), b"value".to_vec())
        .unwrap();
    let committed = transaction.commit().await.unwrap();
    wait_for(&site, "the checkpoint", async || {
        tasks.get("a").await.unwrap().global_checkpoint() > committed
    })
    .await;
    let log = LogStorage::new(storage(&site, &place).await);
    wait_for(&site, "the checkpoint on the storage", async || {
        log.bounds().await.unwrap().max_ts > committed
    })
    .await;

    // A client takes a lock and is not heard of again.
    let start = lock(&site, b"t-locked").await;
    let passed = site.now().await;
    wait_for(&site, "the lock in the status", async || {
        let shown = Box::pin(status(&site.cluster, &wanted)).await.unwrap();
        shown[0]
            .holdups
            .iter()
            .any(|holdup| matches!(holdup, Holdup::Lock { start_ts, .. } if *start_ts == start))
    })
    .await;
    assert!(tasks.get("a").await.unwrap().global_checkpoint() <= start);
    roll_back(&site, b"t-locked", start).await;
    wait_for(&site, "the checkpoint behind the lock", async || {
        tasks.get("a").await.unwrap().global_checkpoint() > passed
    })
    .await;

    task::stop(&site.cluster, "a").await.unwrap();
    end.cancel();
    coordinator.await;
    let owners = site
        .cluster
        .etcd()
        .get_prefix(b"/tidb/br-stream/owner/")
        .await
        .unwrap();
    assert_eq!(owners.kvs, [], "a clean end gives the place away");
    site.stop().await;
}

/// Locks a key for a transaction that nobody goes on with; gives its start.
async fn lock(site: &Site, key: &[u8]) -> TimeStamp {
    let start = site.now().await;
    let (answer, _): (kvrpcpb::PrewriteResponse, _) = site
        .cluster
        .router()
        .send(&br_codec::key::encode(key), |client, route| {
            let mutation = kvrpcpb::Mutation {
                op: kvrpcpb::Op::Put.into(),
                key: key.to_vec(),
                value: b"never".to_vec(),
                ..Default::default()
            };
            let request = kvrpcpb::PrewriteRequest {
                context: Some(route.context()),
                mutations: vec![mutation],
                primary_lock: key.to_vec(),
                start_version: start.0,
                lock_ttl: 600_000,
                ..Default::default()
            };
            async move { client.prewrite(request).await }
        })
        .await
        .unwrap();
    assert_eq!(answer.errors, []);
    start
}

async fn roll_back(site: &Site, key: &[u8], start: TimeStamp) {
    let (answer, _): (kvrpcpb::BatchRollbackResponse, _) = site
        .cluster
        .router()
        .send(&br_codec::key::encode(key), |client, route| {
            let request = kvrpcpb::BatchRollbackRequest {
                context: Some(route.context()),
                start_version: start.0,
                keys: vec![key.to_vec()],
                ..Default::default()
            };
            async move { client.batch_rollback(request).await }
        })
        .await
        .unwrap();
    assert_eq!(answer.error, None);
}
