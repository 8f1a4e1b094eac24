use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::pd::meta_kv::MemoryKv;

fn open(kv: &Arc<MemoryKv>) -> Regions {
    let ids = Arc::new(IdAllocator::open(kv.clone()).unwrap());
    Regions::open(kv.clone(), ids).unwrap()
}

fn bootstrapped(kv: &Arc<MemoryKv>) -> Regions {
    let regions = open(kv);
    regions
        .bootstrap(&[StoreId(1), StoreId(2), StoreId(3)])
        .unwrap();
    regions
}

fn key(text: &str) -> EncodedKey {
    EncodedKey::from(text.as_bytes())
}

fn version(state: &RegionState) -> u64 {
    state.region.region_epoch.unwrap().version
}

fn bounds(states: &[RegionState]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    states
        .iter()
        .map(|state| (text(&state.region.start_key), text(&state.region.end_key)))
        .collect()
}

#[test]
fn a_split_keeps_the_id_on_the_right_and_raises_the_version_by_the_new_regions() {
    let regions = bootstrapped(&Arc::default());
    let whole = regions.all().remove(0);
    let parts = regions.split(whole.id(), 1, &[key("b"), key("m")]).unwrap();
    assert_eq!(
        bounds(&parts),
        [("", "b"), ("b", "m"), ("m", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    assert_eq!(parts[2].id(), whole.id());
    assert!(parts.iter().all(|part| version(part) == 3));
    assert!(
        parts
            .iter()
            .all(|part| part.leader_store() == whole.leader_store())
    );
    assert_eq!(regions.all(), parts);
    let mut peers: Vec<_> = parts
        .iter()
        .flat_map(|p| p.region.peers.iter().map(|p| p.id))
        .collect();
    peers.sort_unstable();
    peers.dedup();
    assert_eq!(peers.len(), 9);
}

#[test]
fn wrong_splits_change_nothing() {
    let regions = bootstrapped(&Arc::default());
    let id = regions.all()[0].id();
    regions.split(id, 1, &[key("m")]).unwrap();
    let before = regions.all();
    assert!(
        regions
            .split(id, 1, &[key("x")])
            .unwrap_err()
            .epoch_not_match
            .is_some()
    );
    assert!(
        regions
            .split(id, 2, &[key("m")])
            .unwrap_err()
            .key_not_in_region
            .is_some()
    );
    assert!(
        regions
            .split(id, 2, &[key("a")])
            .unwrap_err()
            .key_not_in_region
            .is_some()
    );
    assert!(
        regions
            .split(id, 2, &[key("x"), key("x")])
            .unwrap_err()
            .key_not_in_region
            .is_some()
    );
    assert!(
        regions
            .split(RegionId(999), 1, &[key("x")])
            .unwrap_err()
            .region_not_found
            .is_some()
    );
    assert!(regions.split(id, 2, &[]).is_err());
    assert_eq!(regions.all(), before);
}

#[test]
fn lookups_by_key_previous_and_range() {
    let regions = bootstrapped(&Arc::default());
    let id = regions.all()[0].id();
    let parts = regions.split(id, 1, &[key("b"), key("m")]).unwrap();
    assert_eq!(regions.find(&key("b")).unwrap(), parts[1]);
    assert_eq!(regions.find(&key("azz")).unwrap(), parts[0]);
    assert_eq!(regions.find_previous(&key("z")).unwrap(), parts[1]);
    assert_eq!(regions.find_previous(&key("a")), None);
    let scan =
        |start: &str, end: &str, limit| regions.scan(&KeyRange::new(key(start), key(end)), limit);
    assert_eq!(scan("c", "m", 9), parts[1..2]);
    assert_eq!(scan("c", "mm", 9), parts[1..]);
    assert_eq!(scan("", "", 2), parts[..2]);
    assert_eq!(scan("x", "b", 9), []);
}

#[test]
fn only_neighbours_merge() {
    let regions = bootstrapped(&Arc::default());
    let id = regions.all()[0].id();
    let parts = regions.split(id, 1, &[key("b"), key("m")]).unwrap();
    assert!(matches!(
        regions.merge(parts[0].id(), parts[2].id()),
        Err(RegionsError::NotAdjacent { .. })
    ));
    let merged = regions.merge(parts[1].id(), parts[0].id()).unwrap();
    assert_eq!(
        bounds(std::slice::from_ref(&merged)),
        [(String::new(), "m".to_owned())]
    );
    assert_eq!(version(&merged), 4);
    assert_eq!(regions.get(parts[1].id()), None);
}

#[derive(Clone, Debug)]
enum Step {
    Split(u16, u8),
    Merge(u16, bool),
    Lead(u16, u64),
    Evict(u64, u64),
    MovePeer(u16, u64, u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u16>(), 1..4_u8).prop_map(|(at, keys)| Step::Split(at, keys)),
        3 => (any::<u16>(), any::<bool>()).prop_map(|(at, left)| Step::Merge(at, left)),
        2 => (any::<u16>(), 1..5_u64).prop_map(|(at, store)| Step::Lead(at, store)),
        1 => (1..5_u64, 1..5_u64).prop_map(|(from, to)| Step::Evict(from, to)),
        2 => (any::<u16>(), 1..5_u64, 1..5_u64).prop_map(|(at, a, b)| Step::MovePeer(at, a, b)),
        1 => Just(Step::Restart),
    ]
}

fn run(regions: &Regions, step: &Step) {
    let at = |number: u16| {
        regions
            .find(&EncodedKey::from(&number.to_be_bytes()[..]))
            .unwrap()
    };
    // Refused steps are part of the test: they may not change anything wrongly either.
    match *step {
        Step::Split(number, keys) => {
            let state = at(number);
            let keys: Vec<_> = (0..u16::from(keys))
                .map(|i| number.saturating_add(i))
                .map(|key| EncodedKey::from(&key.to_be_bytes()[..]))
                .collect();
            let _ = regions.split(state.id(), version(&state), &keys);
        }
        Step::Merge(number, left) => {
            let state = at(number);
            let end = EncodedKey::from(state.region.end_key.clone());
            let neighbour = if left {
                regions.find_previous(&EncodedKey::from(state.region.start_key.clone()))
            } else {
                (!end.is_empty()).then(|| regions.find(&end)).flatten()
            };
            if let Some(neighbour) = neighbour {
                regions.merge(state.id(), neighbour.id()).unwrap();
            }
        }
        Step::Lead(number, store) => {
            let _ = regions.transfer_leader(at(number).id(), StoreId(store));
        }
        Step::Evict(from, to) => {
            regions
                .evict_leaders(StoreId(from), |_| Some(StoreId(to)))
                .unwrap();
        }
        Step::MovePeer(number, from, to) => {
            let _ = regions.move_peer(at(number).id(), StoreId(from), StoreId(to));
        }
        Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, the regions cover all keys once, epochs grow, ids are not used again, and
    /// a restart finds the same table.
    #[test]
    fn the_table_stays_whole(steps in proptest::collection::vec(step(), 1..120)) {
        let kv: Arc<MemoryKv> = Arc::default();
        let mut regions = bootstrapped(&kv);
        let mut seen: BTreeMap<RegionId, metapb::RegionEpoch> = BTreeMap::new();
        let mut gone = std::collections::BTreeSet::new();
        for step in &steps {
            if matches!(step, Step::Restart) {
                let before = regions.all();
                regions = open(&kv);
                prop_assert_eq!(regions.all(), before);
                continue;
            }
            run(&regions, step);
            regions.read().check().map_err(TestCaseError::fail)?;
            let now: BTreeMap<_, _> = regions
                .all()
                .iter()
                .map(|state| (state.id(), state.region.region_epoch.unwrap()))
                .collect();
            for (id, epoch) in &now {
                prop_assert!(!gone.contains(id), "region {} came back", id);
                if let Some(old) = seen.get(id) {
                    prop_assert!(epoch.version >= old.version && epoch.conf_ver >= old.conf_ver);
                }
            }
            gone.extend(seen.keys().filter(|id| !now.contains_key(id)).copied());
            seen = now;
        }
    }
}
