//! Tables backed up under load while regions split and move, lost, and restored among others.

use std::time::Duration;

use br_format::{
    backupmeta::Layout,
    crypter::{Crypter, Method},
};
use br_proto::backup::CompressionType;
use br_rt::{CancellationToken, Phase, Progress, Silent, Unit};
use br_snapshot::{
    backup::{BackupOptions, BackupTime},
    restore::{RestoreOptions, split_at},
};
use br_types::{RawKey, TimeStamp};
use br_workload::{Kinds, Workload, check, schema_generator};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::sync::Arc;

use super::{Anywhere, clear, own};
use crate::site::{back_up, back_up_tables, restore_from, restore_tables};

const SEED: u64 = 2026;
const TABLES: usize = 4;
const WORKERS: usize = 3;
/// Load between two backups.
const LOAD: Duration = Duration::from_millis(700);

fn backups(db: &str) -> Vec<BackupOptions> {
    let rules = [format!("{db}.*")];
    let rules = rules.each_ref().map(String::as_str);
    let aes = Crypter::new(Method::Aes256Ctr, &[7; 32]).unwrap();
    vec![
        back_up_tables(&rules, Crypter::plaintext()),
        BackupOptions {
            compression: CompressionType::Lz4,
            ..back_up_tables(&rules, aes)
        },
        BackupOptions {
            compression: CompressionType::Snappy,
            layout: Layout::V1,
            ..back_up_tables(&rules, Crypter::plaintext())
        },
    ]
}

/// Splits regions of the workload's tables and spreads them over the stores until `stop` is set.
pub(super) async fn split_and_spread(
    on: &Anywhere,
    workload: &Workload,
    seed: u64,
    stop: &CancellationToken,
) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let mut regions = 0;
    while !stop.is_cancelled() {
        let tables: Vec<_> = workload.model().tables().map(|(_, t)| t.clone()).collect();
        let Some(table) = tables.choose(&mut rng) else {
            break;
        };
        let handle = schema_generator::handle(&mut rng, table);
        let key: RawKey = table.record_key(&handle);
        let phase = Phase::start(&progress, "split", Unit::Ranges, 1);
        regions += split_at(&on.cluster, &[key], &phase).await.unwrap();
        let pause = Duration::from_millis(rng.random_range(20..200));
        on.cluster.rt().sleep(pause).await;
    }
    regions
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_under_load_come_back() {
    let mut on = Anywhere::start().await;
    let db = own("tables");
    let kinds = Kinds::Wide { tables: TABLES };
    let workload = Workload::create(&on.cluster, kinds, SEED, &db, None)
        .await
        .unwrap();
    let wanted = backups(&db);
    let places: Vec<usize> = wanted.iter().map(|_| on.place("tables")).collect();
    let stop = CancellationToken::new();
    let backed_up = async {
        let mut at = Vec::new();
        for (options, place) in wanted.iter().zip(&places) {
            on.cluster.rt().sleep(LOAD).await;
            let done = back_up(&on.cluster, &on.places[*place], options).await;
            at.push(done.backup_ts.unwrap());
        }
        stop.cancel();
        at
    };
    let (committed, regions, at) = futures::join!(
        workload.run(WORKERS, &stop),
        split_and_spread(&on, &workload, SEED, &stop),
        Box::pin(backed_up)
    );
    assert!(committed.unwrap() > 0 && regions > 0);
    for ((made, place), at) in wanted.iter().zip(&places).zip(at) {
        let options = RestoreOptions {
            crypter: made.crypter.clone(),
            ..restore_tables(Some(&[&format!("{db}.*")]))
        };
        come_back(&on, &workload, *place, &options, at).await;
    }
    on.finish().await;
}

/// Loses all tables, restores them, and finds them as they were at `at`.
async fn come_back(
    on: &Anywhere,
    workload: &Workload,
    place: usize,
    options: &RestoreOptions,
    at: TimeStamp,
) {
    clear(&on.cluster).await;
    restore_from(&on.cluster, &on.places[place], options).await;
    let (db, now) = (workload.database(), on.now().await);
    let checked = check(&on.cluster, db, &workload.model(), at, now).await;
    // A slow cluster may not have committed anything by then.
    let checked = checked.unwrap_or_else(|error| panic!("restored to {at}: {error}"));
    assert_eq!(checked.tables, TABLES);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_goes_on_from_a_full_one() {
    let mut on = Anywhere::start().await;
    let db = own("incremental");
    let kinds = Kinds::Wide { tables: TABLES };
    let workload = Workload::create(&on.cluster, kinds, SEED + 1, &db, None)
        .await
        .unwrap();
    let (full, increment) = (on.place("full"), on.place("increment"));
    let stop = CancellationToken::new();
    let rules = [format!("{db}.*")];
    let rules = rules.each_ref().map(String::as_str);
    let backed_up = async {
        on.cluster.rt().sleep(LOAD).await;
        let options = back_up_tables(&rules, Crypter::plaintext());
        let first = back_up(&on.cluster, &on.places[full], &options).await;
        on.cluster.rt().sleep(LOAD).await;
        let options = BackupOptions {
            last_backup_ts: first.backup_ts,
            at: BackupTime::Now,
            ..options
        };
        let second = back_up(&on.cluster, &on.places[increment], &options).await;
        stop.cancel();
        (first.backup_ts.unwrap(), second.backup_ts.unwrap())
    };
    let (committed, (first, second)) =
        futures::join!(workload.run(WORKERS, &stop), Box::pin(backed_up));
    assert!(committed.unwrap() > 0);
    let options = restore_tables(Some(&rules));
    come_back(&on, &workload, full, &options, first).await;
    restore_from(&on.cluster, &on.places[increment], &options).await;
    let now = on.now().await;
    check(&on.cluster, &db, &workload.model(), second, now)
        .await
        .unwrap();
    on.finish().await;
}
