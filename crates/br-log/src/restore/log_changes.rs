//! # What it does
//! The log as a layer over a full backup: its schemas, and its events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_format::{backupmeta::DataFile, schema::SchemaEntry};
use br_rt::{Phase, Unit, kill_point};
use br_snapshot::restore::{
    Changes, DoneSteps, Origin, PointInTime, RestoreError, RestorePlan, Source,
};
use br_storage::MasterKeys;
use br_tidb::{
    row::IndexEncoder,
    schema::{DbInfo, is_system_db, strip_temporary_prefix},
    table_key::TableKey,
};
use br_types::{IndexId, TableId};

use super::{
    added_indexes::{self, LeftOutIndex},
    apply::Applier,
    covered::Coverage,
    earlier::Earlier,
    error::PointError,
    gc_hold::GcHold,
    id_map::{self, IdMap},
    ingest::{IngestTotals, Ingestion, PART_BYTES},
    load::{KeyChoice, LoadTotals, Loader},
    options::{Method, PointOptions, PointTarget},
    parts::Parts,
    rebuild::{Rebuild, RebuiltIndexes},
    rewrite::{KeyRewrite, WantedTable},
    schema_changes::SchemaChanges,
    schema_state::{FinalTable, SchemaState},
    sort::{Sorted, Sorter},
    versions::Window,
};
use crate::{
    read::{LogFiles, LogPart},
    scratch::ScratchDir,
};

/// Buffers that share the memory for sorting: one for each core that fills one, and those that
/// are kept.
const BUFFERS: usize = 8;

/// The step that is done when all of the log is in, and indexes that it does not have are made.
const COMPLETE: &str = "log-complete";

/// The log of a window, on top of a full backup.
pub(super) struct LogChanges<'a> {
    pub(super) target: &'a PointTarget,
    pub(super) options: &'a PointOptions,
    pub(super) window: Window,
    /// What the restore begins with.
    pub(super) origin: Origin,
    pub(super) files: LogFiles,
    pub(super) schema: SchemaChanges,
    /// Whether the cluster sorts strings by their collations.
    pub(super) new_collations: bool,
    /// What it goes on from, without a full backup.
    pub(super) earlier: Option<Earlier>,
    pub(super) seen: Mutex<Seen>,
}

/// What was learned of the tables while their schemas went by.
#[derive(Default)]
pub(super) struct Seen {
    /// Indexes of every table, by its id and those of its partitions.
    indexes: HashMap<TableId, Arc<HashSet<IndexId>>>,
    /// What the events came to.
    pub(super) load: LoadTotals,
    pub(super) ingest: IngestTotals,
    /// Indexes that have to be added again, by table.
    pub(super) left_out: BTreeMap<TableId, Vec<LeftOutIndex>>,
    /// Indexes whose entries are made from rows, by table.
    rebuilt: BTreeMap<TableId, RebuiltIndexes>,
    /// Entries that were made from rows.
    pub(super) rebuilt_entries: u64,
    /// Parts of the log that an interrupted command had brought in.
    pub(super) resumed_parts: usize,
}

impl LogChanges<'_> {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes a table of the point, and keeps in mind what the events need of it.
    fn complete(&self, table: FinalTable) -> Result<SchemaEntry, PointError> {
        let mut table = table;
        let missing = added_indexes::missing(&self.schema, &table);
        if !missing.is_empty() {
            let db = DbInfo::parse(&table.entry.db_json).map(|db| db.name.original);
            let db = strip_temporary_prefix(&db.unwrap_or_default()).to_owned();
            let (encoders, left_out) = self.split_missing(&table, &missing);
            let id = table.info.id();
            if !left_out.is_empty() {
                let left_out = added_indexes::leave_out(&db, &mut table, &left_out)?;
                self.seen().left_out.insert(id, left_out);
            }
            let indexes = RebuiltIndexes {
                table: format!("{db}.{}", table.info.name.original),
                physical_ids: table.info.physical_ids(),
                encoders,
            };
            self.seen().rebuilt.insert(id, indexes);
        }
        self.note(&table);
        Ok(table.entry)
    }

    /// Of a table that was there before the backup, which does not have it, the log knows the last
    /// changes only.
    fn check_covered(&self, coverage: &Coverage, table: &FinalTable) -> Result<(), PointError> {
        let db = DbInfo::parse(&table.entry.db_json).map(|db| db.name.original);
        let db = strip_temporary_prefix(&db.unwrap_or_default()).to_owned();
        let name = &table.info.name.original;
        let is_wanted = !is_system_db(&db) && self.options.tables.takes_table(&db, name);
        if is_wanted && !coverage.covers(&table.entry) {
            return Err(PointError::NotInBackup {
                table: format!("{db}.{name}"),
            });
        }
        Ok(())
    }

    /// Of the indexes that the log does not have, those whose entries can be made from rows, and
    /// the others.
    fn split_missing(
        &self,
        table: &FinalTable,
        missing: &HashSet<IndexId>,
    ) -> (Vec<IndexEncoder>, HashSet<IndexId>) {
        let (mut encoders, mut left_out) = (Vec::new(), HashSet::new());
        for index in &table.info.indexes {
            let id = IndexId(index.id);
            if !missing.contains(&id) {
                continue;
            }
            match IndexEncoder::new(&table.info, index, self.new_collations) {
                Ok(encoder) => encoders.push(encoder),
                Err(error) => {
                    tracing::debug!(table = table.info.name.original, %error, "left out");
                    left_out.insert(id);
                }
            }
        }
        (encoders, left_out)
    }

    fn note(&self, table: &FinalTable) {
        let indexes = table.info.indexes.iter().map(|index| IndexId(index.id));
        let indexes: Arc<HashSet<_>> = Arc::new(indexes.collect());
        let mut seen = self.seen();
        for id in table.info.all_ids() {
            seen.indexes.insert(id, indexes.clone());
        }
    }

    /// The keys of the log that are wanted, and what they become.
    fn rewrite(&self, plan: &RestorePlan) -> KeyRewrite {
        let seen = self.seen();
        let ids = plan.tables.iter().flat_map(|table| &table.old_physical_ids);
        let wanted = ids.filter_map(|old| {
            let wanted = WantedTable {
                new_id: plan.ids.get(*old)?,
                indexes: seen.indexes.get(old)?.clone(),
            };
            Some((*old, wanted))
        });
        KeyRewrite::new(wanted.collect())
    }
}

impl Changes for LogChanges<'_> {
    type Error = PointError;

    fn point(&self) -> Option<PointInTime> {
        Some(PointInTime {
            log_place: self.target.log.to_string(),
            start_ts: self.window.start,
            restored_ts: self.window.end,
            newest_only: self.options.newest_only,
        })
    }

    async fn schemas(
        &self,
        backup: Option<&Source>,
        mut visit: impl AsyncFnMut(SchemaEntry) -> Result<(), RestoreError>,
    ) -> Result<(), PointError> {
        let mut state = SchemaState::new(&self.schema);
        let mut coverage = Coverage::new(&self.schema);
        if let Some(backup) = backup {
            backup
                .schemas(async |entry| {
                    coverage.add_backup(&entry);
                    if let Some(table) = state.entry_of_backup(entry)? {
                        visit(self.complete(table)?).await?;
                    }
                    Ok::<_, PointError>(())
                })
                .await?;
        }
        if let Some(earlier) = &self.earlier {
            for entry in &earlier.entries {
                coverage.add_backup(entry);
                let Some(table) = state.entry_of_backup(entry.clone())? else {
                    continue;
                };
                let is_changed = table.is_changed;
                let entry = self.complete(table)?;
                if is_changed {
                    visit(entry).await?;
                }
            }
        }
        let mut more = Vec::new();
        let databases = state.rest(|table| {
            self.check_covered(&coverage, &table)?;
            more.push(self.complete(table)?);
            Ok(())
        })?;
        for entry in more.into_iter().chain(databases) {
            visit(entry).await?;
        }
        Ok(())
    }

    fn wants(&self, file: &DataFile) -> bool {
        match TableKey::parse(file.range.start.as_bytes()) {
            Ok(TableKey::Index { table, index, .. }) => {
                let seen = self.seen();
                let of_table = seen.indexes.get(&table);
                of_table.is_none_or(|indexes| indexes.contains(&index))
            }
            _ => true,
        }
    }

    async fn bring_in(
        &self,
        plan: &RestorePlan,
        done: Option<&DoneSteps>,
    ) -> Result<(), PointError> {
        // Tables may be visible by then, and rows of others be in them.
        let is_complete = |done: &DoneSteps| !done.missing(COMPLETE, 1, "").contains(&true);
        if done.is_some_and(is_complete) {
            return Ok(());
        }
        if self.earlier.is_some() {
            // Nothing was selected by its schema: what the tables have is learned here.
            self.schemas(None, async |_| Ok(())).await?;
        }
        let rewrite = self.rewrite(plan);
        match &self.options.method {
            Method::Sort => self.sort_and_ingest(rewrite, done).await?,
            Method::Apply { .. } => self.apply(&rewrite).await?,
        }
        kill_point("point.log");
        self.rebuild_indexes(plan).await?;
        kill_point("point.indexes");
        if let Some(done) = done {
            done.mark(COMPLETE, 0);
            done.flush().await?;
        }
        kill_point("point.complete");
        Ok(())
    }

    /// The ids that tables were given.
    fn layer(&self, plan: &RestorePlan) -> Vec<u8> {
        IdMap::of_plan(plan).encode()
    }

    async fn finish(&self, layer: &[u8]) {
        if !self.options.leaves_no_trace {
            id_map::keep(self.target, layer, self.window.end).await;
        }
    }
}

impl LogChanges<'_> {
    /// What is to be done on top of an earlier restore.
    pub(super) fn plan_on_earlier(&self) -> Result<RestorePlan, PointError> {
        let earlier = self.earlier.as_ref().ok_or_else(|| {
            PointError::Options("there is no earlier restore to go on from".to_owned())
        })?;
        let window = (self.window.start, self.window.end);
        earlier.plan(&self.schema, &self.options.tables, window)
    }

    /// Lets the stores write the events.
    async fn apply(&self, rewrite: &KeyRewrite) -> Result<(), PointError> {
        let Method::Apply {
            batch_files,
            batch_bytes,
            concurrency,
            send_credentials,
        } = &self.options.method
        else {
            return Ok(());
        };
        let backend = self.target.log_backend.to_proto(*send_credentials);
        let backend = backend.map_err(|error| PointError::Options(error.to_string()))?;
        let applier = Applier {
            cluster: &self.target.cluster,
            files: &self.files,
            rewrite,
            backend,
            crypter: &self.options.log_crypter,
            master_keys: self
                .target
                .log
                .master_keys()
                .map(MasterKeys::to_proto)
                .unwrap_or_default(),
            cache_id: format!("br-{}", self.target.cluster.rt().uuid()),
            batch_files: *batch_files,
            batch_bytes: *batch_bytes,
            concurrency: *concurrency,
        };
        let bytes = self.files.data_bytes();
        let phase = Phase::start(&self.target.progress, "Apply Log", Unit::Bytes, bytes);
        let hold = GcHold::begin(&self.target.cluster).await?;
        let load = applier.run(&phase).await;
        hold.end().await;
        let load = load?;
        self.seen().load = load;
        Ok(())
    }

    /// Makes the entries of indexes that the log does not have.
    async fn rebuild_indexes(&self, plan: &RestorePlan) -> Result<(), PointError> {
        let wanted: Vec<RebuiltIndexes> = {
            let seen = self.seen();
            let of_tables = plan.tables.iter();
            of_tables
                .filter_map(|table| seen.rebuilt.get(&table.old_id))
                .filter(|indexes| !indexes.encoders.is_empty())
                .cloned()
                .collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let (scratch, memory_bytes) = (self.scratch()?, self.options.sort_memory_bytes);
        let sorter = Arc::new(Sorter::new(scratch.clone(), memory_bytes / 2));
        let phase = Phase::start(&self.target.progress, "Repair Indexes", Unit::Bytes, 0);
        let rebuild = Rebuild {
            target: self.target,
            sorter: sorter.clone(),
            buffer_bytes: memory_bytes / BUFFERS,
            commit_ts: self.window.end,
        };
        let mut entries = 0;
        for indexes in &wanted {
            entries += rebuild
                .table(indexes, |old| plan.ids.get(old), &phase)
                .await?;
        }
        drop(rebuild);
        let sorted = sorted(sorter)?;
        let parts = Parts::cut(&sorted, self.part_bytes(), None).await?;
        self.ingest(scratch, sorted, parts, None).await?;
        self.seen().rebuilt_entries = entries;
        Ok(())
    }

    fn scratch(&self) -> Result<Arc<ScratchDir>, PointError> {
        let temp_dir = &self.options.temp_dir;
        let scratch = ScratchDir::create(self.target.cluster.rt(), temp_dir);
        let scratch = scratch.map_err(|source| PointError::LocalFile {
            path: temp_dir.clone(),
            source,
        })?;
        Ok(Arc::new(scratch))
    }

    /// Bytes of the log that are brought in at a time.
    fn part_bytes(&self) -> u64 {
        let of_region = self.options.tables.region_size_bytes;
        of_region.unwrap_or(PART_BYTES).min(PART_BYTES)
    }

    /// Brings sorted data into the cluster.
    async fn ingest(
        &self,
        scratch: Arc<ScratchDir>,
        sorted: Sorted,
        parts: Parts,
        done: Option<&DoneSteps>,
    ) -> Result<IngestTotals, PointError> {
        let ingestion = Ingestion {
            cluster: self.target.cluster.clone(),
            scratch,
            ssts: self.target.ssts.clone(),
            sorted,
            parts,
            newest_only: self.options.newest_only,
        };
        ingestion.run(&self.target.progress, done).await
    }

    async fn sort_and_ingest(
        &self,
        rewrite: KeyRewrite,
        done: Option<&DoneSteps>,
    ) -> Result<(), PointError> {
        let resumed = Parts::resumed(done).await?.map(Arc::new);
        self.seen().resumed_parts = resumed.as_ref().map_or(0, |parts| parts.done());
        if resumed.as_ref().is_some_and(|parts| parts.all_done()) {
            return Ok(());
        }
        let (scratch, memory_bytes) = (self.scratch()?, self.options.sort_memory_bytes);
        let sorter = Arc::new(Sorter::new(scratch.clone(), memory_bytes / 2));
        let bytes = self.files.data_bytes();
        let phase = Phase::start(&self.target.progress, "Read Log", Unit::Bytes, bytes);
        let mut loader = loader(
            self.target,
            self.options,
            self.window,
            KeyChoice::Tables(rewrite),
            &sorter,
            memory_bytes / BUFFERS,
        );
        loader.done.clone_from(&resumed);
        let (rows, compacted) = (self.files.objects(LogPart::Rows), &self.files.compacted);
        let load = loader.run(rows, compacted.clone(), &phase).await?;
        drop((phase, loader));
        kill_point("point.sorted");
        let sorted = sorted(sorter)?;
        let parts = match resumed.and_then(Arc::into_inner) {
            Some(parts) => parts,
            None => Parts::cut(&sorted, self.part_bytes(), done).await?,
        };
        kill_point("point.cut");
        let ingest = self.ingest(scratch, sorted, parts, done).await?;
        let mut seen = self.seen();
        seen.load = load;
        seen.ingest = ingest;
        Ok(())
    }
}

fn sorted(sorter: Arc<Sorter>) -> Result<Sorted, PointError> {
    let sorter = Arc::into_inner(sorter).ok_or(PointError::Cancelled)?;
    Ok(sorter.finish())
}

/// What reads files of the log into a sorter.
pub(super) fn loader(
    target: &PointTarget,
    options: &PointOptions,
    window: Window,
    choice: KeyChoice,
    sorter: &Arc<Sorter>,
    buffer_bytes: usize,
) -> Loader {
    Loader {
        rt: target.cluster.rt().clone(),
        cancel: target.cluster.cancel().clone(),
        storage: target.log.clone(),
        crypter: options.log_crypter.clone(),
        choice: Arc::new(choice),
        done: None,
        window,
        sorter: sorter.clone(),
        buffer_bytes,
        workers: std::thread::available_parallelism().map_or(2, usize::from),
    }
}
