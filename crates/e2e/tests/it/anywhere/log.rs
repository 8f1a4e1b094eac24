//! A log of a load with changing schemas, and restores from it, plain and compacted.

use std::{sync::Arc, time::Duration};

use br_cluster::Cluster;
use br_format::crypter::Crypter;
use br_log::{
    compact::{CompactOptions, CompactTarget, compact},
    flush_now,
    read::LogStorage,
    restore::restore,
    task::{self, StartRequest},
};
use br_rt::{CancellationToken, Silent};
use br_storage::{SendCredentials, Storage};
use br_types::TimeStamp;
use br_workload::{Kinds, Workload, check};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Anywhere, clear, own, tables::split_and_spread};
use crate::{
    log_backup::coordinate,
    log_tasks,
    points::{point_options, point_target_in, sst_files},
    site::{Place, back_up, back_up_tables},
};

const SEED: u64 = 2027;
const WORKERS: usize = 3;
/// How long the load goes on before the backup, and after it.
const LOAD: Duration = Duration::from_millis(1500);
/// Looks at the log, one each second, until it is held to stand still.
const ROUNDS_MAX: usize = 240;

pub(super) async fn start(cluster: &Cluster, place: &Place, name: &str) {
    let storage = Storage::create_base(cluster.rt(), &place.backend)
        .await
        .unwrap();
    let request = StartRequest {
        backend: place.backend.to_proto(SendCredentials::Yes).unwrap(),
        // It holds back GC until the stores do so.
        gc_ttl: Duration::from_secs(60),
        ..log_tasks::request(place, name)
    };
    Box::pin(task::start(cluster, &storage, request))
        .await
        .unwrap();
}

/// Waits until the log has everything up to `ts`, and has the stores write what they hold.
pub(super) async fn reach(cluster: &Cluster, place: &Place, ts: TimeStamp) {
    let storage = Storage::open(cluster.rt(), &place.backend).await.unwrap();
    let storage = LogStorage::new(storage);
    let mut max_ts = TimeStamp::ZERO;
    for _ in 0..ROUNDS_MAX {
        // Not every store needs to be able to.
        let _flushes = flush_now(cluster, |_| true).await.unwrap();
        cluster.rt().sleep(Duration::from_secs(1)).await;
        max_ts = storage.bounds().await.unwrap().max_ts;
        if max_ts >= ts {
            return;
        }
    }
    panic!("the checkpoint stands at {max_ts} and does not reach {ts}");
}

pub(super) async fn compact_all(cluster: &Cluster, place: &Place) -> u64 {
    let temp = tempfile::tempdir().unwrap();
    let target = CompactTarget {
        rt: cluster.rt().clone(),
        cancel: CancellationToken::new(),
        storage: Storage::open(cluster.rt(), &place.backend).await.unwrap(),
        ssts: sst_files(),
        progress: Arc::new(Silent),
        temp_dir: temp.path().to_owned(),
    };
    let options = CompactOptions {
        from_ts: TimeStamp::ZERO,
        until_ts: None,
        name: "test".to_owned(),
        shifts: false,
        shard: None,
        minimal_bytes: 0,
        concurrency: 4,
    };
    compact(&target, &options).await.unwrap().output_files
}

#[tokio::test(flavor = "multi_thread")]
async fn any_point_of_a_log_comes_back() {
    let mut on = Anywhere::start().await;
    let (db, task) = (own("log"), own("task"));
    let kinds = Kinds::Wide { tables: 3 };
    let workload = Workload::create(&on.cluster, kinds, SEED, &db, None)
        .await
        .unwrap();
    let (log, full) = (on.place("log"), on.place("full"));
    start(&on.cluster, &on.places[log], &task).await;
    let coordinator = coordinate(&on.cluster);
    let stop = CancellationToken::new();
    let story = async {
        on.cluster.rt().sleep(LOAD).await;
        let options = back_up_tables(&[&format!("{db}.*")], Crypter::plaintext());
        let made = back_up(&on.cluster, &on.places[full], &options).await;
        on.cluster.rt().sleep(LOAD).await;
        let middle = on.now().await;
        on.cluster.rt().sleep(LOAD).await;
        let last = on.now().await;
        stop.cancel();
        (made.backup_ts.unwrap(), middle, last)
    };
    let (committed, statements, _, (backup_ts, middle, last)) = futures::join!(
        workload.run(WORKERS, &stop),
        change_schemas(&on, &workload, &stop),
        split_and_spread(&on, &workload, SEED, &stop),
        Box::pin(story)
    );
    assert!(committed.unwrap() > 0 && statements > 0);
    reach(&on.cluster, &on.places[log], last).await;
    task::stop(&on.cluster, &task).await.unwrap();
    drop(coordinator);

    for at in [backup_ts, middle, last] {
        restore_to(&on, &workload, full, log, at).await;
    }
    assert!(compact_all(&on.cluster, &on.places[log]).await > 0);
    for at in [middle, last] {
        restore_to(&on, &workload, full, log, at).await;
    }
    on.finish().await;
}

async fn change_schemas(on: &Anywhere, workload: &Workload, stop: &CancellationToken) -> usize {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut done = 0;
    while !stop.is_cancelled() {
        let pause = Duration::from_millis(rng.random_range(100..500));
        on.cluster.rt().sleep(pause).await;
        let statement = workload.change_schemas(&mut rng).await.unwrap();
        done += usize::from(statement.is_some());
    }
    done
}

async fn restore_to(on: &Anywhere, workload: &Workload, full: usize, log: usize, at: TimeStamp) {
    clear(&on.cluster).await;
    let target = point_target_in(&on.cluster, &on.places[full], &on.places[log]).await;
    let db = workload.database();
    let options = point_options(&[&format!("{db}.*")], at);
    let done = Box::pin(restore(&target, &options)).await;
    done.unwrap_or_else(|error| panic!("to {at}: {error}: {error:?}"));
    let now = on.now().await;
    let checked = check(&on.cluster, db, &workload.model(), at, now).await;
    checked.unwrap_or_else(|error| panic!("to {at}: {error}"));
}
