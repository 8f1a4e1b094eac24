use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use br_codec::{ApiVersion, WriteKind, WriteRef, key};
use br_format::{
    crypter::Crypter,
    log::{
        content,
        file::{EventKind, LogCompression},
        metadata::LogMeta,
        names::MetaName,
        record::Records,
        task::{END_TS_NONE, Pause, TaskEncryption, TaskInfo, TaskKey, TaskName},
    },
};
use br_proto::{
    backup::{Local, StorageBackend, storage_backend::Backend as Proto},
    kvrpcpb::{CommitRequest, Mutation, Op, PrewriteRequest, PrewriteResponse},
};
use br_rt::{Rt, Task};
use br_storage::{Backend, Faults, Outage, Storage as ExternalStorage};
use br_tidb::table_key::record_key;
use br_types::{Cf, EncodedKey, KeyRange, RawKey, StoreId, TableId, TimeStamp};
use bytes::Bytes;
use futures::TryStreamExt;

use super::{
    super::{BoardError, LogBackup, LogBackupConfig, LogBackupParts, TaskBoard, TaskWatch, Tasks},
    hesitant::{Gate, HesitantEngine},
};
use crate::{
    engine::{Engine, memory::MemoryEngine},
    storage::Storage,
    testing::FakeTopology,
    topology::Topology,
};

pub(super) const STORES: [StoreId; 2] = [StoreId(1), StoreId(2)];

/// PD, as the stores see it.
pub(super) struct FakeBoard {
    topology: Arc<FakeTopology>,
    state: Mutex<BoardState>,
    is_down: AtomicBool,
    revision: tokio::sync::watch::Sender<i64>,
}

#[derive(Default)]
pub(super) struct BoardState {
    pub(super) infos: BTreeMap<TaskName, Vec<u8>>,
    pub(super) paused: BTreeMap<TaskName, Vec<u8>>,
    ranges: Vec<KeyRange<RawKey>>,
    pub(super) global: Option<TimeStamp>,
    pub(super) values: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) guards: BTreeMap<String, TimeStamp>,
}

impl FakeBoard {
    fn new(topology: Arc<FakeTopology>) -> FakeBoard {
        FakeBoard {
            topology,
            state: Mutex::default(),
            is_down: AtomicBool::new(false),
            revision: tokio::sync::watch::Sender::new(1),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    pub(super) fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn check(&self) -> Result<(), BoardError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(BoardError::Timeout(Duration::from_secs(1)));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl TaskBoard for FakeBoard {
    async fn tso(&self) -> Result<TimeStamp, BoardError> {
        self.check()?;
        Ok(self.topology.tso())
    }

    async fn tasks(&self) -> Result<Tasks, BoardError> {
        self.check()?;
        let revision = *self.revision.borrow();
        let state = self.state();
        Ok(Tasks {
            infos: state.infos.clone().into_iter().collect(),
            paused: state.paused.keys().cloned().collect(),
            revision,
        })
    }

    async fn watch(&self, after_revision: i64) -> Result<Box<dyn TaskWatch>, BoardError> {
        self.check()?;
        Ok(Box::new(FakeWatch(
            self.revision.subscribe(),
            after_revision,
        )))
    }

    async fn ranges(&self, _: &TaskName) -> Result<Vec<KeyRange<RawKey>>, BoardError> {
        self.check()?;
        Ok(self.state().ranges.clone())
    }

    async fn global_checkpoint(&self, _: &TaskName) -> Result<Option<TimeStamp>, BoardError> {
        self.check()?;
        Ok(self.state().global)
    }

    async fn put(&self, task: &TaskName, key: &TaskKey, value: &[u8]) -> Result<(), BoardError> {
        self.check()?;
        let mut state = self.state();
        if !state.infos.contains_key(task) {
            return Ok(());
        }
        match key {
            TaskKey::Pause(name) => {
                state.paused.insert(name.clone(), value.to_vec());
                drop(state);
                self.changed();
            }
            key => {
                state.values.insert(key.to_bytes(), value.to_vec());
            }
        }
        Ok(())
    }

    async fn guard(&self, id: &str, ts: TimeStamp, _: Duration) -> Result<(), BoardError> {
        self.check()?;
        self.state().guards.insert(id.to_owned(), ts);
        Ok(())
    }

    async fn unguard(&self, id: &str) -> Result<(), BoardError> {
        self.check()?;
        self.state().guards.remove(id);
        Ok(())
    }
}

struct FakeWatch(tokio::sync::watch::Receiver<i64>, i64);

#[tonic::async_trait]
impl TaskWatch for FakeWatch {
    async fn changed(&mut self) -> Result<(), BoardError> {
        let after = self.1;
        let ended = |_| BoardError::Malformed("the watch ended".into());
        let revision = *self.0.wait_for(|now| *now > after).await.map_err(ended)?;
        self.1 = revision;
        Ok(())
    }
}

/// A cluster with a storage.
pub(super) struct World {
    pub(super) rt: Rt,
    pub(super) topology: Arc<FakeTopology>,
    pub(super) mvcc: Storage,
    pub(super) board: Arc<FakeBoard>,
    pub(super) outage: Outage,
    pub(super) external: ExternalStorage,
    pub(super) crypter: Crypter,
    pub(super) config: LogBackupConfig,
    pub(super) faults: Faults,
    backend: StorageBackend,
    dir: tempfile::TempDir,
    stores: Mutex<BTreeMap<StoreId, (LogBackup, Task<()>)>>,
    /// What the coordinator knows: keys and how far they are.
    spans: Mutex<BTreeMap<RawKey, TimeStamp>>,
    /// Of writes to the engine, on real threads.
    pub(super) gate: Arc<Gate>,
}

impl World {
    pub(super) async fn new(rt: &Rt, crypter: Crypter, faults: Faults) -> World {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let engine = MemoryEngine::new(scratch);
        let gate = Arc::new(Gate::default());
        let engine: Arc<dyn Engine> = match rt.is_simulated() {
            true => Arc::new(engine),
            false => Arc::new(HesitantEngine {
                inner: engine,
                gate: gate.clone(),
            }),
        };
        let topology = Arc::new(FakeTopology::new());
        let mvcc = Storage::new(rt.clone(), engine, topology.clone(), ApiVersion::V1);
        // Not from the seed: tests run at the same time.
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let path = format!("memory://log-backup-world-{number}/log");
        let backend = StorageBackend {
            backend: Some(Proto::Local(Local { path })),
            sealed: None,
        };
        let opened = Backend::from_proto(&backend).unwrap();
        World {
            external: ExternalStorage::open(rt, &opened).await.unwrap(),
            board: Arc::new(FakeBoard::new(topology.clone())),
            outage: faults.outage.clone(),
            rt: rt.clone(),
            config: LogBackupConfig::default(),
            spans: Mutex::new(keys().into_iter().map(|key| (key, TimeStamp(0))).collect()),
            stores: Mutex::default(),
            topology,
            mvcc,
            crypter,
            faults,
            backend,
            dir,
            gate,
        }
    }

    /// A world with a task at work on both stores.
    pub(super) async fn at_work(rt: &Rt) -> World {
        let world = World::new(rt, Crypter::plaintext(), Faults::default()).await;
        world.begin_task();
        for store in STORES {
            world.start_store(store);
        }
        rt.sleep(Duration::from_secs(1)).await;
        world
    }

    pub(super) fn begin_task(&self) {
        let info = TaskInfo {
            name: task(),
            storage: self.backend.clone(),
            start_ts: self.topology.tso(),
            end_ts: END_TS_NONE,
            table_filter: vec!["*.*".into()],
            compression: LogCompression::Zstd,
            encryption: match self.crypter.is_plaintext() {
                true => TaskEncryption::None,
                false => TaskEncryption::DataKey(self.crypter.clone()),
            },
        };
        let mut state = self.board.state();
        state.ranges = vec![
            KeyRange::new(&b"m"[..], &b"n"[..]),
            KeyRange::new(&b"t"[..], &b"u"[..]),
        ];
        state.infos.insert(task(), info.encode());
        drop(state);
        self.board.changed();
    }

    pub(super) fn start_store(&self, store: StoreId) {
        let log_backup = LogBackup::new(LogBackupParts {
            rt: self.rt.clone(),
            store,
            storage: self.mvcc.clone(),
            topology: self.topology.clone(),
            config: self.config.clone(),
            temp_dir: self.temp_dir(store),
            faults: self.faults.clone(),
        });
        let work = log_backup.clone().run(self.board.clone());
        let running = (log_backup, self.rt.spawn(work));
        self.stores().insert(store, running);
    }

    pub(super) fn temp_dir(&self, store: StoreId) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(store.to_string())
    }

    /// The process of a store dies.
    pub(super) fn kill_store(&self, store: StoreId) {
        self.stores().remove(&store);
    }

    pub(super) fn store(&self, store: StoreId) -> Option<LogBackup> {
        self.stores().get(&store).map(|(store, _)| store.clone())
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<StoreId, (LogBackup, Task<()>)>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tick of the coordinator: what stores publish is merged by key, the least is the global
    /// checkpoint.
    pub(super) fn coordinate(&self) -> TimeStamp {
        let stores = self.stores();
        let published = stores
            .values()
            .flat_map(|(store, _)| store.published().all());
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for region in published {
            let range = KeyRange::<EncodedKey>::new(
                region.region.start_key.clone(),
                region.region.end_key.clone(),
            );
            for (key, checkpoint) in spans.iter_mut() {
                if range.contains(&key::encode(key.as_bytes())) {
                    *checkpoint = region.checkpoint.max(*checkpoint);
                }
            }
        }
        let least = spans.values().min().copied().unwrap_or_default();
        let mut state = self.board.state();
        if least > state.global.unwrap_or_default() {
            state.global = Some(least);
        }
        state.global.unwrap_or_default()
    }

    /// Sleeps with a coordinator at work; gives the global checkpoint at the end.
    pub(super) async fn pass(&self, time: Duration) -> TimeStamp {
        let end = self.rt.now().plus(time);
        while self.rt.now() < end {
            self.rt.sleep(Duration::from_millis(100)).await;
            self.coordinate();
        }
        self.coordinate()
    }

    pub(super) fn pause(&self) -> Option<Pause> {
        let state = self.board.state();
        let value = state.paused.get(&task())?;
        Some(Pause::decode("pause", value).unwrap())
    }

    /// Everything that metadata names, with all sums checked.
    pub(super) async fn read_log(&self) -> Log {
        let mut log = Log::default();
        let listed: Vec<_> = self
            .external
            .list("v1/backupmeta/")
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        for entry in listed {
            let bytes = self.external.read(&entry.name).await.unwrap();
            let meta = LogMeta::decode(&entry.name, &bytes).unwrap();
            let name = MetaName::parse(&entry.name).unwrap();
            let flush_ts = name.flush_ts().unwrap();
            // The name says what is in it.
            assert_eq!(meta.name(flush_ts), name);
            log.flushes.push((meta.store, flush_ts));
            for group in &meta.groups {
                let object = self.external.read(&group.path).await.unwrap();
                log.add_group(group, &object, &self.crypter);
            }
        }
        log
    }

    /// That all that is committed at or below `checkpoint` is in the log, and nothing else than
    /// what the engine has.
    pub(super) async fn verify(&self, checkpoint: TimeStamp) -> Log {
        let log = self.read_log().await;
        let snapshot = self.mvcc.engine().snapshot();
        let mut cursor = snapshot.iter(Cf::Write, key::data_range(&KeyRange::default()));
        let mut is_valid = cursor.seek_to_first().unwrap();
        while is_valid {
            let engine_key = key::strip_data_prefix(cursor.key()).unwrap().to_vec();
            let (encoded, commit_ts) = key::split_ts(&engine_key).unwrap();
            let write = WriteRef::parse(cursor.value()).unwrap();
            let start_ts = self.start_ts();
            if is_data(cursor.value()) && commit_ts <= checkpoint && commit_ts > start_ts {
                let found = log.records.get(&(Cf::Write.name(), engine_key.clone()));
                let found = found.map(|value| WriteRef::parse(value).unwrap());
                // The mark of an overlapped rollback may come or go; what counts is the data.
                let data = |write: WriteRef<'_>| {
                    let value = write.short_value.map(<[u8]>::to_vec);
                    (write.kind, write.start_ts, value)
                };
                let raw = key::decode(encoded).unwrap();
                assert_eq!(
                    found.map(data),
                    Some(data(write)),
                    "{raw} at {commit_ts}, checkpoint {checkpoint}"
                );
                if write.kind == WriteKind::Put && write.short_value.is_none() {
                    let mut value_key = encoded.to_vec();
                    key::append_ts(&mut value_key, write.start_ts);
                    let data_key = [b"z", &value_key[..]].concat();
                    let value = snapshot.get(Cf::Default, &data_key).unwrap();
                    let found = log.records.get(&(Cf::Default.name(), value_key));
                    assert!(value.is_some() && found == value.as_ref(), "{raw}");
                }
            }
            is_valid = cursor.next().unwrap();
        }
        for (cf, engine_key) in log.records.keys() {
            if *cf == Cf::Write.name() {
                let data_key = [b"z", &engine_key[..]].concat();
                let stored = snapshot.get(Cf::Write, &data_key).unwrap();
                assert!(stored.is_some(), "a record that the engine does not have");
            }
        }
        // No two flushes of a store have one timestamp.
        let unique: BTreeSet<_> = log.flushes.iter().collect();
        assert_eq!(unique.len(), log.flushes.len());
        log
    }

    fn start_ts(&self) -> TimeStamp {
        let state = self.board.state();
        let info = state.infos.get(&task());
        info.map_or(TimeStamp::ZERO, |info| {
            TaskInfo::decode("info", info).unwrap().start_ts
        })
    }
}

/// Whether a write record counts for a restore: one of a rollback does not, and may stand at the
/// timestamp of another transaction's commit.
fn is_data(value: &[u8]) -> bool {
    let kind = WriteRef::parse(value).unwrap().kind;
    matches!(kind, WriteKind::Put | WriteKind::Delete)
}

/// What is in a log.
#[derive(Default)]
pub(super) struct Log {
    /// By column family and engine key.
    pub(super) records: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    pub(super) flushes: Vec<(StoreId, TimeStamp)>,
    pub(super) objects: usize,
}

impl Log {
    fn add_group(
        &mut self,
        group: &br_format::log::metadata::LogGroup,
        object: &Bytes,
        crypter: &Crypter,
    ) {
        self.objects += 1;
        assert_eq!(group.length, object.len() as u64);
        let mut offset = 0;
        for file in &group.files {
            assert_eq!(file.span.offset, offset, "files follow each other");
            offset = file.span.end().unwrap();
            let range = file.span.offset as usize..offset as usize;
            let records = content::open(&group.path, file, object.slice(range), crypter).unwrap();
            content::check_records(&group.path, file, &records).unwrap();
            for record in Records::new(&records) {
                let record = record.unwrap();
                let is_put = file.identity.kind == EventKind::Put;
                if is_put && (file.identity.cf != Cf::Write || is_data(record.value)) {
                    let place = (file.identity.cf.name(), record.key.to_vec());
                    self.records.insert(place, record.value.to_vec());
                }
            }
        }
        assert_eq!(offset, group.length);
    }

    /// Whether a committed write is in it.
    pub(super) fn has(&self, raw: &RawKey, commit_ts: TimeStamp) -> bool {
        let mut engine_key = key::encode(raw.as_bytes()).into_bytes();
        key::append_ts(&mut engine_key, commit_ts);
        self.records.contains_key(&(Cf::Write.name(), engine_key))
    }
}

pub(super) fn task() -> TaskName {
    TaskName::new("test").unwrap()
}

/// The keys of all tests: rows of three tables, and some of schemas.
pub(super) fn keys() -> Vec<RawKey> {
    let rows = (0..24_i64).map(|n| record_key(TableId(70 + n % 3), n));
    let schemas = (0..4).map(|n| RawKey::from(format!("mDB:{n}").into_bytes()));
    rows.chain(schemas).collect()
}

/// How a transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    TwoPhase,
    Async,
    OnePhase,
}

impl World {
    /// Locks keys; `None`: somebody is in the way, and nothing is left locked.
    pub(super) async fn prewrite(
        &self,
        start_ts: TimeStamp,
        keys: &[RawKey],
        value: Option<&[u8]>,
        mode: Mode,
    ) -> Option<PrewriteResponse> {
        let mutation = |key: &RawKey| Mutation {
            op: if value.is_some() { Op::Put } else { Op::Del }.into(),
            key: key.as_bytes().to_vec(),
            value: value.unwrap_or_default().to_vec(),
            ..Default::default()
        };
        let request = PrewriteRequest {
            mutations: keys.iter().map(mutation).collect(),
            primary_lock: keys[0].as_bytes().to_vec(),
            start_version: start_ts.0,
            lock_ttl: 3000,
            txn_size: keys.len() as u64,
            use_async_commit: mode == Mode::Async,
            try_one_pc: mode == Mode::OnePhase,
            secondaries: keys[1..]
                .iter()
                .map(|key| key.as_bytes().to_vec())
                .collect(),
            max_commit_ts: 0,
            ..Default::default()
        };
        let answer = self.mvcc.prewrite(request).await;
        assert_eq!(answer.region_error, None);
        answer.errors.is_empty().then_some(answer)
    }

    pub(super) async fn commit(&self, start_ts: TimeStamp, commit_ts: TimeStamp, keys: &[RawKey]) {
        let request = CommitRequest {
            start_version: start_ts.0,
            commit_version: commit_ts.0,
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            ..Default::default()
        };
        let answer = self.mvcc.commit(request).await;
        assert_eq!((answer.region_error, answer.error), (None, None));
    }

    /// Writes one key; gives its commit timestamp.
    pub(super) async fn write(&self, key: &RawKey, value: &[u8]) -> TimeStamp {
        let keys = [key.clone()];
        let start_ts = self.topology.tso();
        let locked = self
            .prewrite(start_ts, &keys, Some(value), Mode::TwoPhase)
            .await;
        assert!(locked.is_some(), "nobody else writes");
        let commit_ts = self.topology.tso();
        self.commit(start_ts, commit_ts, &keys).await;
        commit_ts
    }
}
