use std::collections::HashMap;
use std::fs;

use br_types::{Classify, Code, Kind, TableId, TimeStamp};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Object;
use crate::crypter::{Crypter, Iv, Method};
use crate::kv_stats::KvStats;
use crate::names::{BACKUPMETA, MetaKind};
use crate::schema::{SchemaEntry, user_db_name};

const GOLDEN: &str = "../../tests/golden/tidb-1/";
const FOLDERS: [&str; 8] = [
    "full",
    "full-metav1",
    "db-lz4",
    "db-aes256",
    "table-snappy",
    "s3-shop",
    "txn",
    "incremental",
];

pub(crate) fn golden(path: &str) -> Vec<u8> {
    fs::read(format!("{GOLDEN}{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn golden_crypter(folder: &str) -> Crypter {
    if folder == "db-aes256" {
        let key: Vec<u8> = (0..32).collect();
        Crypter::new(Method::Aes256Ctr, &key).unwrap()
    } else {
        Crypter::plaintext()
    }
}

fn golden_meta(folder: &str) -> BackupMeta {
    let bytes = golden(&format!("{folder}/backupmeta")).into();
    BackupMeta::decode(bytes, &golden_crypter(folder), Compatibility::Strict).unwrap()
}

/// Everything in a backup.
#[derive(Clone, Debug, Default, PartialEq)]
struct Items {
    files: Vec<DataFile>,
    schemas: Vec<SchemaEntry>,
    ddls: Vec<Vec<u8>>,
}

fn read_all(meta: &BackupMeta, mut fetch: impl FnMut(&str) -> Bytes) -> Result<Items, MetaError> {
    let mut items = Items::default();
    for kind in [MetaKind::DataFile, MetaKind::Schema, MetaKind::Ddl] {
        let mut walk = meta.walk(kind)?;
        let mut node = walk.root().clone();
        loop {
            // A node of another kind has none of these, but `backupmeta` of layout V1 has all.
            match kind {
                MetaKind::DataFile => {
                    items
                        .files
                        .extend(node.data_files().collect::<Result<Vec<_>, _>>()?);
                }
                MetaKind::Schema => {
                    items
                        .schemas
                        .extend(node.schemas().collect::<Result<Vec<_>, _>>()?);
                }
                MetaKind::Ddl => items.ddls.extend(node.ddl_jobs()?),
            }
            let Some(next) = walk.next_object() else {
                break;
            };
            let bytes = fetch(next.name());
            node = walk.open(bytes)?;
        }
    }
    Ok(items)
}

fn golden_items(folder: &str) -> Items {
    let fetch = |name: &str| golden(&format!("{folder}/{name}")).into();
    read_all(&golden_meta(folder), fetch).unwrap()
}

pub(crate) fn golden_data_files(folder: &str) -> Vec<DataFile> {
    golden_items(folder).files
}

/// Data files and DDL jobs of each.
#[test]
fn golden_backups_are_read_whole() {
    let counts: Vec<_> = FOLDERS
        .iter()
        .map(|folder| {
            let items = golden_items(folder);
            (*folder, items.files.len(), items.ddls.len())
        })
        .collect();
    let expected = [
        ("full", 60, 0),
        ("full-metav1", 18, 0),
        ("db-lz4", 21, 0),
        ("db-aes256", 16, 0),
        ("table-snappy", 2, 0),
        ("s3-shop", 16, 0),
        ("txn", 60, 0),
        ("incremental", 53, 16),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn heads_of_golden_backups() {
    let full = golden_meta("full");
    assert_eq!(full.layout, Layout::V2);
    assert_eq!(full.schema_version, 1);
    assert_eq!(full.head.backup_ts, TimeStamp(470_613_951_976_046_597));
    assert_eq!(full.head.cluster_version, "9.0.0-beta.2");
    assert_eq!(full.head.new_collations_enabled, Some(true));
    assert!(!full.head.is_incremental());
    let incremental = golden_meta("incremental");
    assert_eq!(incremental.head.last_backup_ts, full.head.backup_ts);
    assert!(incremental.head.is_incremental());
    assert_eq!(golden_meta("full-metav1").layout, Layout::V1);
    assert_eq!(golden_meta("txn").head.content, Content::Txn);
}

/// Sums of the data files of each table, checksums in the schemas, and what
/// `ADMIN CHECKSUM TABLE` said, are the same.
#[test]
fn sums_of_golden_tables_are_those_of_the_cluster() {
    #[derive(serde::Deserialize)]
    struct Summary {
        tables: HashMap<String, TableSummary>,
    }
    #[derive(serde::Deserialize)]
    struct TableSummary {
        admin_checksum: AdminChecksum,
    }
    #[derive(serde::Deserialize)]
    struct AdminChecksum {
        crc64_xor: u64,
        total_kvs: u64,
        total_bytes: u64,
    }
    let summary: Summary = serde_json::from_slice(&golden("expected/ts0/summary.json")).unwrap();
    let mut seen = 0;
    for folder in [
        "full",
        "full-metav1",
        "db-lz4",
        "db-aes256",
        "table-snappy",
        "s3-shop",
    ] {
        let items = golden_items(folder);
        for schema in &items.schemas {
            let db = schema.db_name(folder).unwrap();
            let Some(table) = schema.table_name(folder).unwrap() else {
                continue;
            };
            let ids: Vec<TableId> = table.partitions.iter().copied().chain([table.id]).collect();
            let of_files: KvStats = items
                .files
                .iter()
                .filter(|file| ids.contains(&table_id(file)))
                .map(|file| file.stats)
                .sum();
            let name = format!("{}.{}", user_db_name(&db.name), table.name);
            // Made with --checksum=false, which is the default of the smaller ones.
            if folder == "full" {
                assert_eq!(of_files, schema.checksum, "{folder} {name}");
            }
            if let Some(TableSummary {
                admin_checksum: sums,
            }) = summary.tables.get(&name)
            {
                let AdminChecksum {
                    crc64_xor,
                    total_kvs,
                    total_bytes,
                } = *sums;
                let expected = KvStats {
                    crc64_xor,
                    total_kvs,
                    total_bytes,
                };
                assert_eq!(of_files, expected, "{folder} {name}");
                seen += 1;
            }
        }
    }
    // All tables of the summary in `full`, and those of the smaller backups.
    assert_eq!(summary.tables.len(), 18);
    assert_eq!(seen, 18 + 6 + 11 + 4 + 1 + 4);
}

/// `t`, then the id as eight bytes, sign bit flipped.
fn table_id(file: &DataFile) -> TableId {
    let bytes: [u8; 8] = file.range.start.as_bytes()[1..9].try_into().unwrap();
    TableId(i64::from_be_bytes(bytes) ^ i64::MIN)
}

fn write(items: Items, head: BackupHead, layout: Layout, crypter: &Crypter) -> Vec<Object> {
    let mut drawn = 0u8;
    let new_iv = move || {
        drawn += 1;
        Iv([drawn; 16])
    };
    let mut writer =
        MetaWriter::new(layout, crypter.clone(), new_iv).with_metafile_size_bytes_max(4 << 10);
    let mut objects = Vec::new();
    for file in items.files {
        objects.extend(writer.push_data_files([file]));
    }
    for ddl in items.ddls {
        objects.extend(writer.push_ddl_job(ddl));
    }
    for schema in items.schemas {
        objects.extend(writer.push_schema(schema));
    }
    objects.extend(writer.finish(head));
    objects
}

fn read(objects: &[Object], crypter: &Crypter) -> Result<(BackupMeta, Items), MetaError> {
    let fetch = |name: &str| {
        objects
            .iter()
            .find(|object| object.name == name)
            .map(|object| object.bytes.clone())
    };
    let root = fetch(BACKUPMETA).expect("the writer ends with backupmeta");
    let meta = BackupMeta::decode(root, crypter, Compatibility::Strict)?;
    let items = read_all(&meta, |name| {
        fetch(name).expect("the index names written objects")
    })?;
    Ok((meta, items))
}

#[test]
fn golden_backups_written_anew_read_the_same() {
    let aes = Crypter::new(Method::Aes128Ctr, &[3; 16]).unwrap();
    for folder in FOLDERS {
        let meta = golden_meta(folder);
        let items = golden_items(folder);
        for layout in [Layout::V1, Layout::V2] {
            for crypter in [&Crypter::plaintext(), &aes] {
                let objects = write(items.clone(), meta.head.clone(), layout, crypter);
                assert_eq!(objects.last().unwrap().name, BACKUPMETA);
                let (read_meta, read_items) = read(&objects, crypter).unwrap();
                assert_eq!(
                    (read_meta.head, read_meta.layout),
                    (meta.head.clone(), layout)
                );
                assert_eq!(read_items, items, "{folder}");
                let data: u64 = items.files.iter().map(|file| file.size_bytes).sum();
                let metas: usize = objects.iter().map(|object| object.bytes.len()).sum();
                let rounding = read_meta.backup_size_bytes.abs_diff(data + metas as u64);
                assert!(rounding < 32, "{folder}: {rounding}");
            }
        }
    }
}

#[test]
fn one_meta_file_of_each_kind_has_the_official_bytes() {
    let meta = golden_meta("incremental");
    let items = golden_items("incremental");
    let mut writer = MetaWriter::new(Layout::V2, Crypter::plaintext(), || unreachable!());
    let mut objects = Vec::new();
    for ddl in items.ddls {
        objects.extend(writer.push_ddl_job(ddl));
    }
    objects.extend(writer.push_data_files(items.files));
    for schema in items.schemas {
        objects.extend(writer.push_schema(schema));
    }
    objects.extend(writer.finish(meta.head));
    let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    let expected = [
        "backupmeta.ddl.000000001",
        "backupmeta.datafile.000000002",
        "backupmeta.schema.000000003",
        "backupmeta",
    ];
    assert_eq!(names, expected);
    for object in objects {
        let golden = golden(&format!("incremental/{}", object.name));
        assert!(object.bytes == golden, "{}", object.name);
    }
}

#[test]
fn a_wrong_key_is_told_from_damage() {
    let bytes: Bytes = golden("db-aes256/backupmeta").into();
    let wrong = Crypter::new(Method::Aes256Ctr, &[1; 32]).unwrap();
    let error = BackupMeta::decode(bytes.clone(), &wrong, Compatibility::Strict).unwrap_err();
    assert_eq!(
        error,
        MetaError::WrongKey {
            object: BACKUPMETA.into()
        }
    );
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Invalid, Code::INVALID_ARGUMENT)
    );
    let error = BackupMeta::decode(bytes, &Crypter::plaintext(), Compatibility::Strict);
    assert!(matches!(error, Err(MetaError::NoKey { .. })), "{error:?}");
    assert_eq!(error.err().map(|error| error.kind()), Some(Kind::Invalid));
    let plain: Bytes = golden("full/backupmeta").into();
    // Damaged, and as little random as before.
    let damaged = [&[0xFF; 40][..], plain.get(40..).unwrap()].concat();
    let error = BackupMeta::decode(damaged.into(), &Crypter::plaintext(), Compatibility::Strict);
    assert!(
        matches!(error, Err(MetaError::Malformed { .. })),
        "{error:?}"
    );
    let error = BackupMeta::decode(plain, &wrong, Compatibility::Strict).unwrap_err();
    assert_eq!(
        error,
        MetaError::WrongKey {
            object: BACKUPMETA.into()
        }
    );
}

#[test]
fn newer_backups_are_refused_unless_lenient() {
    let decode = |tail: &[u8], compatibility| {
        let bytes = [golden("full/backupmeta").as_slice(), tail].concat();
        BackupMeta::decode(bytes.into(), &Crypter::plaintext(), compatibility)
    };
    // backup_schema_version = 2
    let newer = [26 << 3 & 0x7F | 0x80, 1, 2];
    let error = decode(&newer, Compatibility::Strict).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Invalid, Code::VERSION_MISMATCH)
    );
    assert!(
        matches!(
            error,
            MetaError::NewerVersion {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        decode(&newer, Compatibility::Lenient)
            .unwrap()
            .schema_version,
        2
    );
    // version = 2
    let error = decode(&[12 << 3, 2], Compatibility::Lenient).unwrap_err();
    assert!(
        matches!(
            error,
            MetaError::NewerVersion {
                field: "version",
                ..
            }
        ),
        "{error}"
    );
    // field 27 = 1
    let unknown = [27 << 3 & 0x7F | 0x80, 1, 1];
    let error = decode(&unknown, Compatibility::Strict).unwrap_err();
    assert_eq!(error.code(), Code::VERSION_MISMATCH);
    assert!(
        matches!(error, MetaError::UnknownField { number: 27, .. }),
        "{error}"
    );
    decode(&unknown, Compatibility::Lenient).unwrap();
}

/// No cut of a `backupmeta` reads as a whole one, wherever it falls.
#[test]
fn a_cut_backupmeta_is_refused() {
    for folder in FOLDERS {
        let bytes: Bytes = golden(&format!("{folder}/backupmeta")).into();
        let step = (bytes.len() / 1000).max(1);
        for end in (0..bytes.len()).step_by(step) {
            let cut = bytes.slice(..end);
            let read = BackupMeta::decode(cut, &golden_crypter(folder), Compatibility::Strict);
            assert!(read.is_err(), "{folder} cut to {end} of {}", bytes.len());
        }
    }
}

#[test]
fn damaged_meta_files_are_named() {
    let meta = golden_meta("full");
    let mut walk = meta.walk(MetaKind::DataFile).unwrap();
    let name = walk.next_object().unwrap().name().to_owned();
    let bytes = golden(&format!("full/{name}"));
    let error = walk.open(bytes[1..].to_vec().into()).unwrap_err();
    let found = bytes.len() as u64 - 1;
    let expected = MetaError::Truncated {
        object: name.clone(),
        expected: found + 1,
        found,
    };
    assert_eq!(error, expected);
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    let error = walk.open(flipped.into()).unwrap_err();
    assert!(
        matches!(&error, MetaError::Checksum { object, .. } if *object == name),
        "{error}"
    );
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Data, Code::INVALID_META_FILE)
    );
    walk.open(bytes.into()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn flipped_bits_never_panic(at in any::<prop::sample::Index>(), bit in 0u8..8, folder in 0..8usize) {
        let folder = FOLDERS[folder];
        let mut bytes = golden(&format!("{folder}/backupmeta"));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let decoded =
            BackupMeta::decode(bytes.into(), &golden_crypter(folder), Compatibility::Strict);
        if let Ok(meta) = decoded {
            let _ = read_all(&meta, |_| Bytes::from_static(b"\x0A\x00"));
        }
    }
}
