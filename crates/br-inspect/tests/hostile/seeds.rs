//! Golden bytes for each parser.

use std::path::{Path, PathBuf};

use br_codec::{WriteRef, key};
use br_format::crypter::Crypter;
use br_format::log::content;
use br_format::log::metadata::LogMeta;
use br_format::log::record::Records;
use bytes::Bytes;

const GOLDEN: &str = "../../tests/golden/tidb-1";
/// Seeds of one parser: enough for every shape, and no more.
const SEEDS_MAX: usize = 60;

pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    let mut seeds = match name {
        "backupmeta" => files(|path| has(path, "backupmeta") && !has(path, "/log/")),
        "log_metadata" => files(|path| has(path, "v1/backupmeta/")),
        "log_records" => streams(),
        "log_marks" => marks(),
        "sst" => files(|path| has(path, ".sst") && !has(path, "aes256")),
        "migrations" => files(|path| has(path, ".mgrt") || has(path, ".cmeta")),
        "row_values" => rows(),
        "keys" => keys(),
        "schemas" => schemas(),
        "urls" => texts(URLS),
        "filters" => texts(FILTERS),
        other => panic!("no seeds for {other}"),
    };
    seeds.truncate(SEEDS_MAX);
    seeds
}

const URLS: &[&str] = &[
    "local:///tmp/backup",
    "/tmp/backup",
    "s3://bucket/prefix/x?endpoint=http://127.0.0.1:9000&region=us-east-1&force-path-style=true",
    "s3://bucket/p?access-key=a%20b&secret-access-key=c%2Fd&session-token=e&sse=aws:kms",
    "gcs://bucket/prefix?predefined-acl=private&storage-class=NEARLINE",
    "gs://bucket/prefix?credentials-file=/x.json",
    "azure://container/prefix?account-name=n&account-key=a2V5&access-tier=Cool",
    "azblob://container/prefix?sas-token=sv%3D1%26sig%3D2",
    "noop://",
    "memory://name/prefix",
    "hdfs://host/x",
    "s3://[::1]/%FF?=&&=",
];

const FILTERS: &[&str] = &[
    "*.*\n!mysql.*",
    "shop.order?\n`we.ird`.\"ta\"\"ble\"",
    "/^db\\d+$/./t[a-z]+(x|y)/",
    "d[!0-9].t[α-ω]\\*",
    "@file",
    "# comment\n\n  a.b  \n!a.b",
    "/((((((((((a{1,9}){1,9}){1,9}){1,9})))))))/.*",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn has(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}

fn paths(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => paths(&path, found),
            false => found.push(path),
        }
    }
}

/// Golden files, the small ones first.
fn files(is_wanted: impl Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    paths(Path::new(GOLDEN), &mut found);
    found.sort();
    let mut read: Vec<_> = found
        .iter()
        .filter(|path| is_wanted(path))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    read.sort_by_key(Vec::len);
    read
}

fn marks() -> Vec<Vec<u8>> {
    let mut marks = files(|path| has(path, ".ts") || has(path, "/log/backupmeta"));
    marks.push(b"470613951976046597\n".to_vec());
    marks.push(
        br#"{"locked_at":"2026-11-21T08:00:00Z","locker_host":"h","locker_pid":1,
            "txn_id":"AAAAAAAAAAAAAAAAAAAAAA==","hint":"x"}"#
            .to_vec(),
    );
    marks
}

/// Events of the golden log, unpacked, and packed as they lie there.
fn streams() -> Vec<Vec<u8>> {
    let mut streams = Vec::new();
    for meta in files(|path| has(path, "v1/backupmeta/")) {
        for group in LogMeta::decode("seed", &meta).unwrap().groups {
            // The large ones are not in this repository.
            let Ok(object) = std::fs::read(Path::new(GOLDEN).join("log").join(&group.path)) else {
                continue;
            };
            let object = Bytes::from(object);
            for file in group.files {
                let from = file.span.offset as usize;
                let to = from + file.span.length as usize;
                let stored = object.slice(from..to);
                streams.push(stored.to_vec());
                let plain = Crypter::plaintext();
                let records = content::open("seed", &file, stored, &plain).unwrap();
                streams.push(records[..records.len().min(64 << 10)].to_vec());
            }
        }
    }
    streams.sort_by_key(Vec::len);
    streams
}

/// Values of rows: of all types from a backup of one database, and of others from the log.
fn rows() -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    for stored in files(|path| has(path, "db-lz4") && has(path, "_write.sst")) {
        let table = br_sst::Table::open(Bytes::from(stored)).unwrap();
        let mut entries = table.iter();
        entries.seek(&[]).unwrap();
        for _ in 0..4 {
            if let Some(entry) = entries.next().unwrap()
                && let Some(value) = WriteRef::parse(entry.value).unwrap().short_value
            {
                rows.push(value.to_vec());
            }
        }
    }
    rows.sort_by_key(Vec::len);
    rows.reverse();
    rows
}

fn keys() -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for stream in streams() {
        for record in Records::new(&stream).take(2).map_while(Result::ok) {
            let Ok((encoded, _)) = record.split_key() else {
                continue;
            };
            if let Ok(raw) = key::decode(encoded) {
                keys.push(raw.as_bytes().to_vec());
            }
            keys.push(record.key.to_vec());
            keys.push(record.value[..record.value.len().min(512)].to_vec());
        }
    }
    keys
}

fn schemas() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(Path::new(GOLDEN).join("schemas.txt")).unwrap();
    let lines = text
        .lines()
        .filter_map(|line| line.find('{').map(|at| &line[at..]));
    let mut schemas: Vec<_> = lines.map(|line| line.as_bytes().to_vec()).collect();
    schemas.sort_by_key(Vec::len);
    schemas
}
