//! One backup: its index, held against what is there.

use std::collections::{BTreeMap, HashMap};

use br_format::backupmeta::{BackupMeta, DataFile, MetaError, MetaNode};
use br_format::crypter::Crypter;
use br_format::names::MetaKind;
use br_rt::Rt;
use br_snapshot::stored_meta;
use br_storage::{Storage, StorageError};
use br_tidb::schema::{DbInfo, TableInfo, is_system_db, strip_temporary_prefix};
use br_tidb::table_key::table_id;
use br_types::TableId;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::{MissingFile, ShowOptions, ShownBackup, ShownTable};

/// Files whose content is checked at once: each is in memory as a whole.
const CHECKS_MAX: usize = 3;

pub(super) enum LookError {
    Storage(StorageError),
    Meta(MetaError),
}

impl From<StorageError> for LookError {
    fn from(error: StorageError) -> Self {
        match error.damage() {
            Some(reason) => LookError::Meta(MetaError::Malformed {
                object: error.name,
                reason,
            }),
            None => LookError::Storage(error),
        }
    }
}

impl From<MetaError> for LookError {
    fn from(error: MetaError) -> Self {
        LookError::Meta(error)
    }
}

/// Sums over the files of a table or partition.
#[derive(Clone, Copy, Default)]
struct Sums {
    kvs: u64,
    kv_bytes: u64,
}

pub(super) async fn look(
    rt: &Rt,
    storage: &Storage,
    options: &ShowOptions,
) -> Result<ShownBackup, LookError> {
    let stored = stored_meta::read(storage).await??;
    let meta = decode(stored, options)?;
    let mut sizes: HashMap<String, u64> = HashMap::new();
    let mut listed = storage.list("");
    while let Some(entry) = listed.try_next().await? {
        sizes.insert(entry.name, entry.size_bytes);
    }
    let mut shown = ShownBackup {
        head: meta.head.clone(),
        files: 0,
        stored_bytes: 0,
        kvs: 0,
        kv_bytes: 0,
        tables: Vec::new(),
        missing: Vec::new(),
        checked: options.check_contents,
    };
    let mut sums: BTreeMap<TableId, Sums> = BTreeMap::new();
    each_node(storage, &meta, MetaKind::DataFile, async |node| {
        let mut there = Vec::new();
        for file in node.data_files() {
            let file = file?;
            shown.files += 1;
            shown.stored_bytes = shown.stored_bytes.saturating_add(file.size_bytes);
            shown.kvs = shown.kvs.saturating_add(file.stats.total_kvs);
            shown.kv_bytes = shown.kv_bytes.saturating_add(file.stats.total_bytes);
            if let Some(id) = table_id(file.range.start.as_bytes()) {
                let sums = sums.entry(id).or_default();
                sums.kvs = sums.kvs.saturating_add(file.stats.total_kvs);
                sums.kv_bytes = sums.kv_bytes.saturating_add(file.stats.total_bytes);
            }
            match problem(&file, sizes.get(&file.name).copied()) {
                Some(problem) => shown.missing.push(MissingFile {
                    name: file.name,
                    problem,
                }),
                None => there.push(file),
            }
        }
        if options.check_contents {
            shown.missing.extend(check(rt, storage, there).await?);
        }
        Ok(())
    })
    .await?;
    each_node(storage, &meta, MetaKind::Schema, async |node| {
        for entry in node.schemas() {
            let entry = entry?;
            let malformed = |error: br_tidb::schema::SchemaError| MetaError::Malformed {
                object: node.object().to_owned(),
                reason: error.to_string(),
            };
            let db = DbInfo::parse(&entry.db_json).map_err(malformed)?;
            let info = match &entry.table_json {
                Some(json) => Some(TableInfo::parse(json).map_err(malformed)?),
                None => None,
            };
            let ids = info.iter().flat_map(TableInfo::physical_ids);
            let of_table = ids.filter_map(|id| sums.get(&id));
            let of_table = of_table.fold(Sums::default(), |all, one| Sums {
                kvs: all.kvs + one.kvs,
                kv_bytes: all.kv_bytes + one.kv_bytes,
            });
            let db = strip_temporary_prefix(&db.name.original);
            let is_user = !is_system_db(&db.to_lowercase());
            let user_ids = info.iter().filter(|_| is_user);
            shown.tables.push(ShownTable {
                db: db.to_owned(),
                user_ids: user_ids.flat_map(TableInfo::all_ids).collect(),
                table: info.map(|info| info.name.original),
                kvs: of_table.kvs,
                kv_bytes: of_table.kv_bytes,
            });
        }
        Ok(())
    })
    .await?;
    Ok(shown)
}

/// Of the places below a storage some may be encrypted and others not.
fn decode(stored: Bytes, options: &ShowOptions) -> Result<BackupMeta, MetaError> {
    let plain = Crypter::plaintext();
    let decode = |crypter| BackupMeta::decode(stored.clone(), crypter, options.compatibility);
    decode(&options.crypter).or_else(|error| match options.crypter.is_plaintext() {
        true => Err(error),
        false => decode(&plain).map_err(|_| error),
    })
}

/// All nodes of one kind, one after the other.
async fn each_node(
    storage: &Storage,
    meta: &BackupMeta,
    kind: MetaKind,
    mut visit: impl AsyncFnMut(&MetaNode) -> Result<(), LookError>,
) -> Result<(), LookError> {
    let mut walk = meta.walk(kind)?;
    let mut node = walk.root().clone();
    loop {
        visit(&node).await?;
        let Some(next) = walk.next_object() else {
            return Ok(());
        };
        let stored = match storage.read(next.name()).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => {
                return Err(LookError::Meta(MetaError::Incomplete {
                    object: next.name().to_owned(),
                    missing: "content: it is not there",
                }));
            }
            Err(error) => return Err(error.into()),
        };
        node = walk.open(stored)?;
    }
}

fn problem(file: &DataFile, found: Option<u64>) -> Option<String> {
    match found {
        None => Some("it is not there".to_owned()),
        // Raw backups of old stores do not say sizes.
        Some(found) if file.size_bytes != 0 && found != file.size_bytes => Some(format!(
            "it has {found} bytes, and {} were written",
            file.size_bytes
        )),
        Some(_) => None,
    }
}

/// Those whose content is not what was written.
async fn check(
    rt: &Rt,
    storage: &Storage,
    files: Vec<DataFile>,
) -> Result<Vec<MissingFile>, StorageError> {
    let checked: Vec<Option<MissingFile>> = stream::iter(files)
        .map(|file| async move {
            let stored = match storage.read(&file.name).await {
                Ok(stored) => stored,
                Err(error) => {
                    let problem = error.damage().ok_or(error)?;
                    return Ok(Some(MissingFile {
                        name: file.name,
                        problem,
                    }));
                }
            };
            let found = rt.blocking(move || Sha256::digest(&stored)).await;
            let is_same = found.as_slice() == file.sha256;
            Ok::<_, StorageError>((!is_same).then(|| MissingFile {
                name: file.name,
                problem: "its SHA-256 is not the one that was written".to_owned(),
            }))
        })
        .buffered(CHECKS_MAX)
        .try_collect()
        .await?;
    Ok(checked.into_iter().flatten().collect())
}
