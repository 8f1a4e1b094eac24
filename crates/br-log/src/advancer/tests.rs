mod model;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use br_rt::{CancellationToken, Rt, UnixMillis};
use br_types::{StoreId, TimeStamp};

use super::*;
use model::{Cluster, Fault, START_MS};

fn simulate<T>(seed: u64, run: impl AsyncFnOnce(Rt) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { run(Rt::simulated(seed, UnixMillis(START_MS))).await })
}

fn config(id: &str) -> AdvancerConfig {
    AdvancerConfig::new(id.to_owned())
}

/// A coordinator that works until it is dropped.
struct Running {
    end: CancellationToken,
    _task: br_rt::Task<()>,
}

impl Running {
    fn start(cluster: &Arc<Cluster>, config: AdvancerConfig) -> Running {
        let end = CancellationToken::new();
        let (cluster, until) = (cluster.clone(), end.clone());
        let rt = cluster.rt().clone();
        let task = rt.spawn(async move {
            let mut coordinator = Coordinator::new(cluster, config);
            coordinator.run(&until).await;
        });
        Running { end, _task: task }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn lag(cluster: &Cluster) -> Duration {
    let now = cluster.rt().wall().0;
    Duration::from_millis(now - cluster.published().physical_ms())
}

#[test]
fn the_checkpoint_follows_the_flushes() {
    simulate(1, async |rt| {
        let cluster = Cluster::start(&rt, 3, 30);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        for _ in 0..30 {
            rt.sleep(MINUTE).await;
            cluster.check();
        }
        // Flushes come each three minutes, and nothing else holds it back.
        assert!(lag(&cluster) < MINUTE * 7 / 2, "{:?}", lag(&cluster));
        assert_eq!(cluster.safe_point(), Some(cluster.published().prev()));
        assert_eq!(cluster.stored(), cluster.published());
    });
}

#[test]
fn polling_goes_on_where_streams_do_not() {
    simulate(2, async |rt| {
        let cluster = Cluster::start(&rt, 3, 30);
        cluster.set_fault(StoreId(1), Fault::NoStreams);
        cluster.set_fault(StoreId(2), Fault::SilentStreams);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 30).await;
        cluster.check();
        assert!(lag(&cluster) < MINUTE * 9, "{:?}", lag(&cluster));
    });
}

#[test]
fn a_store_that_is_gone_holds_it_back_until_others_lead() {
    simulate(3, async |rt| {
        let cluster = Cluster::start(&rt, 3, 30);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 10).await;
        cluster.set_fault(StoreId(2), Fault::Down);
        rt.sleep(MINUTE * 10).await;
        cluster.check();
        assert!(lag(&cluster) > MINUTE * 9, "{:?}", lag(&cluster));
        cluster.move_leaders(StoreId(2), StoreId(3));
        rt.sleep(MINUTE * 10).await;
        cluster.check();
        assert!(lag(&cluster) < MINUTE * 8, "{:?}", lag(&cluster));
    });
}

#[test]
fn a_lock_of_a_dead_client_is_resolved_and_one_of_a_living_transaction_is_not() {
    simulate(4, async |rt| {
        let cluster = Cluster::start(&rt, 3, 30);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 10).await;
        let dead = cluster.lock(7, false);
        rt.sleep(MINUTE * 30).await;
        cluster.check();
        assert!(cluster.published() > dead, "the dead lock holds it back");
        let alive = cluster.lock(11, true);
        rt.sleep(MINUTE * 60).await;
        cluster.check();
        assert!(cluster.published() < alive);
        assert!(alive.physical_ms() - cluster.published().physical_ms() < 400_000);
        cluster.unlock(11);
        rt.sleep(MINUTE * 10).await;
        assert!(lag(&cluster) < MINUTE * 8, "{:?}", lag(&cluster));
    });
}

#[test]
fn a_pause_is_state_and_the_lag_limit_does_not_count_in_it() {
    simulate(5, async |rt| {
        let cluster = Cluster::start(&rt, 3, 10);
        cluster.add_task("t");
        let running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 10).await;
        cluster.pause_by_hand();
        rt.sleep(MINUTE).await;
        let (published, writes) = (cluster.published(), cluster.writes());
        // A coordinator that never saw the pause happen.
        drop(running);
        let _other = Running::start(&cluster, config("b"));
        rt.sleep(MINUTE * 60 * 72).await;
        assert_eq!((cluster.published(), cluster.writes()), (published, writes));
        assert_eq!(cluster.pauses(), ["by hand"]);
        cluster.resume();
        // The limit is passed: the task cannot be trusted to catch up before data is collected.
        rt.sleep(MINUTE).await;
        assert_eq!(cluster.pauses().len(), 2);
    });
}

#[test]
fn a_task_that_lags_for_two_days_is_paused_once_with_the_reason() {
    simulate(6, async |rt| {
        let cluster = Cluster::start(&rt, 3, 10);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 10).await;
        cluster.set_fault(StoreId(1), Fault::Down);
        rt.sleep(MINUTE * 60 * 47).await;
        assert!(cluster.pauses().is_empty());
        rt.sleep(MINUTE * 60 * 2).await;
        let pauses = cluster.pauses();
        assert!(
            matches!(pauses.as_slice(), [reason] if reason.contains("lags")),
            "{pauses:?}"
        );
        // Nobody is in the way of garbage collection any longer than the day of the last renewal.
        let renewed = cluster.safe_point_renewed();
        rt.sleep(MINUTE * 60).await;
        assert_eq!(cluster.safe_point_renewed(), renewed);
    });
}

#[test]
fn a_task_under_the_same_name_begins_anew() {
    simulate(7, async |rt| {
        let cluster = Cluster::start(&rt, 3, 10);
        cluster.add_task("t");
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 20).await;
        cluster.remove_task();
        rt.sleep(MINUTE).await;
        assert_eq!(cluster.safe_point(), None, "it goes with the task");
        cluster.add_task("t");
        for _ in 0..20 {
            rt.sleep(MINUTE).await;
            cluster.check();
        }
        assert!(lag(&cluster) < MINUTE * 7 / 2, "{:?}", lag(&cluster));
    });
}

#[test]
fn the_storage_failing_does_not_keep_the_checkpoint_back() {
    simulate(8, async |rt| {
        let cluster = Cluster::start(&rt, 3, 10);
        cluster.add_task("t");
        cluster.fail_storage(true);
        let _running = Running::start(&cluster, config("a"));
        rt.sleep(MINUTE * 20).await;
        assert!(lag(&cluster) < MINUTE * 7 / 2, "{:?}", lag(&cluster));
        assert_eq!(cluster.stored(), TimeStamp::ZERO);
        cluster.fail_storage(false);
        rt.sleep(MINUTE * 5).await;
        assert_eq!(cluster.stored(), cluster.published());
    });
}

/// Whatever happens, at every moment: the published checkpoint never goes back, and never passes
/// what stores have on storage. When all is well again, it catches up.
#[test]
fn it_never_goes_back_and_never_passes_what_is_proven() {
    for seed in 0..30 {
        simulate(seed, async |rt| {
            let cluster = Cluster::start(&rt, 4, 24);
            cluster.add_task("t");
            // Two at once, as when one has lost its lease and does not know it yet.
            let mut running: BTreeMap<u64, Running> = BTreeMap::new();
            running.insert(0, Running::start(&cluster, config("a")));
            running.insert(1, Running::start(&cluster, config("b")));
            for step in 0..120 {
                let any_store = StoreId(1 + rt.random_below(4));
                let other_store = StoreId(1 + rt.random_below(4));
                match rt.random_below(12) {
                    0 => cluster.set_fault(any_store, Fault::Down),
                    1 => cluster.set_fault(any_store, Fault::SilentStreams),
                    2 => cluster.set_fault(any_store, Fault::NoStreams),
                    3 => cluster.set_fault(any_store, Fault::None),
                    4 => cluster.move_leaders(any_store, other_store),
                    5 => cluster.split(rt.random_below(240)),
                    6 => cluster.merge(rt.random_below(240)),
                    7 => drop(cluster.lock(rt.random_below(240), rt.random_below(2) == 0)),
                    8 => cluster.fail_pd(rt.random_below(3) == 0),
                    9 => {
                        running.remove(&rt.random_below(2));
                    }
                    10 => {
                        let id = rt.random_below(2);
                        let name = format!("{id}-{step}");
                        running.insert(id, Running::start(&cluster, config(&name)));
                    }
                    _ => {}
                }
                rt.sleep(Duration::from_secs(rt.random_below(90))).await;
                cluster.check();
            }
            cluster.heal();
            running.insert(0, Running::start(&cluster, config("last")));
            rt.sleep(MINUTE * 30).await;
            cluster.check();
            assert!(
                lag(&cluster) < MINUTE * 9,
                "seed {seed}: {:?}",
                lag(&cluster)
            );
        });
    }
}
