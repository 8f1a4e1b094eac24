//! A log for tests, made of random transactions, and what a restore has to find in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use br_format::{
    log::{
        checkpoint::CheckpointCopy,
        file::{EventKind, FileIdentity, LogCompression, LogFile, Span, Window},
        marker::LogMarker,
        metadata::{LogGroup, LogLayout, LogMeta},
        migration::{Compaction, DeletedSpans, MetaEdit, Migration},
        names::{META_FOLDER, global_checkpoint},
    },
    names::BACKUPMETA,
};
use br_rt::{Rt, UnixMillis};
use br_storage::{Backend, Storage, forget_memory};
use br_types::{Cf, ClusterId, KeyRange, RegionId, StoreId, TableId, TimeStamp};
use futures::TryStreamExt as _;

use crate::{migrate, read::Removed, storage_lock::LockRequest};

pub(crate) fn simulate<T>(seed: u64, run: impl AsyncFnOnce(Rt) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let rt = || Rt::simulated(seed, UnixMillis(1_800_000_000_000));
    runtime.block_on(async { run(rt()).await })
}

/// A record of the log: a value, or a commit with the start of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    cf: u8,
    key: u64,
    ts: u64,
    start: u64,
}

const VALUE: u8 = 0;
const COMMIT: u8 = 1;
/// Transactions of a log.
const TRANSACTIONS: u64 = 100;
/// Ticks between two flushes of a store.
const FLUSH_EVERY: u64 = 40;
const STORES: u64 = 2;

/// A log on a storage in memory, and what is in its objects.
pub(crate) struct ModelLog {
    rt: Rt,
    name: String,
    storage: Storage,
    /// What lies in a piece of an object; SSTs are pieces from 0 on.
    content: Mutex<HashMap<(String, u64), Vec<Record>>>,
    start: u64,
    end: u64,
    /// What restores find in it, before anybody touched it.
    expected: BTreeMap<(u64, u64), BTreeSet<Record>>,
}

/// A tick of the log's clock is ten minutes: the log lasts for days, no transaction for more than
/// one.
fn ts(tick: u64) -> u64 {
    TimeStamp::compose(1_800_000_000_000 + tick * 600 * 1000, 0).0
}

async fn open(rt: &Rt, name: &str) -> Storage {
    let backend = Backend::Memory {
        name: name.to_owned(),
        prefix: String::new(),
    };
    Storage::open(rt, &backend).await.unwrap()
}

impl ModelLog {
    pub(crate) async fn generate(rt: &Rt, seed: u64, with_compaction: bool) -> ModelLog {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("model-log-{seed}-{number}");
        let mut log = ModelLog {
            rt: rt.clone(),
            storage: open(rt, &name).await,
            name,
            content: Mutex::default(),
            start: ts(0),
            end: 0,
            expected: BTreeMap::new(),
        };
        log.write_events().await;
        if with_compaction {
            log.compact().await;
            if rt.random_below(2) == 0 {
                log.compact().await;
            }
        }
        let view = View::of(&log.storage).await;
        let mut cuts: Vec<u64> = (0..=5).map(|n| log.some_ts(n * 20).0).collect();
        cuts.extend((0..6).map(|_| log.start + rt.random_below(log.end - log.start)));
        cuts.sort_unstable();
        for from in &cuts {
            for to in cuts.iter().filter(|to| *to >= from) {
                let found = log.restored(&view, *from, *to);
                log.expected.insert((*from, *to), found);
            }
        }
        log
    }

    /// A timestamp within the log, by percent.
    pub(crate) fn some_ts(&self, percent: u64) -> TimeStamp {
        TimeStamp(self.start + (self.end - self.start) / 100 * percent)
    }

    async fn write_events(&mut self) {
        let rt = self.rt.clone();
        // Time → what happens then: a value is written, a transaction commits.
        let mut events: Vec<(u64, Record)> = Vec::new();
        for n in 0..TRANSACTIONS {
            let start = n * 4 + rt.random_below(4);
            let length = match rt.random_below(10) {
                0 => rt.random_below(130),
                _ => rt.random_below(8),
            };
            let (written, committed) = (start + rt.random_below(length + 1), start + length + 1);
            let key = rt.random_below(20);
            let (start_ts, commit_ts) = (ts(start) + n * 2, ts(committed) + n * 2 + 1);
            let record = |cf, at| Record {
                cf,
                key,
                ts: at,
                start: start_ts,
            };
            events.push((written, record(VALUE, start_ts)));
            events.push((committed, record(COMMIT, commit_ts)));
        }
        events.sort_by_key(|(at, record)| (*at, *record));
        let last = events.last().map_or(0, |(at, _)| *at) + FLUSH_EVERY * 2;
        let mut flushed = [0_u64; STORES as usize];
        for at in 0..=last {
            for store in 0..STORES {
                if at % FLUSH_EVERY != store * 7 {
                    continue;
                }
                let from = std::mem::replace(&mut flushed[store as usize], at);
                let part: Vec<Record> = events
                    .iter()
                    .filter(|(time, record)| {
                        (from..at).contains(time) && record.key % STORES == store
                    })
                    .map(|(_, record)| *record)
                    .collect();
                self.flush(store, ts(at), part).await;
            }
        }
        self.end = ts(last - FLUSH_EVERY);
        let marker = LogMarker {
            cluster_id: ClusterId(7),
            cluster_version: "9.0.0".into(),
            start_ts: TimeStamp(self.start),
        };
        self.storage
            .write(BACKUPMETA, marker.encode())
            .await
            .unwrap();
        let checkpoint = CheckpointCopy::bare(TimeStamp(self.end)).encode();
        let name = global_checkpoint(StoreId(1));
        self.storage.write(&name, checkpoint).await.unwrap();
    }

    async fn flush(&self, store: u64, flush_ts: u64, records: Vec<Record>) {
        let mut groups = Vec::new();
        for region in 0..3 {
            let of_region = |record: &&Record| record.key / STORES % 3 == region;
            let mut files = Vec::new();
            let path = format!("v1/20270101/00/{store}/{flush_ts}-{region}.log");
            let mut offset = 0;
            for cf in [VALUE, COMMIT] {
                let part: Vec<Record> = records
                    .iter()
                    .filter(of_region)
                    .filter(|record| record.cf == cf)
                    .copied()
                    .collect();
                if part.is_empty() {
                    continue;
                }
                let length = 10 * part.len() as u64;
                files.push(log_file(region, &part, Span { offset, length }));
                let mut content = self.content.lock().unwrap();
                content.insert((path.clone(), offset), part);
                offset += length;
            }
            if !files.is_empty() {
                self.storage
                    .write(&path, vec![b'x'; usize::try_from(offset).unwrap()])
                    .await
                    .unwrap();
                groups.push(LogGroup::new(path, files, offset));
            }
        }
        let edges = |of: fn(&LogGroup) -> TimeStamp| groups.iter().map(of).collect::<Vec<_>>();
        let meta = LogMeta {
            store: StoreId(store),
            resolved_ts: TimeStamp(flush_ts),
            min_ts: edges(|g| g.min_ts).into_iter().min().unwrap_or_default(),
            max_ts: edges(|g| g.max_ts).into_iter().max().unwrap_or_default(),
            layout: LogLayout::V2,
            groups,
            seal: None,
        };
        let object = meta.to_object(TimeStamp(flush_ts));
        // Some are of old versions, whose names say nothing.
        let name = match self.rt.random_below(5) {
            0 => format!("{META_FOLDER}/{flush_ts}-{store:032x}.meta"),
            _ => object.name,
        };
        self.storage.write(&name, object.bytes).await.unwrap();
    }

    /// What a compaction leaves: SSTs in the place of files, and a migration that says so.
    async fn compact(&self) {
        let from = self.start + self.rt.random_below((self.end - self.start) / 2);
        let until = from + self.rt.random_below((self.end - from) / 2);
        let folder = format!("v1/compactions/c{}", self.rt.random_below(1 << 32));
        let merged = migrate::load(&self.storage)
            .await
            .unwrap()
            .migrations
            .merged();
        let removed = Removed::new(&merged);
        let mut compaction = Compaction {
            from_ts: TimeStamp(from),
            until_ts: TimeStamp(until),
            name: "c".into(),
            artifacts: format!("{folder}/metas"),
            generated_files: format!("{folder}/outputs"),
            input_min_ts: TimeStamp::MAX,
            ..Compaction::default()
        };
        let mut edits = Vec::new();
        let mut records = Vec::new();
        for (name, meta) in metas(&self.storage).await {
            let mut edit = MetaEdit {
                path: name.clone(),
                ..MetaEdit::default()
            };
            for group in &meta.groups {
                let is_taken = |file: &&LogFile| {
                    file.max_ts.0 >= from
                        && file.min_ts.0 <= until
                        && !removed.is_file_removed(&name, &group.path, file)
                };
                let taken: Vec<&LogFile> = group.files.iter().filter(is_taken).collect();
                for file in &taken {
                    let content = self.content.lock().unwrap();
                    records.extend(content[&(group.path.clone(), file.span.offset)].clone());
                    compaction.input_min_ts = compaction.input_min_ts.min(file.min_ts);
                    compaction.input_max_ts = compaction.input_max_ts.max(file.max_ts);
                }
                if taken.len() == group.files.len() {
                    edit.delete_objects.push(group.path.clone());
                } else if !taken.is_empty() {
                    edit.delete_spans.push(DeletedSpans {
                        path: group.path.clone(),
                        spans: taken.iter().map(|file| file.span).collect(),
                        whole_length: group.length,
                    });
                }
            }
            edit.destruct_self =
                !meta.groups.is_empty() && edit.delete_objects.len() == meta.groups.len();
            if edit
                != (MetaEdit {
                    path: name,
                    ..MetaEdit::default()
                })
            {
                edits.push(edit);
            }
        }
        if records.is_empty() {
            return;
        }
        let sst = format!("{folder}/outputs/1.sst");
        self.storage.write(&sst, "sst").await.unwrap();
        let index = format!("{folder}/metas/1.cmeta");
        self.storage.write(&index, "index").await.unwrap();
        self.content.lock().unwrap().insert((sst, 0), records);
        let migration = Migration {
            edits,
            compactions: vec![compaction],
            ..Migration::default()
        };
        let operator = crate::Operator {
            host: "box".into(),
            pid: 1,
        };
        let request = LockRequest {
            storage: &self.storage,
            rt: &self.rt,
            cancel: &br_rt::CancellationToken::new(),
            operator: &operator,
            hint: "test",
        };
        migrate::append(&request, &migration).await.unwrap();
    }

    /// The commits in `[from, to]` that a restore finds, and the values that they need.
    fn restored(&self, view: &View, from: u64, to: u64) -> BTreeSet<Record> {
        let View {
            merged,
            removed,
            metas,
            objects,
        } = view;
        let (start_ts, restored_ts) = (TimeStamp(from), TimeStamp(to));
        let shifts = metas
            .iter()
            .filter_map(|(_, meta)| meta.shift_ts(start_ts, restored_ts));
        let mut window = Window {
            start_ts,
            restored_ts,
            shift_ts: shifts.min().unwrap_or(start_ts).min(start_ts),
        };
        // The SSTs of compactions do not say when their transactions began.
        if !merged.compactions.is_empty() {
            window.shift_ts = TimeStamp(self.start);
        }
        let mut pieces: Vec<(String, u64)> = Vec::new();
        for (name, meta) in metas {
            for (group, file) in meta.needed(window) {
                if !removed.is_file_removed(name, &group.path, file) {
                    pieces.push((group.path.clone(), file.span.offset));
                }
            }
        }
        for compaction in &merged.compactions {
            if compaction.input_min_ts <= restored_ts && compaction.input_max_ts >= window.shift_ts
            {
                pieces.push((format!("{}/1.sst", compaction.generated_files), 0));
            }
        }
        let content = self.content.lock().unwrap();
        let mut found = BTreeSet::new();
        for (path, offset) in pieces {
            // With the margin of a compaction files are looked at that a cut may have removed.
            let is_there = objects.contains(&path);
            assert!(is_there || !merged.compactions.is_empty(), "{path} is gone");
            if is_there {
                found.extend(content[&(path, offset)].iter().copied());
            }
        }
        let mut wanted = BTreeSet::new();
        for record in &found {
            if record.cf == COMMIT && (from..=to).contains(&record.ts) {
                let value = Record {
                    cf: VALUE,
                    ts: record.start,
                    ..*record
                };
                assert!(found.contains(&value), "the value of {record:?} is gone");
                wanted.extend([*record, value]);
            }
        }
        wanted
    }

    /// That restores from `safe_point` on find in a copy what they found before.
    pub(crate) async fn check(&self, storage: &Storage, safe_point: TimeStamp) {
        let view = View::of(storage).await;
        for ((from, to), expected) in &self.expected {
            if *from >= safe_point.0 {
                let found = self.restored(&view, *from, *to);
                assert_eq!(&found, expected, "{from} to {to}");
            }
        }
    }

    /// A copy of the log, to be changed.
    pub(crate) async fn copy(&self, name: &str) -> Storage {
        let copy = open(&self.rt, &format!("{}-{name}", self.name)).await;
        let all: Vec<_> = self.storage.list("").try_collect().await.unwrap();
        for entry in all {
            let bytes = self.storage.read(&entry.name).await.unwrap();
            copy.write(&entry.name, bytes).await.unwrap();
        }
        copy
    }

    pub(crate) fn forget(&self, name: &str) {
        forget_memory(&format!("{}-{name}", self.name));
    }
}

impl Drop for ModelLog {
    fn drop(&mut self) {
        forget_memory(&self.name);
    }
}

/// A log at one moment.
struct View {
    merged: Migration,
    removed: Removed,
    metas: Vec<(String, LogMeta)>,
    objects: HashSet<String>,
}

impl View {
    async fn of(storage: &Storage) -> View {
        let merged = migrate::load(storage).await.unwrap().migrations.merged();
        let all: Vec<_> = storage.list("v1/").try_collect().await.unwrap();
        View {
            removed: Removed::new(&merged),
            merged,
            metas: metas(storage).await,
            objects: all.into_iter().map(|entry| entry.name).collect(),
        }
    }
}

async fn metas(storage: &Storage) -> Vec<(String, LogMeta)> {
    let entries: Vec<_> = storage.list(META_FOLDER).try_collect().await.unwrap();
    let mut metas = Vec::new();
    for entry in entries {
        let bytes = storage.read(&entry.name).await.unwrap();
        let meta = LogMeta::decode(&entry.name, &bytes).unwrap();
        metas.push((entry.name, meta));
    }
    metas
}

fn log_file(region: u64, records: &[Record], span: Span) -> LogFile {
    let stamps: HashSet<u64> = records.iter().map(|record| record.ts).collect();
    let least = |of: fn(&Record) -> u64| TimeStamp(records.iter().map(of).min().unwrap());
    let is_commit = records[0].cf == COMMIT;
    LogFile {
        identity: FileIdentity {
            is_schema: false,
            table: TableId(1),
            region: RegionId(region + 1),
            cf: if is_commit { Cf::Write } else { Cf::Default },
            kind: EventKind::Put,
        },
        entries: records.len() as u64,
        min_ts: least(|record| record.ts),
        max_ts: TimeStamp(*stamps.iter().max().unwrap()),
        resolved_ts: TimeStamp::ZERO,
        min_begin_ts: least(|record| record.start),
        first_key: b"a".to_vec(),
        last_key: b"z".to_vec(),
        length: span.length,
        span,
        compression: LogCompression::None,
        encryption: None,
        crc64_xor: 0,
        sha256: [0; 32],
        region_range: KeyRange::default(),
        region_epochs: Vec::new(),
    }
}
