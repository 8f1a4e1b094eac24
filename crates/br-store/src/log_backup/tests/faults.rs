//! Tasks that begin, pause, fail and end.

use std::time::Duration;

use br_format::{
    crypter::Crypter,
    log::task::{Pause, PauseReason, TaskError, TaskKey},
};
use br_proto::kvrpcpb::UnsafeDestroyRangeRequest;
use br_storage::Faults;
use br_types::{StoreId, TimeStamp};

use super::world::{Mode, STORES, World, keys, task};
use crate::{
    log_backup::{flush::guard_id, task::pause_guard_id},
    testing::simulate,
    topology::Topology,
};

const ONE: StoreId = STORES[0];
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_storage_that_stays_away_pauses_the_task_with_a_reason_and_a_guard() {
    simulate(async |rt| {
        let world = World::at_work(&rt).await;
        let first = world.write(&keys()[0], b"1").await;
        let global = world.pass(MINUTE).await;
        assert!(global >= first);
        world.outage.begin("");
        let second = world.write(&keys()[0], b"2").await;
        world.pass(40 * MINUTE).await;
        let Some(Pause::V2(pause)) = world.pause() else {
            panic!("it is not paused");
        };
        assert_eq!(pause.severity.name(), "ERROR");
        let PauseReason::Error(error) = pause.reason else {
            panic!("{:?}", pause.reason);
        };
        assert_eq!((error.code.as_str(), error.store), ("KV:LogBackup:IO", ONE));
        assert!(
            error
                .message
                .starts_with("[store = 1] cannot write to the storage")
        );
        assert!(error.message.contains("out of reach"), "{}", error.message);
        let checkpoint = world.coordinate();
        {
            let state = world.board.state();
            let last = state
                .values
                .get(&TaskKey::LastError(task(), ONE).to_bytes());
            assert_eq!(TaskError::decode("error", last.unwrap()).unwrap(), error);
            let guard = state.guards.get(&pause_guard_id(&task(), ONE));
            assert_eq!(guard, Some(&checkpoint.prev()));
        }
        // Nothing is at work, nothing is held.
        assert!(world.store(ONE).unwrap().flush_now().await.is_none());
        let third = world.write(&keys()[1], b"3").await;
        world.outage.end();
        world.board.state().paused.clear();
        world.board.changed();
        let global = world.pass(2 * MINUTE).await;
        assert!(global >= third, "{global} {third}");
        let log = world.verify(global).await;
        assert!(log.has(&keys()[0], second) && log.has(&keys()[1], third));
        let state = world.board.state();
        assert!(!state.guards.contains_key(&pause_guard_id(&task(), ONE)));
        assert!(state.guards.contains_key(&guard_id(&task(), ONE)));
    });
}

#[test]
fn a_task_that_is_paused_before_the_store_starts_stays_so() {
    simulate(async |rt| {
        let world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
        world.begin_task();
        world.board.state().paused.insert(task(), Vec::new());
        world.start_store(ONE);
        let early = world.write(&keys()[0], b"1").await;
        world.pass(5 * MINUTE).await;
        assert!(world.store(ONE).unwrap().flush_now().await.is_none());
        assert!(world.read_log().await.flushes.is_empty());
        // Resumed, it has what was written meanwhile.
        world.board.state().paused.clear();
        world.board.changed();
        let global = world.pass(MINUTE).await;
        assert!(global > early);
        assert!(world.verify(global).await.has(&keys()[0], early));
        // Stopped, it leaves nothing behind.
        world.board.state().infos.clear();
        world.board.changed();
        rt.sleep(Duration::from_secs(5)).await;
        assert!(world.board.state().guards.is_empty());
        assert!(world.store(ONE).unwrap().published().all().is_empty());
    });
}

#[test]
fn pd_may_come_late_and_go() {
    simulate(async |rt| {
        let world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
        world.board.set_down(true);
        world.begin_task();
        world.start_store(ONE);
        world.write(&keys()[0], b"1").await;
        rt.sleep(MINUTE).await;
        world.board.set_down(false);
        assert!(world.pass(MINUTE).await > TimeStamp::ZERO);
        world.board.set_down(true);
        let away = world.write(&keys()[0], b"2").await;
        rt.sleep(30 * MINUTE).await;
        // The data is there; nobody could be told how far it goes.
        assert!(world.read_log().await.has(&keys()[0], away));
        assert!(world.coordinate() < away);
        world.board.set_down(false);
        let global = world.pass(MINUTE).await;
        assert!(global > away && world.pause().is_none());
        world.verify(global).await;
    });
}

#[test]
fn collected_versions_end_the_task() {
    simulate(async |rt| {
        let world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
        world.begin_task();
        world.topology.set_gc_safe_point(TimeStamp(1 << 40));
        world.start_store(ONE);
        rt.sleep(Duration::from_secs(10)).await;
        let Some(Pause::V2(pause)) = world.pause() else {
            panic!("it is not paused");
        };
        let PauseReason::Error(error) = pause.reason else {
            panic!("{:?}", pause.reason);
        };
        assert!(
            error.message.contains("garbage collection"),
            "{}",
            error.message
        );
        assert!(
            error.message.contains("new full backup"),
            "{}",
            error.message
        );
    });
}

#[test]
fn locks_of_a_destroyed_range_hold_nothing_back() {
    simulate(async |rt| {
        let world = World::at_work(&rt).await;
        let start_ts = world.topology.tso();
        let row = [keys()[3].clone()];
        let locked = world
            .prewrite(start_ts, &row, Some(b"x"), Mode::TwoPhase)
            .await;
        assert!(locked.is_some());
        assert!(world.pass(MINUTE).await <= start_ts);
        let request = UnsafeDestroyRangeRequest {
            start_key: b"t".to_vec(),
            end_key: b"u".to_vec(),
            ..Default::default()
        };
        world.mvcc.unsafe_destroy_range(request).await;
        let now = world.topology.tso();
        assert!(world.pass(MINUTE).await >= now);
    });
}

#[test]
fn temporary_files_are_bounded_by_the_payload_and_go_with_it() {
    simulate(async |rt| {
        let mut world = World::new(&rt, Crypter::plaintext(), Faults::default()).await;
        world.config.temp_memory_bytes_max = 8 << 10;
        world.begin_task();
        world.start_store(ONE);
        rt.sleep(Duration::from_secs(1)).await;
        world.outage.begin(".log");
        let mut last = TimeStamp::ZERO;
        for n in 0..200_usize {
            last = world.write(&keys()[n % 20], &[n as u8; 900]).await;
        }
        rt.sleep(Duration::from_secs(10)).await;
        let dir = world.temp_dir(ONE).join("test");
        assert_ne!(std::fs::read_dir(&dir).unwrap().count(), 0);
        world.outage.end();
        let global = world.pass(2 * MINUTE).await;
        assert!(global > last);
        world.verify(global).await;
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    });
}
