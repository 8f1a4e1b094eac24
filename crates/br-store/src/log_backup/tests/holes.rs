//! The holes of other implementations, by name.

use std::time::Duration;

use br_format::{
    crypter::Crypter,
    log::{checkpoint::CheckpointCopy, names::global_checkpoint, task::TaskKey},
};
use br_rt::Rt;
use br_storage::Faults;
use br_types::{StoreId, TimeStamp};

use super::world::{Mode, STORES, World, keys, task};
use crate::{testing::simulate, topology::Topology};

const ONE: StoreId = STORES[0];

/// What store 1 has published for its only region.
fn published(world: &World) -> Option<TimeStamp> {
    let all = world.store(ONE)?.published().all();
    all.first().map(|region| region.checkpoint)
}

async fn flush(world: &World) -> Result<(), String> {
    let (name, result) = world.store(ONE).unwrap().flush_now().await.unwrap();
    assert_eq!(name, task());
    result
}

/// tikv#19897: a retried flush must not publish newer progress with an older payload.
#[test]
fn a_retried_flush_publishes_the_progress_of_its_payload() {
    for lost in ["backupmeta", ".log", ""] {
        simulate(async |rt| {
            let world = World::at_work(&rt).await;
            let [a, b] = [&keys()[0], &keys()[1]];
            flush(&world).await.unwrap();
            let committed_a = world.write(a, b"a").await;
            world.outage.begin(lost);
            flush(&world).await.unwrap_err();
            let committed_b = world.write(b, b"b").await;
            // Attempts go on and fail.
            rt.sleep(Duration::from_secs(120)).await;
            assert!(published(&world).unwrap() < committed_a);
            world.outage.end();
            while published(&world).unwrap() < committed_a {
                rt.sleep(Duration::from_millis(20)).await;
            }
            // The first progress after the outage is that of the first payload.
            let first = published(&world).unwrap();
            assert!(first < committed_b, "{first} {committed_b}");
            let log = world.verify(first).await;
            assert!(log.has(a, committed_a));
            flush(&world).await.unwrap();
            let after = published(&world).unwrap();
            assert!(after >= committed_b);
            assert!(world.verify(after).await.has(b, committed_b));
        });
    }
}

/// A flush must pass the event queue before it resolves, whatever its cause.
#[test]
fn a_flush_passes_the_event_queue_before_it_resolves() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Cause {
        Asked,
        Time,
        Size,
        Nothing,
    }
    for cause in [Cause::Asked, Cause::Time, Cause::Size, Cause::Nothing] {
        simulate(async |rt: Rt| {
            let mut world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
            if cause == Cause::Size {
                world.config.file_size_limit_bytes = 1000;
            }
            world.begin_task();
            world.start_store(ONE);
            rt.sleep(Duration::from_secs(3)).await;
            flush(&world).await.unwrap();
            // At every phase of the loop's rounds, and of the collector's rest.
            for millis in (0..260).step_by(7) {
                rt.sleep(Duration::from_millis(millis)).await;
                let start_ts = world.topology.tso();
                let row = [keys()[2].clone()];
                let locked = world
                    .prewrite(start_ts, &row, Some(&[7; 2000]), Mode::TwoPhase)
                    .await;
                assert!(locked.is_some());
                match cause {
                    Cause::Asked => flush(&world).await.unwrap(),
                    _ => rt.sleep(Duration::from_millis(2600)).await,
                }
                let now = published(&world).unwrap();
                assert!(now <= start_ts, "{cause:?} after {millis} ms");
                let commit_ts = world.topology.tso();
                world.commit(start_ts, commit_ts, &row).await;
                match cause {
                    Cause::Asked => flush(&world).await.unwrap(),
                    _ => rt.sleep(Duration::from_secs(12)).await,
                }
                let now = published(&world).unwrap();
                assert!(now >= commit_ts, "{cause:?} after {millis} ms");
            }
            world.verify(published(&world).unwrap()).await;
        });
    }
}

/// No metadata name may repeat when PD is away, nor after a restart.
#[test]
fn no_metadata_name_repeats_when_pd_is_away() {
    simulate(async |rt| {
        let world = World::at_work(&rt).await;
        world.write(&keys()[0], b"1").await;
        flush(&world).await.unwrap();
        world.board.set_down(true);
        let held = published(&world).unwrap();
        for n in 0..50_u64 {
            world.write(&keys()[1], &n.to_be_bytes()).await;
            flush(&world).await.unwrap();
        }
        // Data is safe, progress is not claimed.
        assert_eq!(published(&world).unwrap(), held);
        let own = |log: &super::world::Log| -> Vec<TimeStamp> {
            let of_one = log.flushes.iter().filter(|(store, _)| *store == ONE);
            of_one.map(|(_, flush_ts)| *flush_ts).collect()
        };
        let before = own(&world.verify(held).await);
        assert!(before.len() >= 51);
        // PD gives out again what was used as a name meanwhile.
        let used = *before.iter().max().unwrap();
        world.board.set_down(false);
        world.kill_store(ONE);
        world.start_store(ONE);
        rt.sleep(Duration::from_secs(1)).await;
        for n in 0..5_u64 {
            world.write(&keys()[2], &n.to_be_bytes()).await;
            flush(&world).await.unwrap();
        }
        let after = own(&world.verify(published(&world).unwrap()).await);
        assert_eq!(after.iter().filter(|ts| **ts <= used).count(), before.len());
        assert!(after.len() >= before.len() + 5);
    });
}

/// A checkpoint that could not be copied is copied later, without a new one.
#[test]
fn a_failed_copy_of_the_checkpoint_is_tried_again() {
    simulate(async |rt| {
        let world = World::at_work(&rt).await;
        world.write(&keys()[0], b"1").await;
        flush(&world).await.unwrap();
        rt.sleep(Duration::from_secs(30)).await;
        world.outage.begin("global_checkpoint");
        let global = world.coordinate();
        rt.sleep(Duration::from_secs(200)).await;
        let key = TaskKey::StorageCheckpoint(task(), ONE).to_bytes();
        let told = |world: &World| world.board.state().values.get(&key).cloned();
        assert_ne!(told(&world), Some(global.0.to_be_bytes().to_vec()));
        world.outage.end();
        rt.sleep(Duration::from_secs(60)).await;
        let name = global_checkpoint(ONE);
        let bytes = world.external.read(&name).await.unwrap();
        assert_eq!(CheckpointCopy::decode(&name, &bytes).unwrap().ts, global);
        assert_eq!(told(&world), Some(global.0.to_be_bytes().to_vec()));
    });
}

/// "Flush now" covers all that was written before the call, also while another flush is under way.
#[test]
fn flush_now_is_a_barrier_for_earlier_writes() {
    simulate(async |rt| {
        let faults = Faults {
            latency_max: Duration::from_secs(4),
            ..Faults::default()
        };
        let world = World::new(&rt, Crypter::plaintext(), faults).await;
        world.begin_task();
        world.start_store(ONE);
        rt.sleep(Duration::from_secs(1)).await;
        for n in 0..20 {
            let early = world.write(&keys()[n], b"early").await;
            let store = world.store(ONE).unwrap();
            let under_way = rt.spawn(async move { store.flush_now().await });
            rt.sleep(Duration::from_millis(300 + 150 * n as u64)).await;
            let late = world.write(&keys()[n], b"late").await;
            flush(&world).await.unwrap();
            let log = world.verify(published(&world).unwrap()).await;
            assert!(log.has(&keys()[n], early) && log.has(&keys()[n], late));
            assert!(published(&world).unwrap() >= late);
            assert_eq!(under_way.await.unwrap().1, Ok(()));
        }
    });
}

/// tikv#13281, tikv#13288: what was prewritten before the task began, and is committed when its
/// region has been scanned, is in the log with its value.
#[test]
fn what_was_prewritten_before_the_task_is_in_the_log() {
    simulate(async |rt| {
        let world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
        let start_ts = world.topology.tso();
        let row = [keys()[0].clone()];
        // Too long for the lock and the write record.
        let locked = world
            .prewrite(start_ts, &row, Some(&[7; 2000]), Mode::TwoPhase)
            .await;
        assert!(locked.is_some());
        world.begin_task();
        let begun = world.topology.tso();
        world.start_store(ONE);
        rt.sleep(Duration::from_secs(5)).await;
        flush(&world).await.unwrap();
        // Nothing is claimed beyond the start of the task.
        assert!(published(&world).unwrap() < begun);
        let commit_ts = world.topology.tso();
        world.commit(start_ts, commit_ts, &row).await;
        flush(&world).await.unwrap();
        let now = published(&world).unwrap();
        assert!(now >= commit_ts);
        assert!(world.verify(now).await.has(&row[0], commit_ts));
    });
}

/// tikv#14099: a store that has lost its leadership claims nothing of what its successor writes,
/// whether or not the successor takes part.
#[test]
fn who_leads_no_more_claims_nothing() {
    simulate(async |rt| {
        let world = World::at_work(&rt).await;
        let [_, other] = STORES;
        flush(&world).await.unwrap();
        let region = world.topology.regions_in(&Default::default(), usize::MAX);
        assert_eq!(region.len(), 1);
        world.kill_store(other);
        world.topology.move_leader(region[0].id(), other);
        let committed = world.write(&keys()[0], b"of the successor").await;
        for _ in 0..5 {
            flush(&world).await.unwrap();
            assert!(world.pass(Duration::from_secs(30)).await < committed);
        }
        world.start_store(other);
        let now = world.pass(Duration::from_secs(60)).await;
        assert!(now >= committed);
        assert!(world.verify(now).await.has(&keys()[0], committed));
    });
}

/// tikv#12918: a store that dies with records that it has not flushed, and one that PD cannot be
/// reached from when it comes back, leave no gap.
#[test]
fn a_restart_brings_what_was_not_flushed() {
    for pd_is_away in [false, true] {
        simulate(async |rt| {
            let world = World::at_work(&rt).await;
            flush(&world).await.unwrap();
            world.outage.begin("");
            let committed = world.write(&keys()[0], b"not flushed").await;
            rt.sleep(Duration::from_secs(5)).await;
            world.kill_store(ONE);
            world.outage.end();
            world.board.set_down(pd_is_away);
            world.start_store(ONE);
            rt.sleep(Duration::from_secs(20)).await;
            world.board.set_down(false);
            let now = world.pass(Duration::from_secs(120)).await;
            assert!(now >= committed, "{now} {committed}");
            assert!(world.verify(now).await.has(&keys()[0], committed));
        });
    }
}
