//! Log backup under a random load with DDL, while regions split and merge, leaders move, stores and
//! the coordinator are lost and the external storage fails: whatever was claimed at any time can be
//! restored from what was stored at that time, and is what the model says.
//!
//! `E2E_SEEDS` is the number of seeds, `E2E_SEED` runs a single one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use br_codec::key;
use br_embed::Options;
use br_format::crypter::Crypter;
use br_log::{
    read::LogStorage,
    restore::{Method, restore},
    status::{StatusRequest, status},
    task::TaskStore,
};
use br_rt::{CancellationToken, Rt};
use br_storage::{Faults, SendCredentials, Storage};
use br_types::TimeStamp;
use br_workload::{Kinds, Model, Statement, Workload, check};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sim::disturbance::Disturbance;
use tempfile::TempDir;

use crate::{
    log_backup::{coordinate, start_log},
    points::{copy, point_options, point_target},
    site::{Place, Site, back_up_tables, options},
};

const DB: &str = "history";
const TASK: &str = "history";
const SEEDS_DEFAULT: u64 = 4;
/// Looks at the checkpoint, ten each second, until it is held to stand still.
const ROUNDS_MAX: usize = 600;
/// Claims of one run of which the log is kept as it was then.
const CLAIMS_MAX: usize = 3;

/// A checkpoint, and the log as it was when the checkpoint was seen.
struct Claim {
    checkpoint_ts: TimeStamp,
    log: TempDir,
}

/// What one run left behind.
struct History {
    model: Model,
    full: Place,
    backup_ts: TimeStamp,
    claims: Vec<Claim>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_claimed_is_restored() {
    let one = std::env::var("E2E_SEED").ok();
    let one = one.map(|seed| seed.parse().unwrap());
    let count = std::env::var("E2E_SEEDS").map_or(SEEDS_DEFAULT, |count| count.parse().unwrap());
    let seeds = one.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let history = Box::pin(make_history(seed, &mut rng)).await;
        for claim in &history.claims {
            Box::pin(restore_claim(&history, claim, &mut rng)).await;
        }
    }
}

fn disturbed_options(rng: &mut StdRng) -> Options {
    let mut options = options();
    options.region_split_keys = rng.random_range(50..400);
    options.region_split_size_bytes = rng.random_range(16 << 10..256 << 10);
    options.stores = *[1, 3, 3].choose(rng).unwrap();
    let log = &mut options.store.log_backup;
    log.min_flush_interval = Duration::from_millis(rng.random_range(500..1500));
    log.file_size_limit_bytes = rng.random_range(4 << 10..4 << 20);
    // Some records go through temporary files.
    log.temp_memory_bytes_max = *[64 << 10, 16 << 20].choose(rng).unwrap();
    if rng.random() {
        options.log_faults = Faults {
            errors_per_mille: 100,
            lost_answers_per_mille: 100,
            latency_max: Duration::from_millis(20),
            ..Faults::default()
        };
    }
    options
}

async fn make_history(seed: u64, rng: &mut StdRng) -> History {
    let site = Site::start(disturbed_options(rng)).await;
    let kinds = Kinds::Wide {
        tables: rng.random_range(2..5),
    };
    let workload = Workload::create(&site.cluster, kinds, seed, DB, None)
        .await
        .unwrap();
    let log = tempfile::tempdir().unwrap();
    start_log(&site, log.path(), TASK).await;
    let mut coordinator = coordinate(&site.cluster);

    let stop = CancellationToken::new();
    let disturbance = Disturbance {
        merges: true,
        pause_max: Duration::from_millis(150),
        store_failures: if site.embedded.store_infos().len() > 1 {
            3
        } else {
            0
        },
        ..Disturbance::default()
    };
    let split_key = |rng: &mut StdRng| {
        let table = br_types::TableId(rng.random_range(100..140));
        let mut split = br_tidb::table_key::record_range(table).start.into_bytes();
        split.extend(rng.random::<u64>().to_be_bytes());
        key::encode(&split)
    };
    let rt = Rt::real();
    let chaos_seed = rng.random();
    let disturbed = disturbance.run(&rt, &site.embedded, chaos_seed, split_key, &stop);
    let disturbed = async { disturbed.await.unwrap() };
    let story = async {
        let (full, backup_ts) = Box::pin(back_up_at_some_time(&site, rng)).await;
        let claims = collect_claims(&site, log.path(), backup_ts, rng, &mut coordinator).await;
        stop.cancel();
        (full, backup_ts, claims)
    };
    let mut ddl_rng = StdRng::seed_from_u64(seed ^ 0xDD1);
    let ddl = change_schemas(&site, &workload, &mut ddl_rng, &stop);
    let workers = workload.run(4, &stop);
    let (committed, disturbed, statements, story) = futures::join!(workers, disturbed, ddl, story);
    let (full, backup_ts, claims) = story;
    println!("  {} transactions, {disturbed:?}", committed.unwrap());
    println!("  {statements:?}");
    drop(coordinator);
    site.stop().await;
    History {
        model: workload.model(),
        full,
        backup_ts,
        claims,
    }
}

async fn back_up_at_some_time(site: &Site, rng: &mut StdRng) -> (Place, TimeStamp) {
    let wait = Duration::from_millis(rng.random_range(200..2500));
    site.cluster.rt().sleep(wait).await;
    let full = Place::temporary();
    let options = back_up_tables(&[&format!("{DB}.*")], Crypter::plaintext());
    let summary = site.back_up(&full, &options).await;
    (full, summary.backup_ts.unwrap())
}

async fn change_schemas(
    site: &Site,
    workload: &Workload,
    rng: &mut StdRng,
    stop: &CancellationToken,
) -> BTreeMap<Statement, usize> {
    let mut done = BTreeMap::new();
    while !stop.is_cancelled() {
        let pause = Duration::from_millis(rng.random_range(50..600));
        site.cluster.rt().sleep(pause).await;
        if let Some(statement) = workload.change_schemas(rng).await.unwrap() {
            *done.entry(statement).or_default() += 1;
        }
    }
    done
}

/// Watches the checkpoint and keeps the log as it is at some of its values; loses the coordinator in
/// between.
async fn collect_claims(
    site: &Site,
    log: &Path,
    backup_ts: TimeStamp,
    rng: &mut StdRng,
    coordinator: &mut sim::Coordinator,
) -> Vec<Claim> {
    let rt = Rt::real();
    let tasks = TaskStore::new(site.cluster.etcd().clone());
    let place = Place::existing(log.to_owned());
    let storage = Storage::open(&rt, &place.backend).await.unwrap();
    let storage = LogStorage::new(storage);
    let mut claims: Vec<Claim> = Vec::new();
    let mut last = TimeStamp::ZERO;
    println!("  backup at {backup_ts}");
    for round in 0.. {
        if round == ROUNDS_MAX {
            let wanted = StatusRequest {
                name: TASK,
                explain: true,
            };
            let shown = Box::pin(status(&site.cluster, &wanted)).await.unwrap();
            panic!("the checkpoint stands at {last}: {:?}", shown[0].holdups);
        }
        rt.sleep(Duration::from_millis(100)).await;
        let in_pd = tasks.get(TASK).await.unwrap().global_checkpoint();
        assert!(in_pd >= last, "the checkpoint went back: {last}, {in_pd}");
        let is_new = in_pd > last.max(backup_ts);
        last = in_pd;
        if !is_new || rng.random_bool(0.5) {
            continue;
        }
        // What the storage says of itself: PD may be a moment ahead.
        let on_storage = storage.bounds().await.unwrap().max_ts;
        if on_storage <= backup_ts {
            continue;
        }
        let kept = tempfile::tempdir().unwrap();
        copy(log, kept.path());
        println!("  claim {on_storage} (in PD {in_pd}) in round {round}");
        claims.push(Claim {
            checkpoint_ts: on_storage,
            log: kept,
        });
        if claims.len() == CLAIMS_MAX {
            break;
        }
        rt.sleep(Duration::from_millis(rng.random_range(0..2500)))
            .await;
        if rng.random() {
            coordinator.lose().await;
        }
    }
    claims
}

/// Restores the claim itself or a point between it and the backup.
async fn restore_claim(history: &History, claim: &Claim, rng: &mut StdRng) {
    let at = if rng.random() {
        claim.checkpoint_ts
    } else {
        TimeStamp(rng.random_range(history.backup_ts.0..=claim.checkpoint_ts.0))
    };
    let site = Site::start(disturbed_options(rng)).await;
    if rng.random() {
        // Their ids are taken.
        let kinds = Kinds::Wide { tables: 3 };
        let others = Workload::create(&site.cluster, kinds, rng.random(), "others", None);
        others.await.unwrap();
    }
    let log = Place::existing(claim.log.path().to_owned());
    let target = point_target(&site, &history.full, &log).await;
    let mut options = point_options(&[&format!("{DB}.*")], at);
    if rng.random_bool(0.25) {
        options.method = Method::Apply {
            batch_files: 8,
            batch_bytes: 1 << 20,
            concurrency: 4,
            send_credentials: SendCredentials::Yes,
        };
    }
    let what = format!("at {at}, claimed {}", claim.checkpoint_ts);
    let done = Box::pin(restore(&target, &options)).await;
    done.unwrap_or_else(|error| panic!("{what}: {error}: {error:?}"));
    let now = site.now().await;
    let checked = check(&site.cluster, DB, &history.model, at, now).await;
    let checked = checked.unwrap_or_else(|error| panic!("{what}: {error}"));
    println!("  {what}: {checked:?}");
    site.stop().await;
}
