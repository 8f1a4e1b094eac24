use std::sync::atomic::AtomicU64;

use br_format::{
    backupmeta::{DataFile, Layout},
    crypter::{Iv, Method},
    resume::{ConfigHash, ResumeRange},
};
use br_storage::Backend;
use br_tidb::filter::TableFilter;
use br_types::{Cf, ClusterId, KeyRange};
use futures::StreamExt;

use super::*;
use crate::backup::{BackupOptions, BackupTime, Scope};

async fn memory(name: &str) -> Storage {
    let backend = Backend::Memory {
        name: name.to_owned(),
        prefix: String::new(),
    };
    Storage::open(&Rt::real(), &backend).await.expect("memory")
}

fn range(start: &str, end: &str, files: &[(&str, u64)]) -> ResumeRange {
    let range = KeyRange::new(start.as_bytes(), end.as_bytes());
    let file = |(name, size_bytes): &(&str, u64)| DataFile {
        name: (*name).to_owned(),
        sha256: [1; 32],
        range: range.clone(),
        cf: Cf::Write,
        start_ts: TimeStamp::ZERO,
        end_ts: TimeStamp(9),
        stats: KvStats {
            total_kvs: 5,
            ..KvStats::default()
        },
        size_bytes: *size_bytes,
        cipher_iv: Some(Iv([3; 16])),
    };
    ResumeRange {
        files: files.iter().map(file).collect(),
        range,
    }
}

fn meta() -> ResumeMeta {
    let options = BackupOptions::new(
        Scope::Full {
            filter: TableFilter::all(),
        },
        "test",
    );
    ResumeMeta {
        gc_service_id: "br-1".to_owned(),
        config_hash: ConfigHash([7; 32]),
        backup_ts: TimeStamp(42),
        parameters: parameters_of(&options, ClusterId(1)),
    }
}

/// The starts of the ranges that a reader believes.
async fn believed(storage: &Storage, crypter: Crypter) -> Result<Vec<String>, ResumeFilesError> {
    let reader = ResumeReader::open(
        storage,
        crypter,
        meta().backup_ts,
        Arc::new(AtomicU64::new(0)),
    )
    .await?;
    let mut starts = Vec::new();
    let mut files = Box::pin(reader.ranges());
    while let Some(ranges) = files.next().await {
        let key = |range: &ResumeRange| range.range.start.as_bytes().to_vec();
        starts.extend(
            ranges?
                .iter()
                .map(|range| String::from_utf8(key(range)).expect("text")),
        );
    }
    starts.sort();
    Ok(starts)
}

#[tokio::test]
async fn what_the_storage_does_not_prove_is_done_again() {
    let storage = memory("resume-1").await;
    let crypter = Crypter::new(Method::Aes128Ctr, &[1; 16]).expect("a key");
    let rt = Rt::real();
    let resume = Resume::open(&rt, storage.clone(), crypter.clone(), None, meta)
        .await
        .expect("opened");
    for (name, size) in [("1/a_write.sst", 3), ("1/b_write.sst", 2)] {
        let bytes = vec![0; size];
        storage.write(name, bytes).await.expect("written");
    }
    let writer = resume.writer();
    writer
        .add_range(range("a", "b", &[("1/a_write.sst", 3)]))
        .await;
    // Of another size, not there, one of two, and without data.
    writer
        .add_range(range("b", "c", &[("1/b_write.sst", 3)]))
        .await;
    writer
        .add_range(range("c", "d", &[("1/c_write.sst", 3)]))
        .await;
    let two = [("1/a_write.sst", 3), ("1/c_write.sst", 3)];
    writer.add_range(range("d", "e", &two)).await;
    writer.add_range(range("e", "f", &[])).await;
    let sums = KvStats {
        total_kvs: 8,
        ..KvStats::default()
    };
    resume.add_checksum(TableId(100), sums).await;
    resume.keep().await;
    assert_eq!(find(&storage).await.expect("found"), Some(meta()));
    let starts = believed(&storage, crypter.clone()).await.expect("read");
    assert_eq!(starts, ["a", "e"]);
    let other = Crypter::new(Method::Aes128Ctr, &[2; 16]).expect("a key");
    assert!(believed(&storage, other).await.is_err());

    // A file that is no file of ranges costs itself only.
    let name = names::resume_data(meta().backup_ts, "x");
    storage.write(&name, "{").await.expect("written");
    let starts = believed(&storage, crypter.clone()).await.expect("read");
    assert_eq!(starts, ["a", "e"]);

    let found = meta();
    let again = Resume::open(&rt, storage.clone(), crypter, Some(&found), meta)
        .await
        .expect("opened");
    assert_eq!(again.checksum_of(TableId(100)), Some(sums));
    assert_eq!(again.checksum_of(TableId(101)), None);
    again.remove().await;
    assert_eq!(find(&storage).await.expect("read"), None);
    let mut left = storage.list("checkpoints/");
    assert!(left.next().await.is_none());
    br_storage::forget_memory("resume-1");
}

/// Two commands that took over from a dead one at the same moment, each with a timestamp of its own: what
/// the loser noted until it found out says nothing of the winner's backup. (SIM_SEED=64 of the
/// simulation with two commands at once.)
#[tokio::test]
async fn notes_of_another_timestamp_are_not_believed() {
    let storage = memory("resume-two").await;
    let (rt, crypter) = (Rt::real(), Crypter::plaintext());
    let of_loser = || ResumeMeta {
        backup_ts: TimeStamp(41),
        ..meta()
    };
    let sums = KvStats::default();
    let open = async |of: fn() -> ResumeMeta| {
        let opened = Resume::open(&rt, storage.clone(), crypter.clone(), None, of).await;
        opened.expect("opened")
    };
    let (loser, winner) = (open(of_loser).await, open(meta).await);
    for (book, start, table) in [(loser, "a", 100), (winner, "b", 101)] {
        book.writer().add_range(range(start, "z", &[])).await;
        book.add_checksum(TableId(table), sums).await;
        book.keep().await;
    }
    let starts = believed(&storage, crypter.clone()).await.expect("read");
    assert_eq!(starts, ["b"]);
    let again = Resume::open(&rt, storage.clone(), crypter, Some(&meta()), meta).await;
    let again = again.expect("opened");
    assert_eq!(again.checksum_of(TableId(100)), None);
    assert_eq!(again.checksum_of(TableId(101)), Some(sums));
    again.remove().await;
    br_storage::forget_memory("resume-two");
}

#[test]
fn each_option_that_differs_is_named() {
    let full = |rules: &[&str]| {
        let filter = TableFilter::all();
        BackupOptions {
            filter_rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            ..BackupOptions::new(Scope::Full { filter }, "test")
        }
    };
    let options = full(&["a.*"]);
    let found = ResumeMeta {
        parameters: parameters_of(&options, ClusterId(1)),
        ..meta()
    };
    let check = |options: &BackupOptions, cluster| check_same(options, cluster, &found, "here");
    assert!(check(&options, ClusterId(1)).is_ok());
    // How, not what.
    let as_well = BackupOptions {
        layout: Layout::V1,
        checksum: true,
        concurrency: 1,
        at: BackupTime::At(TimeStamp(42)),
        ..full(&["a.*"])
    };
    assert!(check(&as_well, ClusterId(1)).is_ok());
    let named = |options: &BackupOptions, cluster| match check(options, cluster) {
        Err(BackupError::OtherParameters { differences, .. }) => differences
            .into_iter()
            .map(|difference| difference.name)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&full(&["b.*"]), ClusterId(1)), ["--filter"]);
    assert_eq!(named(&options, ClusterId(2)), ["cluster"]);
    let db = BackupOptions::new(Scope::Database { db: "a".to_owned() }, "test");
    assert_eq!(named(&db, ClusterId(1)), ["--db", "--filter", "command"]);
    let at = BackupOptions {
        at: BackupTime::At(TimeStamp(43)),
        ..full(&["a.*"])
    };
    assert_eq!(named(&at, ClusterId(1)), ["--backupts"]);
    let key = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
    let encrypted = BackupOptions {
        crypter: Crypter::from_hex(Method::Aes128Ctr, key).expect("a key"),
        ..full(&["a.*"])
    };
    let error = check(&encrypted, ClusterId(1)).expect_err("another key");
    assert!(error.to_string().contains("--crypter.key was nothing"));
    assert!(!error.to_string().contains("5a5a"), "{error}");
}

#[test]
fn a_backup_of_the_official_tool_goes_on_with_its_digest_only() {
    let filter = TableFilter::all();
    let options = BackupOptions::new(Scope::Full { filter }, "test");
    let found = ResumeMeta {
        parameters: Default::default(),
        ..meta()
    };
    let of = |hashes: &[u8]| BackupOptions {
        config_hashes: hashes.iter().map(|hash| ConfigHash([*hash; 32])).collect(),
        ..options.clone()
    };
    let check = |options: &BackupOptions| check_same(options, ClusterId(1), &found, "here");
    assert!(check(&of(&[6, 7])).is_ok());
    for hashes in [&[][..], &[6, 8]] {
        let refused = check(&of(hashes));
        assert!(matches!(refused, Err(BackupError::OtherConfig { .. })));
    }
}

#[test]
fn files_of_other_backups_below_are_left() {
    for name in ["1/2_3_4_write.sst", "2_3_4_write.sst"] {
        assert!(is_data_file(name), "{name}");
    }
    for name in ["other/2_3_4_write.sst", "1/1/2_3_4_write.sst", "1/notes"] {
        assert!(!is_data_file(name), "{name}");
    }
}
