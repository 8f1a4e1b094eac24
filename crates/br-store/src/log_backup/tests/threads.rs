//! Writers on real threads: between a write that the engine shows and its event anything may come.

use std::{sync::Arc, time::Duration};

use br_format::crypter::Crypter;
use br_rt::Rt;
use br_storage::Faults;

use super::{
    model::{transaction, trouble_with_regions},
    world::{STORES, World},
};
use crate::topology::Topology;

const ROUNDS: usize = 6;
const WRITERS: usize = 4;
const TRANSACTIONS: usize = 6;
/// Looks whether the checkpoint has come far enough; a look takes some ten milliseconds.
const LOOKS_MAX: usize = 2000;

#[test]
fn writers_on_many_threads_lose_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
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
