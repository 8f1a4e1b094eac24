use std::{collections::BTreeMap, fs, ops::Bound, path::PathBuf};

use br_codec::key;
use br_sst::{Compression, Table, TableBuilder};
use br_store::engine::{Batch, Change, Engine, EngineError, Snapshot, SstCompression, SstOptions};
use br_types::{Cf, DataKey, EncodedKey, KeyRange};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{RocksEngine, TableSums};
use crate::{MetaChange, RocksOptions};

type Model = BTreeMap<(Cf, Vec<u8>), Vec<u8>>;

fn all() -> KeyRange<DataKey> {
    key::data_range(&KeyRange::<EncodedKey>::default())
}

fn content(snapshot: &dyn Snapshot) -> Model {
    let mut model = Model::new();
    for cf in Cf::ALL {
        let mut cursor = snapshot.iter(cf, all());
        let mut is_valid = cursor.seek_to_first().unwrap();
        while is_valid {
            model.insert((cf, cursor.key().to_vec()), cursor.value().to_vec());
            is_valid = cursor.next().unwrap();
        }
    }
    model
}

fn random_key(rng: &mut impl Rng) -> Vec<u8> {
    vec![b'z', rng.random_range(0..16), rng.random_range(0..4)]
}

fn random_step(rng: &mut StdRng, engine: &RocksEngine, model: &mut Model) {
    let cf = Cf::ALL[rng.random_range(0..3)];
    if rng.random_range(0..20) == 0 {
        let (a, b) = (random_key(rng), random_key(rng));
        let range = KeyRange::<DataKey>::new(a.clone().min(b.clone()), a.max(b));
        engine.delete_range(cf, &range).unwrap();
        model.retain(|(of, key), _| *of != cf || !range.contains(&DataKey::from(key.clone())));
        return;
    }
    let mut batch = Batch::default();
    for _ in 0..rng.random_range(1..8) {
        let (key, value) = (random_key(rng), vec![rng.random(); 10]);
        if rng.random_range(0..3) == 0 {
            batch.delete(cf, key);
        } else {
            batch.put(cf, key, value);
        }
    }
    for change in &batch.changes {
        match change.clone() {
            Change::Put(cf, key, value) => model.insert((cf, key), value),
            Change::Delete(cf, key) => model.remove(&(cf, key)),
        };
    }
    engine.write(&batch).unwrap();
}

fn check_seeks(rng: &mut StdRng, snapshot: &dyn Snapshot, model: &Model) {
    for cf in Cf::ALL {
        let mut cursor = snapshot.iter(cf, all());
        for _ in 0..20 {
            let key = random_key(rng);
            assert_eq!(
                snapshot.get(cf, &key).unwrap().as_ref(),
                model.get(&(cf, key.clone()))
            );
            let after = model
                .range((cf, key.clone())..)
                .next()
                .filter(|((of, _), _)| *of == cf);
            assert_eq!(cursor.seek(&key).unwrap(), after.is_some());
            assert_eq!(cursor.key(), after.map_or(&[][..], |((_, key), _)| key));
            let end = Bound::Included((cf, key.clone()));
            let before = model.range((Bound::Unbounded, end)).next_back();
            let before = before.filter(|((of, _), _)| *of == cf);
            assert_eq!(cursor.seek_for_prev(&key).unwrap(), before.is_some());
            assert_eq!(cursor.key(), before.map_or(&[][..], |((_, key), _)| key));
        }
    }
}

#[test]
fn behaves_like_a_map_and_survives_a_restart() {
    for seed in 0..5 {
        let mut rng = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for _ in 0..3 {
            let engine = RocksEngine::open(folder.path(), RocksOptions::default()).unwrap();
            assert_eq!(content(&*engine.snapshot()), model, "seed {seed}");
            for _ in 0..100 {
                random_step(&mut rng, &engine, &mut model);
            }
            let (before, old) = (engine.snapshot(), model.clone());
            for _ in 0..50 {
                random_step(&mut rng, &engine, &mut model);
            }
            assert_eq!(content(&*before), old, "seed {seed}");
            assert_eq!(content(&*engine.snapshot()), model, "seed {seed}");
            check_seeks(&mut rng, &*engine.snapshot(), &model);
        }
    }
}

#[test]
fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = RocksEngine::open(folder.path(), RocksOptions::default()).unwrap();
    let second = RocksEngine::open(folder.path(), RocksOptions::default());
    assert!(matches!(second, Err(EngineError::InUse(_))));
    drop(first);
    RocksEngine::open(folder.path(), RocksOptions { syncs_writes: true }).unwrap();
}

#[test]
fn an_upside_down_range_is_empty() {
    let engine = RocksEngine::temporary().unwrap();
    let mut batch = Batch::default();
    batch.put(Cf::Write, b"zb".to_vec(), b"1".to_vec());
    engine.write(&batch).unwrap();
    let snapshot = engine.snapshot();
    let mut cursor = snapshot.iter(Cf::Write, KeyRange::new(&b"zc"[..], &b"za"[..]));
    assert!(!cursor.seek_to_first().unwrap());
    assert!(!cursor.seek_to_last().unwrap());
}

fn write_sst(engine: &RocksEngine, name: &str, compression: SstCompression) -> PathBuf {
    let path = engine.scratch_dir().join(name);
    let mut writer = engine
        .sst_writer(
            &path,
            SstOptions {
                compression,
                level: 0,
            },
        )
        .unwrap();
    for n in 0..5000_u32 {
        writer.put(&sst_key(n), &[7; 100]).unwrap();
    }
    assert!(writer.put(&sst_key(1), b"").is_err(), "keys ascend");
    writer.finish().unwrap();
    path
}

fn sst_key(n: u32) -> Vec<u8> {
    [b"z", &n.to_be_bytes()[..]].concat()
}

#[test]
fn sst_files_are_read_by_our_reader_and_taken_in() {
    for compression in [
        SstCompression::None,
        SstCompression::Snappy,
        SstCompression::Lz4,
        SstCompression::Zstd,
    ] {
        let engine = RocksEngine::temporary().unwrap();
        let path = write_sst(&engine, "a.sst", compression);
        let table = Table::open(bytes::Bytes::from(fs::read(&path).unwrap())).unwrap();
        assert_eq!(table.format_version(), 5);
        let mut entries = table.iter();
        let mut count = 0;
        while let Some(entry) = entries.next().unwrap() {
            assert_eq!(
                (entry.user_key, entry.value),
                (&sst_key(count)[..], &[7; 100][..])
            );
            count += 1;
        }
        assert_eq!(count, 5000);

        let mut batch = Batch::default();
        batch.put(Cf::Write, sst_key(3), b"old".to_vec());
        engine.write(&batch).unwrap();
        engine.ingest(&[(Cf::Write, path.clone())]).unwrap();
        assert!(!path.exists());
        assert_eq!(
            engine
                .snapshot()
                .get(Cf::Write, &sst_key(3))
                .unwrap()
                .unwrap(),
            [7; 100]
        );
        let size = engine.approximate_size(&all());
        assert!((2500..10_000).contains(&size.keys), "{size:?}");
        assert!((250_000..1_100_000).contains(&size.bytes), "{size:?}");
    }
}

/// Backup files are built without RocksDB: it has to take them in as its own.
#[test]
fn tables_of_our_builder_are_taken_in() {
    let value = |n: u32| vec![n as u8; n as usize % 900];
    for compression in [
        Compression::None,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd { level: 0 },
        Compression::Zstd { level: 9 },
    ] {
        let engine = RocksEngine::temporary().unwrap();
        let path = engine.scratch_dir().join("a.sst");
        let mut builder = TableBuilder::new(compression).unwrap();
        let mut file = Vec::new();
        for n in 0..5000 {
            builder.put(&sst_key(n), &value(n)).unwrap();
            file.append(builder.output());
        }
        file.extend(builder.finish().unwrap());
        fs::write(&path, file).unwrap();
        engine.ingest(&[(Cf::Write, path)]).unwrap();
        let snapshot = engine.snapshot();
        let mut cursor = snapshot.iter(Cf::Write, all());
        let mut found = cursor.seek_to_first().unwrap();
        for n in 0..5000 {
            assert!(found);
            assert_eq!(
                (cursor.key(), cursor.value()),
                (&sst_key(n)[..], &value(n)[..])
            );
            found = cursor.next().unwrap();
        }
        assert!(!found);
        // Single reads go by the index; a key behind the last and one between two are not there.
        for n in [0, 1, 2500, 4999] {
            let got = snapshot.get(Cf::Write, &sst_key(n)).unwrap();
            assert_eq!(got, Some(value(n)));
        }
        assert_eq!(snapshot.get(Cf::Write, &sst_key(5000)).unwrap(), None);
        assert_eq!(snapshot.get(Cf::Write, b"z\0\0\0\x01\0").unwrap(), None);
        assert!(engine.approximate_size(&all()).keys >= 2500);
    }
}

#[test]
fn a_damaged_sst_is_refused() {
    let engine = RocksEngine::temporary().unwrap();
    let path = write_sst(&engine, "a.sst", SstCompression::Zstd);
    let mut damaged = fs::read(&path).unwrap();
    damaged[100] ^= 1;
    fs::write(&path, damaged).unwrap();
    let result = engine.ingest(&[(Cf::Write, path.clone())]);
    assert!(matches!(result, Err(EngineError::Sst { path: of, .. }) if of == path));
    assert_eq!(content(&*engine.snapshot()), Model::new());
    assert!(matches!(
        engine.sst_writer(
            &path,
            SstOptions {
                compression: SstCompression::None,
                level: 0
            }
        ),
        Err(EngineError::Sst { .. })
    ));
}

fn golden_files(folder: PathBuf, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            golden_files(path, found);
        } else if path.extension().is_some_and(|extension| extension == "sst") {
            found.push(path);
        }
    }
}

#[test]
fn golden_files_are_taken_in() {
    let golden = "../../tests/golden/tidb-1/full";
    let mut files = Vec::new();
    golden_files(golden.into(), &mut files);
    assert!(!files.is_empty());
    let engine = RocksEngine::temporary().unwrap();
    let mut expected = Model::new();
    for (n, file) in files.iter().enumerate() {
        let cf = if file.to_string_lossy().contains("write") {
            Cf::Write
        } else {
            Cf::Default
        };
        let table = Table::open(bytes::Bytes::from(fs::read(file).unwrap())).unwrap();
        let mut entries = table.iter();
        while let Some(entry) = entries.next().unwrap() {
            expected.insert((cf, entry.user_key.to_vec()), entry.value.to_vec());
        }
        let copy = engine.scratch_dir().join(format!("{n}.sst"));
        fs::copy(file, &copy).unwrap();
        engine.ingest(&[(cf, copy)]).unwrap();
    }
    assert!(
        content(&*engine.snapshot()) == expected,
        "the content differs"
    );
}

#[test]
fn meta_is_apart_from_data() {
    let folder = tempfile::tempdir().unwrap();
    {
        let engine = RocksEngine::open(folder.path(), RocksOptions::default()).unwrap();
        let meta = engine.meta().syncing();
        meta.put(b"a", b"1").unwrap();
        meta.write(&[
            MetaChange::Put(b"b".to_vec(), b"2".to_vec()),
            MetaChange::Put(b"c".to_vec(), b"3".to_vec()),
            MetaChange::Delete(b"a".to_vec()),
        ])
        .unwrap();
        assert_eq!(content(&*engine.snapshot()), Model::new());
    }
    let engine = RocksEngine::open(folder.path(), RocksOptions::default()).unwrap();
    let meta = engine.meta();
    assert_eq!(meta.get(b"a").unwrap(), None);
    let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    assert_eq!(
        meta.scan(b"", b"", 10).unwrap(),
        vec![pair(b"b", b"2"), pair(b"c", b"3")]
    );
    assert_eq!(meta.scan(b"", b"c", 10).unwrap(), vec![pair(b"b", b"2")]);
    assert_eq!(meta.scan(b"b", b"", 1).unwrap(), vec![pair(b"b", b"2")]);
    assert_eq!(meta.scan(b"c", b"b", 1).unwrap(), vec![]);
}

#[test]
fn sums_of_tables() {
    let text = "# data blocks=2; # entries=100; raw key size=300; raw value size=700; \
                data block size=500; index block size=9";
    let sums = TableSums::parse(text);
    assert_eq!((sums.entries(250), sums.raw_bytes(250)), (50, 500));
    assert_eq!(TableSums::parse("").raw_bytes(7), 7);
}
