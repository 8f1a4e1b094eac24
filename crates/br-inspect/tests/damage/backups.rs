//! Backups of tables.

use br_format::backupmeta::{BackupMeta, Compatibility, DataFile, ObjectRef};
use br_format::crypter::{Crypter, Method};
use br_format::names::MetaKind;
use br_inspect::verify::LostTables;
use bytes::Bytes;

use crate::place::{Damage, Done, Place, Random, names, number};
use crate::table::Table;

/// Bytes of each index object that are flipped; of data files, whose sums cover every byte, a few.
const INDEX_FLIPS: u64 = 120;
const DATA_FLIPS: usize = 2;

fn kind(object: &str) -> &'static str {
    match object {
        "backupmeta" => "backupmeta",
        "backup.lock" => "backup.lock",
        name if name.starts_with("backupmeta.datafile") => "index of data files",
        name if name.starts_with("backupmeta.schema.stats") => "statistics",
        name if name.starts_with("backupmeta.schema") => "index of schemas",
        name if name.starts_with("backupmeta.ddl") => "index of DDL jobs",
        name if name.ends_with(".sst") => "data file",
        name => panic!("what is {name}?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_statistics() {
    matrix("db-lz4", Crypter::plaintext()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_database() {
    let key: Vec<u8> = (0..32).collect();
    matrix("db-aes256", Crypter::new(Method::Aes256Ctr, &key).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup() {
    matrix("incremental", Crypter::plaintext()).await;
}

async fn matrix(golden: &str, crypter: Crypter) {
    let place = Place::copy_of(golden, crypter.clone());
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "{golden} is whole");
    let mut table = Table::default();
    let mut random = Random(number("DAMAGE_SEED", 1));
    let objects = place.objects();
    for (at, object) in objects.iter().enumerate() {
        let length = place.read(object).len();
        let is_index = kind(object) == "backupmeta";
        let flips = match is_index {
            true => number("DAMAGE_BYTES", INDEX_FLIPS) as usize,
            false => DATA_FLIPS,
        };
        for _ in 0..flips.min(length) {
            let (byte, bit) = (random.below(length), random.below(8));
            let done = place.flip(object, byte, bit);
            judge(&place, &crypter, done, &mut table).await;
        }
        let done = place.cut(object, &mut random);
        judge(&place, &crypter, done, &mut table).await;
        let done = place.remove(object);
        judge(&place, &crypter, done, &mut table).await;
        let other = &objects[(at + 1 + random.below(objects.len() - 1)) % objects.len()];
        if place.read(object) != place.read(other) {
            let done = place.swap(object, other);
            judge(&place, &crypter, done, &mut table).await;
        }
    }
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "{golden} is whole again");
    table.show(golden);
}

async fn judge(place: &Place, crypter: &Crypter, done: Done, table: &mut Table) {
    let object = &done.objects[0];
    let findings = place.findings(&done).await;
    let what = || format!("{object} {}: {findings:#?}", done.damage.name());
    if names(&findings, &done.objects) {
        // Every loss of rows says whose.
        for finding in &findings {
            assert_ne!(finding.tables, LostTables::Named(Vec::new()), "{}", what());
        }
        if kind(object) == "data file" && done.damage != Damage::Swap {
            let named = findings.iter().find(|finding| finding.object == *object);
            let LostTables::Named(tables) = &named.unwrap().tables else {
                panic!("{}", what());
            };
            assert!(
                tables.iter().all(|table| !table.contains("id ")),
                "{}",
                what()
            );
        }
        table.named(kind(object), done.damage);
    } else {
        assert_eq!(findings, [], "{}", what());
        if let Err(difference) = without_effect(place, crypter, &done) {
            panic!("{} {difference}", what());
        }
        table.without_effect(kind(object), done.damage);
    }
    place.undo(done);
}

/// Damage that verify may pass over: nothing that a restore reads has changed.
fn without_effect(place: &Place, crypter: &Crypter, done: &Done) -> Result<(), String> {
    match done.objects[0].as_str() {
        // Only its name counts.
        "backup.lock" if done.objects.len() == 1 => Ok(()),
        "backupmeta" => {
            let damaged = what_counts(&decode(&place.read("backupmeta"), crypter));
            let before = what_counts(&decode(done.before(), crypter));
            match before == damaged {
                true => Ok(()),
                false => Err(format!("{before}\n{damaged}")),
            }
        }
        other => Err(other.to_owned()),
    }
}

fn decode(bytes: &[u8], crypter: &Crypter) -> BackupMeta {
    let bytes = Bytes::copy_from_slice(bytes);
    BackupMeta::decode(bytes, crypter, Compatibility::Strict).unwrap()
}

/// Everything of an index but texts for people and the id of the cluster, which only a log on top
/// of the backup proves.
fn what_counts(meta: &BackupMeta) -> String {
    let mut head = meta.head.clone();
    head.cluster_version.clear();
    head.br_version.clear();
    head.backup_result.clear();
    head.policies.clear();
    head.cluster_id = br_types::ClusterId(0);
    // Items are looked for in the places of both layouts.
    let mut text = format!("{head:?} {}", meta.schema_version);
    for kind in [MetaKind::DataFile, MetaKind::Schema, MetaKind::Ddl] {
        let walk = meta.walk(kind).unwrap();
        let pending: Vec<_> = walk.pending().map(without_size).collect();
        let root = walk.root();
        let files: Vec<DataFile> = root.data_files().collect::<Result<_, _>>().unwrap();
        let schemas: Vec<_> = root.schemas().collect::<Result<_, _>>().unwrap();
        text.push_str(&format!("{pending:?}{files:?}{schemas:?}"));
    }
    text
}

/// Its SHA-256 says more than its size, which may be left out.
fn without_size(object: &ObjectRef) -> String {
    let text = format!("{object:?}");
    let (before, after) = text.split_once("size_bytes: ").unwrap();
    let (_, after) = after.split_once(',').unwrap();
    format!("{before}{after}")
}
