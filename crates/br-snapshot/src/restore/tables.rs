//! # What it does
//! Restores tables: `restore full`, `db` and `table`.
//!
//! # Ordering and invariants
//! Checks, then ids are reserved, then data goes in under those ids while PD holds still, then
//! checksums, and at the very end the schemas that make the tables visible. So a table that can be
//! seen is complete.
//!
//! # Cancellation and failure
//! What was paused is let go; no table is visible. Data under the reserved ids stays for the same
//! command to go on with ([`super::resume`]); it is deleted if the error would come again, or if the
//! restore cannot be resumed. Tables that an incremental backup goes on with may have some of its
//! changes; the same restore again completes them.
//!
//! # After a crash
//! No table is visible; data stays under ids that no table has, the pauses end by themselves.

use br_cluster::{Cluster, GcKeeper, GcProtection, GcScope};
use br_format::backupmeta::DataFile;
use br_rt::{Phase, Unit, kill_point};
use br_tidb::table_key;
use br_types::{Classify, KeyRange, Kind, StoreId, TableId};
use futures::{StreamExt, TryStreamExt};

use super::{
    RestoreSummary, RestoreTarget,
    changes::Changes,
    checks, cleanup,
    error::RestoreError,
    file_groups::PrefixRule,
    incremental,
    key_form::FileKeys,
    options::{RestoreOptions, Scope},
    pause::{Pause, PauseScope},
    pipeline::{self, Pipeline, StoreLimits},
    plan::{self, RestorePlan},
    resume::{self, Claim, DoneSteps, Extent, Journal, Origin, Registration, Resume, task_of},
    schemas,
    source::Source,
    system, tidb_servers,
};
use crate::checksum::{ChecksumRange, PrefixRewrite, checksum};

/// The step after which changes come on top of the backup, whose sums are not compared any more.
const COMPARED: &str = "backup-compared";
/// Tasks of log backups in etcd.
const LOG_TASKS: &[u8] = b"/tidb/br-stream/info/";

/// Reads the backup and the cluster, and decides.
///
/// # Errors
/// The backup cannot be restored here.
pub(super) async fn plan<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
) -> Result<(RestorePlan, Source), C::Error> {
    let source = Source::open(target.storage.clone(), options).await?;
    let plan = plan_of(target, options, &source, changes, None).await?;
    Ok((plan, source))
}

async fn plan_of<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    source: &Source,
    changes: &C,
    resume: Option<&Resume>,
) -> Result<RestorePlan, C::Error> {
    let mut plan = plan::select(source, changes, options).await?;
    let wants = |file: &DataFile| changes.wants(file);
    check(target, options, source, &mut plan, wants, resume).await?;
    Ok(plan)
}

/// Compares the plan with the cluster, and completes it.
async fn check(
    target: &RestoreTarget,
    options: &RestoreOptions,
    source: &Source,
    plan: &mut RestorePlan,
    wants: impl Fn(&DataFile) -> bool,
    resume: Option<&Resume>,
) -> Result<(), RestoreError> {
    let cluster = &target.cluster;
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    system::match_target(&snapshot, plan).await?;
    plan::add_up_files(source, wants, plan).await?;
    check_cluster(cluster, options).await?;
    checks::stores_can_read(target).await?;
    let is_incremental = !plan.last_backup_ts.is_zero();
    resume::check_others(cluster, &Origin::of(source), options, plan).await?;
    let ids = resume.and_then(Resume::ids);
    if restores_all(options) && !is_incremental && ids.is_none() {
        checks::is_fresh(&snapshot).await?;
    }
    checks::collation_fits(&snapshot, source.meta.head.new_collations_enabled).await?;
    match is_incremental {
        true => incremental::match_base(source, &snapshot, plan).await?,
        false => checks::find_existing(&snapshot, plan, ids).await?,
    }
    if let Some(ids) = ids {
        // Part of it may be there, and was found to fit when it began.
        plan.ids.clone_from(ids);
        return Ok(());
    }
    checks::has_space(target, plan.files.stored_bytes).await?;
    plan.assign_ids(br_catalog::last_id(&snapshot).await?);
    Ok(())
}

/// What every restore of tables needs of the cluster.
async fn check_cluster(cluster: &Cluster, options: &RestoreOptions) -> Result<(), RestoreError> {
    if options.check_requirements {
        for store in cluster.pd().live_stores().await? {
            crate::versions::check_store(StoreId(store.id), &store.version).map_err(|error| {
                RestoreError::Version {
                    what: error.to_string(),
                }
            })?;
        }
    }
    let tasks = cluster.etcd().get_prefix(LOG_TASKS).await?;
    if let Some(task) = tasks.kvs.first() {
        let name = task.key.strip_prefix(LOG_TASKS).unwrap_or_default();
        return Err(RestoreError::LogTask {
            task: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(())
}

/// Restores.
///
/// # Errors
/// [`RestoreError`]; no table of the backup is visible then, unless creating them in several
/// transactions broke off.
pub(super) async fn restore<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
) -> Result<RestoreSummary, C::Error> {
    let source = Source::open(target.storage.clone(), options).await?;
    let task = task_of(&Origin::of(&source), options);
    let work = restore_registered(target, options, &source, changes);
    Registration::with(&target.cluster, claim(options, &task), work).await
}

fn claim<'a>(options: &RestoreOptions, task: &'a str) -> Claim<'a> {
    Claim {
        title: options.title(),
        task,
        is_whole: restores_all(options) && !options.online,
    }
}

async fn restore_registered<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    source: &Source,
    changes: &C,
) -> Result<RestoreSummary, C::Error> {
    let origin = Origin::of(source);
    let mut resume = None;
    if options.use_resume {
        let found = Resume::open(&target.cluster, options, &origin, changes.point()).await?;
        let finish = async |layer: &[u8]| changes.finish(layer).await;
        match complete(&target.cluster, found, finish).await? {
            Completed::Yes(summary) => return Ok(*summary),
            Completed::No(found) => resume = Some(*found),
        }
    }
    let plan = plan_of(target, options, source, changes, resume.as_ref()).await?;
    kill_point("restore.planned");
    let work = Restore {
        target,
        options,
        source: Some(source),
        origin: &origin,
        changes,
    };
    work.run(plan, resume).await
}

/// Whether an interrupted restore could be completed with its schemas.
enum Completed {
    Yes(Box<RestoreSummary>),
    No(Box<Resume>),
}

async fn complete(
    cluster: &Cluster,
    resume: Resume,
    finish: impl AsyncFnOnce(&[u8]),
) -> Result<Completed, RestoreError> {
    let journal = match resume.is_found() {
        true => Journal::read(resume.progress()).await?,
        false => None,
    };
    let Some(journal) = journal else {
        return Ok(Completed::No(Box::new(resume)));
    };
    journal.carry_out(cluster).await?;
    finish(journal.layer()).await;
    kill_point("restore.finished");
    resume.remove().await;
    Ok(Completed::Yes(Box::new(RestoreSummary {
        resumed_tables: journal.tables(),
        ..RestoreSummary::default()
    })))
}

/// Completes an interrupted restore whose data is in.
///
/// # Errors
/// [`RestoreError`].
pub(super) async fn complete_interrupted(
    cluster: &Cluster,
    options: &RestoreOptions,
    origin: &Origin,
    finish: impl AsyncFnOnce(&[u8]),
) -> Result<Option<RestoreSummary>, RestoreError> {
    let Some(point) = resume::interrupted_point(cluster, options, origin).await? else {
        return Ok(None);
    };
    let task = task_of(origin, options);
    let work = async {
        let found = Resume::open(cluster, options, origin, Some(point)).await?;
        match complete(cluster, found, finish).await? {
            Completed::Yes(summary) => Ok(Some(*summary)),
            Completed::No(_) => Ok(None),
        }
    };
    Registration::with(cluster, claim(options, &task), work).await
}

/// Restores what changed since an earlier restore, as a plan says whose ids are not assigned yet.
///
/// # Errors
/// As [`restore`]; tables that go on may have some of the changes.
pub(super) async fn restore_changes<C: Changes>(
    target: &RestoreTarget,
    options: &RestoreOptions,
    changes: &C,
    mut plan: RestorePlan,
    origin: &Origin,
) -> Result<RestoreSummary, C::Error> {
    let cluster = &target.cluster;
    let task = task_of(origin, options);
    let work = async {
        check_cluster(cluster, options).await?;
        checks::stores_can_read(target).await?;
        resume::check_others(cluster, origin, options, &plan).await?;
        let resume = match options.use_resume {
            true => Some(Resume::open(cluster, options, origin, changes.point()).await?),
            false => None,
        };
        if let Some(ids) = resume.as_ref().and_then(Resume::ids) {
            plan.ids.clone_from(ids);
        }
        let work = Restore {
            target,
            options,
            source: None,
            origin,
            changes,
        };
        work.run(plan, resume).await
    };
    Registration::with(cluster, claim(options, &task), work).await
}

/// A restore of tables that is planned.
struct Restore<'a, C> {
    target: &'a RestoreTarget,
    options: &'a RestoreOptions,
    source: Option<&'a Source>,
    origin: &'a Origin,
    changes: &'a C,
}

impl<C: Changes> Restore<'_, C> {
    async fn run(
        &self,
        plan: RestorePlan,
        mut resume: Option<Resume>,
    ) -> Result<RestoreSummary, C::Error> {
        let outcome = self.carry_out(plan, resume.as_mut()).await;
        match (resume, &outcome) {
            (None, _) => {}
            (Some(resume), Ok(_)) => resume.remove().await,
            (Some(resume), Err(_)) => resume.leave().await,
        }
        outcome
    }

    async fn carry_out(
        &self,
        mut plan: RestorePlan,
        resume: Option<&mut Resume>,
    ) -> Result<RestoreSummary, C::Error> {
        let cluster = &self.target.cluster;
        let now = cluster.pd().tso().await.map_err(RestoreError::from)?;
        let id = format!("br-restore-{}", cluster.rt().uuid());
        let protection = GcProtection {
            scope: GcScope::Cluster,
            id,
            ts: now,
            // Versions for the checksum, as long as everything else is paused.
            ttl: self.options.pause_lease,
        };
        let keeper = GcKeeper::start(cluster.pd(), protection).await;
        let keeper = keeper.map_err(RestoreError::from)?;
        kill_point("restore.protected");
        let outcome = self.reserve_and_restore(&mut plan, resume).await;
        if let Err(error) = keeper.close().await {
            tracing::warn!(%error, "the barrier of garbage collection ends by itself");
        }
        outcome
    }

    async fn reserve_and_restore(
        &self,
        plan: &mut RestorePlan,
        mut resume: Option<&mut Resume>,
    ) -> Result<RestoreSummary, C::Error> {
        let Restore {
            target,
            options,
            source,
            changes,
            ..
        } = *self;
        let cluster = &target.cluster;
        // Reads of data that is newer than every timestamp PD gives out would not see it.
        let reset = cluster.http().reset_ts(plan.backup_ts).await;
        reset.map_err(RestoreError::from)?;
        kill_point("restore.ts_reset");
        if resume.as_ref().is_none_or(|resume| !resume.is_found()) {
            reserve_ids(target, plan).await?;
            kill_point("restore.ids_reserved");
        }
        let mut limits = pipeline::store_limits(cluster, options).await?;
        if let Some(resume) = resume.as_deref_mut() {
            limits.group = resume.group_limit().unwrap_or(limits.group);
            let what = Extent {
                range: None,
                point: changes.point(),
            };
            resume
                .begin(options, self.origin, plan, limits.group, what)
                .await?;
        }
        let mut summary = RestoreSummary {
            resumed_tables: plan.created.len(),
            ..RestoreSummary::default()
        };
        // Looks at the cancellation by itself: dropped half-way, it would leave the pause to its
        // lease.
        let work = Work {
            target,
            options,
            source,
            changes,
            plan,
            limits,
        };
        let outcome = work.bring_in(resume.as_deref_mut(), &mut summary).await;
        if let Err(error) = outcome {
            // Another attempt would end the same way; or there is none that could go on.
            let is_final = matches!(error.kind(), Kind::Data | Kind::Invalid | Kind::Internal);
            if plan.created.is_empty() && (is_final || resume.is_none()) {
                cleanup::delete_owned(cluster, &plan.ids).await;
                if let Some(resume) = resume {
                    resume.set_undone();
                }
            }
            return Err(error);
        }
        kill_point("restore.data");
        self.make_visible(plan, resume.as_deref(), &mut summary)
            .await?;
        summary.plan = std::mem::take(plan);
        Ok(summary)
    }

    /// Creates and changes schemas. From here on tables become visible: an error no longer means
    /// that none of them is.
    async fn make_visible(
        &self,
        plan: &RestorePlan,
        resume: Option<&Resume>,
        summary: &mut RestoreSummary,
    ) -> Result<(), C::Error> {
        let Restore {
            target,
            options,
            source,
            changes,
            ..
        } = *self;
        let layer = changes.layer(plan);
        let done = resume.map(Resume::progress);
        let taken = system::take_over(target, plan, done).await?;
        summary.system_rows = taken.written + taken.unchanged;
        match resume.filter(|_| plan.is_on_base()) {
            Some(resume) => {
                let mut all = Vec::new();
                schemas::each(target, source, changes, options, plan, async |change| {
                    all.push(change);
                    Ok(())
                })
                .await?;
                let mut gone = plan.abandoned_ids();
                gone.extend(system::ids(plan));
                let journal = Journal::new(&all, &gone, layer.clone());
                journal.write(resume.progress()).await?;
                journal.carry_out(&target.cluster).await?;
            }
            None => {
                schemas::create(target, source, changes, options, plan).await?;
                kill_point("restore.schemas");
                cleanup::delete_abandoned(&target.cluster, &plan.abandoned_ids()).await;
            }
        }
        let is_resumed = !plan.created.is_empty();
        let statistics = system::take_over_statistics(target, plan, done, is_resumed).await;
        summary.tables_with_statistics = match statistics {
            Ok(known) => known,
            Err(error) if matches!(error.kind(), Kind::Retry | Kind::Cancelled) => {
                return Err(error.into());
            }
            // They can be made anew, and the tables are there.
            Err(error) => {
                tracing::warn!(%error, "statistics are missing: run ANALYZE TABLE");
                0
            }
        };
        system::forget(target, plan).await;
        tidb_servers::wait_until_loaded(&target.cluster).await;
        changes.finish(&layer).await;
        kill_point("restore.finished");
        Ok(())
    }
}

/// Takes the planned ids; plans anew if somebody else took some since.
async fn reserve_ids(target: &RestoreTarget, plan: &mut RestorePlan) -> Result<(), RestoreError> {
    /// Others create a table now and then, not all the time.
    const ATTEMPTS_MAX: usize = 5;
    let cluster = &target.cluster;
    let mut last_error = None;
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = cluster.snapshot(cluster.pd().tso().await?);
        let last_used = br_catalog::last_id(&snapshot).await?;
        plan.assign_ids(last_used);
        match br_catalog::raise_last_id(cluster, last_used, plan.ids.last()).await {
            Ok(()) => return Ok(()),
            Err(error @ br_catalog::CatalogError::Exists { .. }) => last_error = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last_error.map_or(RestoreError::Cancelled, RestoreError::from))
}

/// Bringing in data, once ids are reserved.
struct Work<'a, C> {
    target: &'a RestoreTarget,
    options: &'a RestoreOptions,
    source: Option<&'a Source>,
    changes: &'a C,
    plan: &'a RestorePlan,
    limits: StoreLimits,
}

impl<C: Changes> Work<'_, C> {
    /// Brings all data in, while PD and the stores hold still.
    async fn bring_in(
        &self,
        resume: Option<&mut Resume>,
        summary: &mut RestoreSummary,
    ) -> Result<(), C::Error> {
        let Work {
            target,
            options,
            plan,
            changes,
            ..
        } = *self;
        if plan.files.files == 0 && changes.point().is_none() {
            return Ok(());
        }
        let cluster = &target.cluster;
        let earlier = resume.as_ref().and_then(|resume| resume.paused_before());
        let pause = Pause::start(
            cluster.rt().clone(),
            cluster.pd(),
            cluster.http(),
            cluster.stores(),
            pause_scope(options, plan),
            options,
            earlier,
        )
        .await?;
        let work = async {
            let mut resume = resume;
            if let Some(resume) = &mut resume {
                resume.note_paused(pause.paused_in_pd()).await?;
            }
            let progress = resume.as_ref().map(|resume| resume.progress());
            self.bring_in_files(progress, summary).await?;
            kill_point("restore.files");
            // With changes on top of it, a table has other sums than in the backup.
            let may_be_changed = progress.is_some_and(|progress| {
                changes.point().is_some() && !progress.missing(COMPARED, 1, "").contains(&true)
            });
            // An incremental backup has sums of what changed only.
            if options.checksum && plan.last_backup_ts.is_zero() && !may_be_changed {
                compare_checksums(target, options, plan, summary).await?;
            }
            if let Some(progress) = progress.filter(|_| changes.point().is_some()) {
                progress.mark(COMPARED, 0);
                progress.flush().await?;
            }
            kill_point("restore.compared");
            changes.bring_in(plan, progress).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            () = cluster.cancel().cancelled() => Err(RestoreError::Cancelled.into()),
        };
        pause.undo().await;
        outcome
    }

    /// Brings in the data files of the backup.
    async fn bring_in_files(
        &self,
        progress: Option<&DoneSteps>,
        summary: &mut RestoreSummary,
    ) -> Result<(), RestoreError> {
        let Work {
            target,
            options,
            plan,
            changes,
            limits,
            ..
        } = *self;
        let Some(source) = self.source.filter(|_| plan.files.files > 0) else {
            return Ok(());
        };
        let keys = FileKeys::TABLES;
        let pipeline = Pipeline::new(target, options, keys, limits, plan.files.files)?;
        let places = plan.by_physical_id();
        let mut object = 0;
        source
            .data_files(async |mut files| {
                let id_of = |file: &DataFile| table_key::table_id(file.range.start.as_bytes());
                files.retain(|file| {
                    changes.wants(file) && id_of(file).is_some_and(|id| plan.takes(&places, id))
                });
                let rule_of = |file: &DataFile| {
                    let old = id_of(file)?;
                    let new = plan.ids.get(old)?;
                    (old != new).then(|| PrefixRule::of_table(old, new))
                };
                let done = progress.map(|progress| (object, progress));
                object += 1;
                pipeline.bring_in(files, rule_of, done, summary).await
            })
            .await
    }
}

/// Whether everything is restored: it wants a fresh cluster, and all of it.
fn restores_all(options: &RestoreOptions) -> bool {
    matches!(
        options.scope,
        Scope::Full {
            is_explicit: false,
            ..
        }
    )
}

/// A restore of everything keeps the whole cluster still; of parts, only their key range.
fn pause_scope(options: &RestoreOptions, plan: &RestorePlan) -> PauseScope {
    if options.online {
        return PauseScope::Nothing;
    }
    if restores_all(options) {
        return PauseScope::Cluster;
    }
    let owned = plan.ids.owned();
    let owned = KeyRange {
        start: table_key::table_prefix(TableId(owned.start)),
        end: table_key::table_prefix(TableId(owned.end)),
    };
    let existing = plan
        .tables
        .iter()
        .filter_map(|table| table.existing.as_ref());
    let existing = existing
        .flat_map(|table| &table.all_ids)
        .map(|id| table_key::table_range(*id));
    let ranges = std::iter::once(owned)
        .filter(|range| !range.is_empty())
        .chain(existing);
    PauseScope::Ranges(
        ranges
            .map(|range| FileKeys::TABLES.form.encode_range(&range))
            .collect(),
    )
}

/// Compares what the stores compute over the new keys with the sums of the files.
async fn compare_checksums(
    target: &RestoreTarget,
    options: &RestoreOptions,
    plan: &RestorePlan,
    summary: &mut RestoreSummary,
) -> Result<(), RestoreError> {
    let tables = plan.tables.iter().filter(|table| table.has_rows);
    let tables = tables.map(|table| {
        let name = plan.full_name(table);
        (name, table.old_physical_ids.clone(), table.sums)
    });
    let system = plan.system.iter();
    let system = system.map(|table| (table.full_name(), vec![table.old_id], table.sums));
    let tables: Vec<_> = tables.chain(system).collect();
    let phase = Phase::start(
        &target.progress,
        "Restore Pipeline",
        Unit::Tables,
        tables.len() as u64,
    );
    let ts = target.cluster.pd().tso().await?;
    let phase = &phase;
    let compared = futures::stream::iter(tables)
        .map(|(table, ids, expected)| async move {
            let ranges: Vec<_> = ids
                .iter()
                .filter_map(|old| Some(checksum_range(*old, plan.ids.get(*old)?)))
                .collect();
            let found =
                checksum(&target.cluster, &ranges, ts, options.checksum_concurrency).await?;
            phase.advance(1, found.total_bytes);
            if found == expected {
                kill_point("restore.checksum");
                return Ok(());
            }
            Err(RestoreError::Checksum {
                table,
                found: format!("{found:?}"),
                expected: format!("{expected:?}"),
            })
        })
        .buffer_unordered(options.table_concurrency.max(1))
        .try_fold(0, |count, ()| async move { Ok(count + 1) })
        .await?;
    summary.checked_tables = compared;
    Ok(())
}

/// All keys of a table or partition, counted as if they had the id that they have in the backup.
fn checksum_range(old: TableId, new: TableId) -> ChecksumRange {
    let rewrite = (old != new).then(|| PrefixRewrite {
        old: table_key::table_prefix(old),
        new: table_key::table_prefix(new),
    });
    ChecksumRange {
        range: table_key::table_range(new),
        rewrite,
    }
}
