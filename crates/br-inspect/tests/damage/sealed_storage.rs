//! Backups and logs in sealed storages: whatever is done to a stored object is found, unless nobody
//! reads it; and what is read, is read right.

use br_format::crypter::Crypter;
use br_storage::{Backend, SealKeys, Storage, parse_master_key};

use crate::logs::keep_what_is_there;
use crate::place::{Damage, Done, Place, Random, names, number};
use crate::table::Table;

/// Bits of each object that are flipped, beside those at its edges.
const FLIPS: u64 = 6;

/// Only their names count: their content is read by nobody.
fn is_name_only(object: &str) -> bool {
    object == "backup.lock"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup() {
    matrix("db-lz4", |object, _| is_name_only(object)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup() {
    matrix("incremental", |object, _| is_name_only(object)).await;
}

/// A copy of the checkpoint that is gone leaves others that say the same; and the golden log was written
/// by stores that do not number their flushes, so that one that is gone is missed only by its objects.
#[tokio::test(flavor = "multi_thread")]
async fn a_log() {
    matrix("log", |object, damage| {
        let is_gone = damage == Damage::Remove;
        is_name_only(object)
            || object == "backupmeta"
            || is_gone && object.starts_with("v1/global_checkpoint/")
            || is_gone && object.starts_with("v1/backupmeta/")
    })
    .await;
}

async fn matrix(golden: &str, may_be_silent: impl Fn(&str, Damage) -> bool) {
    let place = sealed_copy_of(golden).await;
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "{golden} is whole");
    let mut table = Table::default();
    let mut random = Random(number("DAMAGE_SEED", 1));
    let mut objects = place.objects();
    objects.retain(|object| !object.starts_with("holdfast.keys/"));
    for (at, object) in objects.iter().enumerate() {
        let length = place.read(object).len();
        let edges = [0, 7, 8, 16, 48, 63, 64, length - 1];
        let flips = number("DAMAGE_BYTES", FLIPS);
        let others = (0..flips).map(|_| random.below(length)).collect::<Vec<_>>();
        for byte in edges.into_iter().chain(others) {
            let done = place.flip(object, byte, random.below(8));
            judge(&place, done, &may_be_silent, &mut table).await;
        }
        for done in [place.cut(object, &mut random)] {
            judge(&place, done, &may_be_silent, &mut table).await;
        }
        let done = place.remove(object);
        judge(&place, done, &may_be_silent, &mut table).await;
        let other = &objects[(at + 1 + random.below(objects.len() - 1)) % objects.len()];
        let done = place.swap(object, other);
        judge(&place, done, &may_be_silent, &mut table).await;
    }
    let whole = place.verify().await.unwrap();
    assert_eq!(whole.findings, [], "{golden} is whole again");
    table.show(&format!("{golden}, sealed"));
}

async fn judge(
    place: &Place,
    done: Done,
    may_be_silent: &impl Fn(&str, Damage) -> bool,
    table: &mut Table,
) {
    let findings = place.findings(&done).await;
    let kind = match done.objects[0].rsplit_once('.') {
        Some((_, "sst")) => "data file",
        Some((_, "log")) => "events",
        Some((_, "meta")) => "metadata of a flush",
        Some((_, "ts")) => "copy of the checkpoint",
        _ => "index",
    };
    let silent = |object: &String| may_be_silent(object, done.damage);
    if names(&findings, &done.objects) {
        table.named(kind, done.damage);
    } else {
        let what = (&done.objects, done.damage.name());
        assert!(done.objects.iter().all(silent), "{what:?}: {findings:#?}");
        table.without_effect(kind, done.damage);
    }
    place.undo(done);
}

/// The golden objects, written to a sealed storage.
async fn sealed_copy_of(golden: &str) -> Place {
    let plain = Place::copy_of(golden, Crypter::plaintext());
    if golden == "log" {
        keep_what_is_there(&plain);
    }
    let mut place = Place::empty();
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("master.key");
    std::fs::write(&file, format!("{}\n", "5a".repeat(32))).unwrap();
    let key = parse_master_key(&format!("local://{}", file.display())).unwrap();
    place.seal_with(SealKeys::new(vec![key]), keys);
    let backend = place.backend();
    assert!(matches!(backend, Backend::Sealed { .. }));
    let rt = br_rt::Rt::real();
    let storage = Storage::create_base(&rt, &backend).await.unwrap();
    for object in plain.objects() {
        storage.write(&object, plain.read(&object)).await.unwrap();
    }
    place
}
