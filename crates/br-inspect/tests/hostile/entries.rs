//! What bytes from outside go into: one function for each parser. The fuzz targets in `fuzz/` use
//! the same file.

use br_codec::{Lock, WriteRef};
use br_format::backupmeta::{BackupMeta, Compatibility, MetaNode};
use br_format::crypter::Crypter;
use br_format::log::blocklist::Blocklist;
use br_format::log::file::{EventKind, FileIdentity, LogCompression, LogFile, Span};
use br_format::log::ingested::IngestedSsts;
use br_format::log::lock::LockContent;
use br_format::log::marker::Marker;
use br_format::log::metadata::LogMeta;
use br_format::log::migration::Migration;
use br_format::log::names::MetaName;
use br_format::log::record::Records;
use br_format::log::{checkpoint, compaction, content};
use br_format::names::MetaKind;
use br_storage::{Backend, StorageOptions};
use br_tidb::filter::TableFilter;
use br_tidb::meta_key::MetaKey;
use br_tidb::row::RowDecoder;
use br_tidb::schema::{DbInfo, TableInfo};
use br_tidb::table_key::TableKey;
use br_types::{Cf, KeyRange, RegionId, TableId, TimeStamp};
use bytes::Bytes;

/// Each parser with its name.
pub(crate) const ENTRIES: &[(&str, fn(&[u8]))] = &[
    ("backupmeta", backupmeta),
    ("log_metadata", log_metadata),
    ("log_records", log_records),
    ("log_marks", log_marks),
    ("sst", sst),
    ("migrations", migrations),
    ("row_values", row_values),
    ("keys", keys),
    ("schemas", schemas),
    ("urls", urls),
    ("filters", filters),
];

/// Entries of a table that are read before the rest is believed to be like them.
const ENTRIES_MAX: usize = 100_000;

/// `backupmeta` of both layouts, with everything that stands in it.
pub(crate) fn backupmeta(data: &[u8]) {
    let plain = Crypter::plaintext();
    for compatibility in [Compatibility::Strict, Compatibility::Lenient] {
        let stored = Bytes::copy_from_slice(data);
        let Ok(meta) = BackupMeta::decode(stored, &plain, compatibility) else {
            continue;
        };
        for kind in [MetaKind::DataFile, MetaKind::Schema, MetaKind::Ddl] {
            if let Ok(mut walk) = meta.walk(kind) {
                node(walk.root());
                while walk.next_object().is_some() {
                    match walk.open(Bytes::copy_from_slice(data)) {
                        Ok(child) => node(&child),
                        Err(_) => walk.skip(),
                    }
                }
            }
        }
    }
}

fn node(node: &MetaNode) {
    for file in node.data_files().flatten() {
        let _ = file.into_proto();
    }
    for schema in node.schemas().flatten() {
        schemas(&schema.db_json);
        schemas(schema.table_json.as_deref().unwrap_or_default());
        for stats in &schema.stats {
            let _ = stats.open(Bytes::new(), &Crypter::plaintext());
        }
    }
    let _ = node.ddl_jobs();
}

/// The index of a flush.
pub(crate) fn log_metadata(data: &[u8]) {
    if let Ok(meta) = LogMeta::decode("fuzz", data) {
        let _ = meta.encode();
        let _ = meta.shift_ts(TimeStamp(1), TimeStamp::MAX);
    }
    let _ = LogMeta::decode_to_rewrite("fuzz", data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = MetaName::parse(text);
        let _ = MetaName::parse(&format!("v1/backupmeta/{text}.meta"));
    }
}

/// Events, as they are and compressed.
pub(crate) fn log_records(data: &[u8]) {
    for record in Records::new(data).flatten() {
        let _ = record.split_key();
        let _ = WriteRef::parse(record.value);
    }
    for (compression, length) in [
        (LogCompression::None, data.len() as u64),
        (LogCompression::Zstd, u64::MAX),
        (LogCompression::Zstd, 1 << 20),
    ] {
        let file = LogFile {
            identity: FileIdentity {
                is_schema: false,
                table: TableId(1),
                region: RegionId(1),
                cf: Cf::Write,
                kind: EventKind::Put,
            },
            entries: 1,
            min_ts: TimeStamp(0),
            max_ts: TimeStamp::MAX,
            resolved_ts: TimeStamp(0),
            min_begin_ts: TimeStamp(0),
            first_key: Vec::new(),
            last_key: Vec::new(),
            length,
            span: Span::default(),
            compression,
            encryption: None,
            crc64_xor: 0,
            sha256: [0; 32],
            region_range: KeyRange::default(),
            region_epochs: Vec::new(),
        };
        let stored = Bytes::copy_from_slice(data);
        // What one file may expand to is bounded by what its metadata says, which is bounded here.
        if length != u64::MAX || data.len() < 64 {
            let _ = content::open("fuzz", &file, stored, &Crypter::plaintext());
        }
        let _ = content::check_records("fuzz", &file, data);
    }
}

/// The small objects beside a log.
pub(crate) fn log_marks(data: &[u8]) {
    let _ = Marker::decode(data);
    let _ = LockContent::decode("fuzz", data);
    let _ = Blocklist::decode("fuzz", data);
    let _ = checkpoint::CheckpointCopy::decode("fuzz", data);
    let _ = checkpoint::decode_truncate_safe_point(data);
    let _ = checkpoint::ReplicationState::decode(data);
}

/// A table, all of it, and a seek to the middle.
pub(crate) fn sst(data: &[u8]) {
    let Ok(table) = br_sst::Table::open(Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut entries = table.iter();
    let mut keys = Vec::new();
    if entries.seek(&[]).is_ok() {
        while let Ok(Some(entry)) = entries.next() {
            keys.push(entry.user_key.to_vec());
            if keys.len() >= ENTRIES_MAX {
                break;
            }
        }
    }
    if let Some(key) = keys.get(keys.len() / 2) {
        let _ = entries.seek(key);
        let _ = entries.next();
    }
}

/// Edits of a log, and the indices of what they made.
pub(crate) fn migrations(data: &[u8]) {
    if let Ok(migration) = Migration::decode("fuzz", data) {
        let _ = migration.hash();
        let mut merged = migration.clone();
        merged.merge(migration);
    }
    if let Ok(items) = compaction::decode("fuzz", data) {
        let _ = compaction::encode(&items);
    }
    let _ = IngestedSsts::decode("fuzz", data);
}

/// A row of a table that has a column of every type.
pub(crate) fn row_values(data: &[u8]) {
    thread_local! {
        static DECODERS: Vec<RowDecoder> = decoders();
    }
    DECODERS.with(|decoders| {
        let mut row = Vec::new();
        for decoder in decoders {
            let _ = decoder.decode(&1_u64.to_be_bytes(), data, &mut row);
            let (handle, value) = data.split_at(data.len().min(9));
            let _ = decoder.decode(handle, value, &mut row);
        }
    });
    let mut input = data;
    while let Ok(_datum) = br_tidb::row::Datum::read(&mut input) {}
}

/// A TableInfo with one column of every type.
fn decoders() -> Vec<RowDecoder> {
    let types = [
        1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16, 225, 245, 246, 247, 248, 249, 250, 251,
        252, 253, 254,
    ];
    let column = |(place, tp): (usize, &u8)| {
        let id = place + 1;
        format!(
            r#"{{"id":{id},"name":{{"O":"c{id}","L":"c{id}"}},"offset":{place},"state":5,"version":2,
               "type":{{"Tp":{tp},"Flag":0,"Flen":20,"Decimal":3,"Charset":"utf8mb4",
               "Collate":"utf8mb4_bin","Elems":["a","b"]}}}}"#
        )
    };
    let columns: Vec<_> = types.iter().enumerate().map(column).collect();
    let table = |handle: &str| {
        let json = format!(
            r#"{{"id":7,"name":{{"O":"t","L":"t"}},"cols":[{}],"state":5,"version":5,{handle}}}"#,
            columns.join(",")
        );
        let info = TableInfo::parse(json.as_bytes()).expect("the table is a table");
        RowDecoder::new(&info).expect("its rows can be read")
    };
    vec![
        table(r#""pk_is_handle":false"#),
        table(
            r#""is_common_handle":true,"index_info":[{"id":1,"idx_name":{"O":"PRIMARY","L":"primary"},
               "idx_cols":[{"name":{"O":"c13","L":"c13"},"offset":12,"length":-1}],"state":5,
               "is_unique":true,"is_primary":true}]"#,
        ),
    ]
}

/// Keys and records of the engine.
pub(crate) fn keys(data: &[u8]) {
    if let Ok(raw) = br_codec::key::decode(data) {
        let _ = TableKey::parse(raw.as_bytes());
    }
    let _ = br_codec::key::split_data_key(data);
    let _ = TableKey::parse(data);
    let _ = MetaKey::parse(data);
    let _ = WriteRef::parse(data);
    let _ = Lock::parse(data);
}

/// TiDB's JSON.
pub(crate) fn schemas(data: &[u8]) {
    let _ = DbInfo::parse(data);
    if let Ok(table) = TableInfo::parse(data) {
        let _ = table.physical_ids();
        let _ = RowDecoder::new(&table);
    }
}

/// URLs of storages.
pub(crate) fn urls(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Backend::parse(text, &StorageOptions::default());
    }
}

/// Filter rules, one a line.
pub(crate) fn filters(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let rules: Vec<_> = text.lines().collect();
        let mut no_files = |path: &str| Err(format!("no file {path}"));
        if let Ok(filter) = TableFilter::parse(&rules, false, &mut no_files) {
            let _ = filter.matches_table("shop", text);
            let _ = filter.matches_db(text);
        }
    }
}
