use std::time::Duration;

use br_codec::ApiVersion;
use br_proto::import_sstpb::{Range, SetDownloadSpeedLimitRequest, SwitchMode};

use super::{
    mode::{IMPORT_MODE_FOR, ImportMode},
    partition_range::PartitionRanges,
    speed_limit::{SpeedLimitError, SpeedLimits},
    suspend::Suspension,
};
use crate::testing::{Fixture, simulate};

#[test]
fn import_mode_ends_by_itself() {
    simulate(async |rt| {
        let mode = ImportMode::new(rt.clone());
        assert_eq!(mode.current(), SwitchMode::Normal);
        mode.switch(SwitchMode::Import);
        rt.sleep(IMPORT_MODE_FOR - Duration::from_secs(1)).await;
        assert_eq!(mode.current(), SwitchMode::Import);
        mode.switch(SwitchMode::Import);
        rt.sleep(IMPORT_MODE_FOR - Duration::from_secs(1)).await;
        assert_eq!(mode.current(), SwitchMode::Import);
        rt.sleep(Duration::from_secs(1)).await;
        assert_eq!(mode.current(), SwitchMode::Normal);
    });
}

#[test]
fn a_suspension_ends_at_its_time_or_when_told() {
    simulate(async |rt| {
        let suspension = Suspension::new(rt.clone());
        assert!(!suspension.set(Some(Duration::from_secs(10))));
        assert_eq!(suspension.remaining(), Some(Duration::from_secs(10)));
        assert!(suspension.set(None));
        assert_eq!(suspension.remaining(), None);
        suspension.set(Some(Duration::from_secs(10)));
        rt.sleep(Duration::from_secs(10)).await;
        assert_eq!(suspension.remaining(), None);
        assert!(!suspension.set(None));
    });
}

#[test]
fn the_least_limit_of_live_tasks_holds() {
    let limit = |task: &str, speed_limit, ttl_seconds| SetDownloadSpeedLimitRequest {
        task_id: task.into(),
        speed_limit,
        ttl_seconds,
    };
    simulate(async |rt| {
        let limits = SpeedLimits::new(rt.clone());
        assert!(limits.current().is_none());
        assert_eq!(
            limits.set(&limit("a", 100, 0)),
            Err(SpeedLimitError::NoTtl("a".into()))
        );
        limits.set(&limit("a", 100, 10)).unwrap();
        limits.set(&limit("b", 50, 5)).unwrap();
        assert_eq!(limits.rate(), 50);
        rt.sleep(Duration::from_secs(5)).await;
        assert_eq!(limits.rate(), 100);
        limits.set(&limit("", 70, 0)).unwrap();
        assert_eq!(limits.rate(), 70);
        limits.set(&limit("a", 0, 0)).unwrap();
        limits.set(&limit("", 0, 0)).unwrap();
        assert_eq!(limits.rate(), 0);
    });
}

#[test]
fn partition_ranges_live_as_long_as_asked() {
    let range = || Range {
        start: b"a".to_vec(),
        end: b"b".to_vec(),
    };
    simulate(async |rt| {
        let ranges = PartitionRanges::new(rt);
        ranges.add(range(), 10);
        assert!(ranges.remove(range()));
        assert!(!ranges.remove(range()));
    });
}

#[test]
fn a_process_that_died_leaves_nothing() {
    simulate(async |rt| {
        let fixture = Fixture::new(&rt, ApiVersion::V1);
        let left = fixture.dir.path().join("scratch/import/staged/left.sst");
        std::fs::write(&left, b"x").unwrap();
        let engine = fixture.store.engine().clone();
        super::Importer::open(rt, engine, 1, 1 << 20).unwrap();
        assert!(!left.exists());
    });
}
