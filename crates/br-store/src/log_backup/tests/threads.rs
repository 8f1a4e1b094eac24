//! Writers on real threads: between a write that the engine shows and its event anything may come.

use std::{sync::Arc, time::Duration};

use br_format::crypter::Crypter;
use br_rt::Rt;
use br_storage::Faults;
use br_types::TimeStamp;

use super::{
    model::{transaction, trouble_with_regions},
    world::{Mode, STORES, World, keys},
};
use crate::topology::Topology;

const ROUNDS: usize = 6;
const WRITERS: usize = 4;
const TRANSACTIONS: usize = 6;
/// Looks whether the checkpoint has come far enough; a look takes some ten milliseconds.
const LOOKS_MAX: usize = 2000;

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn writers_on_many_threads_lose_nothing() {
    threads().block_on(async {
        let rt = Rt::real();
        let world = Arc::new(World::new(&rt, Crypter::plaintext(), Faults::default()).await);
        world.begin_task();
        for store in STORES {
            world.start_store(store);
        }
        for _ in 0..ROUNDS {
            let writers: Vec<_> = (0..WRITERS)
                .map(|_| {
                    let world = world.clone();
                    rt.spawn(async move {
                        for _ in 0..TRANSACTIONS {
                            transaction(&world, 8).await;
                        }
                    })
                })
                .collect();
            trouble_with_regions(&world);
            for store in STORES {
                if let Some((_, result)) = world.store(store).unwrap().flush_now().await {
                    result.unwrap();
                }
            }
            let global = world.coordinate();
            world.verify(global).await;
            for writer in writers {
                writer.await;
            }
        }
        let goal = world.topology.tso();
        for _ in 0..LOOKS_MAX {
            if world.coordinate() >= goal {
                break;
            }
            rt.sleep(Duration::from_millis(10)).await;
        }
        let global = world.coordinate();
        assert!(global >= goal, "stuck at {global} of {goal}");
        world.verify(global).await;
    });
}

/// Transactions that choose their commit timestamp themselves have done so before the engine shows
/// their writes. Their locks are in memory, and only there.
#[test]
fn a_flush_sees_the_locks_that_are_in_memory_only() {
    for mode in [Mode::OnePhase, Mode::Async] {
        threads().block_on(async {
            let rt = Rt::real();
            let world = Arc::new(World::at_work(&rt).await);
            let flush = async || {
                let (_, result) = world.store(STORES[0]).unwrap().flush_now().await.unwrap();
                result.unwrap();
                world.coordinate()
            };
            flush().await;
            world.gate.close();
            let start_ts = world.topology.tso();
            let writer = {
                let world = world.clone();
                rt.spawn(async move {
                    let row = [keys()[0].clone()];
                    world.prewrite(start_ts, &row, Some(b"value"), mode).await
                })
            };
            while world.mvcc.min_memory_lock_ts().is_none() {
                rt.sleep(Duration::from_millis(1)).await;
            }
            let meanwhile = flush().await;
            world.gate.open();
            let answer = writer.await.unwrap();
            let commit_ts = TimeStamp(answer.one_pc_commit_ts.max(answer.min_commit_ts));
            assert!(start_ts < commit_ts, "{mode:?}: {answer:?}");
            assert!(meanwhile < commit_ts, "{mode:?}: {meanwhile} {commit_ts}");
            if mode == Mode::Async {
                world.commit(start_ts, commit_ts, &keys()[..1]).await;
            }
            let after = flush().await;
            assert!(after >= commit_ts);
            assert!(world.verify(after).await.has(&keys()[0], commit_ts));
        });
    }
}
