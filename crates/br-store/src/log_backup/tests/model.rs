//! Random transactions while regions split, merge and move, stores die, PD and the storage come and
//! go: at every global checkpoint the log has what the engine has.

use std::{sync::Arc, time::Duration};

use br_format::crypter::{Crypter, Method};
use br_proto::kvrpcpb::BatchRollbackRequest;
use br_rt::{Rt, UnixMillis};
use br_storage::Faults;
use br_types::{RawKey, TimeStamp};

use super::world::{Mode, STORES, World, keys};
use crate::topology::Topology;

/// How long transactions go on, in virtual time.
const RUN: Duration = Duration::from_secs(90);
const WRITERS: u64 = 4;

fn simulate(seed: u64, run: impl AsyncFnOnce(Rt)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { run(Rt::simulated(seed, UnixMillis(1_700_000_000_000))).await });
}

fn pick<T: Clone>(rt: &Rt, of: &[T]) -> T {
    of[rt.random_below(of.len() as u64) as usize].clone()
}

async fn doze(rt: &Rt, millis_max: u64) {
    rt.sleep(Duration::from_millis(rt.random_below(millis_max)))
        .await;
}

/// One transaction of one to five keys, with pauses of some ten times `pause_millis` now and then.
pub(super) async fn transaction(world: &World, pause_millis: u64) {
    let rt = &world.rt;
    let all = keys();
    let mut chosen: Vec<RawKey> = (0..=rt.random_below(4)).map(|_| pick(rt, &all)).collect();
    chosen.sort();
    chosen.dedup();
    let mode = pick(rt, &[Mode::TwoPhase, Mode::Async, Mode::OnePhase]);
    let value = match rt.random_below(4) {
        0 => None,
        1 => Some(vec![rt.random_below(256) as u8; 700]),
        _ => Some(rt.random_u64().to_be_bytes().to_vec()),
    };
    let start_ts = world.topology.tso();
    doze(rt, pause_millis).await;
    let Some(answer) = world
        .prewrite(start_ts, &chosen, value.as_deref(), mode)
        .await
    else {
        return roll_back(world, start_ts, &chosen).await;
    };
    if answer.one_pc_commit_ts > 0 {
        return;
    }
    // Some locks stay for long.
    let is_slow = rt.random_below(8) == 0;
    doze(rt, pause_millis * if is_slow { 120 } else { 2 }).await;
    if rt.random_below(6) == 0 && mode == Mode::TwoPhase {
        return roll_back(world, start_ts, &chosen).await;
    }
    let commit_ts = match answer.min_commit_ts {
        0 => world.topology.tso(),
        promised => TimeStamp(promised),
    };
    let (primary, rest) = chosen.split_at(1);
    world.commit(start_ts, commit_ts, primary).await;
    if !rest.is_empty() {
        doze(rt, pause_millis * 6).await;
        world.commit(start_ts, commit_ts, rest).await;
    }
}

async fn roll_back(world: &World, start_ts: TimeStamp, keys: &[RawKey]) {
    let request = BatchRollbackRequest {
        start_version: start_ts.0,
        keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    world.mvcc.batch_rollback(request).await;
}

/// Splits a region, merges two, or moves a leader.
pub(super) fn trouble_with_regions(world: &World) {
    let rt = &world.rt;
    let regions = world.topology.regions_in(&Default::default(), usize::MAX);
    let region = pick(rt, &regions);
    match rt.random_below(7) {
        0..=2 => {
            let cut = br_codec::key::encode(pick(rt, &keys()).as_bytes());
            let found = world.topology.region_of(&cut).unwrap();
            if found.region.start_key != cut.as_bytes() {
                let version = found.region.region_epoch.unwrap().version;
                world.topology.split(found.id(), version, &[cut]).unwrap();
            }
        }
        3 | 4 => world.topology.merge_with_next(region.id()),
        _ => {
            let to = pick(rt, &STORES);
            if world.topology.is_up(to) {
                world.topology.move_leader(region.id(), to);
            }
        }
    }
}

/// Something that happens to a cluster.
async fn trouble(world: &World) {
    let rt = &world.rt;
    match rt.random_below(10) {
        0..=6 => trouble_with_regions(world),
        7 => {
            let [one, other] = STORES;
            let (dies, lives) = pick(rt, &[(one, other), (other, one)]);
            if world.topology.is_up(dies) && world.topology.is_up(lives) {
                world.topology.set_down(dies);
                world.topology.evict(dies);
                world.kill_store(dies);
                doze(rt, 8000).await;
                world.start_store(dies);
                world.topology.set_up(dies);
            }
        }
        8 => {
            let part = pick(rt, &["", "backupmeta", ".log", "global_checkpoint"]);
            world.outage.begin(part);
            doze(rt, 20_000).await;
            world.outage.end();
        }
        _ => {
            world.board.set_down(true);
            doze(rt, 10_000).await;
            world.board.set_down(false);
        }
    }
}

async fn scenario(rt: Rt, crypter: Crypter) {
    let faults = Faults {
        errors_per_mille: 50,
        lost_answers_per_mille: 30,
        latency_max: Duration::from_millis(200),
        ..Faults::default()
    };
    let mut world = World::new(&rt, crypter, faults).await;
    // So that everything happens: spilling, several objects in a flush, size as a reason.
    world.config.temp_memory_bytes_max = 4 << 10;
    world.config.file_size_limit_bytes = 32 << 10;
    let world = Arc::new(world);
    for _ in 0..20 {
        transaction(&world, 50).await;
    }
    world.begin_task();
    for store in STORES {
        world.start_store(store);
    }
    let end = rt.now().plus(RUN);
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let world = world.clone();
            rt.spawn(async move {
                while world.rt.now() < end {
                    transaction(&world, 50).await;
                    doze(&world.rt, 120).await;
                }
            })
        })
        .collect();
    let troubles = {
        let world = world.clone();
        rt.spawn(async move {
            while world.rt.now() < end {
                doze(&world.rt, 3000).await;
                trouble(&world).await;
            }
        })
    };
    let mut checked = 0;
    let mut last = TimeStamp::ZERO;
    while rt.now() < end {
        let millis = 1000 + rt.random_below(9000);
        let global = world.pass(Duration::from_millis(millis)).await;
        assert!(global >= last);
        checked += u32::from(global > last);
        last = global;
        world.verify(global).await;
    }
    for writer in writers.drain(..) {
        writer.await;
    }
    troubles.await;
    assert!(checked > 2, "the checkpoint has moved {checked} times only");
    // All is well now: the log catches up.
    let goal = world.topology.tso();
    let mut global = TimeStamp::ZERO;
    for _ in 0..60 {
        global = world.pass(Duration::from_secs(5)).await;
        if global >= goal {
            break;
        }
    }
    assert!(
        global >= goal,
        "stuck at {global} of {goal}: {:?}",
        world.pause()
    );
    let log = world.verify(global).await;
    assert!(!log.records.is_empty());
}

/// The seeds to run; `HOLDFAST_SEEDS=100-200` in the environment runs others.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let wanted = std::env::var("HOLDFAST_SEEDS").ok();
    let wanted = wanted.as_deref().and_then(|text| text.split_once('-'));
    match wanted {
        Some((first, last)) => first.parse().unwrap()..=last.parse().unwrap(),
        None => 1..=6,
    }
}

#[test]
fn the_log_has_what_every_checkpoint_claims() {
    for seed in seeds() {
        simulate(seed, async |rt| {
            println!("seed {seed}");
            scenario(rt, Crypter::plaintext()).await;
        });
    }
}

#[test]
fn and_so_it_has_when_it_is_encrypted() {
    simulate(101, async |rt| {
        let key = Crypter::new(Method::Aes128Ctr, &rt.random_bytes::<16>()).unwrap();
        scenario(rt, key).await;
    });
}
