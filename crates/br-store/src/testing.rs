//! What the tests of the services share: one store over the engine in memory, and its regions.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use br_codec::ApiVersion;
use br_proto::{
    backup::{self, StorageBackend, storage_backend::Backend},
    coprocessor, errorpb,
    import_sstpb::{
        DownloadRequest, DownloadRequestType, MultiIngestRequest, Range, RewriteRule, SstMeta,
        import_sst_server::ImportSst,
    },
    kvrpcpb, metapb, tipb,
};
use br_rt::{Rt, UnixMillis};
use br_types::{ClusterId, EncodedKey, KeyRange, RegionId, StoreId, TimeStamp};
use prost::Message;
use tonic::Request;

use crate::{
    backup::tests::sums_of,
    cipher::Keystream,
    context::{StoreConfig, StoreContext},
    coprocessor::coprocess,
    engine::memory::MemoryEngine,
    import::{ImportService, Importer},
    storage::Storage,
    topology::{RegionState, Topology},
};

/// Regions of a cluster of two stores, in key order; store 1 leads them until told otherwise.
pub(crate) struct FakeTopology {
    inner: Mutex<Inner>,
}

struct Inner {
    regions: Vec<RegionState>,
    next_id: u64,
    down: Vec<StoreId>,
    ts: u64,
    changes: u64,
    gc_safe_point: TimeStamp,
}

impl FakeTopology {
    pub(crate) fn new() -> FakeTopology {
        let peer = |id, store_id| metapb::Peer {
            id,
            store_id,
            ..Default::default()
        };
        let region = metapb::Region {
            id: 2,
            region_epoch: Some(metapb::RegionEpoch {
                conf_ver: 1,
                version: 1,
            }),
            peers: vec![peer(3, 1), peer(4, 2)],
            ..Default::default()
        };
        let regions = vec![RegionState {
            leader: region.peers[0],
            region,
        }];
        let inner = Inner {
            regions,
            next_id: 100,
            down: Vec::new(),
            ts: 1000,
            changes: 0,
            gc_safe_point: TimeStamp::ZERO,
        };
        FakeTopology {
            inner: Mutex::new(inner),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_down(&self, store: StoreId) {
        self.inner().down.push(store);
    }

    pub(crate) fn set_gc_safe_point(&self, safe_point: TimeStamp) {
        self.inner().gc_safe_point = safe_point;
    }

    pub(crate) fn set_up(&self, store: StoreId) {
        let mut inner = self.inner();
        inner.down.retain(|down| *down != store);
        inner.changes += 1;
    }

    /// Moves all leaders of a store to the other one.
    pub(crate) fn evict(&self, store: StoreId) {
        let mut inner = self.inner();
        for state in &mut inner.regions {
            let other = state.region.peers.iter().find(|p| p.store_id != store.0);
            if state.leader.store_id == store.0 {
                state.leader = *other.unwrap();
            }
        }
        inner.changes += 1;
    }

    /// Merges a region with the one after it; the latter stays. Does nothing at the last one.
    pub(crate) fn merge_with_next(&self, id: RegionId) {
        let mut inner = self.inner();
        let at = inner.regions.iter().position(|state| state.id() == id);
        let at = at.unwrap();
        if at + 1 == inner.regions.len() {
            return;
        }
        let source = inner.regions.remove(at);
        let target = &mut inner.regions[at];
        let version = |state: &RegionState| state.region.region_epoch.unwrap().version;
        let merged = version(&source).max(version(target)) + 1;
        target.region.start_key = source.region.start_key;
        target.region.region_epoch.as_mut().unwrap().version = merged;
        inner.changes += 1;
    }

    pub(crate) fn move_leader(&self, id: RegionId, store: StoreId) {
        let mut inner = self.inner();
        let state = inner
            .regions
            .iter_mut()
            .find(|state| state.id() == id)
            .unwrap();
        let peer = state
            .region
            .peers
            .iter()
            .find(|peer| peer.store_id == store.0)
            .unwrap();
        state.leader = *peer;
        inner.changes += 1;
    }
}

impl Topology for FakeTopology {
    fn region(&self, id: RegionId) -> Option<RegionState> {
        self.inner()
            .regions
            .iter()
            .find(|state| state.id() == id)
            .cloned()
    }

    fn region_of(&self, key: &EncodedKey) -> Option<RegionState> {
        self.inner()
            .regions
            .iter()
            .find(|state| state.range().contains(key))
            .cloned()
    }

    fn regions_in(&self, range: &KeyRange<EncodedKey>, limit: usize) -> Vec<RegionState> {
        let inner = self.inner();
        let inside = inner
            .regions
            .iter()
            .filter(|state| state.range().overlaps(range));
        inside.take(limit).cloned().collect()
    }

    fn split(
        &self,
        id: RegionId,
        _version: u64,
        keys: &[EncodedKey],
    ) -> Result<Vec<RegionState>, Box<errorpb::Error>> {
        let mut inner = self.inner();
        let at = inner
            .regions
            .iter()
            .position(|state| state.id() == id)
            .unwrap();
        let old = inner.regions.remove(at);
        let mut epoch = old.region.region_epoch.unwrap();
        epoch.version += keys.len() as u64;
        let mut parts = Vec::new();
        let mut start = old.region.start_key.clone();
        for key in keys {
            inner.next_id += 10;
            let mut part = old.clone();
            part.region.id = inner.next_id;
            part.region.region_epoch = Some(epoch);
            part.region.start_key = start;
            part.region.end_key = key.as_bytes().to_vec();
            start = part.region.end_key.clone();
            parts.push(part);
        }
        let mut last = old;
        last.region.region_epoch = Some(epoch);
        last.region.start_key = start;
        parts.push(last);
        inner.regions.splice(at..at, parts.clone());
        inner.changes += 1;
        Ok(parts)
    }

    fn changes(&self) -> u64 {
        self.inner().changes
    }

    fn is_up(&self, store: StoreId) -> bool {
        !self.inner().down.contains(&store)
    }

    fn tso(&self) -> TimeStamp {
        let mut inner = self.inner();
        inner.ts += 1;
        TimeStamp(inner.ts)
    }

    fn gc_safe_point(&self) -> TimeStamp {
        self.inner().gc_safe_point
    }

    fn is_gc_held(&self) -> bool {
        false
    }
}

/// Store 1 and what it stands on.
pub(crate) struct Fixture {
    pub(crate) store: StoreContext,
    pub(crate) topology: Arc<FakeTopology>,
    pub(crate) dir: tempfile::TempDir,
}

impl Fixture {
    /// Inside a simulation only.
    pub(crate) fn new(rt: &Rt, api_version: ApiVersion) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let engine = Arc::new(MemoryEngine::new(scratch));
        let topology = Arc::new(FakeTopology::new());
        let store = StoreContext {
            cluster_id: ClusterId(7),
            store_id: StoreId(1),
            storage: Storage::new(rt.clone(), engine.clone(), topology.clone(), api_version),
            topology: topology.clone(),
            importer: Arc::new(Importer::open(rt.clone(), engine, 2, 1 << 20).unwrap()),
            rt: rt.clone(),
            log_backup: None,
            config: Arc::new(StoreConfig::default()),
        };
        Fixture {
            store,
            topology,
            dir,
        }
    }

    /// The context of a request to a region's leader.
    pub(crate) fn context(&self, id: RegionId) -> kvrpcpb::Context {
        let state = self.topology.region(id).unwrap();
        kvrpcpb::Context {
            region_id: id.0,
            region_epoch: state.region.region_epoch,
            peer: Some(state.leader),
            ..Default::default()
        }
    }
}

/// Runs a test in virtual time.
pub(crate) fn simulate<T>(run: impl AsyncFnOnce(Rt) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { run(Rt::simulated(11, UnixMillis(1_700_000_000_000))).await })
}

/// Backups that the official tools made.
pub(crate) const GOLDEN: &str = "../../tests/golden/tidb-1";

/// Checksum, pairs and bytes of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) crc64xor: u64,
    pub(crate) kvs: u64,
    pub(crate) bytes: u64,
}

/// A folder as a storage backend.
pub(crate) fn local(path: &Path) -> StorageBackend {
    let path = path.to_str().unwrap().to_owned();
    StorageBackend {
        backend: Some(Backend::Local(backup::Local { path })),
        sealed: None,
    }
}

/// What the keys of a table begin with.
pub(crate) fn table_prefix(id: i64) -> Vec<u8> {
    let mut prefix = vec![b't'];
    br_codec::number::write_i64(&mut prefix, id);
    prefix
}

/// The table that a raw key belongs to.
pub(crate) fn table_of(key: &[u8]) -> Option<i64> {
    let mut rest = key.strip_prefix(b"t")?;
    br_codec::number::read_i64(&mut rest).ok()
}

/// Data files of a backup, and where they lie.
pub(crate) struct Golden {
    dir: PathBuf,
    pub(crate) files: Vec<backup::File>,
    pub(crate) backup_ts: TimeStamp,
    cipher: Option<backup::CipherInfo>,
    pub(crate) tables: BTreeMap<i64, Sums>,
}

impl Golden {
    /// A backup whose metadata lists its data files one level below.
    pub(crate) fn open(dir: &str) -> Golden {
        let read = |name: &str| std::fs::read(format!("{dir}/{name}")).unwrap();
        let meta = backup::BackupMeta::decode(&read("backupmeta")[..]).unwrap();
        let lists = meta.file_index.unwrap().meta_files.into_iter();
        let files = lists
            .flat_map(|list| {
                backup::MetaFile::decode(&read(&list.name)[..])
                    .unwrap()
                    .data_files
            })
            .collect();
        Golden::new(dir.into(), files, TimeStamp(meta.end_version), None)
    }

    pub(crate) fn new(
        dir: PathBuf,
        files: Vec<backup::File>,
        backup_ts: TimeStamp,
        cipher: Option<backup::CipherInfo>,
    ) -> Golden {
        assert!(!files.is_empty());
        let tables = sums_of(&files);
        Golden {
            dir,
            files,
            backup_ts,
            cipher,
            tables,
        }
    }

    pub(crate) fn sums(&self) -> BTreeMap<i64, Sums> {
        self.tables.clone()
    }

    /// Restores every file into region 2, under table ids that are `shift` greater. Each download
    /// is asked for twice, as for two peers.
    pub(crate) async fn restore(&self, fixture: &Fixture, shift: i64) {
        let service = ImportService::new(fixture.store.clone());
        let context = fixture.context(RegionId(2));
        let mut metas = Vec::new();
        for file in &self.files {
            // A file can begin before its table, at the end of the one before.
            let Some(id) = first_table(&self.dir, file, self.cipher.as_ref()) else {
                continue;
            };
            let (old, new) = (table_prefix(id), table_prefix(id + shift));
            let range = Range {
                start: new.clone(),
                end: [&new[..], &[0xFF; 10]].concat(),
            };
            let mut sst = SstMeta {
                uuid: fixture.store.rt.uuid().as_bytes().to_vec(),
                range: Some(range),
                length: file.size,
                cf_name: file.cf.clone(),
                region_id: context.region_id,
                region_epoch: context.region_epoch,
                cipher_iv: file.cipher_iv.clone(),
                ..Default::default()
            };
            let request = DownloadRequest {
                sst: Some(sst.clone()),
                name: file.name.clone(),
                rewrite_rule: Some(RewriteRule {
                    old_key_prefix: old,
                    new_key_prefix: new,
                    ..Default::default()
                }),
                storage_backend: Some(local(&self.dir)),
                storage_cache_id: "test".into(),
                cipher_info: self.cipher.clone(),
                request_type: DownloadRequestType::Keyspace.into(),
                ..Default::default()
            };
            let answer = service
                .download(Request::new(request.clone()))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(
                (answer.error.as_ref(), answer.is_empty),
                (None, false),
                "{}",
                file.name
            );
            let again = service
                .download(Request::new(request))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(again, answer);
            let cut = |key: Vec<u8>| key[..key.len() - 8].to_vec();
            let range = answer.range.unwrap();
            sst.range = Some(Range {
                start: cut(range.start),
                end: cut(range.end),
            });
            metas.push(sst);
        }
        let request = MultiIngestRequest {
            context: Some(context),
            ssts: metas,
        };
        let answer = service
            .multi_ingest(Request::new(request.clone()))
            .await
            .unwrap();
        assert_eq!(answer.into_inner().error, None);
        let again = service
            .multi_ingest(Request::new(request))
            .await
            .unwrap()
            .into_inner();
        assert!(again.error.unwrap().stale_command.is_some());
    }

    /// The checksum that the coprocessor gives for a restored table, as if it had its old id.
    pub(crate) async fn checksum(fixture: &Fixture, id: i64, shift: i64, ts: TimeStamp) -> Sums {
        let (old, new) = (table_prefix(id), table_prefix(id + shift));
        let wanted = tipb::ChecksumRequest {
            rule: Some(tipb::ChecksumRewriteRule {
                old_prefix: Some(old),
                new_prefix: Some(new.clone()),
            }),
            ..Default::default()
        };
        let request = coprocessor::Request {
            context: Some(fixture.context(RegionId(2))),
            tp: 105,
            start_ts: ts.0,
            data: wanted.encode_to_vec(),
            ranges: vec![coprocessor::KeyRange {
                start: new,
                end: table_prefix(id + shift + 1),
            }],
            ..Default::default()
        };
        let answer = coprocess(&fixture.store, request).await.unwrap();
        assert_eq!((answer.region_error, &answer.other_error[..]), (None, ""));
        let sums = tipb::ChecksumResponse::decode(&answer.data[..]).unwrap();
        Sums {
            crc64xor: sums.checksum(),
            kvs: sums.total_kvs(),
            bytes: sums.total_bytes(),
        }
    }
}

/// The table of a file's first key.
fn first_table(
    dir: &Path,
    file: &backup::File,
    cipher: Option<&backup::CipherInfo>,
) -> Option<i64> {
    let mut bytes = std::fs::read(dir.join(&file.name)).unwrap();
    Keystream::new(cipher, &file.cipher_iv)
        .unwrap()
        .apply(&mut bytes);
    let table = br_sst::Table::open(bytes::Bytes::from(bytes)).unwrap();
    let mut entries = table.iter();
    entries.seek(b"").unwrap();
    let entry = entries.next().unwrap()?;
    let (encoded, _) = br_codec::key::split_data_key(entry.user_key).unwrap();
    table_of(br_codec::key::decode(encoded).unwrap().as_bytes())
}
