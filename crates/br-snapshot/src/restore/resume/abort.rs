//! # What it does
//! Gives up a restore that has begun and not ended: drops the tables that are visible, removes the
//! data, lets PD and the stores go on, removes the record.
//!
//! # After a crash
//! The record goes last: the same command goes on.

use br_catalog::{DroppedTable, SchemaChange};
use br_cluster::{Cluster, RawLayout};
use br_codec::ApiVersion;
use br_rt::kill_point;
use br_storage::Storage;
use br_tidb::{schema, table_key};
use br_types::{KeyRange, RawKey, TableId};

use super::{
    super::{
        changes::PointInTime,
        cleanup,
        error::RestoreError,
        key_form::{FileKeys, KeyForm},
        options::RestoreOptions,
        pause,
        source::Source,
    },
    Claim, DoneSteps, Journal, RangeRecord, Registration,
    record::{PointRecord, Record, ScopeRecord, read_all},
    store::Store,
};

/// Tables dropped in one transaction.
const TABLES_PER_TXN_MAX: usize = 128;

/// What giving up a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AbortedRestore {
    /// The name of the command.
    pub title: String,
    /// When it began, UTC.
    pub began: String,
    /// Where its backup is.
    pub backup: String,
    /// Tables, views and sequences that were visible.
    pub tables_dropped: usize,
    /// Databases that it had made.
    pub databases_dropped: usize,
    /// The ids under which data was removed, from the first to one beyond the last.
    pub ids: std::ops::Range<i64>,
    /// Whether data was left, as it cannot be told from that of others.
    pub is_data_left: bool,
    /// The point that it restored to.
    pub point: Option<PointInTime>,
}

/// Gives up the restore that has these options. With a backup, it has to be one of that.
///
/// # Errors
/// There is no such restore, there are several, or it runs; the cluster is out of reach. Repeating
/// it goes on.
pub async fn abort(
    cluster: &Cluster,
    options: &RestoreOptions,
    backup: Option<&Storage>,
) -> Result<AbortedRestore, RestoreError> {
    let sha256 = match backup {
        None => None,
        Some(storage) => Some(Source::open(storage.clone(), options).await?.sha256),
    };
    let (task, record) = find(cluster, options, sha256.as_deref()).await?;
    let claim = Claim {
        title: "Abort Restore",
        task: &task,
        is_whole: false,
    };
    Registration::with(cluster, claim, undo(cluster, options, &task, &record)).await
}

async fn find(
    cluster: &Cluster,
    options: &RestoreOptions,
    sha256: Option<&str>,
) -> Result<(String, Record), RestoreError> {
    let scope = ScopeRecord::of(options).parameters();
    let fits = |record: &Record| {
        record.title == options.title()
            && record.scope.parameters() == scope
            && sha256.is_none_or(|sha256| record.backup_sha256 == sha256)
    };
    let all = read_all(cluster).await?;
    let others: Vec<String> = all.values().map(describe).collect();
    let mut fitting = all.into_iter().filter(|(_, record)| fits(record));
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(RestoreError::NothingToAbort { others }),
        (Some(_), Some(_)) => Err(RestoreError::ManyToAbort { found: others }),
    }
}

fn describe(record: &Record) -> String {
    let parameters: Vec<String> = record
        .scope
        .parameters()
        .into_iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let point = record.point.as_ref().map(|point| point.point().restored_ts);
    format!(
        "{} {} of {}{}, begun at {}",
        record.title,
        parameters.join(" "),
        record.backup_place,
        point.map_or_else(String::new, |ts| format!(" to {ts}")),
        br_format::log::rfc3339(record.began_unix_ms)
    )
}

async fn undo(
    cluster: &Cluster,
    options: &RestoreOptions,
    task: &str,
    record: &Record,
) -> Result<AbortedRestore, RestoreError> {
    let mut aborted = AbortedRestore {
        title: record.title.clone(),
        began: br_format::log::rfc3339(record.began_unix_ms),
        backup: record.backup_place.clone(),
        ids: record.first_id..record.end_id,
        point: record.point.as_ref().map(PointRecord::point),
        ..AbortedRestore::default()
    };
    if record.is_on_base {
        let store = match &options.progress_storage {
            None => Store::in_etcd(cluster, task),
            Some(storage) => Store::on_storage(storage, cluster, task),
        };
        let done = DoneSteps::open(cluster.rt(), store).await?;
        if Journal::read(&done).await?.is_some() {
            return Err(RestoreError::OnlySchemasLeft {
                title: aborted.title,
                since: aborted.began,
            });
        }
        // Versions of keys in tables that were there before.
        aborted.is_data_left = true;
    }
    drop_tables(cluster, &mut aborted).await?;
    kill_point("abort.tables");
    match &record.range {
        Some(range) if record.is_range_own => delete_keys(cluster, range).await?,
        Some(_) => aborted.is_data_left = true,
        None if aborted.ids.is_empty() => {}
        None => {
            let range = KeyRange {
                start: table_key::table_prefix(TableId(aborted.ids.start)),
                end: table_key::table_prefix(TableId(aborted.ids.end)),
            };
            cleanup::delete_range(cluster, FileKeys::TABLES.form, range).await?;
        }
    }
    kill_point("abort.data");
    pause::undo_left_behind(cluster, &record.rule_id, &record.paused).await?;
    kill_point("abort.pause");
    // The record says that there is some, so it goes after it; with what is in the cluster.
    if let Some(storage) = &options.progress_storage {
        Store::on_storage(storage, cluster, task).clear().await?;
        kill_point("abort.progress");
    }
    Record::remove(cluster, task).await?;
    Ok(aborted)
}

/// Drops what the restore made visible: the tables and databases that have ids of it.
async fn drop_tables(cluster: &Cluster, aborted: &mut AbortedRestore) -> Result<(), RestoreError> {
    let owned = aborted.ids.clone();
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let mut dropped = Vec::new();
    let mut databases = Vec::new();
    for db in br_catalog::databases(&snapshot).await? {
        if schema::is_memory_db(&db.info.name.lower) {
            continue;
        }
        let id = db.info.id();
        let mut others = 0;
        br_catalog::tables(&snapshot, id, |table| {
            if owned.contains(&table.info.id().0) {
                dropped.push(DroppedTable {
                    db: id,
                    id: table.info.id(),
                    ids: table.info.all_ids(),
                });
            } else {
                others += 1;
            }
            Ok(())
        })
        .await?;
        if owned.contains(&id.0) && others == 0 {
            databases.push(id);
        }
    }
    aborted.tables_dropped = dropped.len();
    aborted.databases_dropped = databases.len();
    for part in dropped.chunks(TABLES_PER_TXN_MAX) {
        let change = SchemaChange {
            dropped: part.to_vec(),
            ..SchemaChange::default()
        };
        br_catalog::apply(cluster, &change).await?;
        kill_point("abort.tables_part");
    }
    if !databases.is_empty() {
        let change = SchemaChange {
            dropped_databases: databases,
            ..SchemaChange::default()
        };
        br_catalog::apply(cluster, &change).await?;
    }
    Ok(())
}

/// Deletes the keys of a range that held none before.
async fn delete_keys(cluster: &Cluster, range: &RangeRecord) -> Result<(), RestoreError> {
    let bad = |_| RestoreError::BadRecord {
        task: "of the restore".to_owned(),
        problem: "its range is not hexadecimal".to_owned(),
    };
    let keys: KeyRange<RawKey> = KeyRange::new(
        hex::decode(&range.start).map_err(bad)?,
        hex::decode(&range.end).map_err(bad)?,
    );
    match range.raw_api_version {
        None => cleanup::delete_range(cluster, KeyForm::Encoded, keys).await?,
        Some(version) => {
            let version = ApiVersion::from_number(version as i32).unwrap_or(ApiVersion::V1);
            let layout = RawLayout::all_keyspaces(version);
            let client = cluster.raw(version).with_layout(layout);
            client.delete_range(&keys).await?;
        }
    }
    Ok(())
}
