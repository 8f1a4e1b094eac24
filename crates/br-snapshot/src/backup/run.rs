//! # What it does
//! Runs a backup from its checks to `backupmeta`.
//!
//! # Objects it reads and writes
//! On the external storage: `backup.lock` first, data files (by the stores), meta files, and
//! `backupmeta` last. In PD one service safe point `br-<uuid>`, which is taken back at the end.
//!
//! # Ordering and invariants
//! Versions and stores, the lock of the target, the timestamp, its protection from GC, the plan, the
//! claim of the target, data, DDL jobs, checksums and schemas, `backupmeta`. Nothing but the lock is
//! written before the plan stands, and a backup exists exactly when its `backupmeta` does.
//!
//! # Retries
//! Each part by its own policy; the whole is not repeated.
//!
//! # Cancellation
//! Streams are dropped, no `backupmeta` is written. Files that were written stay, and so does the
//! protection until `gc_ttl` is over: the same command goes on ([`super::resume`]). Without
//! `use_resume` the protection is taken back.
//!
//! # After a crash
//! The same, less what was not written down yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use br_cluster::{GcKeeper, GcProtection, GcScope, PdError};
use br_codec::key;
use br_format::{
    names,
    resume::{ConfigHash, ResumeMeta},
};
use br_proto::{backup::StorageBackend, kvrpcpb::ApiVersion, metapb};
use br_rt::{Monotonic, kill_point};
use br_storage::{SEALED_FORM, SendCredentials};
use br_types::{Classify, EncodedKey, KeyRange, Kind, RawKey, StoreId, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    BackupContext, BackupError, BackupOptions, BackupPlan, BackupSummary, PlannedContent, Scope,
    cluster_stores::ClusterStores,
    raw_keys,
    resume::{self, Resume, TargetLock},
    selection::Selection,
    tables,
    target::{self, TargetError},
    timestamp,
    work::Work,
};
use crate::{schema::Schemas, versions};

/// With more ranges than this PD is not asked for the regions of each; progress counts ranges then.
const RANGES_COUNTED_MAX: usize = 1_000;
/// Ranges whose regions PD counts at a time.
const COUNTS_AT_A_TIME: usize = 16;

/// Plans a backup and changes nothing: for `--dry-run`.
///
/// # Errors
/// [`BackupError`]: whatever would keep the backup from its start.
pub async fn plan(
    context: &BackupContext,
    options: &BackupOptions,
) -> Result<BackupPlan, BackupError> {
    let mut run = Run::prepare(context, options).await?;
    run.find_interrupted().await?;
    let backup_ts = run.choose_time().await?;
    cancellable(context, Box::pin(run.plan(backup_ts))).await
}

/// Backs up, or goes on with an interrupted backup. When it returns without an error, the backup is
/// complete on the external storage.
///
/// # Errors
/// [`BackupError`]; there is no `backupmeta` then. Nothing is left changed in the cluster but the GC
/// protection of a backup that can be resumed.
pub async fn run(
    context: &BackupContext,
    options: &BackupOptions,
) -> Result<BackupSummary, BackupError> {
    let prepared = Run::prepare(context, options).await;
    if let Err(BackupError::Target(TargetError::HasBackup { .. })) = prepared {
        finish_interrupted(context).await?;
    }
    let mut run = prepared?;
    let lock = TargetLock::take(&context.storage, context.cluster.pd()).await?;
    kill_point("backup.locked");
    let work = async {
        // Whoever gave up a backup here, when the lock was still theirs, took the keys with it.
        context.storage.check_keyring().await?;
        run.locked(&lock).await
    };
    let done = tokio::select! {
        biased;
        done = work => done,
        lost = lock.lost() => Err(lost.into()),
    };
    lock.release().await;
    kill_point("backup.unlocked");
    done
}

/// A finished backup whose command died before it tidied up: does that.
async fn finish_interrupted(context: &BackupContext) -> Result<(), BackupError> {
    let storage = &context.storage;
    let is_left = !storage.is_noop()
        && (storage.exists(names::RESUME_META).await?
            || storage.exists(names::RESUME_LOCK).await?);
    if !is_left {
        return Ok(());
    }
    let lock = TargetLock::take(storage, context.cluster.pd()).await?;
    let tidied = async {
        if let Some(found) = resume::find(storage).await? {
            resume::unprotect(context, &found).await?;
            resume::remove_files(storage).await?;
        }
        Ok(())
    };
    let tidied = tidied.await;
    lock.release().await;
    tidied
}

fn cancelled() -> BackupError {
    BackupError::Cancelled {
        is_resumable: false,
    }
}

/// The work, unless the token is set before it ends.
async fn cancellable<T>(
    context: &BackupContext,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    let cancel = context.cluster.cancel();
    tokio::select! {
        biased;
        done = work => match done {
            Err(_) if cancel.is_cancelled() => Err(cancelled()),
            done => done,
        },
        () = cancel.cancelled() => Err(cancelled()),
    }
}

/// A backup under way.
pub(super) struct Run<'a> {
    pub(super) context: &'a BackupContext,
    pub(super) options: &'a BackupOptions,
    pub(super) stores: Arc<ClusterStores>,
    live: Vec<metapb::Store>,
    pub(super) cluster_version: String,
    pub(super) backend: StorageBackend,
    pub(super) started: Monotonic,
    /// What an interrupted command left.
    found: Option<ResumeMeta>,
    /// The name of the GC protection.
    gc_id: String,
    /// Whether the next command can go on with what this one did.
    is_resumable: AtomicBool,
}

impl<'a> Run<'a> {
    /// All checks that need no timestamp.
    async fn prepare(
        context: &'a BackupContext,
        options: &'a BackupOptions,
    ) -> Result<Run<'a>, BackupError> {
        let started = context.cluster.rt().now();
        check_options(context, options)?;
        let stores = Arc::new(ClusterStores {
            cluster: context.cluster.clone(),
            label: options.replica_read_label.clone(),
        });
        let live = stores.live_stores().await?;
        if live.is_empty() {
            let is_labelled = options.replica_read_label.is_some();
            return Err(BackupError::NoStores { is_labelled });
        }
        if options.check_requirements {
            for store in &live {
                versions::check_store(StoreId(store.id), &store.version)?;
            }
        }
        if context.backend.is_sealed() {
            context.cluster.pd().check_sealing(SEALED_FORM).await?;
        }
        let cluster_version = context.cluster.http().cluster_version().await?;
        let send = if options.send_credentials {
            SendCredentials::Yes
        } else {
            SendCredentials::No
        };
        let backend = context.backend.to_proto(send)?;
        // Before the lock: nothing is to be written beside a finished backup.
        target::check_still_free(&context.storage).await?;
        Ok(Run {
            context,
            options,
            stores,
            live,
            cluster_version,
            backend,
            started,
            found: None,
            gc_id: format!("br-{}", context.cluster.rt().uuid()),
            is_resumable: AtomicBool::new(false),
        })
    }

    /// Looks whether the target is free, or holds an interrupted backup that is to go on.
    async fn find_interrupted(&mut self) -> Result<(), BackupError> {
        let storage = &self.context.storage;
        target::check_free(storage, self.options.use_resume).await?;
        let Some(found) = resume::find(storage).await? else {
            return Ok(());
        };
        let cluster = self.context.cluster.id();
        resume::check_same(self.options, cluster, &found, &storage.to_string())?;
        self.gc_id.clone_from(&found.gc_service_id);
        self.found = Some(found);
        // Whatever happens to this command: what the one before it did stays.
        self.is_resumable.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The backup, while the target is locked.
    async fn locked(&mut self, lock: &TargetLock) -> Result<BackupSummary, BackupError> {
        self.find_interrupted().await?;
        let (context, options) = (self.context, self.options);
        let backup_ts = self.choose_time().await?;
        let work = Box::pin(self.plan_and_execute(backup_ts, lock));
        let Some(protected) = backup_ts.map(|ts| options.last_backup_ts.unwrap_or(ts).prev())
        else {
            return work.await;
        };
        let protection = GcProtection {
            scope: self.gc_scope().await?,
            id: self.gc_id.clone(),
            ts: protected,
            ttl: options.effective_gc_ttl(),
        };
        let keeper = GcKeeper::start(context.cluster.pd(), protection).await;
        let keeper = keeper.map_err(|error| self.too_late(error))?;
        kill_point("backup.protected");
        let done = tokio::select! {
            biased;
            done = work => done,
            lost = keeper.lost() => Err(self.too_late(lost)),
        };
        let is_lost = matches!(
            done,
            Err(BackupError::ResumeTooLate { .. }
                | BackupError::Pd(PdError::SafePointExceeded { .. }))
        );
        if done.is_err() && !is_lost && self.is_resumable.load(Ordering::Relaxed) {
            let seconds = keeper.keep().as_secs();
            tracing::info!(
                seconds,
                "the same command goes on; for so long the data stays"
            );
            return done.map_err(|error| match error.kind() {
                Kind::Cancelled => BackupError::Cancelled { is_resumable: true },
                _ => error,
            });
        }
        if let Err(error) = keeper.close().await {
            tracing::warn!(%error, "the GC protection was not taken back; it lapses by itself");
        }
        kill_point("backup.unprotected");
        done
    }

    /// What a safe point that has passed means to an interrupted backup.
    fn too_late(&self, error: PdError) -> BackupError {
        match (error, &self.found) {
            (PdError::SafePointExceeded { safe_point, .. }, Some(found)) => {
                BackupError::ResumeTooLate {
                    place: self.context.storage.to_string(),
                    backup_ts: found.backup_ts,
                    safe_point,
                }
            }
            (error, _) => error.into(),
        }
    }

    async fn gc_scope(&self) -> Result<GcScope, BackupError> {
        let Some(keyspace) = self.context.key_prefix.keyspace_id() else {
            return Ok(GcScope::Cluster);
        };
        let scope = GcScope::Keyspace(keyspace.get());
        let state = self.context.cluster.pd().gc_state(scope).await?;
        Ok(if state.is_keyspace_level {
            scope
        } else {
            GcScope::Cluster
        })
    }

    /// The timestamp of the backup, checked; `None` for raw keys, which have none.
    async fn choose_time(&self) -> Result<Option<TimeStamp>, BackupError> {
        if matches!(self.options.scope, Scope::Raw { .. }) {
            return Ok(None);
        }
        let pd = self.context.cluster.pd();
        let safe_point = pd.gc_state(self.gc_scope().await?).await?.gc_safe_point;
        let backup_ts = match &self.found {
            Some(found) => {
                let wanted = self.options.last_backup_ts.unwrap_or(found.backup_ts);
                if wanted <= safe_point {
                    return Err(self.too_late(PdError::SafePointExceeded { wanted, safe_point }));
                }
                found.backup_ts
            }
            None => timestamp::choose(self.options.at, pd.tso().await?)?,
        };
        timestamp::check_readable(backup_ts, safe_point)?;
        if let Some(last) = self.options.last_backup_ts {
            timestamp::check_last(last, backup_ts, safe_point)?;
        }
        Ok(Some(backup_ts))
    }

    async fn plan(&self, backup_ts: Option<TimeStamp>) -> Result<BackupPlan, BackupError> {
        let (content, ranges) = match (&self.options.scope, backup_ts) {
            (Scope::Raw { range, cf }, _) => {
                let api_version = raw_keys::api_version(&self.context.cluster, &self.live).await?;
                let assumed = api_version.unwrap_or(ApiVersion::V1);
                let range = raw_keys::wire_range(range, assumed, self.context.key_prefix)?;
                (
                    PlannedContent::Raw {
                        cf: *cf,
                        api_version,
                    },
                    vec![range],
                )
            }
            (Scope::Txn { range }, Some(backup_ts)) => {
                let range = self.context.key_prefix.wire_range(range);
                (PlannedContent::Txn { backup_ts }, vec![range])
            }
            (scope, Some(backup_ts)) => {
                let selection = Selection::of(scope)
                    .ok_or_else(|| internal("a scope is neither tables nor keys"))?;
                let schemas = Schemas::new(self.context.cluster.snapshot(backup_ts));
                let found = tables::find(&schemas, &selection, self.context.key_prefix).await?;
                let last_backup_ts = self.options.last_backup_ts;
                let databases = found.databases;
                (
                    PlannedContent::Tables {
                        backup_ts,
                        last_backup_ts,
                        databases,
                    },
                    found.ranges,
                )
            }
            (_, None) => return Err(internal("only raw keys have no timestamp")),
        };
        let regions = self.count_regions(&content, &ranges).await;
        Ok(BackupPlan {
            title: self.options.title(),
            cluster_id: self.context.cluster.id(),
            cluster_version: self.cluster_version.clone(),
            place: self.context.storage.to_string(),
            content,
            ranges,
            stores: self.live.iter().map(|store| StoreId(store.id)).collect(),
            regions,
        })
    }

    /// About how many regions the ranges have, for the progress. Not worth a failure.
    async fn count_regions(
        &self,
        content: &PlannedContent,
        ranges: &[KeyRange<RawKey>],
    ) -> Option<u64> {
        if ranges.len() > RANGES_COUNTED_MAX {
            return None;
        }
        let is_encoded = !matches!(
            content,
            PlannedContent::Raw {
                api_version: None | Some(ApiVersion::V1 | ApiVersion::V1ttl),
                ..
            }
        );
        let http = self.context.cluster.http();
        let counted = stream::iter(ranges)
            .map(|range| async move {
                let encoded = if is_encoded {
                    key::encode_range(range)
                } else {
                    KeyRange {
                        start: EncodedKey::new(range.start.as_bytes()),
                        end: EncodedKey::new(range.end.as_bytes()),
                    }
                };
                http.region_count(&encoded).await
            })
            .buffer_unordered(COUNTS_AT_A_TIME)
            .try_fold(
                0_u64,
                |sum, count| async move { Ok(sum.saturating_add(count)) },
            )
            .await;
        counted
            .inspect_err(|error| tracing::warn!(%error, "PD does not count regions"))
            .ok()
    }

    async fn plan_and_execute(
        &self,
        backup_ts: Option<TimeStamp>,
        lock: &TargetLock,
    ) -> Result<BackupSummary, BackupError> {
        let plan = cancellable(self.context, Box::pin(self.plan(backup_ts))).await?;
        kill_point("backup.planned");
        tracing::info!(
            cluster = %plan.cluster_id,
            place = plan.place,
            backup_ts = plan.backup_ts().map(|ts| ts.0),
            ranges = plan.ranges.len(),
            regions = plan.regions,
            "backup begins"
        );
        target::claim(&self.context.storage).await?;
        kill_point("backup.claimed");
        let resume = self.open_resume(&plan).await?;
        let work = Work {
            run: self,
            plan: &plan,
            resume: resume.as_ref(),
            lock,
        };
        let done = async {
            match plan.content {
                PlannedContent::Tables { backup_ts, .. } => work.tables(backup_ts).await,
                PlannedContent::Raw { cf, api_version } => work.raw(cf, api_version).await,
                PlannedContent::Txn { backup_ts } => work.txn(backup_ts).await,
            }
        };
        let done = cancellable(self.context, Box::pin(done)).await;
        match (resume, &done) {
            (None, _) => {}
            (Some(resume), Ok(_)) => resume.remove().await,
            (Some(resume), Err(_)) => resume.keep().await,
        }
        kill_point("backup.resume_closed");
        done
    }

    /// Where this backup writes down what is done, and finds what was done before.
    async fn open_resume(&self, plan: &BackupPlan) -> Result<Option<Resume>, BackupError> {
        let (context, options) = (self.context, self.options);
        let is_laid_out = !matches!(
            plan.content,
            // What the stores bring has to be known to be of one kind.
            PlannedContent::Raw {
                api_version: None,
                ..
            }
        );
        if !options.use_resume || context.storage.is_noop() || !is_laid_out {
            return Ok(None);
        }
        let config_hash = options.config_hashes.first().copied();
        let meta = || ResumeMeta {
            gc_service_id: self.gc_id.clone(),
            config_hash: config_hash.unwrap_or(ConfigHash([0; 32])),
            backup_ts: plan.backup_ts().unwrap_or(TimeStamp::ZERO),
            parameters: resume::parameters_of(options, context.cluster.id()),
        };
        let (rt, storage) = (context.cluster.rt(), context.storage.clone());
        let crypter = options.crypter.clone();
        let resume = Resume::open(rt, storage, crypter, self.found.as_ref(), meta).await?;
        self.is_resumable.store(true, Ordering::Relaxed);
        Ok(Some(resume))
    }
}

/// Refuses what cannot be done, before anything else.
fn check_options(context: &BackupContext, options: &BackupOptions) -> Result<(), BackupError> {
    if !options.ignore_stats {
        return Err(BackupError::Statistics);
    }
    let is_tables = Selection::of(&options.scope).is_some();
    if options.last_backup_ts.is_some() && !is_tables {
        return Err(BackupError::NotIncremental);
    }
    if let Some(name) = &options.keyspace_name
        && context.key_prefix.keyspace_id().is_none()
    {
        return Err(BackupError::KeyspaceUnknown { name: name.clone() });
    }
    Ok(())
}

pub(super) fn internal(what: &str) -> BackupError {
    BackupError::Internal {
        what: what.to_owned(),
    }
}
