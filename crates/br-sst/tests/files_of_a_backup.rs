//! Golden backups: what `backupmeta` says about each data file is what its entries say.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::fs;

use br_codec::{WriteKind, WriteRef, key};
use br_format::backupmeta::{BackupMeta, Compatibility, DataFile};
use br_format::crypter::{Crypter, Method};
use br_format::kv_stats::KvStats;
use br_format::names::{MetaKind, parse_sst};
use br_sst::Table;
use br_types::{Cf, TimeStamp};
use bytes::Bytes;
use sha2::{Digest, Sha256};

const GOLDEN: &str = "../../tests/golden/tidb-1/";

fn read(folder: &str, name: &str) -> Bytes {
    let path = format!("{GOLDEN}{folder}/{name}");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into()
}

fn data_files(folder: &str, crypter: &Crypter) -> Vec<DataFile> {
    let meta = read(folder, "backupmeta");
    let meta = BackupMeta::decode(meta, crypter, Compatibility::Strict).unwrap();
    let mut walk = meta.walk(MetaKind::DataFile).unwrap();
    let mut files: Vec<_> = walk.root().data_files().collect::<Result<_, _>>().unwrap();
    while let Some(next) = walk.next_object() {
        let bytes = read(folder, next.name());
        let node = walk.open(bytes).unwrap();
        files.extend(node.data_files().map(Result::unwrap));
    }
    files
}

fn plain(folder: &str, file: &DataFile, crypter: &Crypter) -> Bytes {
    let stored = read(folder, &file.name);
    assert_eq!(stored.len() as u64, file.size_bytes, "{}", file.name);
    assert_eq!(
        Sha256::digest(&stored).as_slice(),
        file.sha256,
        "{}",
        file.name
    );
    let mut bytes = stored.to_vec();
    crypter.apply(&file.cipher_iv.unwrap(), &mut bytes);
    bytes.into()
}

fn check(folder: &str, crypter: &Crypter) {
    let files = data_files(folder, crypter);
    // Long values by stem, encoded key and start_ts.
    let mut values: HashMap<(&str, Vec<u8>, TimeStamp), Vec<u8>> = HashMap::new();
    for file in files.iter().filter(|file| file.cf == Cf::Default) {
        let table = Table::open(plain(folder, file, crypter)).unwrap();
        let mut iter = table.iter();
        while let Some(entry) = iter.next().unwrap() {
            let (encoded, start_ts) = key::split_data_key(entry.user_key).unwrap();
            let stem = parse_sst(&file.name).unwrap().0;
            values.insert((stem, encoded.to_vec(), start_ts), entry.value.to_vec());
        }
    }
    let mut of_default: HashMap<&str, KvStats> = HashMap::new();
    for file in files.iter().filter(|file| file.cf == Cf::Write) {
        let stem = parse_sst(&file.name).unwrap().0;
        let mut of_write = KvStats::default();
        let table = Table::open(plain(folder, file, crypter)).unwrap();
        let mut iter = table.iter();
        while let Some(entry) = iter.next().unwrap() {
            let (encoded, commit_ts) = key::split_data_key(entry.user_key).unwrap();
            let raw = key::decode(encoded).unwrap();
            assert!(file.range.contains(&raw), "{} {raw}", file.name);
            assert!(
                commit_ts <= file.end_ts && commit_ts > file.start_ts,
                "{}",
                file.name
            );
            let record = WriteRef::parse(entry.value).unwrap();
            match (record.kind, record.short_value) {
                (WriteKind::Put, None) => {
                    let long = (stem, encoded.to_vec(), record.start_ts);
                    let value = values
                        .remove(&long)
                        .expect("the value lies beside its record");
                    of_default
                        .entry(stem)
                        .or_default()
                        .add_pair(raw.as_bytes(), &value);
                }
                (WriteKind::Put, Some(value)) => of_write.add_pair(raw.as_bytes(), value),
                (WriteKind::Delete, _) => of_write.add_pair(raw.as_bytes(), b""),
                (kind, _) => panic!("{} has a record {kind:?}", file.name),
            }
        }
        assert_eq!(of_write, file.stats, "{folder} {}", file.name);
    }
    assert!(values.is_empty(), "every long value belongs to a record");
    for file in files.iter().filter(|file| file.cf == Cf::Default) {
        let stem = parse_sst(&file.name).unwrap().0;
        assert_eq!(
            of_default.get(stem),
            Some(&file.stats),
            "{folder} {}",
            file.name
        );
    }
}

#[test]
fn sums_are_those_of_the_entries() {
    for folder in ["full", "incremental", "db-lz4", "table-snappy"] {
        check(folder, &Crypter::plaintext());
    }
}

#[test]
fn encrypted_files_are_tables_once_decrypted() {
    let key: Vec<u8> = (0..32).collect();
    let crypter = Crypter::new(Method::Aes256Ctr, &key).unwrap();
    check("db-aes256", &crypter);
    let file = &data_files("db-aes256", &crypter)[0];
    let wrong = Crypter::new(Method::Aes256Ctr, &[0; 32]).unwrap();
    let error = Table::open(plain("db-aes256", file, &wrong))
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, br_sst::SstError::NotATable(_)), "{error}");
}
