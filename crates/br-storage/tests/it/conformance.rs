use br_storage::{Failure, PART_BYTES, PARTS_IN_FLIGHT_MAX, Storage};
use br_types::{Classify, Kind};
use futures::TryStreamExt;

/// Every promise of [`Storage`]; the storage is empty before and after.
pub(crate) async fn all(storage: &Storage) {
    assert_eq!(names(storage, "").await, Vec::<String>::new());
    whole_objects(storage).await;
    ranges(storage).await;
    creation(storage).await;
    listing(storage).await;
    large_objects(storage).await;
    bad_names(storage).await;
    assert_eq!(names(storage, "").await, Vec::<String>::new());
}

async fn names(storage: &Storage, prefix: &str) -> Vec<String> {
    let mut names: Vec<_> = storage
        .list(prefix)
        .map_ok(|entry| entry.name)
        .try_collect()
        .await
        .expect("a listing");
    names.sort();
    names
}

async fn whole_objects(storage: &Storage) {
    let error = storage.read("a/b").await.expect_err("nothing there");
    assert!(error.is_not_found(), "{error}");
    assert_eq!(error.kind(), Kind::Data);
    assert!(!storage.exists("a/b").await.expect("an answer"));
    storage.write("a/b", "one").await.expect("written");
    storage.write("a/b", "other").await.expect("written over");
    storage.write("empty", "").await.expect("written");
    assert_eq!(storage.read("a/b").await.expect("there"), "other");
    assert_eq!(storage.read("empty").await.expect("there"), "");
    assert_eq!(storage.size("a/b").await.expect("there"), 5);
    let error = storage.read_at_most("a/b", 4).await.expect_err("too large");
    assert_eq!(error.failure, Failure::TooLarge { size: 5, max: 4 });
    storage.delete("a/b").await.expect("deleted");
    storage.delete("a/b").await.expect("deleted again");
    storage.delete("empty").await.expect("deleted");
    assert!(!storage.exists("a/b").await.expect("an answer"));
}

async fn ranges(storage: &Storage) {
    storage.write("r", "0123456789").await.expect("written");
    assert_eq!(
        storage.read_range("r", 0..10).await.expect("there"),
        "0123456789"
    );
    assert_eq!(storage.read_range("r", 3..5).await.expect("there"), "34");
    assert_eq!(storage.read_range("r", 9..10).await.expect("there"), "9");
    assert_eq!(storage.read_range("r", 4..4).await.expect("there"), "");
    for range in [5..11, 10..12, 100..200] {
        let expected = range.end;
        let error = storage
            .read_range("r", range)
            .await
            .expect_err("beyond the end");
        assert_eq!(
            error.failure,
            Failure::Truncated {
                expected,
                found: 10
            }
        );
    }
    let error = storage
        .read_range("none", 0..1)
        .await
        .expect_err("nothing there");
    assert!(error.is_not_found(), "{error}");
    storage.delete("r").await.expect("deleted");
}

async fn creation(storage: &Storage) {
    storage.create("d/lock", "mine").await.expect("created");
    let error = storage
        .create("d/lock", "mine")
        .await
        .expect_err("there already");
    assert!(error.is_already_exists(), "{error}");
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(storage.read("d/lock").await.expect("there"), "mine");
    storage.delete("d/lock").await.expect("deleted");
}

async fn listing(storage: &Storage) {
    let all = [
        "1/2_3_default.sst",
        "1/2_3_write.sst",
        "12/x",
        "backup.lock",
        "backupmeta",
        "backupmeta.datafile.000000001",
        "checkpoints/backup/a-b c.cpt",
        "v1/backupmeta/0A.meta",
    ];
    for name in all {
        storage.write(name, name).await.expect("written");
    }
    assert_eq!(names(storage, "").await, all);
    assert_eq!(names(storage, "1").await, all[..3]);
    assert_eq!(names(storage, "1/").await, all[..2]);
    assert_eq!(names(storage, "1/2_3_w").await, all[1..2]);
    assert_eq!(names(storage, "backup").await, all[3..6]);
    assert_eq!(names(storage, "backupmeta").await, all[4..6]);
    assert_eq!(names(storage, "v1/backupmeta/0A.meta").await, all[7..]);
    assert!(names(storage, "v1/none/").await.is_empty());
    assert!(names(storage, "zzz").await.is_empty());
    let sizes: Vec<_> = storage
        .list("checkpoints/")
        .map_ok(|entry| entry.size_bytes)
        .try_collect()
        .await
        .expect("a listing");
    assert_eq!(sizes, [all[6].len() as u64]);
    storage
        .delete_many(all.map(str::to_owned))
        .await
        .expect("deleted");
}

async fn large_objects(storage: &Storage) {
    let pattern: Vec<u8> = (0..1_000_003_u32).map(|i| ((i * 7) >> 4) as u8).collect();
    let pieces = (2 + PARTS_IN_FLIGHT_MAX) * PART_BYTES / pattern.len() + 1;
    let mut writer = storage.writer("large/object").expect("a writer").hashed();
    for _ in 0..pieces {
        writer.write(&pattern).await.expect("taken");
    }
    assert!(
        !storage.exists("large/object").await.expect("an answer"),
        "visible too early"
    );
    let written = writer.finish().await.expect("written");
    let contents = storage.read("large/object").await.expect("there");
    assert_eq!(written.size_bytes, contents.len() as u64);
    assert!(contents == pattern.repeat(pieces), "other contents");

    // What fits one part, hashed: SHA-256 of "abc" is published.
    let mut writer = storage.writer("large/object").expect("a writer").hashed();
    writer.write(b"ab").await.expect("taken");
    writer.write(b"c").await.expect("taken");
    let hash = writer
        .finish()
        .await
        .expect("written")
        .sha256
        .expect("a hash");
    assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
    assert_eq!(storage.read("large/object").await.expect("there"), "abc");

    let mut writer = storage.writer("large/other").expect("a writer");
    for _ in 0..2 * PART_BYTES / pattern.len() {
        writer.write(&pattern).await.expect("taken");
    }
    writer.abort().await;
    assert_eq!(names(storage, "large/").await, ["large/object"]);
    storage.delete("large/object").await.expect("deleted");
}

async fn bad_names(storage: &Storage) {
    for name in ["", "/a", "a/", "a//b", "../a", "a/../b", "."] {
        let error = storage.write(name, "x").await.expect_err(name);
        assert!(
            matches!(error.failure, Failure::BadName(_)),
            "{name:?}: {error}"
        );
    }
}
