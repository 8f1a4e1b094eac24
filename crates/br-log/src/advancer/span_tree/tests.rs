use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Keys of the model: one byte each, and as the end of a range 0 for no bound.
const KEYS: std::ops::RangeInclusive<u8> = 1..=60;

fn key(byte: u8) -> EncodedKey {
    match byte {
        0 => EncodedKey::default(),
        byte => EncodedKey::from(vec![byte]),
    }
}

fn range(start: u8, end: u8) -> KeyRange<EncodedKey> {
    KeyRange {
        start: key(start),
        end: key(end),
    }
}

/// What every key's value should be, kept key by key.
#[derive(Debug, Default)]
struct Model(BTreeMap<u8, u64>);

impl Model {
    fn new(ranges: &[(u8, u8)], value: u64) -> Model {
        let covered = |k: &u8| ranges.iter().any(|(s, e)| range(*s, *e).contains(&key(*k)));
        Model(KEYS.filter(covered).map(|k| (k, value)).collect())
    }

    fn raise(&mut self, start: u8, end: u8, value: u64) {
        for (k, old) in &mut self.0 {
            if range(start, end).contains(&key(*k)) {
                *old = (*old).max(value);
            }
        }
    }
}

fn values_of(tree: &SpanTree) -> BTreeMap<u8, u64> {
    let mut values = BTreeMap::new();
    for k in KEYS {
        let at: Vec<_> = tree
            .spans()
            .filter(|span| span.range.contains(&key(k)))
            .collect();
        assert!(at.len() <= 1, "key {k} is in two spans: {at:?}");
        if let [span] = at.as_slice() {
            values.insert(k, span.checkpoint.0);
        }
    }
    values
}

fn check_joined(tree: &SpanTree) {
    let spans: Vec<_> = tree.spans().collect();
    for pair in spans.windows(2) {
        let [a, b] = pair else { unreachable!() };
        assert!(!a.range.is_empty() && !b.range.is_empty());
        assert!(!a.range.end.is_empty() && a.range.end <= b.range.start);
        assert!(
            a.range.end != b.range.start || a.checkpoint != b.checkpoint,
            "{a:?} and {b:?} are not joined"
        );
    }
}

fn bounds() -> impl Strategy<Value = (u8, u8)> {
    (0_u8..60, 0_u8..=61).prop_map(|(a, b)| match b {
        0 | 61 => (a, 0),
        b if b == a => (a, a + 1),
        b => (a.min(b), a.max(b)),
    })
}

proptest! {
    #[test]
    fn every_key_has_the_greatest_value_reported_for_it(
        ranges in prop::collection::vec(bounds(), 1..5),
        reports in prop::collection::vec((bounds(), 0_u64..30), 0..60),
    ) {
        let mut tree = SpanTree::new(
            ranges.iter().map(|(start, end)| range(*start, *end)),
            TimeStamp(5),
        );
        let mut model = Model::new(&ranges, 5);
        prop_assert_eq!(values_of(&tree), model.0.clone());
        for ((start, end), value) in reports {
            let before = tree.min();
            let changed = tree.raise(&range(start, end), TimeStamp(value));
            let old = model.0.clone();
            model.raise(start, end, value);
            prop_assert_eq!(values_of(&tree), model.0.clone());
            // A report may change only what lies between two keys of the model.
            prop_assert!(changed || old == model.0);
            prop_assert!(tree.min() >= before);
            check_joined(&tree);
            for below in tree.below(TimeStamp(value)) {
                for k in KEYS.filter(|k| below.contains(&key(*k))) {
                    prop_assert!(model.0.get(&k).is_some_and(|v| *v < value));
                }
            }
            let found: usize = tree
                .below(TimeStamp(value))
                .iter()
                .map(|range| KEYS.filter(|k| range.contains(&key(*k))).count())
                .sum();
            prop_assert_eq!(found, model.0.values().filter(|v| **v < value).count());
        }
    }
}

#[test]
fn a_report_for_other_keys_changes_nothing() {
    let mut tree = SpanTree::new([range(10, 20), range(30, 40)], TimeStamp(7));
    assert!(!tree.raise(&range(20, 30), TimeStamp(9)));
    assert!(!tree.raise(&range(40, 0), TimeStamp(9)));
    assert_eq!((tree.min(), tree.len()), (Some(TimeStamp(7)), 2));
}

#[test]
fn the_whole_key_space_is_one_report() {
    let mut tree = SpanTree::new([range(10, 20), range(30, 40)], TimeStamp(7));
    assert!(tree.raise(&KeyRange::default(), TimeStamp(8)));
    assert_eq!(tree.min(), Some(TimeStamp(8)));
    assert_eq!(SpanTree::default().min(), None);
}
