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
//! table of the restore that is seen is complete. A restore that changes tables which are there
//! already writes down all changes of schemas before it makes the first ([`journal`]). The record is found again by a digest of the
//! backup's `backupmeta` and of the options that say what is restored: with others it is another
//! restore, which is refused if both want one table.
//!
//! # After a crash
//! The same command goes on: with the same ids, without the groups that are done, without the tables
//! that are visible. `br abort restore` undoes it all.

mod abort;
mod journal;
mod progress;
mod record;
mod registration;
mod store;

use std::collections::BTreeMap;

use br_cluster::Cluster;
use br_rt::kill_point;

pub use self::{
    abort::{AbortedRestore, abort},
    progress::DoneSteps,
    record::{CASE_SENSITIVE, Origin},
};
pub(super) use self::{
    journal::Journal,
    record::{PausedInPd, RangeRecord, task_of},
    registration::{Claim, Registration},
};
use self::{
    record::{PointRecord, Record, ScopeRecord, read_all},
    store::Store,
};
use super::{
    changes::PointInTime, error::RestoreError, file_groups::GroupLimit, options::RestoreOptions,
    plan::RestorePlan, table_ids::TableIdMap,
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
    progress: DoneSteps,
    is_undone: bool,
}

/// What a restore takes in beyond tables of a backup.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    /// Keys without schemas.
    pub(super) range: Option<RangeRecord>,
    /// A log.
    pub(super) point: Option<PointInTime>,
}

/// The point of the interrupted restore with these options that begins there, if there is one.
///
/// # Errors
/// PD is out of reach, or what it keeps is damaged.
pub async fn interrupted_point(
    cluster: &Cluster,
    options: &RestoreOptions,
    origin: &Origin,
) -> Result<Option<PointInTime>, RestoreError> {
    if !options.use_resume {
        return Ok(None);
    }
    let record = read_all(cluster).await?.remove(&task_of(origin, options));
    Ok(record.and_then(|record| record.point.map(|point| point.point())))
}

/// What an earlier command wrote.
struct Found {
    record: Record,
    ids: TableIdMap,
}

impl Resume {
    /// Finds what an earlier command left. `point` is what this one restores to.
    pub(super) async fn open(
        cluster: &Cluster,
        options: &RestoreOptions,
        origin: &Origin,
        point: Option<PointInTime>,
    ) -> Result<Resume, RestoreError> {
        let cluster = cluster.clone();
        let task = task_of(origin, options);
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
                same_point(&record, point)?;
                let ids = read_ids(&store, &record, &task).await?;
                tracing::info!(
                    task,
                    began_unix_ms = record.began_unix_ms,
                    "an interrupted restore goes on"
                );
                Some(Found { record, ids })
            }
        };
        let progress = DoneSteps::open(cluster.rt(), store.clone()).await?;
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
    pub(super) fn progress(&self) -> &DoneSteps {
        &self.progress
    }

    /// Writes the record, before the first change that it has to undo.
    pub(super) async fn begin(
        &mut self,
        options: &RestoreOptions,
        origin: &Origin,
        plan: &RestorePlan,
        group: GroupLimit,
        what: Extent,
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
            backup_place: origin.place.clone(),
            backup_sha256: origin.digest.clone(),
            backup_ts: origin.ts.0,
            progress_place: options.progress_storage.as_ref().map(ToString::to_string),
            began_unix_ms: self.cluster.rt().wall().0,
            rule_id: self.cluster.rt().uuid().to_string(),
            group_size_bytes_max: group.size_bytes_max,
            group_keys_max: group.keys_max,
            first_id: owned.start,
            end_id: owned.end,
            paused: PausedInPd::default(),
            is_range_own: what.range.is_some() && options.check_requirements,
            range: what.range,
            point: what.point.map(PointRecord::of),
            is_on_base: plan.is_on_base(),
            keeps_placement: Some(options.keep_placement),
            with_system_tables: Some(options.with_system_tables),
            load_stats: Some(options.load_stats),
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
    origin: &Origin,
    options: &RestoreOptions,
    plan: &RestorePlan,
) -> Result<(), RestoreError> {
    let mine = task_of(origin, options);
    for (task, record) in read_all(cluster).await? {
        let is_other = task != mine;
        let shared = plan.tables.iter().find(|table| {
            let db = plan.databases.get(table.database);
            db.is_some_and(|db| record.scope.may_take(&db.name, &table.name))
        });
        if let (true, Some(shared)) = (is_other, shared) {
            return Err(unfinished(&record, options, origin, plan.full_name(shared)));
        }
    }
    Ok(())
}

fn unfinished(
    record: &Record,
    options: &RestoreOptions,
    origin: &Origin,
    shared: String,
) -> RestoreError {
    let mut differences = Vec::new();
    if record.title != options.title() {
        differences.push(format!("command {}, not {}", record.title, options.title()));
    }
    if record.backup_sha256 != origin.digest {
        let place = &record.backup_place;
        differences.push(format!("another backup, that at {place}"));
    }
    let (was, is) = (
        record.scope.parameters(),
        ScopeRecord::of(options).parameters(),
    );
    differences.extend(different(&was, &is));
    if let Some(was) = record.keeps_placement
        && was != options.keep_placement
    {
        let mode = |keeps| if keeps { "STRICT" } else { "IGNORE" };
        differences.push(format!(
            "--with-tidb-placement-mode {}, not {}",
            mode(was),
            mode(options.keep_placement)
        ));
    }
    for (flag, was, is) in [
        (
            "--with-sys-table",
            record.with_system_tables,
            options.with_system_tables,
        ),
        ("--load-stats", record.load_stats, options.load_stats),
    ] {
        if let Some(was) = was.filter(|was| *was != is) {
            differences.push(format!("{flag}={was}, not {is}"));
        }
    }
    RestoreError::Unfinished {
        title: record.title.clone(),
        since: br_format::log::rfc3339(record.began_unix_ms),
        shared,
        differences: differences.join("; "),
    }
}

/// Options that both have and that differ.
fn different(
    was: &BTreeMap<&'static str, String>,
    is: &BTreeMap<&'static str, String>,
) -> Vec<String> {
    let both = was.iter().filter_map(|(name, was)| {
        let is = is.get(name)?;
        (is != was).then(|| format!("{name} {was}, not {is}"))
    });
    both.collect()
}

/// Refuses to go on to another point.
fn same_point(record: &Record, point: Option<PointInTime>) -> Result<(), RestoreError> {
    let parameters = |point: &Option<PointRecord>| {
        point
            .as_ref()
            .map(PointRecord::parameters)
            .unwrap_or_default()
    };
    let is = parameters(&point.map(PointRecord::of));
    let differences = different(&parameters(&record.point), &is);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RestoreError::OtherOptions {
        title: record.title.clone(),
        since: br_format::log::rfc3339(record.began_unix_ms),
        differences: differences.join("; "),
    })
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
