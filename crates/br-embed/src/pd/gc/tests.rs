use super::*;
use crate::pd::meta_kv::MemoryKv;

const START: UnixMillis = UnixMillis(1_000_000);

fn after(seconds: u64) -> UnixMillis {
    UnixMillis(START.0 + seconds * 1000)
}

fn gc() -> Gc {
    Gc::open(Arc::new(MemoryKv::default())).unwrap()
}

#[test]
fn a_barrier_holds_the_safe_point_until_it_expires() {
    let gc = gc();
    let barrier = gc.set_barrier("br-1", TimeStamp(100), 300, START).unwrap();
    assert_eq!(barrier.ttl_seconds, 300);
    let held = gc
        .advance_txn_safe_point(TimeStamp(200), after(299))
        .unwrap();
    assert_eq!(held.new, TimeStamp(100));
    assert_eq!(held.blocker.unwrap().id, "br-1");
    let free = gc
        .advance_txn_safe_point(TimeStamp(200), after(300))
        .unwrap();
    assert_eq!(
        (free.old, free.new, free.blocker),
        (TimeStamp(100), TimeStamp(200), None)
    );
    assert!(gc.state(after(300)).barriers.is_empty());
}

#[test]
fn a_barrier_that_comes_too_late_is_not_installed() {
    let gc = gc();
    gc.advance_txn_safe_point(TimeStamp(100), START).unwrap();
    assert!(matches!(
        gc.set_barrier("x", TimeStamp(99), 10, START),
        Err(GcError::BarrierBehind { .. })
    ));
    let answer = gc
        .update_service_safe_point("x", TimeStamp(99), 10, START)
        .unwrap();
    assert_eq!(answer.min_safe_point, TimeStamp(100));
    assert_eq!(answer.service_id, GC_WORKER);
    assert!(gc.state(START).barriers.is_empty());
}

#[test]
fn service_safe_points_are_barriers() {
    let gc = gc();
    gc.update_service_safe_point("br", TimeStamp(50), 10, START)
        .unwrap();
    let blocked = gc
        .update_service_safe_point(GC_WORKER, TimeStamp(80), TTL_FOREVER, START)
        .unwrap();
    assert_eq!(
        (blocked.service_id.as_str(), blocked.min_safe_point),
        ("br", TimeStamp(50))
    );
    gc.update_service_safe_point("br", TimeStamp(0), 0, START)
        .unwrap();
    let free = gc
        .update_service_safe_point(GC_WORKER, TimeStamp(80), TTL_FOREVER, START)
        .unwrap();
    assert_eq!(
        (free.service_id.as_str(), free.min_safe_point),
        (GC_WORKER, TimeStamp(80))
    );
    assert!(matches!(
        gc.update_service_safe_point(GC_WORKER, TimeStamp(90), 10, START),
        Err(GcError::WorkerTtl(10))
    ));
}

#[test]
fn the_gc_safe_point_follows_and_never_goes_back() {
    let gc = gc();
    gc.advance_txn_safe_point(TimeStamp(100), START).unwrap();
    assert!(matches!(
        gc.advance_gc_safe_point(TimeStamp(101)),
        Err(GcError::BeyondTxn { .. })
    ));
    assert_eq!(
        gc.update_gc_safe_point(TimeStamp(60)).unwrap(),
        TimeStamp(60)
    );
    assert_eq!(
        gc.update_gc_safe_point(TimeStamp(0)).unwrap(),
        TimeStamp(60)
    );
    assert!(matches!(
        gc.advance_gc_safe_point(TimeStamp(10)),
        Err(GcError::Decreasing { .. })
    ));
    assert!(matches!(
        gc.advance_txn_safe_point(TimeStamp(99), START),
        Err(GcError::Decreasing { .. })
    ));
}

#[test]
fn everything_is_there_after_a_restart() {
    let kv: Arc<MemoryKv> = Arc::default();
    let gc = Gc::open(kv.clone()).unwrap();
    gc.advance_txn_safe_point(TimeStamp(5), START).unwrap();
    gc.set_barrier("keep", TimeStamp(7), TTL_FOREVER, START)
        .unwrap();
    gc.set_barrier("ends", TimeStamp(8), 30, START).unwrap();
    let before = gc.state(after(10));
    assert_eq!(Gc::open(kv).unwrap().state(after(10)), before);
    assert_eq!(before.barriers.len(), 2);
}

#[test]
fn reserved_and_empty_names_are_refused() {
    let gc = gc();
    for id in ["", GC_WORKER] {
        assert!(matches!(
            gc.set_barrier(id, TimeStamp(1), 10, START),
            Err(GcError::BarrierId(_))
        ));
        assert!(gc.delete_barrier(id, START).is_err());
    }
    assert!(matches!(
        gc.set_barrier("x", TimeStamp(1), 0, START),
        Err(GcError::Ttl(0))
    ));
}
