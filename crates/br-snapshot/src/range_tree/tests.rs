use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// Keys of the model are the single bytes below this; it stands for "no bound" as an end.
const KEYS: u8 = 24;

fn range(start: u8, end: u8) -> KeyRange<RawKey> {
    let end = if end >= KEYS { Vec::new() } else { vec![end] };
    KeyRange::new(vec![start], end)
}

/// The model's keys that lie in `range`.
fn keys(range: &KeyRange<RawKey>) -> BTreeSet<u8> {
    (0..KEYS)
        .filter(|key| range.contains(&RawKey::new(vec![*key])))
        .collect()
}

fn tree(wanted: &[(u8, u8)]) -> RangeTree<u32> {
    RangeTree::new(
        wanted
            .iter()
            .map(|(start, end)| range(*start, *end))
            .collect(),
    )
    .expect("wanted")
}

#[test]
fn what_is_missing_is_found_by_subtraction() {
    let mut tree = tree(&[(2, 10), (12, KEYS)]);
    assert_eq!(tree.insert(&range(4, 6), 1), Insert::Added { completed: 0 });
    assert_eq!(
        tree.insert(&range(15, KEYS), 2),
        Insert::Added { completed: 0 }
    );
    assert_eq!(tree.missing(), [range(2, 4), range(6, 10), range(12, 15)]);
    assert_eq!(tree.insert(&range(2, 4), 3), Insert::Added { completed: 0 });
    assert_eq!(
        tree.insert(&range(6, 10), 4),
        Insert::Added { completed: 1 }
    );
    assert_eq!(
        tree.insert(&range(12, 15), 5),
        Insert::Added { completed: 1 }
    );
    assert!(tree.is_complete() && tree.missing().is_empty());
}

#[test]
fn a_piece_that_covers_older_ones_takes_their_place() {
    let mut tree = tree(&[(0, 10)]);
    tree.insert(&range(0, 3), 1);
    tree.insert(&range(4, 5), 2);
    let outcome = tree.insert(&range(0, 10), 3);
    assert_eq!(
        outcome,
        Insert::Replaced {
            superseded: vec![1, 2],
            completed: 1
        }
    );
    // The same answer again, later: it replaces, but completes nothing.
    let outcome = tree.insert(&range(0, 10), 4);
    assert_eq!(
        outcome,
        Insert::Replaced {
            superseded: vec![3],
            completed: 0
        }
    );
    assert_eq!((tree.take_finished(), tree.complete()), (vec![4], 1));
}

#[test]
fn a_piece_that_overlaps_in_part_is_refused() {
    let mut tree = tree(&[(0, 10)]);
    tree.insert(&range(0, 5), 1);
    assert_eq!(tree.insert(&range(3, 8), 2), Insert::Refused(2));
    assert_eq!(tree.insert(&range(1, 2), 3), Insert::Refused(3));
    assert_eq!(tree.missing(), [range(5, 10)]);
}

#[test]
fn what_was_taken_out_is_never_replaced() {
    let mut tree = tree(&[(0, 10)]);
    tree.insert(&range(0, 5), 1);
    tree.insert(&range(5, 7), 2);
    assert_eq!(tree.take_finished(), [1, 2]);
    assert_eq!(tree.insert(&range(0, 10), 3), Insert::Refused(3));
    assert_eq!(
        tree.insert(&range(7, 10), 4),
        Insert::Added { completed: 1 }
    );
    assert_eq!(tree.take_finished(), [4]);
    assert_eq!(tree.pieces.len(), 1, "neighbours are joined");
}

#[test]
fn pieces_outside_are_not_wanted() {
    let mut tree = tree(&[(2, 5), (5, 9)]);
    for (start, end) in [
        (0, 2),
        (1, 3),
        (4, 6),
        (8, 10),
        (9, KEYS),
        (2, KEYS),
        (3, 3),
    ] {
        assert_eq!(
            tree.insert(&range(start, end), 1),
            Insert::NotWanted(1),
            "{start} {end}"
        );
    }
}

#[test]
fn wanted_ranges_must_be_disjoint_and_not_empty() {
    let new = |ranges: &[(u8, u8)]| {
        RangeTree::<()>::new(
            ranges
                .iter()
                .map(|(start, end)| range(*start, *end))
                .collect(),
        )
    };
    assert_eq!(new(&[(3, 3)]).err(), Some(WantedError::Empty(range(3, 3))));
    let overlap = Some(WantedError::Overlap(range(0, KEYS), range(4, 5)));
    assert_eq!(new(&[(4, 5), (0, KEYS)]).err(), overlap);
    assert!(new(&[(4, KEYS), (0, 4)]).is_ok_and(|tree| tree.wanted()[0] == range(0, 4)));
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    /// Answer the nth missing range, as a store does that holds all of it.
    AnswerMissing(usize),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..KEYS, 0..=KEYS).prop_map(|(start, end)| Step::Insert(start, end)),
        2 => (0usize..4).prop_map(Step::AnswerMissing),
        1 => Just(Step::Take),
    ];
    vec(step, 0..40)
}

fn wanted() -> impl Strategy<Value = Vec<KeyRange<RawKey>>> {
    proptest::collection::btree_set(0..=KEYS, 2..8).prop_map(|bounds| {
        let bounds: Vec<u8> = bounds.into_iter().collect();
        bounds
            .windows(2)
            .step_by(2)
            .map(|pair| range(pair[0], pair[1]))
            .collect()
    })
}

proptest! {
    /// Against a model that holds, key by key, the number of the piece that counts for it.
    #[test]
    fn nothing_twice_and_nothing_missing(wanted in wanted(), steps in steps()) {
        let wanted_keys: BTreeSet<u8> = wanted.iter().flat_map(keys).collect();
        let mut tree = RangeTree::new(wanted.clone()).expect("wanted");
        let mut live: Vec<(u32, BTreeSet<u8>)> = Vec::new();
        let mut taken: Vec<(u32, BTreeSet<u8>)> = Vec::new();
        let mut completed_sum = 0;
        // In the end every range that is still missing is answered.
        let rest = std::iter::repeat_n(Step::AnswerMissing(0), usize::from(KEYS));
        for (number, step) in (0u32..).zip(steps.into_iter().chain(rest)) {
            let piece = match step {
                Step::Insert(start, end) => range(start, end),
                Step::AnswerMissing(n) => match tree.missing().get(n) {
                    Some(gap) => gap.clone(),
                    None => continue,
                },
                Step::Take => {
                    let out = tree.take_finished();
                    live.sort_by_key(|(_, held)| held.first().copied());
                    prop_assert_eq!(out, live.iter().map(|(n, _)| *n).collect::<Vec<_>>());
                    taken.append(&mut live);
                    prop_assert_eq!(tree.held(), 0);
                    continue;
                }
            };
            let held = keys(&piece);
            match tree.insert(&piece, number) {
                Insert::Added { completed } => {
                    completed_sum += completed;
                    live.push((number, held));
                }
                Insert::Replaced { superseded, completed } => {
                    completed_sum += completed;
                    for old in superseded {
                        let at = live.iter().position(|(n, _)| *n == old);
                        let (_, old) = live.remove(at.expect("only live pieces are superseded"));
                        prop_assert!(old.is_subset(&held));
                    }
                    live.push((number, held));
                }
                Insert::Refused(n) => {
                    prop_assert_eq!(n, number);
                    let all = live.iter().chain(&taken);
                    prop_assert!(all.clone().any(|(_, other)| !other.is_disjoint(&held)));
                }
                Insert::NotWanted(_) => {
                    prop_assert!(!wanted.iter().any(|range| range.covers(&piece) && !piece.is_empty()));
                }
            }
            // Each key counts once, and what is missing is exactly the rest.
            let mut counted = BTreeSet::new();
            for key in live.iter().chain(&taken).flat_map(|(_, held)| held) {
                prop_assert!(counted.insert(*key), "key {} twice", key);
            }
            let missing: BTreeSet<u8> = tree.missing().iter().flat_map(keys).collect();
            prop_assert_eq!(&missing, &wanted_keys.difference(&counted).copied().collect());
            let finished = wanted.iter().filter(|range| keys(range).is_disjoint(&missing)).count();
            prop_assert_eq!(finished, tree.complete());
            prop_assert_eq!(finished, completed_sum);
            prop_assert_eq!(live.len(), tree.held());
        }
        prop_assert!(tree.is_complete());
    }
}
