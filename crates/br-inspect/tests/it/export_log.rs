//! Exports out of a full backup and a log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use br_format::backupmeta::Compatibility;
use br_format::crypter::{Crypter, Iv, Method};
use br_format::log::checkpoint::encode_truncate_safe_point;
use br_format::log::content::{self, lay_out};
use br_format::log::file::LogCompression;
use br_format::log::marker::{LogMarker, Marker};
use br_format::log::metadata::LogMeta;
use br_format::log::names::TRUNCATE_SAFE_POINT;
use br_inspect::export::{
    ExportError, ExportOptions, ExportReport, Format, Layer, LogLayer, export,
};
use br_log::read::LogStorage;
use br_rt::{CancellationToken, Progress, Rt, Silent};
use br_storage::{Backend, Storage};
use br_tidb::filter::TableFilter;
use br_types::{Classify, ClusterId, Kind, TimeStamp};
use bytes::Bytes;

use crate::folders::{copy, golden};

const TS0: TimeStamp = TimeStamp(470_613_951_976_046_597);
const USERS: [&str; 4] = ["*.*", "!mysql.*", "!sys.*", "!workload_schema.*"];

struct Job<'a> {
    full: PathBuf,
    full_crypter: Crypter,
    log: PathBuf,
    log_crypter: Crypter,
    filter: &'a [&'a str],
    at: Option<TimeStamp>,
    /// Little, so that rows go to disk.
    memory_bytes: usize,
}

impl Job<'_> {
    fn new(log: PathBuf, at: TimeStamp) -> Job<'static> {
        Job {
            full: golden("full"),
            full_crypter: Crypter::plaintext(),
            log,
            log_crypter: Crypter::plaintext(),
            filter: &USERS,
            at: Some(at),
            memory_bytes: 1 << 20,
        }
    }

    async fn run(&self, output: &Path) -> Result<ExportReport, ExportError> {
        let rt = Rt::real();
        let open = async |path: &Path| {
            let path = path.to_owned();
            Storage::open(&rt, &Backend::Local { path }).await.unwrap()
        };
        let layer = Layer {
            storage: open(&self.full).await,
            crypter: self.full_crypter.clone(),
            compatibility: Compatibility::Strict,
        };
        let temp = tempfile::tempdir().unwrap();
        let mut no_files = |path: &str| Err(format!("no file {path}"));
        let options = ExportOptions {
            filter: TableFilter::parse(self.filter, false, &mut no_files).unwrap(),
            at: self.at,
            log: Some(LogLayer {
                log: LogStorage::new(open(&self.log).await),
                crypter: self.log_crypter.clone(),
                temp_dir: temp.path().to_owned(),
                memory_bytes: self.memory_bytes,
            }),
            format: Format::Jsonl,
            output: output.to_owned(),
        };
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let done = export(
            &rt,
            &[layer],
            &options,
            &progress,
            &CancellationToken::new(),
        )
        .await;
        // Nothing stays behind, once work that runs on a thread of its own has noticed an error.
        let left = || std::fs::read_dir(temp.path()).unwrap().count();
        for _ in 0..1000 {
            if left() == 0 {
                break;
            }
            rt.sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(left(), 0);
        done
    }

    async fn refused(&self) -> ExportError {
        let output = tempfile::tempdir().unwrap();
        let error = self.run(output.path()).await.err().unwrap();
        assert!(error.next_step().is_some(), "{error}");
        error
    }
}

/// A copy of the small part of the golden log, to change.
fn log_copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("log"), folder.path());
    folder
}

#[tokio::test]
async fn a_point_that_the_log_does_not_have() {
    let log = golden("log");
    let end = TimeStamp(470_614_010_054_017_026);
    let error = Job::new(log.clone(), TimeStamp(u64::MAX)).refused().await;
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(
        error.to_string().starts_with("the log backup goes up to "),
        "{error} {end}"
    );
    let error = Job::new(log, TS0.prev()).refused().await;
    assert_eq!(
        error.to_string(),
        "the full backup is of 470613951976046597, 470613951976046596 is before that"
    );
}

#[tokio::test]
async fn a_full_backup_of_another_cluster() {
    let log = log_copy();
    let path = log.path().join("backupmeta");
    let Marker::Log(marker) = Marker::decode(&std::fs::read(&path).unwrap()).unwrap() else {
        panic!()
    };
    let other = LogMarker {
        cluster_id: ClusterId(5),
        ..marker
    };
    std::fs::write(path, other.encode()).unwrap();
    let error = Job::new(log.path().to_owned(), TS0.next()).refused().await;
    assert!(
        error.to_string().ends_with(", the log backup of cluster 5"),
        "{error}"
    );
}

#[tokio::test]
async fn a_gap_between_backup_and_log() {
    let log = log_copy();
    let cut = encode_truncate_safe_point(TS0.next());
    std::fs::write(log.path().join(TRUNCATE_SAFE_POINT), cut).unwrap();
    let error = Job::new(log.path().to_owned(), TimeStamp(TS0.0 + 9))
        .refused()
        .await;
    assert_eq!(
        error.to_string(),
        "the log backup begins at 470613951976046598, the full backup ends at \
         470613951976046597: what was written between them is in neither"
    );
}

#[tokio::test]
async fn a_missing_object() {
    // The repository has the small objects only.
    let error = Job::new(golden("log"), TimeStamp(470_613_970_772_033_539))
        .refused()
        .await;
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains(".log"), "{error}");
}

#[tokio::test]
async fn a_flipped_bit() {
    let log = log_copy();
    let objects = schema_objects(log.path());
    let mut bytes = std::fs::read(&objects[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&objects[0], bytes).unwrap();
    let error = Job::new(log.path().to_owned(), early()).refused().await;
    assert_eq!(error.kind(), Kind::Data, "{error}");
}

/// Just before the first record of an object that is not in the repository.
fn early() -> TimeStamp {
    TimeStamp(470_613_957_874_548_736)
}

/// Objects with schemas, the oldest first.
fn schema_objects(log: &Path) -> Vec<PathBuf> {
    let folder = log.join("v1/20261121/08/1/schema-meta");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn an_encrypted_log() {
    let log = log_copy();
    let key = Crypter::new(Method::Aes256Ctr, &[5; 32]).unwrap();
    encrypt(log.path(), &key);
    let mut job = Job::new(log.path().to_owned(), early());
    let error = job.refused().await;
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(
        error
            .to_string()
            .ends_with("is encrypted with aes256-ctr, and no key was given"),
        "{error}"
    );
    job.log_crypter = Crypter::new(Method::Aes256Ctr, &[6; 32]).unwrap();
    let error = job.refused().await;
    assert!(
        error
            .to_string()
            .ends_with("cannot be decrypted with this key and method"),
        "{error}"
    );
    job.log_crypter = key;
    let output = tempfile::tempdir().unwrap();
    let report = job.run(output.path()).await.unwrap();
    assert_eq!(report.at, early());
    let plain = tempfile::tempdir().unwrap();
    let plain = Job::new(golden("log"), early()).run(plain.path()).await;
    let rows = |report: ExportReport| -> Vec<_> {
        let tables = report.tables.into_iter();
        tables
            .map(|table| (table.db, table.table, table.rows))
            .collect()
    };
    assert_eq!(rows(report), rows(plain.unwrap()));
}

/// Encrypts all objects that are there.
fn encrypt(log: &Path, key: &Crypter) {
    for meta in std::fs::read_dir(log.join("v1/backupmeta")).unwrap() {
        let path = meta.unwrap().path();
        let mut meta = LogMeta::decode("meta", &std::fs::read(&path).unwrap()).unwrap();
        for group in &mut meta.groups {
            let object = log.join(&group.path);
            let Ok(stored) = std::fs::read(&object) else {
                continue;
            };
            let stored = Bytes::from(stored);
            let mut sealed = Vec::new();
            for file in &mut group.files {
                let place = |at: u64| usize::try_from(at).unwrap();
                let bytes = stored.slice(place(file.span.offset)..place(file.span.end().unwrap()));
                let plain = Crypter::plaintext();
                let records = content::open("object", file, bytes, &plain).unwrap();
                let iv = Iv([u8::try_from(sealed.len() % 256).unwrap(); 16]);
                let zstd = LogCompression::Zstd;
                sealed.extend(content::seal(file, &records, zstd, key, iv).unwrap());
            }
            group.length = lay_out(&mut group.files);
            std::fs::write(object, sealed).unwrap();
        }
        std::fs::write(path, meta.encode()).unwrap();
    }
}

/// Against the rows that SQL showed; needs all of the golden data.
mod golden_points {
    use super::*;

    #[cfg(golden)]
    async fn check(full: &str, key: Option<Crypter>, log: &str, filter: &[&str], point: &str) {
        let root = Path::new(env!("GOLDEN_TIDB_1"));
        let expected = root.join("expected").join(point);
        let summary = std::fs::read(expected.join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
        let at = TimeStamp(summary["ts"].as_u64().unwrap());
        let mut job = Job::new(root.join(log), at);
        job.full = root.join(full);
        job.full_crypter = key.unwrap_or_default();
        job.filter = filter;
        let output = tempfile::tempdir().unwrap();
        let report = job.run(output.path()).await.unwrap();
        assert_eq!(report.at, at);
        let wanted = |name: &str| filter.len() > 1 || name.starts_with("shop.");
        crate::rows::assert_same(&expected, output.path(), wanted);
    }

    #[cfg(not(golden))]
    async fn check(_: &str, _: Option<Crypter>, _: &str, _: &[&str], _: &str) {
        unreachable!("ignored")
    }

    macro_rules! points {
        ($($name:ident: $log:literal $point:literal;)*) => {$(
            #[tokio::test]
            #[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
            async fn $name() {
                check("full", None, $log, &USERS, $point).await;
            }
        )*};
    }

    points! {
        log_at_mark2: "log" "mark2";
        log_at_mark5: "log" "mark5";
        log_at_mark7: "log" "mark7";
        log_at_ts1: "log" "ts1";
        compacted_log_at_mark2: "log-compacted" "mark2";
        compacted_log_at_mark5: "log-compacted" "mark5";
        compacted_log_at_mark7: "log-compacted" "mark7";
        compacted_log_at_ts1: "log-compacted" "ts1";
    }

    #[tokio::test]
    #[cfg_attr(not(golden), ignore = "runs with HOLDFAST_GOLDEN=FOLDER make test")]
    async fn encrypted_database_backup_and_log() {
        let key: Vec<u8> = (0..32).collect();
        let key = Crypter::new(Method::Aes256Ctr, &key).unwrap();
        check("db-aes256", Some(key), "log", &["shop.*"], "mark5").await;
    }

    /// A backup of one database knows nothing of the others, and what the log has of them is not
    /// all: they are left out. A database that was made in the window is all in the log, and so is
    /// a table that moved there.
    #[cfg(golden)]
    #[tokio::test]
    async fn databases_that_the_backup_left_out() {
        let root = Path::new(env!("GOLDEN_TIDB_1"));
        let mut job = Job::new(root.join("log"), TimeStamp(470_613_984_875_380_738));
        job.full = root.join("db-lz4");
        let output = tempfile::tempdir().unwrap();
        job.run(output.path()).await.unwrap();
        let wanted = |name: &str| name.starts_with("types.") || name.starts_with("later.");
        crate::rows::assert_same(&root.join("expected/ts1"), output.path(), wanted);
    }

    /// The compacted log after its migration was merged into the base and carried out: what the
    /// SSTs stand for is gone, and the metadata of it.
    #[cfg(golden)]
    async fn carried_out() -> tempfile::TempDir {
        use br_format::log::migration::MigrationName;

        let folder = tempfile::tempdir().unwrap();
        copy(
            &Path::new(env!("GOLDEN_TIDB_1")).join("log-compacted"),
            folder.path(),
        );
        let path = folder.path().to_owned();
        let storage = Storage::open(&Rt::real(), &Backend::Local { path })
            .await
            .unwrap();
        let merged = LogStorage::new(storage)
            .migrations()
            .await
            .unwrap()
            .merged();
        std::fs::remove_dir_all(folder.path().join("v1/migrations")).unwrap();
        std::fs::create_dir(folder.path().join("v1/migrations")).unwrap();
        let base = br_format::log::migration::Migration {
            edits: Vec::new(),
            ..merged.clone()
        };
        std::fs::write(
            folder.path().join(MigrationName::Base.to_name()),
            base.encode(),
        )
        .unwrap();
        for edit in &merged.edits {
            let path = folder.path().join(&edit.path);
            let mut meta = LogMeta::decode("meta", &std::fs::read(&path).unwrap()).unwrap();
            for object in &edit.delete_objects {
                std::fs::remove_file(folder.path().join(object)).unwrap();
                meta.groups.retain(|group| group.path != *object);
            }
            for deleted in &edit.delete_spans {
                let of_object = |group: &&mut _| same_path(group, &deleted.path);
                for group in meta.groups.iter_mut().filter(of_object) {
                    group
                        .files
                        .retain(|file| !deleted.spans.contains(&file.span));
                }
            }
            meta.recompute_range();
            match edit.destruct_self {
                true => std::fs::remove_file(path).unwrap(),
                false => std::fs::write(path, meta.encode()).unwrap(),
            }
        }
        folder
    }

    #[cfg(golden)]
    fn same_path(group: &br_format::log::metadata::LogGroup, path: &str) -> bool {
        group.path == path
    }

    #[cfg(golden)]
    #[tokio::test]
    async fn a_migration_that_was_carried_out() {
        let folder = carried_out().await;
        let log = folder.path().to_str().unwrap();
        check("full", None, log, &USERS, "mark5").await;
        check("full", None, log, &USERS, "ts1").await;
    }

    /// Without the metadata, the records in the SSTs say how old values may be.
    #[cfg(golden)]
    #[tokio::test]
    async fn values_stay_in_reach_when_their_metadata_is_gone() {
        use futures::TryStreamExt;

        let folder = carried_out().await;
        let open = async |path: PathBuf| {
            LogStorage::new(
                Storage::open(&Rt::real(), &Backend::Local { path })
                    .await
                    .unwrap(),
            )
        };
        let after = open(folder.path().to_owned()).await;
        let bounds = after.bounds().await.unwrap();
        let root = Path::new(env!("GOLDEN_TIDB_1"));
        let before = open(root.join("log")).await;
        let metas = std::fs::read_dir(root.join("log/v1/backupmeta")).unwrap();
        let metas = metas.map(|meta| meta.unwrap().file_name().into_string().unwrap());
        let names: Vec<_> = metas.map(|name| format!("v1/backupmeta/{name}")).collect();
        let metas: Vec<_> = before.metas(names).try_collect().await.unwrap();
        let end = TimeStamp(0x0687_f4ee_5a94_0002);
        let mut is_older = 0;
        for i in 0..20 {
            let start = TimeStamp(TS0.0 + i * ((end.0 - TS0.0) / 20));
            let of_metas = metas
                .iter()
                .filter_map(|(_, meta)| meta.shift_ts(start, end));
            let expected = of_metas.fold(start, TimeStamp::min);
            let found = after.select(&bounds, start, end).await.unwrap();
            let found = found.window.shift_ts;
            // A file's least `start_ts` may be that of a record before the window.
            assert!(found <= start);
            is_older += u32::from(found < start);
            let exact = least_in_records(&before, &metas, start, end).await;
            assert!(
                found <= exact.min(start),
                "{start}: {found} {exact} {expected}"
            );
        }
        assert!(is_older > 0);
    }

    /// The least `start_ts` of all records of rows that commit in the window.
    #[cfg(golden)]
    async fn least_in_records(
        log: &LogStorage,
        metas: &[(String, LogMeta)],
        start: TimeStamp,
        end: TimeStamp,
    ) -> TimeStamp {
        use br_format::log::record::Records;
        use br_types::Cf;

        let mut least = TimeStamp::MAX;
        for group in metas.iter().flat_map(|(_, meta)| &meta.groups) {
            let files = group.files.iter().filter(|file| {
                file.identity.cf == Cf::Write && file.max_ts > start && file.min_ts <= end
            });
            for file in files {
                let plain = Crypter::plaintext();
                let records = log.read_file(&group.path, file, &plain).await.unwrap();
                for record in Records::new(&records) {
                    let record = record.unwrap();
                    let (_, ts) = record.split_key().unwrap();
                    if ts > start && ts <= end {
                        let write = br_codec::WriteRef::parse(record.value).unwrap();
                        least = least.min(write.start_ts);
                    }
                }
            }
        }
        least
    }
}
