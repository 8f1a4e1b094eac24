//! Random tables with a random history, backed up while the load and all kinds of disturbances go
//! on: what is restored is what the model says of the backup's timestamp.
//!
//! `E2E_SEEDS` is the number of seeds, `E2E_SEED` runs a single one.

use std::{env, time::Duration};

use br_codec::key;
use br_embed::Options;
use br_format::{
    backupmeta::Layout,
    crypter::{Crypter, Method},
};
use br_proto::backup::CompressionType;
use br_rt::{CancellationToken, Rt};
use br_snapshot::{
    backup::{BackupOptions, BackupTime},
    restore::RestoreOptions,
};
use br_types::TimeStamp;
use br_workload::{Kinds, Model, Workload, check, schema_generator};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sim::disturbance::{Disturbance, Disturbed};

use crate::site::{Place, Site, back_up_tables, options, restore_tables};

const DB: &str = "history";
const SEEDS_DEFAULT: u64 = 6;

/// A backup that was made under load.
struct Made {
    place: Place,
    crypter: Crypter,
    backup_ts: TimeStamp,
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_tables_equal_the_model() {
    let one = env::var("E2E_SEED").ok().map(|seed| seed.parse().unwrap());
    let count = env::var("E2E_SEEDS").map_or(SEEDS_DEFAULT, |count| count.parse().unwrap());
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        Box::pin(run(seed)).await;
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let source = Site::start(small_regions(&mut rng)).await;
    let kinds = Kinds::Wide {
        tables: rng.random_range(1..6),
    };
    let workload = Workload::create(&source.cluster, kinds, seed, DB, None)
        .await
        .unwrap();
    let backups = Box::pin(back_up_under_load(&source, &workload, &mut rng)).await;
    // Whoever committed at or before a backup's timestamp is in the model by now.
    let model = workload.model();
    for made in &backups {
        let commits = model.commits();
        let seen = commits.iter().filter(|ts| **ts <= made.backup_ts).count();
        println!("  backup shows {seen} of {} transactions", commits.len());
    }
    source.stop().await;
    for made in &backups {
        Box::pin(restore_twice(made, &model, &mut rng)).await;
    }
}

fn small_regions(rng: &mut StdRng) -> Options {
    let mut options = options();
    options.region_split_keys = rng.random_range(30..400);
    options.region_split_size_bytes = rng.random_range(8 << 10..256 << 10);
    options.store.backup_sst_bytes_max = rng.random_range(1 << 10..64 << 10);
    options.stores = *[1, 3, 3, 4].choose(rng).unwrap();
    options
}

/// Loads the cluster, disturbs it, and backs it up at a fresh timestamp and at one that has passed.
async fn back_up_under_load(source: &Site, workload: &Workload, rng: &mut StdRng) -> Vec<Made> {
    let rt = Rt::real();
    let stop = CancellationToken::new();
    let disturbance = Disturbance {
        merges: true,
        store_failures: if source.embedded.store_infos().len() > 1 {
            2
        } else {
            0
        },
        ..Disturbance::default()
    };
    let tables: Vec<_> = workload
        .model()
        .tables()
        .map(|(_, table)| table.clone())
        .collect();
    let split_key = |rng: &mut StdRng| {
        let table = tables.choose(rng).unwrap();
        let handle = schema_generator::handle(rng, table);
        key::encode(table.record_key(&handle).as_bytes())
    };
    let seed = rng.random();
    let disturbed = disturbance.run(&rt, &source.embedded, seed, split_key, &stop);
    let disturbed = async { disturbed.await.unwrap() };
    let backups = async {
        let first = source.now().await;
        rt.sleep(Duration::from_millis(rng.random_range(300..900)))
            .await;
        let fresh = back_up(source, rng, BackupTime::Now).await;
        let last = source.now().await;
        let earlier = TimeStamp(rng.random_range(first.0..last.0));
        let past = back_up(source, rng, BackupTime::At(earlier)).await;
        assert_eq!(past.backup_ts, earlier);
        stop.cancel();
        vec![fresh, past]
    };
    let workers = workload.run(4, &stop);
    let (committed, disturbed, backups) = futures::join!(workers, disturbed, backups);
    let committed = committed.unwrap();
    let Disturbed {
        splits, transfers, ..
    } = disturbed;
    println!("  {committed} transactions, {disturbed:?}");
    assert!(committed > 0 && splits + transfers > 0);
    backups
}

async fn back_up(source: &Site, rng: &mut StdRng, at: BackupTime) -> Made {
    let place = if rng.random() {
        Place::temporary()
    } else {
        Place::memory(&format!("history-{}", rng.random::<u64>()))
    };
    let options = BackupOptions {
        at,
        ..back_up_options(rng)
    };
    let summary = source.back_up(&place, &options).await;
    println!(
        "  {:?} {:?} {:?}: {} files, {} kvs, {} rounds, {} superseded, {} locks",
        options.compression,
        options.layout,
        options.crypter.method(),
        summary.files,
        summary.total_kvs,
        summary.rounds,
        summary.superseded_pieces,
        summary.locks
    );
    Made {
        place,
        crypter: options.crypter,
        backup_ts: summary.backup_ts.unwrap(),
    }
}

fn back_up_options(rng: &mut StdRng) -> BackupOptions {
    let crypter = match rng.random_range(0..4) {
        0 => Crypter::new(Method::Aes128Ctr, &rng.random::<[u8; 16]>()).unwrap(),
        1 => Crypter::new(Method::Aes256Ctr, &rng.random::<[u8; 32]>()).unwrap(),
        _ => Crypter::plaintext(),
    };
    let compressions = [
        CompressionType::Zstd,
        CompressionType::Lz4,
        CompressionType::Snappy,
    ];
    BackupOptions {
        layout: if rng.random() { Layout::V2 } else { Layout::V1 },
        compression: *compressions.choose(rng).unwrap(),
        compression_level: rng.random_range(0..4),
        checksum: rng.random(),
        concurrency: rng.random_range(1..6),
        ..back_up_tables(&[&format!("{DB}.*")], crypter)
    }
}

/// Restores a backup, compares, backs the restored cluster up, restores that elsewhere, and
/// compares again. Nothing of the first cluster is left by then.
async fn restore_twice(made: &Made, model: &Model, rng: &mut StdRng) {
    let middle = restore(&made.place, &made.crypter, rng).await;
    let compare = async |site: &Site, what: &str| {
        let now = site.now().await;
        let checked = check(&site.cluster, DB, model, made.backup_ts, now).await;
        checked.unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let first = compare(&middle, "restored").await;
    let again = back_up(&middle, rng, BackupTime::Now).await;
    middle.stop().await;
    let last = restore(&again.place, &again.crypter, rng).await;
    let second = compare(&last, "restored again").await;
    last.stop().await;
    assert_eq!(first, second);
    println!("  {first:?}");
}

/// Restores into a new cluster: one without any tables, or one that has given their ids to others;
/// with leaders on the move and splits, or without.
async fn restore(from: &Place, crypter: &Crypter, rng: &mut StdRng) -> Site {
    let site = Site::start(small_regions(rng)).await;
    let others = if rng.random() {
        let kinds = Kinds::Wide {
            tables: rng.random_range(1..4),
        };
        let created = Workload::create(&site.cluster, kinds, rng.random(), "others", None).await;
        Some(created.unwrap())
    } else {
        None
    };
    let rules = [format!("{DB}.*")];
    let rules = rules.each_ref().map(String::as_str);
    let base = restore_tables(others.is_some().then_some(rules.as_slice()));
    let options = RestoreOptions {
        crypter: crypter.clone(),
        region_size_bytes: rng
            .random::<bool>()
            .then(|| rng.random_range(4 << 10..1 << 20)),
        region_keys: rng.random::<bool>().then(|| rng.random_range(10..1000)),
        downloads_per_store: rng.random_range(1..20),
        online: rng.random_bool(0.25),
        ..base
    };
    let stop = CancellationToken::new();
    let disturbance = Disturbance {
        merges: false,
        ..Disturbance::default()
    };
    let nowhere = |rng: &mut StdRng| {
        let table = br_types::TableId(rng.random_range(100..130));
        key::encode(br_tidb::table_key::table_prefix(table).as_bytes())
    };
    if rng.random() {
        stop.cancel();
    }
    let rt = Rt::real();
    let seed = rng.random();
    let disturbed = disturbance.run(&rt, &site.embedded, seed, nowhere, &stop);
    let disturbed = async { disturbed.await.unwrap() };
    let restored = async {
        let restored = site.restore(from, &options).await;
        stop.cancel();
        restored
    };
    let (disturbed, summary) = futures::join!(disturbed, restored);
    println!(
        "  restored {} groups, {} kvs, changed ids: {}, {disturbed:?}",
        summary.groups,
        summary.plan.files.kvs,
        summary.plan.ids.kept_and_changed().1
    );
    site
}
