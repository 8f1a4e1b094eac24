//! What every backend promises.

use br_storage::{Failure, PART_BYTES, PARTS_IN_FLIGHT_MAX, Storage, forget_memory};
use br_types::{Classify, Kind};
use futures::TryStreamExt;

use crate::backends::{Server, on_servers, run, run_sealed};

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $case() {
                let name = concat!("conformance-", stringify!($case));
                super::run(&format!("memory://{name}/a/b"), super::on_empty(super::$case));
                super::forget_memory(name);
            })*
        }
        mod local {
            $(#[test]
            fn $case() {
                let dir = tempfile::tempdir().expect("a directory");
                let url = format!("local://{}", dir.path().join("base dir").display());
                super::run(&url, super::on_empty(super::$case));
            })*
        }
        on_servers!(super::on_server: $($case),*);
        /// The same with every object sealed.
        mod sealed {
            $(#[test]
            fn $case() {
                let dir = tempfile::tempdir().expect("a directory");
                let url = format!("local://{}", dir.path().join("base dir").display());
                super::run_sealed(&url, super::on_empty(super::$case));
            })*
        }
        mod sealed_s3 {
            $(#[test]
            #[cfg_attr(not(moto), ignore = "needs moto: scripts/install-test-servers")]
            fn $case() {
                let url = super::Server::S3.url(concat!("conformance/sealed/", stringify!($case)));
                super::run_sealed(&url, super::on_empty(super::$case));
            })*
        }
    };
}

cases!(
    whole_objects,
    empty_objects,
    ranges,
    creation,
    racing_creation,
    listing,
    paged_listing,
    large_objects,
    aborted_objects,
    odd_names,
    bad_names,
    missing_objects,
    deletion,
);

/// The storage is empty before and after.
fn on_empty<F>(
    case: impl FnOnce(Storage) -> F,
) -> impl FnOnce(Storage) -> std::pin::Pin<Box<dyn Future<Output = ()>>>
where
    F: Future<Output = ()> + 'static,
{
    move |storage| {
        let case = case(storage.clone());
        Box::pin(async move {
            assert_eq!(names(&storage, "").await, Vec::<String>::new());
            case.await;
            assert_eq!(names(&storage, "").await, Vec::<String>::new());
        })
    }
}

fn on_server<F: Future<Output = ()> + 'static>(
    server: Server,
    name: &str,
    case: impl FnOnce(Storage) -> F,
) {
    run(&server.url(&format!("conformance/{name}")), on_empty(case));
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

async fn whole_objects(storage: Storage) {
    let storage = &storage;
    storage.write("a/b", "one").await.expect("written");
    storage.write("a/b", "other").await.expect("written over");
    assert_eq!(storage.read("a/b").await.expect("there"), "other");
    assert_eq!(storage.size("a/b").await.expect("there"), 5);
    let error = storage.read_at_most("a/b", 4).await.expect_err("too large");
    assert_eq!(error.failure, Failure::TooLarge { size: 5, max: 4 });
    storage.delete("a/b").await.expect("deleted");
    assert!(!storage.exists("a/b").await.expect("an answer"));
}

async fn ranges(storage: Storage) {
    let storage = &storage;
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
    storage.delete("r").await.expect("deleted");
}

async fn creation(storage: Storage) {
    let storage = &storage;
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

async fn listing(storage: Storage) {
    let storage = &storage;
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

async fn large_objects(storage: Storage) {
    let storage = &storage;
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

    storage.delete("large/object").await.expect("deleted");
}

async fn bad_names(storage: Storage) {
    let storage = &storage;
    for name in ["", "/a", "a/", "a//b", "../a", "a/../b", "."] {
        let error = storage.write(name, "x").await.expect_err(name);
        assert!(
            matches!(error.failure, Failure::BadName(_)),
            "{name:?}: {error}"
        );
    }
}

async fn aborted_objects(storage: Storage) {
    storage.write("large/object", "old").await.expect("written");
    let piece = vec![7; PART_BYTES / 2];
    let mut writer = storage.writer("large/object").expect("a writer");
    for _ in 0..5 {
        writer.write(&piece).await.expect("taken");
    }
    writer.abort().await;
    assert_eq!(names(&storage, "large/").await, ["large/object"]);
    assert_eq!(storage.read("large/object").await.expect("there"), "old");
    storage.delete("large/object").await.expect("deleted");
}

async fn empty_objects(storage: Storage) {
    storage.write("empty", "").await.expect("written");
    assert_eq!(storage.read("empty").await.expect("there"), "");
    assert_eq!(storage.size("empty").await.expect("there"), 0);
    assert_eq!(storage.read_range("empty", 0..0).await.expect("there"), "");
    let error = storage.read_range("empty", 0..1).await.expect_err("short");
    let expected = Failure::Truncated {
        expected: 1,
        found: 0,
    };
    assert_eq!(error.failure, expected);
    let written = storage.writer("empty").expect("a writer").finish().await;
    assert_eq!(written.expect("written").size_bytes, 0);
    storage.delete("empty").await.expect("deleted");
}

/// Of many that create one object at a time, exactly one does: what locks rest on.
async fn racing_creation(storage: Storage) {
    const RACERS: usize = 8;
    let racers = (0..RACERS).map(|racer| {
        let storage = storage.clone();
        async move { storage.create("lock", format!("racer {racer}")).await }
    });
    let results = futures::future::join_all(racers).await;
    let winners: Vec<_> = (0..RACERS)
        .filter(|racer| results[*racer].is_ok())
        .collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(error.is_already_exists(), "{error}");
    }
    let expected = format!("racer {}", winners[0]);
    assert_eq!(storage.read("lock").await.expect("there"), expected);
    storage.delete("lock").await.expect("deleted");
}

/// More objects than the 1000 that a page of S3 and GCS has.
async fn paged_listing(storage: Storage) {
    let all: Vec<_> = (0..1100).map(|i| format!("p/{:04}", i * 3)).collect();
    let writes = all.iter().map(|name| storage.write(name, name.clone()));
    let writes = futures::stream::iter(writes.map(Ok));
    writes
        .try_for_each_concurrent(8, |write| write)
        .await
        .expect("written");
    assert_eq!(names(&storage, "p/").await, all);
    assert_eq!(names(&storage, "p/3").await, all[1000..]);
    storage.delete_many(all).await.expect("deleted");
}

async fn odd_names(storage: Storage) {
    let odd = [
        "a b/c+d",
        "a%20b",
        "a=b&c;d,e:f@g",
        "\u{e4}\u{6f22}/\u{1f600}",
        "1_2_3_\u{7e}!$'()",
        "v1/20261121/12/400-a.b-c_d.log",
    ];
    for name in odd {
        storage.write(name, name).await.expect(name);
    }
    let mut sorted = odd.to_vec();
    sorted.sort_unstable();
    assert_eq!(names(&storage, "").await, sorted);
    for name in odd {
        assert_eq!(storage.read(name).await.expect(name), name);
        let head = storage.read_range(name, 0..1).await.expect(name);
        assert_eq!(head, name.as_bytes()[..1]);
        storage.delete(name).await.expect(name);
        assert!(!storage.exists(name).await.expect(name));
    }
}

async fn missing_objects(storage: Storage) {
    for error in [
        storage.read("a/b").await.expect_err("nothing there"),
        storage.read_range("a/b", 0..1).await.expect_err("nothing"),
        storage.size("a/b").await.expect_err("nothing there"),
    ] {
        assert!(error.is_not_found(), "{error}");
        assert_eq!(error.kind(), Kind::Data);
    }
    assert!(!storage.exists("a/b").await.expect("an answer"));
    assert!(names(&storage, "a/").await.is_empty());
}

async fn deletion(storage: Storage) {
    storage.write("d/1", "x").await.expect("written");
    storage.write("d/2", "x").await.expect("written");
    storage.delete("d/1").await.expect("deleted");
    storage.delete("d/1").await.expect("deleted again");
    assert_eq!(names(&storage, "d/").await, ["d/2"]);
    let gone = ["d/1", "d/2", "d/3"].map(str::to_owned);
    storage.delete_many(gone).await.expect("deleted");
}
