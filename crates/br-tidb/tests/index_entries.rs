//! Golden backup: entries of indexes made from rows are those that TiDB made.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use br_codec::{WriteKind, WriteRef, key};
use br_format::{
    backupmeta::{BackupMeta, Compatibility, MetaNode},
    crypter::Crypter,
    names::MetaKind,
};
use br_sst::Table;
use br_tidb::{
    row::{IndexEncoder, RowCopier, RowDecoder, RowEncoder},
    schema::TableInfo,
    table_key::TableKey,
};
use br_types::{Cf, IndexId, TableId, TimeStamp};
use bytes::Bytes;

const GOLDEN: &str = "../../tests/golden/tidb-1/full/";

fn read(name: &str) -> Bytes {
    let path = format!("{GOLDEN}{name}");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into()
}

fn walk(kind: MetaKind, mut visit: impl FnMut(&MetaNode)) {
    let meta = BackupMeta::decode(
        read("backupmeta"),
        &Crypter::plaintext(),
        Compatibility::Strict,
    )
    .unwrap();
    let mut walk = meta.walk(kind).unwrap();
    let mut node = Some(walk.root().clone());
    while let Some(current) = node {
        visit(&current);
        node = walk
            .next_object()
            .map(|object| read(object.name()))
            .map(|bytes| walk.open(bytes).unwrap());
    }
}

fn tables() -> Vec<TableInfo> {
    let mut tables = Vec::new();
    walk(MetaKind::Schema, |node| {
        for entry in node.schemas() {
            let json = entry.unwrap().table_json;
            tables.extend(json.map(|json| TableInfo::parse(&json).unwrap()));
        }
    });
    tables
}

/// Every pair of the backup, by raw key.
fn pairs() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut files = Vec::new();
    walk(MetaKind::DataFile, |node| {
        files.extend(node.data_files().map(Result::unwrap));
    });
    let mut long: BTreeMap<(Vec<u8>, TimeStamp), Vec<u8>> = BTreeMap::new();
    let mut pairs = BTreeMap::new();
    files.sort_by_key(|file| file.cf != Cf::Default);
    for file in files {
        let table = Table::open(read(&file.name)).unwrap();
        let mut iter = table.iter();
        while let Some(entry) = iter.next().unwrap() {
            let (encoded, ts) = key::split_data_key(entry.user_key).unwrap();
            if file.cf == Cf::Default {
                long.insert((encoded.to_vec(), ts), entry.value.to_vec());
                continue;
            }
            let record = WriteRef::parse(entry.value).unwrap();
            assert_eq!(record.kind, WriteKind::Put);
            let value = match record.short_value {
                Some(short) => short.to_vec(),
                None => long[&(encoded.to_vec(), record.start_ts)].clone(),
            };
            pairs.insert(key::decode(encoded).unwrap().into_bytes(), value);
        }
    }
    pairs
}

/// Raw key and value.
type Pair = (Vec<u8>, Vec<u8>);

#[test]
fn entries_of_every_supported_index_are_those_of_tidb() {
    let pairs = pairs();
    let mut rows: BTreeMap<TableId, Vec<Pair>> = BTreeMap::new();
    let mut entries: BTreeMap<(TableId, IndexId), BTreeSet<Pair>> = BTreeMap::new();
    for (raw, value) in &pairs {
        match TableKey::parse(raw).unwrap() {
            TableKey::Record { table, handle } => rows
                .entry(table)
                .or_default()
                .push((handle.to_vec(), value.clone())),
            TableKey::Index { table, index, .. } => {
                let pair = (raw.clone(), value.clone());
                entries.entry((table, index)).or_default().insert(pair);
            }
        }
    }
    let (mut checked, mut unsupported) = (0, BTreeMap::new());
    for table in tables() {
        for index in &table.indexes {
            if table.is_common_handle && index.is_primary {
                continue;
            }
            let encoder = match IndexEncoder::new(&table, index, true) {
                Ok(encoder) => encoder,
                Err(error) => {
                    *unsupported.entry(error.why).or_insert(0) += 1;
                    continue;
                }
            };
            for id in table.physical_ids() {
                let of_table = rows.get(&id).cloned().unwrap_or_default();
                let made: BTreeSet<Pair> = of_table
                    .iter()
                    .map(|(handle, value)| encoder.entry(id, handle, value).unwrap())
                    .collect();
                let known = entries.remove(&(id, IndexId(index.id)));
                let known = known.unwrap_or_default();
                let name = format!("{} {}", table.name.original, index.name.original);
                let (missing, extra): (Vec<_>, Vec<_>) = (
                    known.difference(&made).take(2).collect(),
                    made.difference(&known).take(2).collect(),
                );
                assert!(
                    missing.is_empty() && extra.is_empty(),
                    "{name}: {:?}\nTiDB {}\nours {}",
                    index.columns,
                    show(&missing),
                    show(&extra)
                );
                checked += made.len();
            }
        }
    }
    assert!(checked > 20_000, "{checked} entries; not {unsupported:?}");
}

/// Rows taken apart and made again are the rows of TiDB, with the keys and entries of TiDB.
#[test]
fn copied_rows_are_those_of_tidb() {
    let pairs = pairs();
    let (mut checked, mut same_bytes) = (BTreeMap::new(), 0);
    for table in tables() {
        let (Ok(encoder), Ok(copier)) = (
            RowEncoder::new(&table, true),
            RowCopier::new(&table, &table, 0),
        ) else {
            continue;
        };
        let decoder = RowDecoder::new(&table).unwrap();
        let prefix = br_tidb::table_key::record_prefix(table.id());
        let range = br_tidb::table_key::record_range(table.id());
        let range = range.start.into_bytes()..range.end.into_bytes();
        for (raw, value) in pairs.range(range) {
            let handle = raw.strip_prefix(prefix.as_bytes()).unwrap();
            let row = copier.copy(handle, value).unwrap();
            let name = &table.name.original;
            if let Some(made) = encoder.handle(&row).unwrap() {
                assert_eq!(made, handle, "{name}");
            }
            let made = encoder.value(&row);
            same_bytes += usize::from(made == *value);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            decoder.decode(handle, &made, &mut ours).unwrap();
            decoder.decode(handle, value, &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{name}");
            for entry in encoder.entries(handle, &made).unwrap() {
                let stored = pairs.get(entry.key.as_bytes());
                assert_eq!(stored, Some(&entry.value), "{name}");
                if entry.is_distinct {
                    assert_eq!(encoder.handle_of(&entry.value).unwrap(), handle, "{name}");
                }
            }
            *checked.entry(table.name.lower.clone()).or_insert(0) += 1;
        }
    }
    let total: usize = checked.values().sum();
    assert!(
        total > 5_000 && same_bytes * 2 > total,
        "{same_bytes} of {total}"
    );
    for table in ["user", "bind_info", "stats_meta", "stats_histograms"] {
        assert!(checked.contains_key(table), "{table} of {checked:?}");
    }
}

fn show(pairs: &[&Pair]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let shown = pairs
        .iter()
        .map(|(k, v)| format!("{} = {}", hex(k), hex(v)));
    shown.collect::<Vec<_>>().join("\n     ")
}
