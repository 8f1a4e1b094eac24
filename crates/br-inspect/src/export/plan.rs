//! Which tables are exported, and which SST files have their rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use br_format::{
    backupmeta::{BackupMeta, Content, DataFile, MetaNode},
    names::{self, MetaKind},
    schema::SchemaEntry,
};
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
}

/// What the export of one table does.
pub(super) struct TablePlan {
    /// The database's name as users know it.
    pub(super) db: String,
    /// The table.
    pub(super) info: TableInfo,
    /// For each partition, or the table itself, the files of each layer.
    pub(super) parts: Vec<Vec<LayerFiles>>,
    /// As of when.
    pub(super) at: TimeStamp,
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
pub(super) async fn plan(layers: &[Layer], options: &ExportOptions) -> Result<Plan, ExportError> {
    let mut metas = Vec::new();
    for layer in layers {
        let stored = layer.storage.read(names::BACKUPMETA).await?;
        metas.push(BackupMeta::decode(
            stored,
            &layer.crypter,
            layer.compatibility,
        )?);
    }
    let used = check_chain(&metas, options.at)?;
    let metas = metas.get(..used).unwrap_or_default();
    let (Some(last), Some(last_layer)) = (metas.last(), layers.get(used.saturating_sub(1))) else {
        return Err(ExportError::Chain {
            position: 1,
            problem: "there is no backup".to_owned(),
        });
    };
    let at = last.head.backup_ts;
    let mut tables = read_schemas(last_layer, last, options, at).await?;
    let wanted: HashSet<TableId> = tables
        .iter()
        .flat_map(|table| table.info.physical_ids())
        .collect();
    for (place, (layer, meta)) in layers.iter().zip(metas).enumerate() {
        let mut files = read_files(layer, meta, &wanted).await?;
        for table in &mut tables {
            for (id, part) in table.info.physical_ids().iter().zip(&mut table.parts) {
                let files = files.remove(id).unwrap_or_default();
                part.push(LayerFiles {
                    layer: place,
                    files,
                });
            }
        }
    }
    Ok(Plan { at, tables })
}

/// How many backups of the chain are needed.
fn check_chain(metas: &[BackupMeta], at: Option<TimeStamp>) -> Result<usize, ExportError> {
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
    let Some(at) = at else { return Ok(metas.len()) };
    let answerable: Vec<TimeStamp> = metas.iter().map(|meta| meta.head.backup_ts).collect();
    match answerable.iter().position(|ts| *ts == at) {
        Some(place) => Ok(place + 1),
        None => Err(ExportError::NotAnswerable { at, answerable }),
    }
}

async fn read_schemas(
    layer: &Layer,
    meta: &BackupMeta,
    options: &ExportOptions,
    at: TimeStamp,
) -> Result<Vec<TablePlan>, ExportError> {
    let mut tables = Vec::new();
    let mut walk = meta.walk(MetaKind::Schema)?;
    let mut node = walk.root().clone();
    loop {
        for schema in node.schemas() {
            if let Some(table) = choose(&node, &schema?, options, at)? {
                tables.push(table);
            }
        }
        let Some(next) = walk.next_object() else {
            return Ok(tables);
        };
        let stored = layer.storage.read(next.name()).await?;
        node = walk.open(stored)?;
    }
}

/// The plan of a table with rows that the filter takes.
fn choose(
    node: &MetaNode,
    schema: &SchemaEntry,
    options: &ExportOptions,
    at: TimeStamp,
) -> Result<Option<TablePlan>, ExportError> {
    let damaged = |source| ExportError::Schema {
        object: node.object().to_owned(),
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
    let parts = info.physical_ids().iter().map(|_| Vec::new()).collect();
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
        let stored = layer.storage.read(next.name()).await?;
        node = walk.open(stored)?;
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
