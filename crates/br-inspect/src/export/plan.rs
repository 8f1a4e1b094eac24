//! Which tables are exported, and which SST files have their rows.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use br_format::{
    backupmeta::{BackupMeta, Content, DataFile},
    names::{self, MetaKind},
    schema::SchemaEntry,
};
use br_log::{
    read::LogReadError,
    restore::offline::{LogRows, OfflineError, OfflineLog, OfflineOptions},
};
use br_rt::{CancellationToken, Progress, Rt};
use br_snapshot::stored_meta;
use br_storage::read_again;
use br_tidb::{
    schema::{DbInfo, TableInfo, strip_temporary_prefix},
    table_key::{RECORD_PREFIX_LEN, record_prefix, table_id},
};
use br_types::{Cf, TableId, TimeStamp};

use super::{ExportError, ExportOptions, Layer};

/// What an export does.
pub(super) struct Plan {
    /// As of when.
    pub(super) at: TimeStamp,
    /// The tables.
    pub(super) tables: Vec<TablePlan>,
    /// Rows that were written after the last backup.
    pub(super) log: Option<LogRows>,
}

/// What a plan is made of.
pub(super) struct Reads<'a> {
    pub(super) rt: &'a Rt,
    pub(super) layers: &'a [Layer],
    pub(super) options: &'a ExportOptions,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) cancel: &'a CancellationToken,
}

/// What the export of one table does.
pub(super) struct TablePlan {
    /// The database's name as users know it.
    pub(super) db: String,
    /// The table.
    pub(super) info: TableInfo,
    /// Each partition, or the table itself.
    pub(super) parts: Vec<PartPlan>,
    /// As of when.
    pub(super) at: TimeStamp,
}

/// What the export of a partition, or of a table without any, does.
pub(super) struct PartPlan {
    /// Its id.
    pub(super) id: TableId,
    /// The files of each layer.
    pub(super) layers: Vec<LayerFiles>,
}

/// The files that one backup has of one table's rows, by their first key.
#[derive(Clone, Default)]
pub(super) struct LayerFiles {
    /// Which backup of the chain.
    pub(super) layer: usize,
    /// In the order of their keys.
    pub(super) files: Vec<FilePair>,
}

/// The files of one piece of a region.
#[derive(Clone)]
pub(super) struct FilePair {
    /// The records.
    pub(super) write: DataFile,
    /// The long values.
    pub(super) default: Option<DataFile>,
}

/// The halves of a pair as they come.
#[derive(Default)]
struct HalfPair {
    write: Option<DataFile>,
    default: Option<DataFile>,
}

/// Reads the index of each backup and chooses.
pub(super) async fn plan(reads: &Reads<'_>) -> Result<Plan, ExportError> {
    let layers = reads.layers;
    let mut metas = Vec::new();
    for layer in layers {
        let stored = stored_meta::read(&layer.storage).await??;
        metas.push(BackupMeta::decode(
            stored,
            &layer.crypter,
            layer.compatibility,
        )?);
    }
    check_chain(&metas)?;
    let (used, at) = choose_point(&metas, reads.options).await?;
    let metas = metas.get(..used).unwrap_or_default();
    let (Some(last), Some(last_layer)) = (metas.last(), layers.get(used.saturating_sub(1))) else {
        return Err(ExportError::Chain {
            position: 1,
            problem: "there is no backup".to_owned(),
        });
    };
    let log = open_log(reads, last, at).await?;
    let mut tables = Tables {
        options: reads.options,
        at,
        chosen: Vec::new(),
    };
    read_schemas(last_layer, last, log.as_ref(), &mut tables).await?;
    let mut tables = tables.chosen;
    let wanted: HashSet<TableId> = tables
        .iter()
        .flat_map(|table| table.info.physical_ids())
        .collect();
    for (place, (layer, meta)) in layers.iter().zip(metas).enumerate() {
        let mut files = read_files(layer, meta, &wanted).await?;
        for table in &mut tables {
            for (id, part) in table.info.physical_ids().iter().zip(&mut table.parts) {
                let files = files.remove(id).unwrap_or_default();
                part.layers.push(LayerFiles {
                    layer: place,
                    files,
                });
            }
        }
    }
    let log = match log {
        Some(log) => Some(Box::pin(log.sort_rows(wanted)).await?),
        None => None,
    };
    Ok(Plan { at, tables, log })
}

/// Whether each backup goes on top of the one before it.
fn check_chain(metas: &[BackupMeta]) -> Result<(), ExportError> {
    for (place, meta) in metas.iter().enumerate() {
        let broken = |problem: String| {
            Err(ExportError::Chain {
                position: place + 1,
                problem,
            })
        };
        let head = &meta.head;
        if head.content != Content::Tables {
            return Err(ExportError::NotTables);
        }
        let Some(before) = place.checked_sub(1).and_then(|before| metas.get(before)) else {
            if head.is_incremental() {
                return broken(format!("it is incremental since {}", head.last_backup_ts));
            }
            continue;
        };
        if head.cluster_id != before.head.cluster_id {
            return broken("it is of another cluster".to_owned());
        }
        if head.last_backup_ts != before.head.backup_ts {
            return broken(format!(
                "it begins at {}, that one ends at {}",
                head.last_backup_ts, before.head.backup_ts
            ));
        }
    }
    Ok(())
}

/// How many backups of the chain are needed, and as of when rows are shown.
async fn choose_point(
    metas: &[BackupMeta],
    options: &ExportOptions,
) -> Result<(usize, TimeStamp), ExportError> {
    let ends = || metas.iter().map(|meta| meta.head.backup_ts);
    let last = ends().next_back().unwrap_or_default();
    let at = match (options.at, &options.log) {
        (Some(at), _) => at,
        (None, None) => last,
        (None, Some(layer)) => layer.log.bounds().await?.max_ts.max(last),
    };
    if let Some(place) = ends().position(|ts| ts == at) {
        return Ok((place + 1, at));
    }
    // The log goes on from the newest backup before the point.
    let before = ends().take_while(|ts| *ts < at).count();
    match (&options.log, before) {
        (Some(_), 1..) => Ok((before, at)),
        (Some(_), 0) => Err(ExportError::Log(OfflineError::Read(
            LogReadError::BeforeStart {
                restored_ts: at,
                start_ts: ends().next().unwrap_or_default(),
            },
        ))),
        (None, _) => Err(ExportError::NotAnswerable {
            at,
            answerable: ends().collect(),
        }),
    }
}

/// The log from the backup to the point; none if the backup itself shows the point.
async fn open_log(
    reads: &Reads<'_>,
    meta: &BackupMeta,
    at: TimeStamp,
) -> Result<Option<OfflineLog>, ExportError> {
    let Some(layer) = reads.options.log.as_ref() else {
        return Ok(None);
    };
    if at == meta.head.backup_ts {
        return Ok(None);
    }
    let log = OfflineLog::open(OfflineOptions {
        rt: reads.rt.clone(),
        cancel: reads.cancel.clone(),
        progress: reads.progress.clone(),
        log: layer.log.clone(),
        crypter: layer.crypter.clone(),
        cluster_id: meta.head.cluster_id,
        start_ts: meta.head.backup_ts,
        at,
        temp_dir: layer.temp_dir.clone(),
        memory_bytes: layer.memory_bytes,
    });
    Ok(Some(Box::pin(log).await?))
}

/// The tables that are exported, as they come.
struct Tables<'a> {
    options: &'a ExportOptions,
    at: TimeStamp,
    chosen: Vec<TablePlan>,
}

impl Tables<'_> {
    fn add(&mut self, object: &str, schema: &SchemaEntry) -> Result<(), ExportError> {
        self.chosen
            .extend(choose(object, schema, self.options, self.at)?);
        Ok(())
    }
}

async fn read_schemas(
    layer: &Layer,
    meta: &BackupMeta,
    log: Option<&OfflineLog>,
    tables: &mut Tables<'_>,
) -> Result<(), ExportError> {
    let mut at_point = log.map(OfflineLog::schemas);
    let mut walk = meta.walk(MetaKind::Schema)?;
    let mut node = walk.root().clone();
    loop {
        for schema in node.schemas() {
            let schema = schema?;
            match &mut at_point {
                None => tables.add(node.object(), &schema)?,
                Some(at_point) => {
                    if let Some(schema) = at_point.of_backup(schema)? {
                        tables.add(node.object(), &schema)?;
                    }
                }
            }
        }
        let Some(next) = walk.next_object() else {
            break;
        };
        let name = next.name().to_owned();
        node = read_again(async || {
            let stored = layer.storage.read(&name).await?;
            Ok::<_, ExportError>(walk.open(stored)?)
        })
        .await?;
    }
    if let Some(at_point) = at_point {
        for schema in at_point.rest()? {
            let before = tables.chosen.len();
            tables.add("the log", &schema.entry)?;
            if let Some(table) = tables.chosen.get(before)
                && !schema.is_covered
            {
                return Err(ExportError::NotInBackup {
                    table: format!("{}.{}", table.db, table.info.name.original),
                });
            }
        }
    }
    Ok(())
}

/// The plan of a table with rows that the filter takes.
fn choose(
    object: &str,
    schema: &SchemaEntry,
    options: &ExportOptions,
    at: TimeStamp,
) -> Result<Option<TablePlan>, ExportError> {
    let damaged = |source| ExportError::Schema {
        object: object.to_owned(),
        source,
    };
    let Some(table) = &schema.table_json else {
        return Ok(None);
    };
    let db = DbInfo::parse(&schema.db_json).map_err(damaged)?;
    let db = strip_temporary_prefix(&db.name.original).to_owned();
    let info = TableInfo::parse(table).map_err(damaged)?;
    if info.is_view() || info.is_sequence() {
        return Ok(None);
    }
    if !options.filter.matches_table(&db, &info.name.original) {
        return Ok(None);
    }
    let parts = info.physical_ids().into_iter().map(|id| PartPlan {
        id,
        layers: Vec::new(),
    });
    let parts = parts.collect();
    Ok(Some(TablePlan {
        db,
        info,
        parts,
        at,
    }))
}

/// The files with rows of the tables that are wanted, in the order of their keys.
async fn read_files(
    layer: &Layer,
    meta: &BackupMeta,
    wanted: &HashSet<TableId>,
) -> Result<HashMap<TableId, Vec<FilePair>>, ExportError> {
    let mut halves: BTreeMap<String, HalfPair> = BTreeMap::new();
    let mut walk = meta.walk(MetaKind::DataFile)?;
    let mut node = walk.root().clone();
    loop {
        for file in node.data_files() {
            let file = file?;
            if row_table(&file).is_none_or(|id| !wanted.contains(&id)) {
                continue;
            }
            let stem = names::parse_sst(&file.name).map_or(file.name.as_str(), |(stem, _)| stem);
            let half = halves.entry(stem.to_owned()).or_default();
            match file.cf {
                Cf::Write => half.write = Some(file),
                _ => half.default = Some(file),
            }
        }
        let Some(next) = walk.next_object() else {
            break;
        };
        let name = next.name().to_owned();
        node = read_again(async || {
            let stored = layer.storage.read(&name).await?;
            Ok::<_, ExportError>(walk.open(stored)?)
        })
        .await?;
    }
    let mut files: HashMap<TableId, Vec<FilePair>> = HashMap::new();
    for half in halves.into_values() {
        // Long values without records are of versions that are not in the backup.
        let Some(write) = half.write else { continue };
        let Some(id) = row_table(&write) else {
            continue;
        };
        files.entry(id).or_default().push(FilePair {
            write,
            default: half.default,
        });
    }
    for pairs in files.values_mut() {
        pairs.sort_by(|a, b| a.write.range.start.cmp(&b.write.range.start));
    }
    Ok(files)
}

/// The table whose rows a file has; `None` if it has index entries. Backups ask for rows and for
/// each index apart, so no file has both.
fn row_table(file: &DataFile) -> Option<TableId> {
    let start = file.range.start.as_bytes();
    let id = table_id(start)?;
    let prefix = record_prefix(id);
    (start.get(..RECORD_PREFIX_LEN) == Some(prefix.as_bytes())).then_some(id)
}
