use br_codec::{Write, WriteKind, key};
use br_format::log::record::Records;
use br_proto::metapb;
use br_types::RegionId;

use super::*;
use crate::{log_backup::subscription::SubscriptionId, testing::simulate};

fn region(id: u64, version: u64, start: &[u8], end: &[u8]) -> SubscriptionSpec {
    SubscriptionSpec {
        id: SubscriptionId(id),
        region: metapb::Region {
            id,
            start_key: start.to_vec(),
            end_key: end.to_vec(),
            region_epoch: Some(metapb::RegionEpoch {
                conf_ver: 1,
                version,
            }),
            ..Default::default()
        },
        ranges: vec![KeyRange::default()],
        checkpoint: TimeStamp::ZERO,
    }
}

fn engine_key(raw: &[u8], ts: u64) -> Vec<u8> {
    let mut key = key::encode(raw).into_bytes();
    key::append_ts(&mut key, TimeStamp(ts));
    key
}

fn records(sealed: &SealedFiles, index: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut source = sealed.source(index).unwrap();
    while let Some(piece) = source.next(7).unwrap() {
        all.extend(piece);
    }
    all
}

#[test]
fn events_are_sorted_into_files_and_regions_are_joined() {
    simulate(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryUse::default());
        let mut payload = Payload::new(rt, dir.path(), memory.clone(), 1 << 20);
        let table_key = br_tidb::table_key::record_key(TableId(77), 1).into_bytes();
        let record = Write::new(WriteKind::Put, TimeStamp(3), Some(b"v".to_vec())).to_bytes();
        let mut add = |spec: &SubscriptionSpec, cf, raw: &[u8], ts, value| {
            let engine_key = engine_key(raw, ts);
            payload
                .append(
                    spec,
                    TimeStamp(ts),
                    Event {
                        cf,
                        engine_key: &engine_key,
                        value,
                    },
                )
                .unwrap();
        };
        let old = region(1, 1, b"a", b"");
        let new = region(1, 2, b"b", b"m");
        add(&old, Cf::Write, &table_key, 9, Some(&record));
        add(&new, Cf::Write, &table_key, 12, Some(&record));
        add(&new, Cf::Write, &table_key, 5, None);
        add(&new, Cf::Default, &table_key, 3, Some(b"long"));
        add(&new, Cf::Write, b"mDB:1", 8, Some(&record));
        let sealed = payload.seal();
        assert!(payload.first_at().is_none() && payload.bytes() == 0);
        let seen: Vec<_> = sealed
            .files
            .iter()
            .map(|file| {
                let id = file.file.identity;
                (id.is_schema, id.table.0, id.cf, id.kind, file.file.entries)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (false, 77, Cf::Default, EventKind::Put, 1),
                (false, 77, Cf::Write, EventKind::Put, 2),
                (false, 77, Cf::Write, EventKind::Delete, 1),
                (true, 0, Cf::Write, EventKind::Put, 1),
            ]
        );
        let file = &sealed.files[1].file;
        assert_eq!(
            (
                file.min_ts,
                file.max_ts,
                file.min_begin_ts,
                file.resolved_ts
            ),
            (TimeStamp(9), TimeStamp(12), TimeStamp(3), TimeStamp(12))
        );
        // The union of [a, ∞) and [b, m), in spite of how the empty key compares.
        assert_eq!(file.region_range, KeyRange::new(&b"a"[..], &b""[..]));
        assert_eq!(file.region_epochs.len(), 2);
        assert_eq!(file.identity.region, RegionId(1));
        assert_eq!(Records::new(&records(&sealed, 1)).count(), 2);
        drop(sealed);
        assert_eq!(memory.bytes(), 0);
    });
}

#[test]
fn what_does_not_fit_in_memory_comes_back_from_disk() {
    simulate(async |rt| {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryUse::default());
        let mut payload = Payload::new(rt, dir.path(), memory.clone(), 64 << 10);
        let mut expected = [Vec::new(), Vec::new()];
        for n in 0..4000_u64 {
            let spec = region(1 + n % 2, 1, b"", b"");
            let engine_key = engine_key(format!("key{n}").as_bytes(), n + 1);
            let value = vec![n as u8; 100];
            let event = Event {
                cf: Cf::Default,
                engine_key: &engine_key,
                value: Some(&value),
            };
            payload.append(&spec, TimeStamp(1), event).unwrap();
            let record = Record {
                key: &engine_key,
                value: &value,
            };
            record.encode_into(&mut expected[(n % 2) as usize]);
            if payload.is_over_quota() {
                payload.spill().unwrap();
                assert!(memory.bytes() <= 64 << 10);
            }
        }
        let mut sealed = payload.seal();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(records(&sealed, index), *expected);
        }
        sealed.release(0);
        assert_eq!(records(&sealed, 0), b"");
        assert_eq!(records(&sealed, 1), expected[1]);
        drop((sealed, payload));
        assert_eq!(memory.bytes(), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    });
}
