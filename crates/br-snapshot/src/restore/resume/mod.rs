//! # What it does
//! Lets an interrupted restore go on, or be given up.
//!
//! # Objects it reads and writes
//! In PD's etcd, below `/holdfast/restore/`: for each restore that has begun and not ended
//! `task/<digest>` ([`record`]), and `progress/<digest>/`, the ids that its tables have (`ids/`) and
//! a bit for each group of files that is in the cluster (`done/`, [`progress`]). With
//! `--checkpoint-storage`, progress is on that storage instead, below
//! `checkpoints/restore-<cluster>/<digest>/`. It is small: 100 000 groups of files are 25 KB, and
//! each table has some 20 bytes. It lives in the target, because a restore that began there means
//! something there only: the backup may be read-only, and may be restored to many clusters at once.
//! What runs is registered ([`registration`]).
//!
//! # Ordering and invariants
//! Ids are reserved, then the record is written, then data goes in under these ids, then schemas
//! become visible, and then the record is removed. So data without a record does not exist, and a
//! table of the restore that is seen is complete. The record is found again by a digest of the
//! backup's `backupmeta` and of the options that say what is restored: with others it is another
//! restore, which is refused if both want one table.
//!
//! # After a crash
//! The same command goes on: with the same ids, without the groups that are done, without the tables
//! that are visible. `br abort restore` undoes it all.

mod abort;
mod progress;
mod record;
mod registration;
mod store;

use br_cluster::Cluster;
use br_rt::kill_point;

pub use self::{
    abort::{AbortedRestore, abort},
    record::CASE_SENSITIVE,
};
pub(super) use self::{
    progress::Progress,
    record::{PausedInPd, RangeRecord},
    registration::{Claim, Registration},
};
use self::{
    record::{Record, ScopeRecord, read_all, task_of},
    store::Store,
};
use super::{
    RestoreTarget, error::RestoreError, file_groups::GroupLimit, options::RestoreOptions,
    plan::RestorePlan, source::Source, table_ids::TableIdMap,
};

/// Ids in one value: about 256 KB of text, far below what etcd takes in one request.
const IDS_PER_VALUE: usize = 10_000;

/// Where the ids are, below the folder of the restore.
const IDS_FOLDER: &str = "ids/";

/// A restore that can be resumed.
pub(super) struct Resume {
    cluster: Cluster,
    task: String,
    store: Store,
    /// What an earlier command wrote, and this one goes on with.
    found: Option<Found>,
    progress: Progress,
    is_undone: bool,
}

/// What an earlier command wrote.
struct Found {
    record: Record,
    ids: TableIdMap,
}

impl Resume {
    /// Names a restore, for its registration.
    pub(super) fn task_of(source: &Source, options: &RestoreOptions) -> String {
        task_of(source, options)
    }

    /// Finds what an earlier command left.
    pub(super) async fn open(
        target: &RestoreTarget,
        options: &RestoreOptions,
        source: &Source,
    ) -> Result<Resume, RestoreError> {
        let cluster = target.cluster.clone();
        let task = task_of(source, options);
        let store = match &options.progress_storage {
            None => Store::in_etcd(&cluster, &task),
            Some(storage) => Store::on_storage(storage, &cluster, &task),
        };
        let record = read_all(&cluster).await?.remove(&task);
        let found = match record {
            None => {
                // Of an earlier command that died before its record, or after it.
                store.clear().await?;
                None
            }
            Some(record) => {
                let place = options.progress_storage.as_ref().map(ToString::to_string);
                if record.progress_place != place {
                    let show = |place: Option<String>| place.unwrap_or_else(|| "nothing".into());
                    return Err(RestoreError::OtherProgressStorage {
                        was: show(record.progress_place),
                        is: show(place),
                    });
                }
                let ids = read_ids(&store, &record, &task).await?;
                tracing::info!(
                    task,
                    began_unix_ms = record.began_unix_ms,
                    "an interrupted restore goes on"
                );
                Some(Found { record, ids })
            }
        };
        let progress = Progress::open(cluster.rt(), store.clone()).await?;
        Ok(Resume {
            cluster,
            task,
            store,
            found,
            progress,
            is_undone: false,
        })
    }

    /// Whether an earlier command began it.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }

    /// The ids that an earlier command reserved.
    pub(super) fn ids(&self) -> Option<&TableIdMap> {
        self.found.as_ref().map(|found| &found.ids)
    }

    /// How an earlier command grouped files.
    pub(super) fn group_limit(&self) -> Option<GroupLimit> {
        self.found.as_ref().map(|found| GroupLimit {
            size_bytes_max: found.record.group_size_bytes_max,
            keys_max: found.record.group_keys_max,
        })
    }

    /// The name of the label rule, and what was paused before an earlier command paused it.
    pub(super) fn paused_before(&self) -> Option<(String, PausedInPd)> {
        let record = &self.found.as_ref()?.record;
        Some((record.rule_id.clone(), record.paused.clone()))
    }

    /// Which files are in the cluster.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Writes the record, before the first change that it has to undo.
    pub(super) async fn begin(
        &mut self,
        target: &RestoreTarget,
        options: &RestoreOptions,
        source: &Source,
        plan: &RestorePlan,
        group: GroupLimit,
        range: Option<RangeRecord>,
    ) -> Result<(), RestoreError> {
        if self.found.is_some() {
            return Ok(());
        }
        write_ids(&self.store, &plan.ids).await?;
        kill_point("restore.ids_written");
        let owned = plan.ids.owned();
        let record = Record {
            format: Record::FORMAT,
            title: options.title().to_owned(),
            scope: ScopeRecord::of(options),
            backup_place: target.storage.to_string(),
            backup_sha256: source.sha256.clone(),
            backup_ts: source.meta.head.backup_ts.0,
            progress_place: options.progress_storage.as_ref().map(ToString::to_string),
            began_unix_ms: self.cluster.rt().wall().0,
            rule_id: self.cluster.rt().uuid().to_string(),
            group_size_bytes_max: group.size_bytes_max,
            group_keys_max: group.keys_max,
            first_id: owned.start,
            end_id: owned.end,
            paused: PausedInPd::default(),
            is_range_own: range.is_some() && options.check_requirements,
            range,
        };
        record.write(&self.cluster, &self.task).await?;
        kill_point("restore.record");
        self.found = Some(Found {
            record,
            ids: plan.ids.clone(),
        });
        Ok(())
    }

    /// Notes what is paused, so that whoever comes next can undo it.
    pub(super) async fn note_paused(&mut self, paused: PausedInPd) -> Result<(), RestoreError> {
        let Some(found) = &mut self.found else {
            return Ok(());
        };
        if paused != PausedInPd::default() && found.record.paused != paused {
            found.record.paused = paused;
            found.record.write(&self.cluster, &self.task).await?;
        }
        Ok(())
    }

    /// What was brought in has been removed: nobody goes on with it.
    pub(super) fn set_undone(&mut self) {
        self.is_undone = true;
    }

    /// Leaves everything for the next command, unless it is undone.
    pub(super) async fn leave(self) {
        match self.is_undone {
            true => self.remove().await,
            false => self.keep().await,
        }
    }

    async fn keep(&self) {
        if let Err(error) = self.progress.flush().await {
            tracing::warn!(%error, "the last progress could not be written down");
        }
    }

    /// Removes everything: the restore is complete, or undone.
    pub(super) async fn remove(self) {
        let Resume {
            cluster,
            task,
            store,
            progress,
            ..
        } = self;
        drop(progress);
        if let Err(error) = Record::remove(&cluster, &task).await {
            tracing::warn!(%error, task, "the record of the restore was left behind");
            return;
        }
        kill_point("restore.record_removed");
        // What is in the cluster went with the record.
        if let Store::Storage { .. } = store
            && let Err(error) = store.clear().await
        {
            tracing::warn!(%error, task, "the progress of the restore was left behind");
        }
    }
}

/// Refuses a restore of tables that another one has begun and not ended.
pub(super) async fn check_others(
    cluster: &Cluster,
    source: &Source,
    options: &RestoreOptions,
    plan: &RestorePlan,
) -> Result<(), RestoreError> {
    let mine = task_of(source, options);
    for (task, record) in read_all(cluster).await? {
        let is_other = task != mine;
        let shared = plan.tables.iter().find(|table| {
            let db = plan.databases.get(table.database);
            db.is_some_and(|db| record.scope.may_take(&db.name, &table.name))
        });
        if let (true, Some(shared)) = (is_other, shared) {
            return Err(unfinished(&record, options, source, plan.full_name(shared)));
        }
    }
    Ok(())
}

fn unfinished(
    record: &Record,
    options: &RestoreOptions,
    source: &Source,
    shared: String,
) -> RestoreError {
    let mut differences = Vec::new();
    if record.title != options.title() {
        differences.push(format!("command {}, not {}", record.title, options.title()));
    }
    if record.backup_sha256 != source.sha256 {
        let place = &record.backup_place;
        differences.push(format!("another backup, that at {place}"));
    }
    let (was, is) = (
        record.scope.parameters(),
        ScopeRecord::of(options).parameters(),
    );
    for (name, was) in &was {
        if let Some(is) = is.get(name)
            && is != was
        {
            differences.push(format!("{name} {was}, not {is}"));
        }
    }
    RestoreError::Unfinished {
        title: record.title.clone(),
        since: br_format::log::rfc3339(record.began_unix_ms),
        shared,
        differences: differences.join("; "),
    }
}

async fn write_ids(store: &Store, ids: &TableIdMap) -> Result<(), RestoreError> {
    let pairs = ids.pairs();
    for (number, part) in pairs.chunks(IDS_PER_VALUE).enumerate() {
        let value = serde_json::to_vec(part).unwrap_or_default();
        store
            .put(&format!("{IDS_FOLDER}{number:06}"), value)
            .await?;
    }
    Ok(())
}

async fn read_ids(store: &Store, record: &Record, task: &str) -> Result<TableIdMap, RestoreError> {
    let mut pairs: Vec<(i64, i64)> = Vec::new();
    for (_, value) in store.all(IDS_FOLDER).await? {
        let part: Vec<(i64, i64)> =
            serde_json::from_slice(&value).map_err(|error| RestoreError::BadRecord {
                task: task.to_owned(),
                problem: format!("its ids: {error}"),
            })?;
        pairs.extend(part);
    }
    Ok(TableIdMap::from_pairs(
        record.first_id..record.end_id,
        pairs,
    ))
}
