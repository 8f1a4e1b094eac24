use br_rt::UnixMillis;

use super::*;
use crate::pd::{meta_kv::MemoryKv, simulate};

#[test]
fn timestamps_never_go_back_over_restarts_and_clocks_set_back() {
    let kv: Arc<MemoryKv> = Arc::default();
    let mut last = TimeStamp::ZERO;
    // Each start sets the clock back by a minute.
    for start in [600_000, 540_000, 480_000] {
        last = simulate(start, async |rt| {
            let tso = Tso::open(rt.clone(), kv.clone()).unwrap();
            let mut last = last;
            for round in 0..2_000_u32 {
                let count = round % 7 + 1;
                let ts = tso.get(count).await.unwrap();
                assert!(ts.0 - u64::from(count) >= last.0, "{ts} after {last}");
                last = ts;
                if round % 100 == 0 {
                    rt.sleep(Duration::from_millis(37)).await;
                }
            }
            last
        });
    }
}

#[test]
fn a_stored_bound_is_always_ahead() {
    let kv: Arc<MemoryKv> = Arc::default();
    simulate(1_000_000, async |rt| {
        let tso = Tso::open(rt.clone(), kv.clone()).unwrap();
        for _ in 0..100 {
            let ts = tso.get(1).await.unwrap();
            assert!(ts.physical_ms() < get_u64(kv.as_ref(), KEY).unwrap());
            rt.sleep(Duration::from_millis(130)).await;
        }
    });
}

#[test]
fn the_response_is_the_last_of_the_count() {
    simulate(5_000, async |rt| {
        let tso = Tso::open(rt, Arc::new(MemoryKv::default())).unwrap();
        assert_eq!(tso.get(10).await.unwrap(), TimeStamp::compose(5_000, 10));
        assert_eq!(tso.get(1).await.unwrap(), TimeStamp::compose(5_000, 11));
        assert!(matches!(tso.get(0).await, Err(TsoError::Count(0))));
        assert!(matches!(
            tso.get(COUNT_MAX + 1).await,
            Err(TsoError::Count(_))
        ));
    });
}

#[test]
fn a_used_up_millisecond_waits_for_the_next() {
    simulate(5_000, async |rt| {
        let tso = Tso::open(rt.clone(), Arc::new(MemoryKv::default())).unwrap();
        let first = tso.get(COUNT_MAX).await.unwrap();
        assert_eq!(rt.wall(), UnixMillis(5_000));
        let second = tso.get(1).await.unwrap();
        assert!(rt.wall() > UnixMillis(5_000));
        assert!(second > first);
    });
}

#[test]
fn reset_goes_only_forward_and_not_too_far() {
    simulate(1_000_000, async |rt| {
        let kv: Arc<MemoryKv> = Arc::default();
        let tso = Tso::open(rt.clone(), kv.clone()).unwrap();
        let now = tso.get(1).await.unwrap();
        assert!(matches!(
            tso.reset(now, false),
            Err(TsoError::ResetBack { .. })
        ));
        tso.reset(now, true).unwrap();
        assert!(tso.get(1).await.unwrap() > now);

        let far = TimeStamp::compose(now.physical_ms() + 25 * 3_600_000, 5);
        assert!(matches!(
            tso.reset(far, false),
            Err(TsoError::ResetAhead { .. })
        ));
        tso.reset(far, true).unwrap();
        assert_eq!(tso.get(1).await.unwrap(), far.next());

        let again = Tso::open(rt, kv).unwrap();
        assert!(again.get(1).await.unwrap() > far.next());
    });
}
