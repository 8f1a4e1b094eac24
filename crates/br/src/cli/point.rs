use std::{path::PathBuf, sync::Arc};

use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::restore::{
    self, LeftOutIndex, Method, PointOptions, PointTarget, SORT_MEMORY_BYTES_DEFAULT,
};
use br_snapshot::restore::{RestoreOptions, RestoreTarget, Scope};
use br_storage::{Backend, SendCredentials, Storage};
use clap::Args;

use super::{
    common_flags::{CommonFlags, LogCrypterFlags, timestamp},
    global_flags::GlobalFlags,
    restore::FILTER_DEFAULT,
    session::Session,
    storage_flags::{CloudFlags, Holds},
    tables::FilterFlags,
};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::Switch,
};

/// How ingested files are compressed: compaction rewrites them soon.
const SST: SstOptions = SstOptions {
    compression: SstCompression::Lz4,
    level: 0,
};
/// The object below `--pitr-add-index-sql-storage`.
const ADD_INDEX_SQL: &str = "add-index.sql";
/// Bytes of a MiB, the unit of `--pitr-sort-memory`.
const MIB: usize = 1 << 20;

/// `br restore point`.
#[derive(Args)]
pub(super) struct PointFlags {
    #[command(flatten)]
    filter: FilterFlags,
    /// URL of the full backup to begin with.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    full_backup_storage: String,
    /// Where the restore ended that this one goes on from, instead of a full backup.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    start_ts: String,
    /// The point: a TSO, or a time such as '2026-11-21 10:17:45 +08:00'; without it, the end of
    /// the log.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    restored_ts: String,
    /// URL of a storage for the statements that add indexes which are not in the log.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    pitr_add_index_sql_storage: String,
    /// Of what the log has of a key, only the newest version.
    #[arg(long, default_value = "false")]
    retain_latest_mvcc_version: Switch,
    /// Folder for what does not fit into memory while the log is sorted.
    #[arg(long, value_name = "DIR")]
    pitr_temp_dir: Option<PathBuf>,
    /// MiB of memory for sorting the log.
    #[arg(long, value_name = "N", default_value_t = SORT_MEMORY_BYTES_DEFAULT / MIB)]
    pitr_sort_memory: usize,
    /// Let the stores write the log key by key: slower, but takes no room here.
    #[arg(long, default_value = "false")]
    pitr_apply: Switch,
    /// With --pitr-apply: files of one request.
    #[arg(long, default_value = "8", value_name = "N")]
    pitr_batch_count: u32,
    /// With --pitr-apply: bytes of the files of one request.
    #[arg(long, default_value = "16777216", value_name = "BYTES")]
    pitr_batch_size: u32,
    /// With --pitr-apply: requests at once.
    #[arg(long, default_value = "16", value_name = "N")]
    pitr_concurrency: u32,
    /// Objects of the log's metadata that are read at once.
    #[arg(long, default_value = "128", hide = true, value_name = "N")]
    metadata_download_batch_size: usize,
    #[command(flatten)]
    log_crypter: LogCrypterFlags,
}

impl PointFlags {
    /// Which tables.
    pub(super) fn scope(&self) -> Outcome<Scope> {
        Ok(Scope::Full {
            filter: self.filter.filter(&FILTER_DEFAULT)?,
            is_explicit: self.filter.is_given(),
        })
    }

    /// The rules of the filter, as they were given.
    pub(super) fn rules(&self) -> Vec<String> {
        self.filter.rules(&FILTER_DEFAULT)
    }

    /// The full backup, if there is one.
    pub(super) async fn full_backup(
        &self,
        global: &GlobalFlags,
        session: &Session,
        cloud: &CloudFlags,
    ) -> Outcome<Option<(Backend, Storage)>> {
        if self.full_backup_storage.is_empty() {
            return Ok(None);
        }
        let url = &self.full_backup_storage;
        let backend = global.storage.backend_at(url, cloud, Holds::Backup)?;
        let storage = Storage::open(&session.rt, &backend).await?;
        Ok(Some((backend, storage)))
    }

    /// Restores, or shows what would be done.
    pub(super) async fn run(
        &self,
        global: &GlobalFlags,
        session: &Session,
        cloud: &CloudFlags,
        common: &CommonFlags,
        tables: RestoreOptions,
        is_dry_run: bool,
    ) -> Outcome {
        const TITLE: &str = "restore log";
        let options = self.options(global, tables)?;
        let log_backend = global.storage.backend(cloud, Holds::Log)?;
        let log = Storage::open(&session.rt, &log_backend).await?;
        let log = self.log_crypter.master_keys.with_keys(log, session).await?;
        let full = self.full_backup(global, session, cloud).await?;
        let cluster = global.cluster.connect(session).await?;
        let progress = Arc::clone(session.display.progress());
        let full = full.map(|(backend, storage)| RestoreTarget {
            cluster: cluster.clone(),
            storage,
            backend,
            progress: progress.clone(),
        });
        let target = PointTarget {
            cluster,
            full,
            log,
            log_backend,
            ssts: Arc::new(RocksSstFiles::new(SST)),
            progress,
        };
        if is_dry_run {
            let plan = Box::pin(restore::plan(&target, &options)).await?;
            summary::point_plan(&plan, common.json);
            return Ok(());
        }
        let started = session.rt.now();
        let done = Box::pin(restore::restore(&target, &options)).await;
        let done = done.inspect_err(|error| summary::log_failure(TITLE, error))?;
        let took = session.rt.now().since(started);
        self.tell_left_out(global, session, cloud, &done.plan.left_out)
            .await?;
        summary::point(&session.rt, TITLE, &done, took, common.json);
        Ok(())
    }

    /// Tells which indexes have to be added again, and keeps the statements where the user wants
    /// them.
    async fn tell_left_out(
        &self,
        global: &GlobalFlags,
        session: &Session,
        cloud: &CloudFlags,
        left_out: &[LeftOutIndex],
    ) -> Outcome {
        for index in left_out {
            let (table, name, sql) = (&index.table, &index.index, &index.sql);
            tracing::warn!(
                "index {name} of {table} is not in the log and was left out; run: {sql}"
            );
        }
        if self.pitr_add_index_sql_storage.is_empty() {
            return Ok(());
        }
        let url = &self.pitr_add_index_sql_storage;
        let backend = global.storage.backend_at(url, cloud, Holds::Text)?;
        let storage = Storage::create_base(&session.rt, &backend).await?;
        let lines: String = left_out
            .iter()
            .map(|index| format!("{}\n", index.sql))
            .collect();
        Ok(storage.write(ADD_INDEX_SQL, lines.into_bytes()).await?)
    }

    fn options(&self, global: &GlobalFlags, tables: RestoreOptions) -> Outcome<PointOptions> {
        let start_ts = timestamp("--start-ts", &self.start_ts)?;
        match (self.full_backup_storage.as_str(), start_ts) {
            ("", None) => {
                return Err(CommandError::invalid(
                    "neither --full-backup-storage nor --start-ts is given",
                    "pass the full backup to begin with, or the point that the last restore ended at",
                ));
            }
            ("", Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                return Err(CommandError::invalid(
                    "--full-backup-storage and --start-ts are both given",
                    "pass one of them: a full backup says itself where it ends",
                ));
            }
        }
        let method = match self.pitr_apply.0 {
            false => Method::Sort,
            true => Method::Apply {
                batch_files: self.pitr_batch_count.max(1) as usize,
                batch_bytes: u64::from(self.pitr_batch_size),
                concurrency: self.pitr_concurrency.max(1) as usize,
                send_credentials: match global.storage.send_credentials_to_tikv.0 {
                    true => SendCredentials::Yes,
                    false => SendCredentials::No,
                },
            },
        };
        Ok(PointOptions {
            start_ts,
            restored_ts: timestamp("--restored-ts", &self.restored_ts)?,
            log_crypter: self.log_crypter.crypter()?,
            newest_only: self.retain_latest_mvcc_version.0,
            meta_reads: self.metadata_download_batch_size.max(1),
            method,
            temp_dir: self
                .pitr_temp_dir
                .clone()
                .unwrap_or_else(std::env::temp_dir),
            sort_memory_bytes: self.pitr_sort_memory.max(1).saturating_mul(MIB),
            ..PointOptions::new(tables)
        })
    }
}
