use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const GOLDEN: &str = "../../tests/golden/tidb-1/";

fn golden_ssts(folder: &str) -> Vec<(PathBuf, Bytes)> {
    let mut files = Vec::new();
    for store in fs::read_dir(format!("{GOLDEN}{folder}")).unwrap() {
        let store = store.unwrap().path();
        if store.is_dir() {
            for file in fs::read_dir(store).unwrap() {
                let path = file.unwrap().path();
                let bytes = fs::read(&path).unwrap().into();
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}

type OwnedEntry = (Vec<u8>, u64, EntryKind, Vec<u8>);

fn owned(entry: Entry<'_>) -> OwnedEntry {
    (
        entry.user_key.to_vec(),
        entry.sequence,
        entry.kind,
        entry.value.to_vec(),
    )
}

fn read_all(file: impl RandomAccess) -> Result<Vec<OwnedEntry>, SstError> {
    let table = Table::open(file)?;
    let mut iter = table.iter();
    let mut entries = Vec::new();
    while let Some(entry) = iter.next()? {
        entries.push(owned(entry));
    }
    Ok(entries)
}

#[test]
fn golden_tables_of_all_compressions_are_read_through() {
    let mut write_records = 0;
    for folder in ["full", "incremental", "db-lz4", "table-snappy"] {
        for (path, bytes) in golden_ssts(folder) {
            let table = Table::open(bytes.clone()).unwrap();
            let entries = read_all(bytes).unwrap();
            assert_eq!(
                table.properties().entries(),
                Some(entries.len() as u64),
                "{path:?}"
            );
            let size: usize = entries
                .iter()
                .map(|(key, _, _, value)| key.len() + 8 + value.len())
                .sum();
            assert_eq!(
                table.properties().raw_size_bytes(),
                Some(size as u64),
                "{path:?}"
            );
            assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "{path:?}");
            assert!(entries.iter().all(|(key, sequence, kind, _)| {
                key[0] == b'z' && *sequence == 0 && *kind == EntryKind::Put
            }));
            if folder == "full" && path.to_str().unwrap().ends_with("_write.sst") {
                write_records += entries.len();
            }
        }
    }
    // `total-kv` in the summary that the official tool printed.
    assert_eq!(write_records, 68_742);
}

#[test]
fn seek_finds_the_first_key_that_is_not_less() {
    for (path, bytes) in golden_ssts("full").into_iter().step_by(7) {
        let entries = read_all(bytes.clone()).unwrap();
        let table = Table::open(bytes).unwrap();
        let mut iter = table.iter();
        for at in (0..entries.len()).step_by(1 + entries.len() / 50).rev() {
            let key = &entries[at].0;
            let before = key.strip_suffix(&[*key.last().unwrap()]).unwrap();
            let after = [key.as_slice(), b"\0"].concat();
            for sought in [key.as_slice(), before, &after] {
                iter.seek(sought).unwrap();
                let expected = entries.partition_point(|entry| entry.0.as_slice() < sought);
                for expected in expected..(expected + 3).min(entries.len()) {
                    let found = iter.next().unwrap().map(owned);
                    assert_eq!(found.as_ref(), entries.get(expected), "{path:?}");
                }
            }
        }
        iter.seek(b"\xFF").unwrap();
        assert_eq!(iter.next().unwrap(), None);
        assert_eq!(iter.next().unwrap(), None);
        iter.seek(b"").unwrap();
        assert_eq!(iter.next().unwrap().map(owned).as_ref(), entries.first());
    }
}

/// Counts what is read of a file.
struct Counted(Bytes, std::cell::RefCell<Vec<(u64, usize)>>);

impl RandomAccess for Counted {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.1.borrow_mut().push((offset, len));
        self.0.read_at(offset, len)
    }
}

#[test]
fn a_point_read_touches_one_data_block() {
    let (_, bytes) = golden_ssts("full")
        .into_iter()
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap();
    let entries = read_all(bytes.clone()).unwrap();
    let source = Counted(bytes, Vec::new().into());
    let table = Table::open(&source).unwrap();
    assert_eq!(
        source.1.borrow().len(),
        4,
        "footer, metaindex, properties, index"
    );
    let (key, ..) = &entries[entries.len() / 2];
    let mut iter = table.iter();
    iter.seek(key).unwrap();
    assert_eq!(
        iter.next()
            .unwrap()
            .map(|entry| entry.user_key.to_vec())
            .as_ref(),
        Some(key)
    );
    assert_eq!(source.1.borrow().len(), 5);
    assert_eq!(iter.value_bytes(), entries[entries.len() / 2].3);
}

#[test]
fn what_is_not_a_table_is_told_apart() {
    let (_, bytes) = golden_ssts("table-snappy").remove(0);
    let open = |bytes: Bytes| Table::open(bytes).map(|_| ()).unwrap_err();
    assert!(matches!(open(Bytes::new()), SstError::NotATable(_)));
    assert!(matches!(
        open(bytes.slice(..bytes.len() - 1)),
        SstError::NotATable(_)
    ));
    assert!(matches!(
        open(bytes.slice(1..)),
        SstError::Corrupt { .. } | SstError::Checksum { .. }
    ));
    let mut newer = bytes.to_vec();
    let at = newer.len() - 12;
    newer[at] = 6;
    assert!(matches!(open(newer.into()), SstError::Unsupported { .. }));
    let mut flipped = bytes.to_vec();
    flipped[10] ^= 1;
    let error = read_all(Bytes::from(flipped)).unwrap_err();
    assert!(
        matches!(error, SstError::Checksum { offset: 0, .. }),
        "{error}"
    );
}

/// Tables made by hand, for what golden files do not have.
mod handmade;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Damage gives an error or the same entries: a flip in a filter or in padding changes nothing.
    #[test]
    fn damage_is_an_error_or_harmless(
        file in 0usize..2, flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..4),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, bytes) = golden_ssts("table-snappy").remove(file);
        let whole = read_all(bytes.clone()).unwrap();
        let mut damaged = bytes.to_vec();
        for (at, bit) in flips {
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
        }
        if let Some(keep) = keep {
            damaged.truncate(keep.index(damaged.len()));
        }
        if let Ok(entries) = read_all(Bytes::from(damaged)) {
            prop_assert!(entries == whole);
        }
    }
}
