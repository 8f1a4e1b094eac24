use std::{collections::BTreeMap, sync::Arc};

use br_codec::key;
use br_types::{Cf, TimeStamp};
use proptest::prelude::*;

use super::{Buffer, Merge, Sorted, Sorter, Version};
use crate::scratch::ScratchDir;

/// Key, rank of the column family, inverted timestamp: what a store orders by.
type Model = BTreeMap<(Vec<u8>, u8, u64), Vec<u8>>;

#[derive(Clone, Debug)]
struct Event {
    key: Vec<u8>,
    cf: Cf,
    ts: u64,
}

impl Event {
    fn value(&self) -> Vec<u8> {
        // The same entry has the same value whenever it is logged.
        format!("{:?}", (&self.key, self.cf, self.ts)).into_bytes()
    }
}

fn event() -> impl Strategy<Value = Event> {
    let tail = proptest::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..20);
    (
        0..3u8,
        tail,
        prop_oneof![Just(Cf::Write), Just(Cf::Default)],
        0..4u64,
    )
        .prop_map(|(table, tail, cf, ts)| {
            let raw = [b"t\x80\0\0\0\0\0\0", &[table][..], &tail].concat();
            Event {
                key: key::encode(&raw).into_bytes(),
                cf,
                ts,
            }
        })
}

fn sorter(dir: &tempfile::TempDir, memory_bytes_max: usize) -> Sorter {
    let scratch = ScratchDir::create(&br_rt::Rt::real(), dir.path()).unwrap();
    Sorter::new(Arc::new(scratch), memory_bytes_max)
}

/// Adds events in buffers of so many.
fn add(sorter: &Sorter, events: &[Event], per_buffer: usize) {
    for chunk in events.chunks(per_buffer) {
        let mut buffer = Buffer::default();
        for event in chunk {
            buffer.push(&Version {
                key: &event.key,
                cf: event.cf,
                ts: TimeStamp(event.ts),
                value: &event.value(),
            });
        }
        sorter.add(buffer).unwrap();
    }
}

fn read(mut merge: Merge) -> Vec<((Vec<u8>, u8, u64), Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(version) = merge.peek() {
        let rank = super::version::rank(version.cf);
        all.push((
            (version.key.to_vec(), rank, !version.ts.0),
            version.value.to_vec(),
        ));
        merge.advance().unwrap();
    }
    all
}

fn model(events: &[Event]) -> Model {
    let entry = |event: &Event| {
        let rank = super::version::rank(event.cf);
        ((event.key.clone(), rank, !event.ts), event.value())
    };
    events.iter().map(entry).collect()
}

fn check(sorted: &Sorted, model: &Model, from: &[u8]) {
    let expected: Vec<_> = model
        .iter()
        .filter(|((key, _, _), _)| key.as_slice() >= from)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(read(sorted.from(from).unwrap()), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn equals_a_sort_in_memory(
        events in proptest::collection::vec(event(), 0..400),
        per_buffer in 1..90usize,
        memory in prop_oneof![Just(0usize), Just(2_000), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sorter = sorter(&dir, memory);
        add(&sorter, &events, per_buffer);
        let sorted = sorter.finish();
        let model = model(&events);
        check(&sorted, &model, &[]);
        for event in events.iter().take(5) {
            check(&sorted, &model, &event.key);
        }
        let cuts = sorted.cuts(500);
        prop_assert!(cuts.is_sorted() && cuts.windows(2).all(|pair| pair[0] != pair[1]));
        drop(sorted);
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn memory_is_bounded_and_runs_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let sorter = sorter(&dir, 10_000);
    let events: Vec<_> = (0..2_000u32)
        .map(|n| Event {
            key: key::encode(format!("t12345678_r{:08}", n * 7919 % 2_000).as_bytes()).into_bytes(),
            cf: Cf::Write,
            ts: u64::from(n),
        })
        .collect();
    add(&sorter, &events, 10);
    {
        let state = sorter.state.lock().unwrap();
        assert!(state.in_memory_bytes <= 10_000, "{}", state.in_memory_bytes);
        let runs: usize = state.levels.iter().map(Vec::len).sum();
        assert!(state.levels.len() > 1 && runs < 2 * super::RUNS_OF_LEVEL_MAX);
    }
    check(&sorter.finish(), &model(&events), &[]);
}

#[test]
fn damage_on_the_local_disk_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let sorter = sorter(&dir, 0);
    let one = Event {
        key: key::encode(b"t12345678_r1").into_bytes(),
        cf: Cf::Default,
        ts: 5,
    };
    add(&sorter, &[one], 1);
    let sorted = sorter.finish();
    let folder = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let file = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file.path(), bytes).unwrap();
    assert!(matches!(
        sorted.from(&[]),
        Err(super::RunError::Damaged { .. })
    ));
}
