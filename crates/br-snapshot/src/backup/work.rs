//! # What it does
//! The part of a backup after its plan: data, DDL jobs, schemas and checksums, `backupmeta`.

use std::time::Duration;

use br_format::{
    backupmeta::{BackupHead, Content, Layout, MetaWriter, RawRange},
    crypter::Iv,
};
use br_proto::{
    backup::BackupRequest,
    kvrpcpb::{self, ApiVersion},
};
use br_rt::{Phase, Unit, kill_point};
use br_types::{KeyRange, RawKey, TimeStamp};

use super::{
    BackupError, BackupPlan, BackupSummary, Scope, collation,
    meta_sink::{MetaSink, Totals},
    push::{Counts, Expected, Push, PushError, Pushed, Refusal},
    raw_keys,
    resume::{Resume, TargetLock},
    run::{Run, internal},
    selection::Selection,
    tables::{MergeRules, SchemaPass},
    target,
};
use crate::schema::{DdlHistory, Schemas};

/// Marks requests as those of a backup, for the resource control of the stores.
const REQUEST_SOURCE: &str = "internal_br";

/// A backup whose plan stands.
pub(super) struct Work<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) plan: &'a BackupPlan,
    /// Where what is done is written down.
    pub(super) resume: Option<&'a Resume>,
    pub(super) lock: &'a TargetLock,
}

impl Work<'_> {
    /// Tables, their schemas and checksums.
    pub(super) async fn tables(&self, backup_ts: TimeStamp) -> Result<BackupSummary, BackupError> {
        let cluster = &self.run.context.cluster;
        let prefix = self.run.context.key_prefix;
        let selection = Selection::of(&self.run.options.scope)
            .ok_or_else(|| internal("a plan of tables has another scope"))?;
        let prefix_len = prefix.wire(&RawKey::default()).len();
        let mut sink =
            MetaSink::for_tables(self.run.context.storage.clone(), self.writer(), prefix_len);
        let request = self.request(backup_ts);
        let expected = Expected {
            end_ts: backup_ts,
            raw_api_version: None,
        };
        let pushed = self
            .push(request, expected, &self.plan.ranges, &mut sink)
            .await?;

        let schemas = Schemas::new(cluster.snapshot(backup_ts));
        if let Some(last) = self.run.options.last_backup_ts {
            self.ddl_jobs(&schemas, last, &mut sink).await?;
        }
        let checksum = self.run.options.checksum && self.run.options.last_backup_ts.is_none();
        let (databases_count, tables_count) = self.plan.counts();
        let checksum_started = cluster.rt().now();
        {
            let title = if checksum { "Checksum" } else { "Schemas" };
            let phase = Phase::start(
                &self.run.context.progress,
                title,
                Unit::Tables,
                tables_count,
            );
            let pass = SchemaPass {
                cluster,
                options: self.run.options,
                selection: &selection,
                prefix,
                backup_ts,
                checksum,
                phase: &phase,
                merge_rules: self.merge_rules().await,
                resume: self.resume,
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
            last_backup_ts: self.run.options.last_backup_ts.unwrap_or(TimeStamp::ZERO),
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
            ..self.summary(pushed, totals)
        })
    }

    /// What changed the schemas since the last backup.
    async fn ddl_jobs(
        &self,
        schemas: &Schemas<br_cluster::Snapshot>,
        last: TimeStamp,
        sink: &mut MetaSink,
    ) -> Result<(), BackupError> {
        let cluster = &self.run.context.cluster;
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
        match self.run.context.cluster.http().label_rules().await {
            Ok(rules) => MergeRules::of(rules, self.run.context.key_prefix),
            Err(error) => {
                tracing::warn!(%error, "PD does not tell its label rules");
                MergeRules::default()
            }
        }
    }

    /// Transactional keys.
    pub(super) async fn txn(&self, backup_ts: TimeStamp) -> Result<BackupSummary, BackupError> {
        let mut sink = MetaSink::new(self.run.context.storage.clone(), self.writer());
        let request = self.request(backup_ts);
        let expected = Expected {
            end_ts: backup_ts,
            raw_api_version: None,
        };
        let pushed = self
            .push(request, expected, &self.plan.ranges, &mut sink)
            .await?;
        let head = self.head(Content::Txn, backup_ts, ApiVersion::V1);
        let totals = self.finish(sink, head).await?;
        Ok(self.summary(pushed, totals))
    }

    /// Raw keys.
    pub(super) async fn raw(
        &self,
        cf: br_types::Cf,
        api_version: Option<ApiVersion>,
    ) -> Result<BackupSummary, BackupError> {
        let Scope::Raw {
            range: user_range, ..
        } = &self.run.options.scope
        else {
            return Err(internal("a plan of raw keys has another scope"));
        };
        let candidates = match &api_version {
            Some(known) => std::slice::from_ref(known),
            None => &raw_keys::CANDIDATES,
        };
        let mut refused = None;
        for version in candidates {
            let range = raw_keys::wire_range(user_range, *version, self.run.context.key_prefix)?;
            let mut sink = MetaSink::new(self.run.context.storage.clone(), self.writer());
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
            let pushed = match self.push(request, expected, wanted, &mut sink).await {
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
            return Ok(self.summary(pushed, totals));
        }
        Err(refused.map_or_else(|| internal("no API version was tried"), BackupError::from))
    }

    async fn push(
        &self,
        template: BackupRequest,
        expected: Expected,
        wanted: &[KeyRange<RawKey>],
        sink: &mut MetaSink,
    ) -> Result<Pushed, PushError<br_cluster::KvError>> {
        let (counts, total) = match self.plan.regions {
            Some(regions) => (Counts::Regions, regions),
            None => (Counts::Ranges, wanted.len() as u64),
        };
        let phase = Phase::start(
            &self.run.context.progress,
            self.plan.title,
            Unit::Ranges,
            total,
        );
        let push = Push {
            rt: self.run.context.cluster.rt(),
            cancel: self.run.context.cluster.cancel(),
            stores: self.run.stores.clone(),
            template,
            expected,
            requests_per_store: self.run.options.requests_per_store(),
            phase: &phase,
            counts,
            resume: self.resume,
        };
        push.run(wanted.to_vec(), sink).await
    }

    /// The request without ranges.
    fn request(&self, backup_ts: TimeStamp) -> BackupRequest {
        let options = self.run.options;
        BackupRequest {
            cluster_id: self.run.context.cluster.id().0,
            start_version: options.last_backup_ts.unwrap_or(TimeStamp::ZERO).0,
            end_version: backup_ts.0,
            rate_limit: options.rate_limit_bytes_per_s,
            concurrency: u32::try_from(options.requests_per_store()).unwrap_or(u32::MAX),
            storage_backend: Some(self.run.backend.clone()),
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
        let rt = self.run.context.cluster.rt().clone();
        let layout: Layout = self.run.options.effective_layout();
        MetaWriter::new(layout, self.run.options.crypter.clone(), move || {
            Iv(rt.random_bytes())
        })
    }

    fn head(&self, content: Content, backup_ts: TimeStamp, api_version: ApiVersion) -> BackupHead {
        BackupHead {
            cluster_id: self.run.context.cluster.id(),
            cluster_version: self.run.cluster_version.clone(),
            br_version: self.run.options.br_version.clone(),
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
        self.lock.confirm().await?;
        target::check_still_free(&self.run.context.storage).await?;
        kill_point("backup.before_backupmeta");
        Ok(sink.finish(head).await?)
    }

    fn summary(&self, pushed: Pushed, totals: Totals) -> BackupSummary {
        let before = self.resume.map_or(Duration::ZERO, Resume::elapsed_before);
        BackupSummary {
            title: self.plan.title,
            backup_ts: self.plan.backup_ts(),
            files: totals.write_files + totals.default_files,
            write_cf_files: totals.write_files,
            default_cf_files: totals.default_files,
            total_ranges: self.plan.ranges.len() as u64,
            total_regions: self.plan.regions.unwrap_or(pushed.pieces),
            checksum_took: None,
            took: self.run.context.cluster.rt().now().since(self.run.started) + before,
            total_kvs: totals.kvs,
            total_kv_bytes: totals.kv_bytes,
            data_size_bytes: totals.data_size_bytes,
            size_bytes: totals.data_size_bytes + totals.meta_size_bytes,
            databases: 0,
            tables: 0,
            rounds: pushed.rounds,
            superseded_pieces: pushed.superseded,
            locks: pushed.locks,
            resumed_pieces: pushed.resumed,
            resumed_kvs: pushed.resumed_kvs,
            resumed_kv_bytes: pushed.resumed_kv_bytes,
        }
    }
}
