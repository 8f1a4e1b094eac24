//! Against a log of the official tools, and against logs made up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use br_format::backupmeta::DataFile;
use br_format::crypter::Crypter;
use br_format::log::checkpoint::CheckpointCopy;
use br_format::log::content::Tally;
use br_format::log::file::{EventKind, FileIdentity, LogFile, Window};
use br_format::log::marker::LogMarker;
use br_format::log::metadata::{LogGroup, LogMeta};
use br_format::log::names;
use br_format::log::seal::{FlushMark, Seal};
use br_rt::Rt;
use br_storage::{Backend, Storage, forget_memory};
use br_types::{Cf, ClusterId, RegionId, StoreId, TableId, TimeStamp};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

use super::*;

mod unsealed;

const TS0: TimeStamp = TimeStamp(470_613_951_976_046_597);
const END: TimeStamp = TimeStamp(0x0687_f4ee_5a94_0002);
const CLUSTER: ClusterId = ClusterId(7_710_538_755_265_272_623);

fn golden(folder: &str) -> PathBuf {
    let golden = Path::new("../../tests/golden/tidb-1");
    golden.join(folder).canonicalize().unwrap()
}

async fn open(path: &Path) -> LogStorage {
    let backend = Backend::Local {
        path: path.to_owned(),
    };
    LogStorage::new(Storage::open(&Rt::real(), &backend).await.unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The golden log, compacted.
async fn golden_compacted() -> (tempfile::TempDir, LogStorage) {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("log"), folder.path());
    copy(&golden("log-compacted"), folder.path());
    let log = open(folder.path()).await;
    (folder, log)
}

#[tokio::test]
async fn golden_bounds() {
    let log = open(&golden("log")).await;
    let bounds = log.bounds().await.unwrap();
    assert_eq!(bounds.marker.cluster_id, CLUSTER);
    assert_eq!(bounds.max_ts, END);
    assert_eq!(bounds.truncated_to, TimeStamp::ZERO);
    assert_eq!(bounds.checkpoints.len(), 4);
    assert!(bounds.min_ts < TS0);
    bounds.check((CLUSTER, TS0), END).unwrap();
    let refused = |cluster, start, end| bounds.check((cluster, start), end).unwrap_err();
    let refusals = [
        refused(ClusterId(1), TS0, END),
        refused(CLUSTER, TS0, END.next()),
        refused(CLUSTER, TS0, TS0.prev()),
        refused(CLUSTER, TimeStamp(5), END),
    ];
    let (min, end) = (bounds.min_ts, END);
    let expected = [
        format!("the full backup is of cluster 1, the log backup of cluster {CLUSTER}"),
        format!(
            "the log backup goes up to {end}, {} is beyond that",
            end.next()
        ),
        format!("the full backup is of {TS0}, {} is before that", TS0.prev()),
        format!(
            "the log backup begins at {min}, the full backup ends at 5: what was written between \
             them is in neither"
        ),
    ];
    assert_eq!(refusals.map(|error| error.to_string()), expected);
    let full = open(&golden("full")).await.bounds().await.unwrap_err();
    assert!(matches!(full, LogReadError::IsBackup { backup_ts, .. } if backup_ts == TS0));
}

/// What content alone says is needed: object and offset.
async fn needed_by_content(
    log: &LogStorage,
    start_ts: TimeStamp,
    restored_ts: TimeStamp,
) -> (TimeStamp, BTreeSet<(String, u64)>) {
    let names = log.names_in(names::META_FOLDER).await.unwrap();
    let metas: Vec<(String, LogMeta)> = log.metas(names).try_collect().await.unwrap();
    let begun = metas
        .iter()
        .filter_map(|(_, meta)| meta.shift_ts(start_ts, restored_ts));
    let shift_ts = begun.fold(start_ts, TimeStamp::min);
    let window = Window {
        start_ts,
        restored_ts,
        shift_ts,
    };
    let removed = Removed::new(&log.migrations().await.unwrap().merged());
    let mut needed = BTreeSet::new();
    for (name, meta) in &metas {
        for (group, file) in meta.needed(window) {
            if !removed.is_file_removed(name, &group.path, file) {
                needed.insert((group.path.clone(), file.span.offset));
            }
        }
    }
    (shift_ts, needed)
}

async fn select(
    log: &LogStorage,
    start: TimeStamp,
    end: TimeStamp,
) -> Result<LogFiles, LogReadError> {
    log.select(&log.bounds().await?, start, end).await
}

async fn selected(files: &LogFiles) -> BTreeSet<(String, u64)> {
    let parts = [LogPart::Rows, LogPart::Schemas].map(|part| files.objects(part));
    let objects: Vec<LogObject> = futures::stream::iter(parts)
        .flatten()
        .try_collect()
        .await
        .unwrap();
    let files = objects.iter().flat_map(|object| {
        let files = object.files.iter();
        files.map(|file| (object.name.clone(), file.span.offset))
    });
    files.collect()
}

/// However many files are held in memory, none included: what is needed is the same.
#[tokio::test]
async fn files_that_are_not_held_are_read_again() {
    let (_folder, compacted) = golden_compacted().await;
    for log in [open(&golden("log")).await, compacted] {
        let whole = select(&log, TS0, END).await.unwrap();
        assert!(whole.rows.is_held() && whole.schemas.is_held());
        let expected = selected(&whole).await;
        let files = (whole.rows.files + whole.schemas.files) as usize;
        assert_eq!(expected.len(), files);
        for held_max in [0, 1, 7, files] {
            let log = log.clone().with_files_held_max(held_max);
            let found = select(&log, TS0, END).await.unwrap();
            for (part, of_all) in [(&found.rows, &whole.rows), (&found.schemas, &whole.schemas)] {
                assert_eq!((part.files, part.bytes), (of_all.files, of_all.bytes));
                assert_eq!(part.is_held(), of_all.files as usize <= held_max);
            }
            assert_eq!(selected(&found).await, expected, "{held_max}");
        }
    }
}

/// Timestamps at, between and around the flushes of the golden log.
fn golden_points() -> Vec<TimeStamp> {
    let step = (END.0 - TS0.0) / 9;
    let even = (0..10).map(|i| TimeStamp(TS0.0 + i * step));
    even.chain([END, TimeStamp(0x0687_F4E8_3074_0004)])
        .collect()
}

#[tokio::test]
async fn names_filter_nothing_that_is_needed() {
    let log = open(&golden("log")).await;
    for start in golden_points() {
        for end in golden_points() {
            let found = select(&log, start, end).await.unwrap();
            let (shift_ts, needed) = needed_by_content(&log, start, end).await;
            // Names may know less, and so more is read.
            assert!(found.window.shift_ts <= shift_ts);
            assert!(selected(&found).await.is_superset(&needed), "{start} {end}");
            assert!(found.compacted.is_empty() && found.ingested.is_empty());
        }
    }
}

/// Each file of the log is read as it is, or an SST that it went into is read; whatever the
/// window.
#[tokio::test]
async fn compaction_hides_nothing_in_any_window() {
    let plain = open(&golden("log")).await;
    let (_folder, compacted) = golden_compacted().await;
    let migrations = compacted.migrations().await.unwrap();
    let items = compacted
        .subcompactions(&migrations.merged().compactions[0])
        .await
        .unwrap();
    let ssts_of = |object: &str, offset: u64| -> Vec<&DataFile> {
        let of_file = items.iter().filter(|item| {
            let sources = item.sources.iter().filter(|source| source.path == object);
            sources
                .flat_map(|source| &source.spans)
                .any(|span| span.offset == offset)
        });
        of_file.flat_map(|item| &item.outputs).collect()
    };
    let mut through_ssts = 0;
    for start in golden_points() {
        for end in golden_points() {
            let (_, needed) = needed_by_content(&plain, start, end).await;
            let found = select(&compacted, start, end).await.unwrap();
            let as_they_are = selected(&found).await;
            for (object, offset) in needed {
                let ssts = ssts_of(&object, offset);
                if as_they_are.contains(&(object.clone(), offset)) {
                    assert!(ssts.is_empty(), "{object} {offset} is read twice");
                    continue;
                }
                let is_read = |sst: &&DataFile| found.compacted.contains(sst);
                // An SST joins many files: those of the window may have missed this one.
                let window = found.window;
                let has_window = |sst: &&DataFile| {
                    let from = if sst.cf == Cf::Write {
                        window.start_ts
                    } else {
                        window.shift_ts
                    };
                    sst.start_ts <= window.restored_ts && sst.end_ts >= from
                };
                assert!(!ssts.is_empty(), "{object} {offset} is lost");
                assert!(ssts.iter().filter(|sst| has_window(sst)).all(is_read));
                through_ssts += 1;
            }
        }
    }
    assert!(through_ssts > 100);
}

#[tokio::test]
async fn golden_files_are_read_and_damage_shows() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("log"), folder.path());
    let log = open(folder.path()).await;
    let files = select(&log, TS0, END).await.unwrap();
    let mut schemas = files.objects(LogPart::Schemas);
    let object = schemas.try_next().await.unwrap().unwrap();
    drop(schemas);
    let file = object.files.first().unwrap();
    let plain = Crypter::plaintext();
    assert!(
        !log.read_file(&object.name, file, &plain)
            .await
            .unwrap()
            .is_empty()
    );
    let path = folder.path().join(&object.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = usize::try_from(file.span.offset + file.span.length / 2).unwrap();
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = log.read_file(&object.name, file, &plain).await.unwrap_err();
    assert!(matches!(damaged, LogReadError::Format(_)), "{damaged}");
    std::fs::remove_file(&path).unwrap();
    let missing = log.read_file(&object.name, file, &plain).await.unwrap_err();
    assert!(matches!(missing, LogReadError::Missing { .. }), "{missing}");
}

#[tokio::test]
async fn a_survey_finds_what_is_missing() {
    // Only the small objects of the golden log lie in the repository.
    let log = open(&golden("log")).await;
    let survey = log.survey(None).await.unwrap();
    assert_eq!((survey.metas, survey.empty_metas), (18, 3));
    assert_eq!(survey.stores.len(), 3);
    assert_eq!(survey.leftover, (0, 0));
    assert_eq!(survey.quiet, []);
    let there = |name: &str| golden("log").join(name).exists();
    assert!(survey.missing.iter().all(|object| !there(&object.name)));
    assert_eq!(survey.missing.len(), 8);
    let first = survey
        .missing
        .iter()
        .map(|object| object.min_ts)
        .min()
        .unwrap();
    assert_eq!(survey.restorable_until(TS0), first.prev().max(TS0));
    // After the last of them the log is whole.
    let last = survey
        .missing
        .iter()
        .map(|object| object.max_ts)
        .max()
        .unwrap();
    assert_eq!(survey.restorable_until(last.next()), END);
}

/// A log made up: one file an object.
#[derive(Clone, Debug)]
struct MadeUp {
    cf: Cf,
    rows: Vec<(u8, u64, u64)>,
    old_name: bool,
}

fn file_of(made_up: &MadeUp) -> (LogFile, Vec<u8>) {
    let mut tally = Tally::new(made_up.cf);
    let mut records = Vec::new();
    for (key, commit, start) in &made_up.rows {
        let mut encoded = br_codec::key::encode(&[*key]).into_bytes();
        let (ts, value) = match made_up.cf {
            Cf::Write => {
                let kind = br_codec::WriteKind::Put;
                let record = br_codec::Write::new(kind, TimeStamp(*start), None);
                (*commit, record.to_bytes())
            }
            _ => (*start, b"value".to_vec()),
        };
        br_codec::key::append_ts(&mut encoded, TimeStamp(ts));
        let record = br_format::log::record::Record {
            key: &encoded,
            value: &value,
        };
        tally.append(record, &mut records).unwrap();
    }
    let identity = FileIdentity {
        is_schema: false,
        table: TableId(1),
        region: RegionId(1),
        cf: made_up.cf,
        kind: EventKind::Put,
    };
    let mut file = tally.finish(identity).unwrap();
    file.span.length = records.len() as u64;
    (file, records)
}

async fn write_log(storage: &Storage, all: &[MadeUp]) {
    let marker = LogMarker {
        cluster_id: CLUSTER,
        cluster_version: "9".into(),
        start_ts: TimeStamp(1),
    };
    storage.write("backupmeta", marker.encode()).await.unwrap();
    let checkpoint = CheckpointCopy::bare(TimeStamp(1000)).encode();
    storage
        .write(&names::global_checkpoint(StoreId(1)), checkpoint)
        .await
        .unwrap();
    for (i, made_up) in all.iter().enumerate() {
        let (file, records) = file_of(made_up);
        let path = format!("v1/20261121/00/1/{}-{i}.log", file.min_ts);
        let length = records.len() as u64;
        storage.write(&path, records).await.unwrap();
        let group = LogGroup::new(path, vec![file], length);
        let meta = LogMeta::new(StoreId(1), vec![group], TimeStamp(0));
        let mut object = meta.to_object(TimeStamp(i as u64 + 1));
        if made_up.old_name {
            object.name = format!("{}/{i}-abc.meta", names::META_FOLDER);
        }
        storage.write(&object.name, object.bytes).await.unwrap();
    }
}

/// Runs a test with a storage of its own.
fn in_memory<T>(test: impl AsyncFnOnce(Storage) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let rt = Rt::real();
        let name = rt.uuid().to_string();
        let backend = Backend::Memory {
            name: name.clone(),
            prefix: String::new(),
        };
        let done = test(Storage::open(&rt, &backend).await.unwrap()).await;
        forget_memory(&name);
        done
    })
}

fn any_made_up() -> impl Strategy<Value = MadeUp> {
    let row = (any::<u8>(), 1..100u64, 0..20u64);
    let row = row.prop_map(|(key, commit, ago)| (key, commit + 1, commit.saturating_sub(ago)));
    let rows = prop::collection::vec(row, 1..4);
    (any::<bool>(), rows, any::<bool>()).prop_map(|(is_write, rows, old_name)| MadeUp {
        cf: if is_write { Cf::Write } else { Cf::Default },
        rows,
        old_name,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever names say, and whether they say anything.
    #[test]
    fn made_up_logs_are_read_as_far_as_needed(
        all in prop::collection::vec(any_made_up(), 1..8), start in 0..100u64, more in 0..100u64,
    ) {
        in_memory(async |storage| {
            write_log(&storage, &all).await;
            let log = LogStorage::new(storage);
            let (start, end) = (TimeStamp(start), TimeStamp(start + more));
            let found = select(&log, start, end).await.unwrap();
            let (shift_ts, needed) = needed_by_content(&log, start, end).await;
            assert!(found.window.shift_ts <= shift_ts);
            assert!(selected(&found).await.is_superset(&needed));
            let survey = log.survey(None).await.unwrap();
            assert_eq!(survey.missing, []);
            assert_eq!(survey.restorable_until(start), survey.bounds.max_ts);
        });
    }
}

/// tidb#68857: a log that has more than its checkpoint claims ends at the checkpoint.
#[tokio::test]
async fn nothing_beyond_the_checkpoint_is_offered() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    let beyond = MadeUp {
        cf: Cf::Write,
        rows: vec![(1, 900, 890), (2, 2000, 1990)],
        old_name: false,
    };
    write_log(log.storage(), &[beyond]).await;
    assert_eq!(log.bounds().await.unwrap().max_ts, TimeStamp(1000));
    let survey = log.survey(None).await.unwrap();
    assert_eq!(survey.restorable_until(TimeStamp(1)), TimeStamp(1000));
}

/// What metadata says of itself may be anything: sums stay at their greatest, and nothing panics.
#[tokio::test]
async fn sums_of_damaged_metadata_do_not_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).await;
    write_log(log.storage(), &[]).await;
    // The format has signed numbers: two of the greatest still fit.
    for number in 1..5_u64 {
        let made_up = MadeUp {
            cf: Cf::Write,
            rows: vec![(1, 10 * number + 5, 10 * number)],
            old_name: false,
        };
        let (mut file, _) = file_of(&made_up);
        file.entries = u64::MAX;
        file.length = u64::MAX;
        let path = format!("v1/20261121/08/1/{}-{number}.log", file.min_ts);
        let group = LogGroup::new(path, vec![file], u64::MAX);
        let meta = LogMeta::new(StoreId(1), vec![group], TimeStamp(0));
        let object = meta.to_object(TimeStamp(number));
        log.storage()
            .write(&object.name, object.bytes)
            .await
            .unwrap();
    }
    let survey = log.survey(None).await.unwrap();
    assert_eq!(survey.records, u64::MAX);
    assert_eq!(survey.object_bytes, u64::MAX);
}

/// Flushes of a store that follow each other, with their least and greatest timestamps.
async fn write_sealed_log(storage: &Storage, stores: &[Vec<(u64, u64)>]) -> Vec<Sealed> {
    write_log(storage, &[]).await;
    let mut flushes = Vec::new();
    for (store, ends) in (1..).map(StoreId).zip(stores) {
        let mut last = FlushMark::default();
        let mut at = 0;
        for (i, &(idle, records)) in ends.iter().enumerate() {
            let (min_ts, max_ts) = (at + idle, at + idle + records);
            at = max_ts + 1;
            let made_up = MadeUp {
                cf: Cf::Write,
                rows: vec![(1, min_ts, min_ts - 1), (1, max_ts, min_ts - 1)],
                old_name: false,
            };
            let (mut file, written) = file_of(&made_up);
            // Else it would be the prewrite.
            file.min_ts = TimeStamp(min_ts);
            let path = format!("v1/20261121/00/{store}/{min_ts}-{i}.log");
            let length = written.len() as u64;
            storage.write(&path, written).await.unwrap();
            let groups = match records {
                0 => Vec::new(),
                _ => vec![LogGroup::new(path, vec![file], length)],
            };
            let mut meta = LogMeta::new(store, groups, TimeStamp(min_ts));
            let seal = Seal { previous: last };
            meta.seal = Some(seal);
            last = FlushMark {
                flush_ts: TimeStamp(max_ts + 1),
                number: seal.number(),
                min_ts: if records == 0 {
                    TimeStamp::ZERO
                } else {
                    TimeStamp(min_ts)
                },
                max_ts: TimeStamp(max_ts),
            };
            let object = meta.to_object(last.flush_ts);
            flushes.push(Sealed {
                store,
                number: seal.number(),
                window: (records > 0).then_some((min_ts, max_ts)),
                object: object.name.clone(),
            });
            storage.write(&object.name, object.bytes).await.unwrap();
        }
        let copy = CheckpointCopy {
            ts: TimeStamp(1000),
            last_flush: Some(last),
        };
        let name = names::global_checkpoint(store);
        storage.write(&name, copy.encode()).await.unwrap();
    }
    flushes
}

struct Sealed {
    store: StoreId,
    number: u64,
    window: Option<(u64, u64)>,
    object: String,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is lost, no restore that needs it goes on without it; and if no two flushes that
    /// follow each other are lost, all that do not need it go on.
    #[test]
    fn restores_miss_lost_flushes(
        stores in prop::collection::vec(prop::collection::vec((1..9u64, 0..9u64), 1..8), 1..3),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        start in 0..60u64, more in 0..60u64,
    ) {
        in_memory(async |storage| {
            let flushes = write_sealed_log(&storage, &stores).await;
            let lost: BTreeSet<_> = gone.iter().map(|at| at.index(flushes.len())).collect();
            for at in &lost {
                storage.delete(&flushes[*at].object).await.unwrap();
            }
            let log = LogStorage::new(storage);
            let (start, end) = (TimeStamp(start), TimeStamp(start + more));
            let found = select(&log, start, end).await;
            // No records are older than their window here.
            let is_needed = |at: &usize| flushes[*at].window.is_some_and(|(min_ts, max_ts)| {
                max_ts >= start.0.saturating_sub(1) && min_ts <= end.0
            });
            let is_exact = !lost.iter().any(|at| lost.contains(&(at + 1))
                && flushes.get(at + 1).is_some_and(|next| next.store == flushes[*at].store));
            match found {
                Err(LogReadError::LostFlush(flush)) => {
                    let flush = lost.iter().find(|at| flushes[**at].object.starts_with(&flush.object()));
                    let flush = flush.expect("it is lost");
                    prop_assert!(!is_exact || is_needed(flush), "{}", flushes[*flush].number);
                }
                Err(error) => panic!("{error}"),
                Ok(_) => prop_assert!(!lost.iter().any(|at| flushes[*at].window.is_some_and(
                    |(min_ts, max_ts)| max_ts >= start.0 && min_ts <= end.0))),
            }
            Ok(())
        })?;
    }
}
