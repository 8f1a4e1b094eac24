//! One restore, from beginning to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use br_codec::ApiVersion;
use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_format::backupmeta::{BackupHead, Compatibility, Content};
use br_format::crypter::Crypter;
use br_format::kv_stats::KvStats;
use br_inspect::verify::{BackupLooked, Sample};
use br_log::restore::{PointOptions, PointTarget};
use br_rt::{CancellationToken, Progress, Rt};
use br_snapshot::restore::{RestoreOptions, RestorePlan, RestoreTarget, Scope};
use br_storage::{Backend, Storage};
use br_tidb::filter::TableFilter;
use br_types::{Cf, KeyRange, TimeStamp};

use crate::clock::{PhaseClock, PhaseTime};
use crate::scratch::Scratch;
use crate::site::Site;
use crate::{DrillError, compare};

/// How ingested files are compressed: as `br restore point` has it.
const SST: SstOptions = SstOptions {
    compression: SstCompression::Lz4,
    level: 0,
};

/// Something on external storage, opened, and as stores open it.
#[derive(Clone)]
pub struct Place {
    /// Opened.
    pub storage: Storage,
    /// Where it is.
    pub backend: Backend,
}

/// What is restored.
#[derive(Clone)]
pub struct Sources {
    /// What an incremental backup goes on from: the full backup and those between, in their order.
    pub bases: Vec<Place>,
    /// The backup.
    pub backup: Place,
    /// The log on top of it.
    pub log: Option<Place>,
}

/// How it is restored.
#[derive(Clone, Debug)]
pub struct RehearsalOptions {
    /// How the backup is encrypted.
    pub crypter: Crypter,
    /// How the log is encrypted.
    pub log_crypter: Crypter,
    /// What to do about fields of newer tools.
    pub compatibility: Compatibility,
    /// The point; `None`: the end of the log, or the backup's own timestamp.
    pub at: Option<TimeStamp>,
    /// Which tables; at least one is taken.
    pub sample: Sample,
    /// Where the cluster of the rehearsal lies, in a folder of its own.
    pub temp_dir: PathBuf,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Rows and entries of indexes.
    AllKeys,
    /// Rows.
    Rows,
    /// The keys of an index.
    IndexKeys,
}

/// A table, or all keys of a backup without tables, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The table, with the index if it is one; `(all keys)` if there are no tables.
    pub name: String,
    /// What was compared.
    pub what: What,
    /// What it should have.
    pub expected: KvStats,
    /// What it has.
    pub found: KvStats,
}

impl Compared {
    /// Whether they are the same.
    pub fn is_same(&self) -> bool {
        self.expected == self.found
    }
}

/// A restore that was rehearsed.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The point in time; none for raw keys.
    pub at: Option<TimeStamp>,
    /// Starting the cluster.
    pub start_took: Duration,
    /// The restore itself: what a recovery would take.
    pub restore_took: Duration,
    /// Its phases; some run side by side.
    pub phases: Vec<PhaseTime>,
    /// Summing and comparing.
    pub compare_took: Duration,
    /// Bytes of the backup's files that were restored, as they are stored.
    pub stored_bytes: u64,
    /// Bytes of keys and values in them.
    pub kv_bytes: u64,
    /// Bytes of the log's records that were read.
    pub log_bytes: u64,
    /// The log's records that were read.
    pub log_records: u64,
    /// Tables before and after.
    pub compared: Vec<Compared>,
    /// Tables that the sample left out.
    pub not_restored: Vec<String>,
    /// Tables of TiDB's own databases, which a restore leaves behind.
    pub system_tables: usize,
    /// Indexes that the log does not have: they would be added again.
    pub left_out_indexes: Vec<String>,
}

impl Rehearsal {
    /// What came out different.
    pub fn differences(&self) -> impl Iterator<Item = &Compared> {
        self.compared.iter().filter(|one| !one.is_same())
    }

    /// Bytes that were restored a second.
    pub fn bytes_per_second(&self) -> f64 {
        let bytes = self.kv_bytes.saturating_add(self.log_bytes);
        let seconds = self.restore_took.as_secs_f64();
        if seconds > 0.0 {
            bytes as f64 / seconds
        } else {
            0.0
        }
    }
}

/// A rehearsal under way.
pub(crate) struct Work<'a> {
    pub(crate) rt: &'a Rt,
    pub(crate) sources: &'a Sources,
    pub(crate) options: &'a RehearsalOptions,
    pub(crate) looked: &'a BackupLooked,
    pub(crate) head: &'a BackupHead,
    pub(crate) progress: &'a Arc<dyn Progress>,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) scratch: &'a Scratch,
    pub(crate) site: &'a Site,
}

/// What a restore came to.
struct Restored {
    plan: RestorePlan,
    at: Option<TimeStamp>,
    log_bytes: u64,
    log_records: u64,
    left_out_indexes: Vec<String>,
}

/// Restores into a cluster of its own, and compares. `looked` is what a look at the backup's objects
/// came to, see [`br_inspect::verify`].
///
/// # Errors
/// [`DrillError`]: the restore failed, or could not be tried.
pub async fn rehearse(
    rt: &Rt,
    sources: &Sources,
    looked: &BackupLooked,
    options: &RehearsalOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Rehearsal, DrillError> {
    let Some(head) = &looked.head else {
        return Err(DrillError::NoBackup);
    };
    if head.is_incremental() && sources.bases.is_empty() {
        return Err(DrillError::Incremental {
            last_backup_ts: head.last_backup_ts,
        });
    }
    if !head.is_incremental() && !sources.bases.is_empty() {
        return Err(DrillError::NotIncremental);
    }
    let scratch = Scratch::create(rt, &options.temp_dir)?;
    let api_version = match head.content {
        Content::Raw(_) => ApiVersion::from_number(head.api_version as i32),
        Content::Tables | Content::Txn => None,
    };
    let api_version = api_version.unwrap_or(ApiVersion::V1);
    let started = rt.now();
    let site = Box::pin(Site::start(
        rt,
        scratch.folder("cluster")?,
        api_version,
        cancel,
    ))
    .await?;
    let start_took = rt.now().since(started);
    let work = Work {
        rt,
        sources,
        options,
        looked,
        head,
        progress,
        cancel,
        scratch: &scratch,
        site: &site,
    };
    let outcome = Box::pin(work.run(start_took)).await;
    site.stop().await;
    outcome
}

impl Work<'_> {
    async fn run(&self, start_took: Duration) -> Result<Rehearsal, DrillError> {
        let clock = PhaseClock::new(self.rt, self.progress);
        let progress: Arc<dyn Progress> = clock.clone();
        let started = self.rt.now();
        for base in &self.sources.bases {
            let target = self.target(base, &progress);
            let options = self.restore_options(everything());
            Box::pin(br_snapshot::restore::restore(&target, &options)).await?;
        }
        let target = self.target(&self.sources.backup, &progress);
        let (scope, not_restored) = self.scope(&target).await?;
        let restored = self.restore(target, scope).await?;
        let restore_took = self.rt.now().since(started);
        let compared = compare::compare(self, &restored.plan, restored.at).await?;
        let compare_took = self.rt.now().since(started) - restore_took;
        Ok(Rehearsal {
            at: restored.at,
            start_took,
            restore_took,
            phases: clock.phases(),
            compare_took,
            stored_bytes: restored.plan.files.stored_bytes,
            kv_bytes: restored.plan.files.kv_bytes,
            log_bytes: restored.log_bytes,
            log_records: restored.log_records,
            compared,
            not_restored,
            system_tables: restored.plan.system_tables_left_out,
            left_out_indexes: restored.left_out_indexes,
        })
    }

    fn target(&self, place: &Place, progress: &Arc<dyn Progress>) -> RestoreTarget {
        RestoreTarget {
            cluster: self.site.cluster.clone(),
            storage: place.storage.clone(),
            backend: place.backend.clone(),
            progress: progress.clone(),
        }
    }

    /// What is restored, and the tables that the sample leaves out.
    async fn scope(&self, target: &RestoreTarget) -> Result<(Scope, Vec<String>), DrillError> {
        match &self.head.content {
            Content::Txn => return Ok((Scope::Txn, Vec::new())),
            Content::Raw(ranges) => {
                let scope = Scope::Raw {
                    range: KeyRange::default(),
                    cf: ranges.first().map_or(Cf::Default, |range| range.cf),
                };
                return Ok((scope, Vec::new()));
            }
            Content::Tables => {}
        }
        let sample = self.options.sample;
        if sample.is_all() {
            return Ok((everything(), Vec::new()));
        }
        let options = self.restore_options(everything());
        let plan = br_snapshot::restore::plan(target, &options).await?;
        let mut taken = Vec::new();
        let mut left = Vec::new();
        for table in &plan.tables {
            let name = plan.full_name(table);
            let db = plan.databases.get(table.database);
            let db = db.map_or("", |db| db.name.as_str());
            match sample.takes(&name) {
                true => taken.push(rule(db, &table.name)),
                false => left.push((name, rule(db, &table.name))),
            }
        }
        if taken.is_empty() && !left.is_empty() {
            let at = usize::try_from(sample.seed()).unwrap_or(0) % left.len();
            taken.push(left.swap_remove(at).1);
        }
        let mut no_files = |path: &str| Err(format!("no file {path}"));
        let filter = TableFilter::parse(&taken, true, &mut no_files)?;
        let scope = Scope::Full {
            filter,
            is_explicit: true,
        };
        let mut left: Vec<_> = left.into_iter().map(|(name, _)| name).collect();
        left.sort_unstable();
        Ok((scope, left))
    }

    fn restore_options(&self, scope: Scope) -> RestoreOptions {
        let options = self.options;
        RestoreOptions {
            crypter: options.crypter.clone(),
            compatibility: options.compatibility,
            // The cluster is not the one that it was: its version and placement are none.
            check_requirements: false,
            keep_placement: false,
            checksum: matches!(scope, Scope::Full { .. }) && self.sources.log.is_none(),
            ..RestoreOptions::new(scope)
        }
    }

    async fn restore(&self, target: RestoreTarget, scope: Scope) -> Result<Restored, DrillError> {
        let options = self.restore_options(scope);
        let at = self.options.at;
        let is_point = at.is_none_or(|at| at > self.head.backup_ts);
        let Some(log) = self.sources.log.as_ref().filter(|_| is_point) else {
            let done = Box::pin(br_snapshot::restore::restore(&target, &options)).await?;
            let backup_ts = self.head.backup_ts;
            return Ok(Restored {
                plan: done.plan,
                at: (!backup_ts.is_zero()).then_some(backup_ts),
                log_bytes: 0,
                log_records: 0,
                left_out_indexes: Vec::new(),
            });
        };
        let point = PointTarget {
            cluster: target.cluster.clone(),
            progress: target.progress.clone(),
            full: Some(target),
            log: log.storage.clone(),
            log_backend: log.backend.clone(),
            ssts: Arc::new(RocksSstFiles::new(SST)),
        };
        let options = PointOptions {
            restored_ts: at,
            log_crypter: self.options.log_crypter.clone(),
            temp_dir: self.scratch.folder("sort")?,
            leaves_no_trace: true,
            ..PointOptions::new(options)
        };
        let done = Box::pin(br_log::restore::restore(&point, &options)).await?;
        let left_out = done.plan.left_out.iter();
        Ok(Restored {
            at: Some(done.plan.restored_ts),
            log_bytes: done.load.bytes,
            log_records: done.load.records,
            left_out_indexes: left_out
                .map(|index| format!("{} of {}", index.index, index.table))
                .collect(),
            plan: done.plan.tables,
        })
    }
}

fn everything() -> Scope {
    Scope::Full {
        filter: TableFilter::all(),
        is_explicit: true,
    }
}

/// A filter rule that takes exactly that table.
fn rule(db: &str, table: &str) -> String {
    let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
    format!("{}.{}", quoted(db), quoted(table))
}
