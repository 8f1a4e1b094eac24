//! Against a log of the official tools (`tests/golden`), and round trips.

use std::fs;
use std::path::{Path, PathBuf};

use br_codec::{key, write_record::WriteKind};
use br_types::{
    Cf, ClusterId, EncodedKey, KeyRange, RegionEpoch, RegionId, StoreId, TableId, TimeStamp,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::checkpoint::*;
use super::content::*;
use super::file::*;
use super::marker::{LogMarker, Marker};
use super::metadata::*;
use super::migration::{Migration, MigrationName};
use super::names::*;
use super::record::{Record, Records};
use super::seal::{FlushMark, Seal};
use super::*;
use crate::crypter::{Crypter, Iv, Method};

const GOLDEN: &str = "../../tests/golden/tidb-1/";
const CHECKPOINT: TimeStamp = TimeStamp(0x0687_f4ee_5a94_0002);

/// Names and bytes of the objects of a folder, by name.
fn objects(folder: &str, below: &str) -> Vec<(String, Vec<u8>)> {
    fn visit(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let root = PathBuf::from(format!("{GOLDEN}{folder}"));
    let mut paths = Vec::new();
    visit(&root.join(below), &mut paths);
    paths.sort();
    let name = |path: &Path| {
        path.strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    paths
        .iter()
        .map(|path| (name(path), fs::read(path).unwrap()))
        .collect()
}

fn golden_metas() -> Vec<(String, LogMeta)> {
    objects("log", META_FOLDER)
        .into_iter()
        .map(|(name, bytes)| {
            let meta = LogMeta::decode_to_rewrite(&name, &bytes).unwrap();
            (name, meta)
        })
        .collect()
}

#[test]
fn golden_metadata_is_written_as_it_was_read() {
    let objects = objects("log", META_FOLDER);
    assert_eq!(objects.len(), 18);
    for (name, bytes) in objects {
        let meta = LogMeta::decode_to_rewrite(&name, &bytes).unwrap();
        assert_eq!(LogMeta::decode(&name, &meta.encode()).unwrap(), meta);
        assert_eq!(meta.encode().len(), bytes.len());
        let flush_ts = MetaName::parse(&name).unwrap().flush_ts().unwrap();
        assert_eq!(meta.to_object(flush_ts).name, name);
    }
}

#[test]
fn golden_groups_say_what_their_files_say() {
    for (name, meta) in golden_metas() {
        let groups = meta.groups.clone();
        let mut again = LogMeta::new(meta.store, groups, meta.resolved_ts);
        assert_eq!(
            (again.min_ts, again.max_ts),
            (meta.min_ts, meta.max_ts),
            "{name}"
        );
        for group in &mut again.groups {
            let (path, files) = (group.path.clone(), group.files.clone());
            assert_eq!(&LogGroup::new(path, files, group.length), group);
            // Spans lie one after the other, from 0 to the end.
            let mut files = group.files.clone();
            files.sort_by_key(|file| file.span);
            assert_eq!(lay_out(&mut files), group.length);
            files.sort_by_key(|file| file.span);
            group.files.sort_by_key(|file| file.span);
            assert_eq!(files, group.files);
            assert!(DataName::is_data(&group.path));
            assert_eq!(DataName::store_of(&group.path), Some(meta.store));
        }
    }
}

/// Opens every file that lies in `tests/golden`, and builds it anew from its records.
#[test]
fn golden_files_open_and_are_built_anew() {
    let mut opened = 0;
    for (_, meta) in golden_metas() {
        for group in &meta.groups {
            let Ok(object) = fs::read(format!("{GOLDEN}log/{}", group.path)) else {
                continue;
            };
            for file in &group.files {
                let range = usize::try_from(file.span.offset).unwrap()
                    ..usize::try_from(file.span.end().unwrap()).unwrap();
                let stored = Bytes::copy_from_slice(&object[range]);
                let records = open(&group.path, file, stored, &Crypter::plaintext()).unwrap();
                check_records(&group.path, file, &records).unwrap();
                rebuild(file, &records);
                opened += 1;
            }
        }
    }
    assert_eq!(opened, 34);
}

fn rebuild(file: &LogFile, records: &[u8]) {
    let mut tally = Tally::new(file.identity.cf);
    let mut again = Vec::new();
    for record in Records::new(records) {
        tally.append(record.unwrap(), &mut again).unwrap();
    }
    assert_eq!(again, records);
    let mut built = tally.finish(file.identity).unwrap();
    built.resolved_ts = file.resolved_ts;
    built.region_range = file.region_range.clone();
    built.region_epochs = file.region_epochs.clone();
    built.span = file.span;
    built.compression = file.compression;
    assert_eq!(&built, file);
}

#[test]
fn golden_checkpoints_and_marker() {
    for (name, bytes) in objects("log", GLOBAL_CHECKPOINT_FOLDER) {
        assert!(is_global_checkpoint(&name));
        assert_eq!(
            CheckpointCopy::decode(&name, &bytes),
            Ok(CheckpointCopy::bare(CHECKPOINT))
        );
        assert_eq!(CheckpointCopy::bare(CHECKPOINT).encode(), bytes.to_vec());
    }
    let bytes = fs::read(format!("{GOLDEN}log/backupmeta")).unwrap();
    let Marker::Log(marker) = Marker::decode(&bytes).unwrap() else {
        panic!()
    };
    assert_eq!(marker.cluster_version, "9.0.0-beta.2");
    assert_eq!(Marker::decode(&marker.encode()), Ok(Marker::Log(marker)));
    let full = fs::read(format!("{GOLDEN}full/backupmeta")).unwrap();
    assert!(matches!(Marker::decode(&full), Ok(Marker::Backup(_))));
}

#[test]
fn golden_compaction_matches_the_log() {
    let [(name, bytes)] = &objects("log-compacted", MIGRATION_FOLDER)[..] else {
        panic!()
    };
    let migration = Migration::decode(name, bytes).unwrap();
    assert_eq!(migration.encode().len(), bytes.len());
    assert!(matches!(
        MigrationName::parse(name),
        Some(MigrationName::Layer { number: 1, .. })
    ));
    let [compaction] = migration.compactions.as_slice() else {
        panic!()
    };
    let metas = golden_metas();
    for edit in &migration.edits {
        let (_, meta) = metas.iter().find(|(name, _)| *name == edit.path).unwrap();
        for spans in &edit.delete_spans {
            let group = meta
                .groups
                .iter()
                .find(|group| group.path == spans.path)
                .unwrap();
            assert_eq!(spans.whole_length, group.length);
            for span in &spans.spans {
                assert!(group.files.iter().any(|file| file.span == *span));
            }
        }
    }
    let cmetas = objects("log-compacted", &compaction.artifacts);
    let mut outputs = 0;
    for (name, bytes) in cmetas {
        let items = compaction::decode(&name, &bytes).unwrap();
        let again = compaction::encode(&items);
        assert_eq!(compaction::decode(&name, &again).unwrap(), items);
        for item in &items {
            assert!(item.input_min_ts >= compaction.input_min_ts);
            assert!(item.input_max_ts <= compaction.input_max_ts);
            assert!(
                item.outputs
                    .iter()
                    .all(|sst| sst.name.starts_with(&compaction.generated_files))
            );
            outputs += item.outputs.len();
        }
    }
    assert_eq!(outputs, 38);
}

/// Whatever bit of a sealed object is flipped, and wherever it is cut, it is not taken.
#[test]
fn seals_notice_every_change() {
    let mark = FlushMark {
        flush_ts: TimeStamp(70),
        number: 3,
        min_ts: TimeStamp(50),
        max_ts: TimeStamp(60),
    };
    let (_, mut meta) = golden_metas().swap_remove(0);
    meta.seal = Some(Seal { previous: mark });
    let sealed = meta.encode();
    assert_eq!(LogMeta::decode_to_rewrite("x", &sealed).unwrap(), meta);
    let copy = CheckpointCopy {
        ts: CHECKPOINT,
        last_flush: Some(mark),
    };
    assert_eq!(CheckpointCopy::decode("x", &copy.encode()), Ok(copy));
    let read_meta = |bytes: &[u8]| LogMeta::decode("x", bytes).is_ok_and(|it| it.seal.is_some());
    let read_copy =
        |bytes: &[u8]| CheckpointCopy::decode("x", bytes).is_ok_and(|it| it.last_flush.is_some());
    let takes: [(Bytes, &dyn Fn(&[u8]) -> bool); 2] =
        [(sealed, &read_meta), (copy.encode().into(), &read_copy)];
    for (bytes, is_taken) in takes {
        assert!(is_taken(&bytes));
        for at in 0..bytes.len() {
            assert!(!is_taken(&bytes[..at]), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                assert!(!is_taken(&flipped), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn small_numbers() {
    assert_eq!(
        encode_etcd_checkpoint(TimeStamp(1)),
        [0, 0, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(
        CheckpointCopy::bare(TimeStamp(1)).encode(),
        [1, 0, 0, 0, 0, 0, 0, 0]
    );
    assert!(CheckpointCopy::decode("x", b"1234567").is_err());
    assert_eq!(decode_truncate_safe_point(b" 12\n"), Ok(TimeStamp(12)));
    assert!(decode_truncate_safe_point(b"").is_err());
    assert!(decode_truncate_safe_point(b"-1").is_err());
    let state = ReplicationState {
        last_checkpoint: TimeStamp(9),
        synced_ts: TimeStamp(8),
        synced_by_store: [(StoreId(1), TimeStamp(7))].into(),
    };
    assert_eq!(ReplicationState::decode(&state.encode()), Ok(state));
    assert!(ReplicationState::decode(b"{}").is_err());
}

/// A file of one write record for each (key, `commit_ts`, `start_ts`).
fn file_of(rows: &[(&[u8], u64, u64)]) -> (LogFile, Vec<u8>) {
    let identity = FileIdentity {
        is_schema: false,
        table: TableId(1),
        region: RegionId(2),
        cf: Cf::Write,
        kind: EventKind::Put,
    };
    let mut tally = Tally::new(Cf::Write);
    let mut records = Vec::new();
    for (raw, commit, start) in rows {
        let mut encoded = key::encode(raw).into_bytes();
        key::append_ts(&mut encoded, TimeStamp(*commit));
        let value = br_codec::Write::new(WriteKind::Put, TimeStamp(*start), Some(b"v".to_vec()));
        let record = Record {
            key: &encoded,
            value: &value.to_bytes(),
        };
        tally.append(record, &mut records).unwrap();
    }
    (tally.finish(identity).unwrap(), records)
}

#[test]
fn every_flipped_bit_of_a_sealed_file_shows() {
    let key = Crypter::new(Method::Aes256Ctr, &[3; 32]).unwrap();
    for (compression, crypter) in [
        (LogCompression::None, Crypter::plaintext()),
        (LogCompression::Zstd, Crypter::plaintext()),
        (LogCompression::Zstd, key),
    ] {
        let (mut file, records) = file_of(&[(b"a", 5, 4), (b"b", 7, 2)]);
        let sealed = seal(&mut file, &records, compression, &crypter, Iv([9; 16])).unwrap();
        let opened = open("x", &file, sealed.clone().into(), &crypter).unwrap();
        assert_eq!(opened, records);
        check_records("x", &file, &opened).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A frame's header may change in ways that change no content.
            if let Ok(found) = open("x", &file, damaged.into(), &crypter) {
                assert_eq!(found, records, "{compression:?} {bit}");
            }
        }
        let cut = Bytes::copy_from_slice(&sealed[..sealed.len() - 1]);
        assert!(matches!(
            open("x", &file, cut, &crypter),
            Err(LogFormatError::Length { .. })
        ));
    }
}

#[test]
fn keys_are_asked_for() {
    let key = Crypter::new(Method::Aes128Ctr, &[3; 16]).unwrap();
    let (mut file, records) = file_of(&[(b"a", 5, 4)]);
    let sealed: Bytes = seal(&mut file, &records, LogCompression::Zstd, &key, Iv([9; 16]))
        .unwrap()
        .into();
    let none = open("x", &file, sealed.clone(), &Crypter::plaintext()).unwrap_err();
    assert_eq!(
        none.to_string(),
        format!(
            "x (bytes 0+{}) is encrypted with aes128-ctr, and no key was given",
            sealed.len()
        )
    );
    for wrong in [
        Crypter::new(Method::Aes128Ctr, &[4; 16]).unwrap(),
        Crypter::new(Method::Aes256Ctr, &[3; 32]).unwrap(),
    ] {
        let refused = open("x", &file, sealed.clone(), &wrong);
        assert!(
            matches!(refused, Err(LogFormatError::WrongKey { .. })),
            "{refused:?}"
        );
    }
}

/// What metadata says and what the records are may differ in any of these.
#[test]
fn lies_of_metadata_show() {
    let (file, records) = file_of(&[(b"a", 5, 4), (b"b", 7, 2)]);
    assert_eq!(
        (file.min_ts, file.max_ts, file.min_begin_ts),
        (TimeStamp(5), TimeStamp(7), TimeStamp(2))
    );
    let lies: [fn(&mut LogFile); 6] = [
        |file| file.entries = 1,
        |file| file.crc64_xor ^= 1,
        |file| file.min_ts = TimeStamp(6),
        |file| file.max_ts = TimeStamp(6),
        |file| file.first_key = file.last_key.clone(),
        |file| file.last_key = file.first_key.clone(),
    ];
    for (i, lie) in lies.iter().enumerate() {
        let mut file = file.clone();
        lie(&mut file);
        assert!(check_records("x", &file, &records).is_err(), "{i}");
    }
    // A promise of a huge length makes no room for it.
    let mut huge = file;
    huge.length = u64::MAX;
    assert!(open("x", &huge, records.into(), &Crypter::plaintext()).is_err());
}

#[test]
fn files_go_to_objects_by_size_and_kind() {
    let file = |is_schema, length| (is_schema, length);
    let files = [
        file(false, 6),
        file(true, 1),
        file(false, 6),
        file(false, 6),
        file(true, 99),
    ];
    let groups = split_into_groups(files, 10, |(is_schema, length)| {
        let identity = FileIdentity {
            is_schema: *is_schema,
            table: TableId(0),
            region: RegionId(0),
            cf: Cf::Write,
            kind: EventKind::Put,
        };
        (identity, *length)
    });
    assert_eq!(
        groups,
        [
            vec![file(false, 6), file(false, 6)],
            vec![file(false, 6)],
            vec![file(true, 1), file(true, 99)],
        ]
    );
}

#[test]
fn old_metadata_has_an_object_for_each_file() {
    let (mut file, records) = file_of(&[(b"a", 5, 4)]);
    file.span.length = records.len() as u64;
    let length = file.span.length;
    let mut meta = LogMeta::new(
        StoreId(1),
        vec![LogGroup::new("v1/x.log".into(), vec![file], length)],
        TimeStamp(3),
    );
    meta.layout = LogLayout::V1;
    assert_eq!(LogMeta::decode("x", &meta.encode()).unwrap(), meta);
}

#[test]
fn newer_metadata_is_refused() {
    let refused = LogMeta::decode("x", &[7 << 3, 2]);
    assert!(
        matches!(refused, Err(LogFormatError::NewerVersion { found: 2, .. })),
        "{refused:?}"
    );
    // A field that is not known is passed over, unless it would be lost.
    assert!(LogMeta::decode("x", &[15 << 3, 2]).is_ok());
    let refused = LogMeta::decode_to_rewrite("x", &[15 << 3, 2]);
    assert!(
        matches!(
            refused,
            Err(LogFormatError::UnknownField { number: 15, .. })
        ),
        "{refused:?}"
    );
}

#[test]
fn values_of_late_commits_are_sought_in_earlier_flushes() {
    let meta = |rows: &[(&[u8], u64, u64)]| {
        let (file, _) = file_of(rows);
        LogMeta::new(
            StoreId(1),
            vec![LogGroup::new("x".into(), vec![file], 0)],
            TimeStamp(0),
        )
    };
    let meta = meta(&[(b"a", 50, 4), (b"b", 70, 60)]);
    assert_eq!(
        meta.shift_ts(TimeStamp(45), TimeStamp(90)),
        Some(TimeStamp(4))
    );
    assert_eq!(meta.shift_ts(TimeStamp(71), TimeStamp(90)), None);
    assert_eq!(meta.shift_ts(TimeStamp(10), TimeStamp(49)), None);
}

prop_compose! {
    fn any_file()(
        (table, region, entries) in (any::<i64>(), 0..1u64 << 40, 0..1u64 << 40),
        (min_ts, more, resolved_ts, min_begin_ts) in (0..1u64 << 60, 0..1u64 << 60, any::<u64>(), any::<u64>()),
        (first_key, last_key, start, end) in any::<(Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>)>(),
        (length, stored, crc64_xor) in (any::<u64>(), 0..1u64 << 30, any::<u64>()),
        sha256 in any::<[u8; 32]>(), (is_schema, is_put, is_write, is_zstd) in any::<(bool, bool, bool, bool)>(),
        epochs in prop::collection::vec(any::<(u64, u64)>(), 0..3),
        iv in prop::option::of(any::<[u8; 16]>()),
    ) -> LogFile {
        LogFile {
            identity: FileIdentity {
                is_schema,
                table: TableId(table),
                region: RegionId(region),
                cf: if is_write { Cf::Write } else { Cf::Default },
                kind: if is_put { EventKind::Put } else { EventKind::Delete },
            },
            entries,
            min_ts: TimeStamp(min_ts),
            max_ts: TimeStamp(min_ts + more),
            resolved_ts: TimeStamp(resolved_ts),
            min_begin_ts: TimeStamp(min_begin_ts),
            first_key,
            last_key,
            length,
            span: Span { offset: 0, length: stored },
            compression: if is_zstd { LogCompression::Zstd } else { LogCompression::None },
            encryption: iv.map(|iv| encryption::FileEncryption {
                method: Method::Aes192Ctr,
                iv: Iv(iv),
                checksum: vec![1; 32],
                key: encryption::KeySource::Task,
            }),
            crc64_xor,
            sha256,
            region_range: KeyRange::<EncodedKey>::new(start, end),
            region_epochs: epochs.iter().map(|(conf_ver, version)| RegionEpoch {
                conf_ver: *conf_ver, version: *version,
            }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn metadata_comes_back(mut groups in prop::collection::vec(prop::collection::vec(any_file(), 1..4), 0..4)) {
        let groups = groups.iter_mut().enumerate().map(|(i, files)| {
            let length = lay_out(files.iter_mut());
            LogGroup::new(format!("v1/{i}.log"), files.clone(), length)
        });
        let meta = LogMeta::new(StoreId(7), groups.collect(), TimeStamp(5));
        let object = meta.to_object(TimeStamp(8));
        prop_assert_eq!(&LogMeta::decode_to_rewrite("x", &object.bytes).unwrap(), &meta);
        // What a name filters, the content would have filtered as well.
        let name = MetaName::parse(&object.name).unwrap();
        for (shift, restored) in [(0, 1u64 << 59), (1 << 59, 1 << 60), (1 << 60, u64::MAX)] {
            let (shift, restored) = (TimeStamp(shift), TimeStamp(restored));
            if !name.may_hold(shift, restored) {
                let window = Window { start_ts: shift, restored_ts: restored, shift_ts: shift };
                prop_assert_eq!(meta.needed(window).count(), 0);
            }
        }
    }

    #[test]
    fn sealed_files_come_back(
        rows in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), 1..1u64 << 50, 0..99u64), 1..20),
        is_zstd: bool, key in prop::option::of(any::<[u8; 16]>()), iv: [u8; 16],
    ) {
        let rows: Vec<_> = rows.iter().map(|(key, ts, ago)| (key.as_slice(), *ts, ts.saturating_sub(*ago))).collect();
        let (mut file, records) = file_of(&rows);
        let compression = if is_zstd { LogCompression::Zstd } else { LogCompression::None };
        let crypter = key.map_or(Crypter::plaintext(), |key| Crypter::new(Method::Aes128Ctr, &key).unwrap());
        let sealed = seal(&mut file, &records, compression, &crypter, Iv(iv)).unwrap();
        let opened = open("x", &file, sealed.into(), &crypter).unwrap();
        prop_assert_eq!(&opened, &records);
        check_records("x", &file, &opened).unwrap();
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>) {
        let _ = LogMeta::decode("x", &noise);
        let _ = Marker::decode(&noise);
        let _ = compaction::decode("x", &noise);
        let _ = ingested::IngestedSsts::decode("x", &noise);
        let _ = blocklist::Blocklist::decode("x", &noise);
        let _ = lock::LockContent::decode("x", &noise);
        let _ = ReplicationState::decode(&noise);
        let (mut file, _) = file_of(&[(b"a", 5, 4)]);
        file.span.length = 0;
        file.compression = LogCompression::Zstd;
        let _ = open("x", &file, noise.clone().into(), &Crypter::plaintext());
        let _ = check_records("x", &file, &noise);
    }
}

#[test]
fn a_marker_says_whose_log_it_is() {
    let marker = LogMarker {
        cluster_id: ClusterId(7),
        cluster_version: "8.5.0".into(),
        start_ts: TimeStamp(9),
    };
    assert_eq!(Marker::decode(&marker.encode()), Ok(Marker::Log(marker)));
}
