//! # What it does
//! Runs a backup from its checks to `backupmeta`.
//!
//! # Objects it reads and writes
//! On the external storage: `backup.lock` first, data files (by the stores), meta files, and
//! `backupmeta` last. In PD one service safe point `br-<uuid>`, which is taken back at the end.
//!
//! # Ordering and invariants
//! Versions and stores, the target, the timestamp, its protection from GC, the plan, the claim of
//! the target, data, DDL jobs, checksums and schemas, `backupmeta`. Nothing is written before the
//! plan stands, and a backup exists exactly when its `backupmeta` does.
//!
//! # Retries
//! Each part by its own policy; the whole is not repeated.
//!
//! # Cancellation
//! Streams are dropped, no `backupmeta` is written, the protection is taken back. Files that were
//! written stay.
//!
//! # After a crash
//! The protection lapses after `gc_ttl`. Files without `backupmeta` stay; the next backup to the
//! same place is refused and says so.

use std::sync::Arc;

use br_cluster::{GcKeeper, GcProtection, GcScope};
use br_codec::key;
use br_format::{
    backupmeta::{BackupHead, Content, Layout, MetaWriter, RawRange},
    crypter::Iv,
};
use br_proto::{
    backup::{BackupRequest, StorageBackend},
    kvrpcpb::{self, ApiVersion},
    metapb,
};
use br_rt::{Monotonic, Phase, Unit};
use br_storage::SendCredentials;
use br_types::{EncodedKey, KeyRange, RawKey, StoreId, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    BackupContext, BackupError, BackupOptions, BackupPlan, BackupSummary, PlannedContent, Scope,
    cluster_stores::ClusterStores,
    collation,
    meta_sink::{MetaSink, Totals},
    push::{Counts, Expected, Push, PushError, Pushed, Refusal},
    raw_keys,
    selection::Selection,
    tables::{self, MergeRules, SchemaPass},
    target, timestamp,
};
use crate::{
    schema::{DdlHistory, Schemas},
    versions,
};

/// With more ranges than this PD is not asked for the regions of each; progress counts ranges then.
const RANGES_COUNTED_MAX: usize = 1_000;
/// Ranges whose regions PD counts at a time.
const COUNTS_AT_A_TIME: usize = 16;
/// Marks requests as those of a backup, for the resource control of the stores.
const REQUEST_SOURCE: &str = "internal_br";

/// Plans a backup and changes nothing: for `--dry-run`.
///
/// # Errors
/// [`BackupError`]: whatever would keep the backup from its start.
pub async fn plan(
    context: &BackupContext,
    options: &BackupOptions,
) -> Result<BackupPlan, BackupError> {
    let run = Run::prepare(context, options).await?;
    let backup_ts = run.choose_time().await?;
    cancellable(context, Box::pin(run.plan(backup_ts))).await
}

/// Backs up. When it returns without an error, the backup is complete on the external storage.
///
/// # Errors
/// [`BackupError`]; there is no `backupmeta` then, and nothing is left changed in the cluster.
pub async fn run(
    context: &BackupContext,
    options: &BackupOptions,
) -> Result<BackupSummary, BackupError> {
    let run = Run::prepare(context, options).await?;
    let backup_ts = run.choose_time().await?;
    let Some(protected) = backup_ts.map(|ts| options.last_backup_ts.unwrap_or(ts).prev()) else {
        return cancellable(context, Box::pin(run.plan_and_execute(None))).await;
    };
    let protection = GcProtection {
        scope: run.gc_scope().await?,
        id: format!("br-{}", context.cluster.rt().uuid()),
        ts: protected,
        ttl: options.gc_ttl,
    };
    let keeper = GcKeeper::start(context.cluster.pd(), protection).await?;
    let done = tokio::select! {
        done = cancellable(context, Box::pin(run.plan_and_execute(backup_ts))) => done,
        lost = keeper.lost() => Err(lost.into()),
    };
    if let Err(error) = keeper.close().await {
        tracing::warn!(%error, "the GC protection was not taken back; it lapses by itself");
    }
    done
}

/// The work, unless the token is set before it ends.
async fn cancellable<T>(
    context: &BackupContext,
    work: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    let cancel = context.cluster.cancel();
    tokio::select! {
        done = work => match done {
            Err(_) if cancel.is_cancelled() => Err(BackupError::Cancelled),
            done => done,
        },
        () = cancel.cancelled() => Err(BackupError::Cancelled),
    }
}

/// A backup under way.
struct Run<'a> {
    context: &'a BackupContext,
    options: &'a BackupOptions,
    stores: Arc<ClusterStores>,
    live: Vec<metapb::Store>,
    cluster_version: String,
    backend: StorageBackend,
    started: Monotonic,
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
        let cluster_version = context.cluster.http().cluster_version().await?;
        let send = if options.send_credentials {
            SendCredentials::Yes
        } else {
            SendCredentials::No
        };
        let backend = context.backend.to_proto(send)?;
        target::check_free(&context.storage).await?;
        Ok(Run {
            context,
            options,
            stores,
            live,
            cluster_version,
            backend,
            started,
        })
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
        let backup_ts = timestamp::choose(self.options.at, pd.tso().await?)?;
        let safe_point = pd.gc_state(self.gc_scope().await?).await?.gc_safe_point;
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
    ) -> Result<BackupSummary, BackupError> {
        let plan = self.plan(backup_ts).await?;
        tracing::info!(
            cluster = %plan.cluster_id,
            place = plan.place,
            backup_ts = plan.backup_ts().map(|ts| ts.0),
            ranges = plan.ranges.len(),
            regions = plan.regions,
            "backup begins"
        );
        target::claim(&self.context.storage).await?;
        match plan.content {
            PlannedContent::Tables { backup_ts, .. } => self.tables(&plan, backup_ts).await,
            PlannedContent::Raw { cf, api_version } => self.raw(&plan, cf, api_version).await,
            PlannedContent::Txn { backup_ts } => self.txn(&plan, backup_ts).await,
        }
    }

    async fn tables(
        &self,
        plan: &BackupPlan,
        backup_ts: TimeStamp,
    ) -> Result<BackupSummary, BackupError> {
        let cluster = &self.context.cluster;
        let prefix = self.context.key_prefix;
        let selection = Selection::of(&self.options.scope)
            .ok_or_else(|| internal("a plan of tables has another scope"))?;
        let prefix_len = prefix.wire(&RawKey::default()).len();
        let mut sink =
            MetaSink::for_tables(self.context.storage.clone(), self.writer(), prefix_len);
        let request = self.request(backup_ts);
        let expected = Expected {
            end_ts: backup_ts,
            raw_api_version: None,
        };
        let pushed = self
            .push(plan, request, expected, &plan.ranges, &mut sink)
            .await?;

        let schemas = Schemas::new(cluster.snapshot(backup_ts));
        if let Some(last) = self.options.last_backup_ts {
            self.ddl_jobs(&schemas, last, &mut sink).await?;
        }
        let checksum = self.options.checksum && self.options.last_backup_ts.is_none();
        let (databases_count, tables_count) = plan.counts();
        let checksum_started = cluster.rt().now();
        {
            let title = if checksum { "Checksum" } else { "Schemas" };
            let phase = Phase::start(&self.context.progress, title, Unit::Tables, tables_count);
            let pass = SchemaPass {
                cluster,
                options: self.options,
                selection: &selection,
                prefix,
                backup_ts,
                checksum,
                phase: &phase,
                merge_rules: self.merge_rules().await,
            };
            pass.run(&schemas, &mut sink).await?;
        }
        let checksum_took = checksum.then(|| cluster.rt().now().since(checksum_started));
        let policies = if selection.is_full() {
            schemas.policies().await?
        } else {
            Vec::new()
        };
        let head = BackupHead {
            last_backup_ts: self.options.last_backup_ts.unwrap_or(TimeStamp::ZERO),
            policies,
            new_collations_enabled: collation::new_collations_enabled(&schemas).await?,
            api_version: prefix
                .keyspace_id()
                .map_or(ApiVersion::V1, |_| ApiVersion::V2),
            ..self.head(Content::Tables, backup_ts, ApiVersion::V1)
        };
        let totals = self.finish(sink, head).await?;
        Ok(BackupSummary {
            checksum_took,
            databases: databases_count,
            tables: tables_count,
            ..self.summary(plan, pushed, totals)
        })
    }

    /// What changed the schemas since the last backup.
    async fn ddl_jobs(
        &self,
        schemas: &Schemas<br_cluster::Snapshot>,
        last: TimeStamp,
        sink: &mut MetaSink,
    ) -> Result<(), BackupError> {
        let cluster = &self.context.cluster;
        let history = DdlHistory {
            after_version: Schemas::new(cluster.snapshot(last)).version().await?,
            up_to_version: schemas.version().await?,
        };
        // A job enters the history a little after its schema version is out, so it is read now,
        // after the data, and as of now.
        let newest = cluster.snapshot(cluster.pd().tso().await?);
        for job in history.jobs(&newest).await? {
            sink.accept_ddl_job(job.json).await?;
        }
        Ok(())
    }

    /// Which tables may have their regions merged with others. Not worth a failure.
    async fn merge_rules(&self) -> MergeRules {
        match self.context.cluster.http().label_rules().await {
            Ok(rules) => MergeRules::of(rules, self.context.key_prefix),
            Err(error) => {
                tracing::warn!(%error, "PD does not tell its label rules");
                MergeRules::default()
            }
        }
    }

    async fn txn(
        &self,
        plan: &BackupPlan,
        backup_ts: TimeStamp,
    ) -> Result<BackupSummary, BackupError> {
        let mut sink = MetaSink::new(self.context.storage.clone(), self.writer());
        let request = self.request(backup_ts);
        let expected = Expected {
            end_ts: backup_ts,
            raw_api_version: None,
        };
        let pushed = self
            .push(plan, request, expected, &plan.ranges, &mut sink)
            .await?;
        let head = self.head(Content::Txn, backup_ts, ApiVersion::V1);
        let totals = self.finish(sink, head).await?;
        Ok(self.summary(plan, pushed, totals))
    }

    async fn raw(
        &self,
        plan: &BackupPlan,
        cf: br_types::Cf,
        api_version: Option<ApiVersion>,
    ) -> Result<BackupSummary, BackupError> {
        let Scope::Raw {
            range: user_range, ..
        } = &self.options.scope
        else {
            return Err(internal("a plan of raw keys has another scope"));
        };
        let candidates = match &api_version {
            Some(known) => std::slice::from_ref(known),
            None => &raw_keys::CANDIDATES,
        };
        let mut refused = None;
        for version in candidates {
            let range = raw_keys::wire_range(user_range, *version, self.context.key_prefix)?;
            let mut sink = MetaSink::new(self.context.storage.clone(), self.writer());
            let request = BackupRequest {
                is_raw_kv: true,
                cf: cf.name().to_owned(),
                dst_api_version: *version as i32,
                start_key: range.start.as_bytes().to_vec(),
                end_key: range.end.as_bytes().to_vec(),
                ..self.request(TimeStamp::ZERO)
            };
            let expected = Expected {
                end_ts: TimeStamp::ZERO,
                raw_api_version: Some(*version),
            };
            let wanted = std::slice::from_ref(&range);
            let pushed = match self.push(plan, request, expected, wanted, &mut sink).await {
                Ok(pushed) => pushed,
                Err(error @ PushError::Refused(Refusal::ApiVersion { .. })) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let content = Content::Raw(vec![RawRange { range, cf }]);
            let head = self.head(content, TimeStamp::ZERO, *version);
            let totals = self.finish(sink, head).await?;
            return Ok(self.summary(plan, pushed, totals));
        }
        Err(refused.map_or_else(|| internal("no API version was tried"), BackupError::from))
    }

    async fn push(
        &self,
        plan: &BackupPlan,
        template: BackupRequest,
        expected: Expected,
        wanted: &[KeyRange<RawKey>],
        sink: &mut MetaSink,
    ) -> Result<Pushed, PushError<br_cluster::KvError>> {
        let (counts, total) = match plan.regions {
            Some(regions) => (Counts::Regions, regions),
            None => (Counts::Ranges, wanted.len() as u64),
        };
        let phase = Phase::start(&self.context.progress, plan.title, Unit::Ranges, total);
        let push = Push {
            rt: self.context.cluster.rt(),
            cancel: self.context.cluster.cancel(),
            stores: self.stores.clone(),
            template,
            expected,
            requests_per_store: self.options.requests_per_store(),
            phase: &phase,
            counts,
        };
        push.run(wanted.to_vec(), sink).await
    }

    /// The request without ranges.
    fn request(&self, backup_ts: TimeStamp) -> BackupRequest {
        let options = self.options;
        BackupRequest {
            cluster_id: self.context.cluster.id().0,
            start_version: options.last_backup_ts.unwrap_or(TimeStamp::ZERO).0,
            end_version: backup_ts.0,
            rate_limit: options.rate_limit_bytes_per_s,
            concurrency: u32::try_from(options.requests_per_store()).unwrap_or(u32::MAX),
            storage_backend: Some(self.backend.clone()),
            compression_type: options.compression as i32,
            compression_level: options.compression_level,
            cipher_info: Some(options.crypter.to_proto()),
            replica_read: options.replica_read_label.is_some(),
            context: Some(kvrpcpb::Context {
                request_source: REQUEST_SOURCE.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn writer(&self) -> MetaWriter {
        let rt = self.context.cluster.rt().clone();
        let layout: Layout = self.options.effective_layout();
        MetaWriter::new(layout, self.options.crypter.clone(), move || {
            Iv(rt.random_bytes())
        })
    }

    fn head(&self, content: Content, backup_ts: TimeStamp, api_version: ApiVersion) -> BackupHead {
        BackupHead {
            cluster_id: self.context.cluster.id(),
            cluster_version: self.cluster_version.clone(),
            br_version: self.options.br_version.clone(),
            content,
            last_backup_ts: TimeStamp::ZERO,
            backup_ts,
            api_version,
            policies: Vec::new(),
            new_collations_enabled: None,
            backup_result: String::new(),
        }
    }

    async fn finish(&self, sink: MetaSink, head: BackupHead) -> Result<Totals, BackupError> {
        target::check_still_free(&self.context.storage).await?;
        Ok(sink.finish(head).await?)
    }

    fn summary(&self, plan: &BackupPlan, pushed: Pushed, totals: Totals) -> BackupSummary {
        BackupSummary {
            title: plan.title,
            backup_ts: plan.backup_ts(),
            files: totals.write_files + totals.default_files,
            write_cf_files: totals.write_files,
            default_cf_files: totals.default_files,
            total_ranges: plan.ranges.len() as u64,
            total_regions: plan.regions.unwrap_or(pushed.pieces),
            checksum_took: None,
            took: self.context.cluster.rt().now().since(self.started),
            total_kvs: totals.kvs,
            total_kv_bytes: totals.kv_bytes,
            data_size_bytes: totals.data_size_bytes,
            size_bytes: totals.data_size_bytes + totals.meta_size_bytes,
            databases: 0,
            tables: 0,
            rounds: pushed.rounds,
            superseded_pieces: pushed.superseded,
            locks: pushed.locks,
        }
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

fn internal(what: &str) -> BackupError {
    BackupError::Internal {
        what: what.to_owned(),
    }
}
