use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{EntryKind, Table};

const ALL: [Compression; 4] = [
    Compression::None,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd { level: 0 },
];

/// Builds a table, taking its bytes away now and then.
fn build(pairs: &[(Vec<u8>, Vec<u8>)], compression: Compression, take_each: usize) -> Bytes {
    let mut builder = TableBuilder::new(compression).unwrap();
    let mut file = Vec::new();
    for (at, (key, value)) in pairs.iter().enumerate() {
        builder.put(key, value).unwrap();
        if at % take_each == 0 {
            file.append(builder.output());
            assert_eq!(builder.size_bytes(), file.len() as u64);
        }
    }
    file.extend(builder.finish().unwrap());
    file.into()
}

fn read(file: Bytes) -> Vec<(Vec<u8>, Vec<u8>)> {
    let table = Table::open(file).unwrap();
    let mut iter = table.iter();
    let mut pairs = Vec::new();
    while let Some(entry) = iter.next().unwrap() {
        assert_eq!((entry.sequence, entry.kind), (0, EntryKind::Put));
        pairs.push((entry.user_key.to_vec(), entry.value.to_vec()));
    }
    assert_eq!(table.properties().entries(), Some(pairs.len() as u64));
    pairs
}

proptest! {
    #[test]
    fn what_was_put_is_read(
        pairs in proptest::collection::btree_map(
            proptest::collection::vec(0_u8..4, 0..40),
            proptest::collection::vec(any::<u8>(), 0..3000),
            1..200,
        ),
        take_each in 1_usize..50,
    ) {
        let pairs: Vec<_> = pairs.into_iter().collect();
        for compression in ALL {
            prop_assert_eq!(&read(build(&pairs, compression, take_each)), &pairs);
        }
    }
}

#[test]
fn every_key_is_found() {
    let pairs: Vec<_> = (0..20_000_u32)
        .map(|i| (i.to_be_bytes().to_vec(), vec![i as u8; 20]))
        .collect();
    let file = build(&pairs, Compression::Zstd { level: 1 }, 1000);
    assert!(file.len() < 20_000 * 24 / 2, "it is compressed");
    let table = Table::open(file).unwrap();
    let mut iter = table.iter();
    for (key, value) in pairs.iter().step_by(7) {
        iter.seek(key).unwrap();
        let entry = iter.next().unwrap().unwrap();
        assert_eq!((entry.user_key, entry.value), (&key[..], &value[..]));
    }
}

#[test]
fn mistakes_are_errors() {
    let mut builder = TableBuilder::new(Compression::None).unwrap();
    assert_eq!(builder.put(b"b", b"").err(), None);
    for key in [&b"b"[..], b"a", b""] {
        assert_eq!(builder.put(key, b"").err(), Some(BuildError::NotAscending));
    }
    assert_eq!(builder.put(b"ba", b"").err(), None);
    let huge = vec![0; crate::BLOCK_SIZE_BYTES_MAX];
    assert_eq!(
        builder.put(b"c", &huge).err(),
        Some(BuildError::TooLarge(huge.len() + 1))
    );
    let empty = TableBuilder::new(Compression::None).unwrap();
    assert_eq!(empty.finish().err(), Some(BuildError::Empty));
}
