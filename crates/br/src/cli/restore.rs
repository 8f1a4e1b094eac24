use std::{sync::Arc, time::Duration};

use br_format::backupmeta::Compatibility;
use br_snapshot::restore::{self, RestoreOptions, RestoreTarget, Scope};
use br_storage::Storage;
use clap::{Args, Subcommand};

use super::{
    common_flags::CommonFlags,
    global_flags::GlobalFlags,
    keys::RawFlags,
    point::PointFlags,
    session::Session,
    storage_flags::{CloudFlags, Holds},
    tables::{DbFlags, FilterFlags, TableFlags},
};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::{Switch, parse_duration},
};

/// What `restore full` takes if no filter is given: all but TiDB's own databases, and of `mysql`
/// the accounts.
pub(super) const FILTER_DEFAULT: [&str; 17] = [
    "*.*",
    "!__TiDB_BR_Temporary_*.*",
    "!mysql.*",
    "mysql.bind_info",
    "mysql.user",
    "mysql.db",
    "mysql.tables_priv",
    "mysql.columns_priv",
    "mysql.global_priv",
    "mysql.global_grants",
    "mysql.default_roles",
    "mysql.role_edges",
    "!sys.*",
    "!INFORMATION_SCHEMA.*",
    "!PERFORMANCE_SCHEMA.*",
    "!METRICS_SCHEMA.*",
    "!INSPECTION_SCHEMA.*",
];

/// `br restore`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct RestoreCommand {
    #[command(flatten)]
    flags: RestoreFlags,
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    cloud: CloudFlags,
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Subcommand)]
pub(super) enum What {
    /// All databases and tables of a backup, or those that a filter takes.
    Full(FilterFlags),
    /// One database.
    Db(DbFlags),
    /// One table.
    Table(TableFlags),
    /// Raw keys.
    Raw(RawFlags),
    /// Transactional keys, without schemas.
    Txn(RawFlags),
    /// A point in time: a full backup, and the log of changes after it.
    Point(Box<PointFlags>),
}

#[derive(Args)]
struct RestoreFlags {
    /// Pause nothing in the cluster.
    #[arg(long, global = true, default_value = "false")]
    online: Switch,
    /// Downloads of one store at a time.
    #[arg(long, global = true, default_value = "128", value_name = "N")]
    tikv_max_restore_concurrency: usize,
    /// An older name of --tikv-max-restore-concurrency; the smaller of both holds.
    #[arg(long, global = true, default_value = "128", value_name = "N")]
    concurrency: usize,
    /// Take over users, privileges and what else of TiDB's own tables the filter takes.
    #[arg(long, global = true, default_value = "true", value_name = "BOOL")]
    with_sys_table: Switch,
    /// Take over the optimizer's statistics of the tables.
    #[arg(long, global = true, default_value = "true", value_name = "BOOL")]
    load_stats: Switch,
    /// STRICT keeps placement policies, IGNORE leaves them out.
    #[arg(long, global = true, default_value = "STRICT", value_name = "MODE")]
    with_tidb_placement_mode: String,
    /// How often import mode is renewed.
    #[arg(long, global = true, value_parser = parse_duration, default_value = "5m", value_name = "DURATION")]
    switch_mode_interval: Duration,
    /// Least size of a region that is split off; without it, as the stores split.
    #[arg(long, global = true, hide = true, value_name = "BYTES")]
    merge_region_size_bytes: Option<u64>,
    /// Least number of keys of a region that is split off; without it, as the stores split.
    #[arg(long, global = true, hide = true, value_name = "N")]
    merge_region_key_count: Option<u64>,
    /// Write down what is done, and go on with an interrupted restore.
    #[arg(long, global = true, default_value = "true", hide = true)]
    use_checkpoint: Switch,
    /// URL of a storage for what is done; without it, it is written down in the cluster, in PD.
    #[arg(
        long,
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    checkpoint_storage: String,
    /// How long PD keeps what is paused once this command has gone.
    #[arg(long, global = true, hide = true, value_parser = parse_duration, default_value = "5m", value_name = "DURATION")]
    pause_lease: Duration,
    /// Print what would be done, and do nothing.
    #[arg(long, global = true)]
    dry_run: bool,
}

impl RestoreCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let mut options = self.options(global)?;
        let progress_url = &self.flags.checkpoint_storage;
        options.progress_storage =
            progress_storage(global, session, &self.cloud, progress_url).await?;
        if let What::Point(point) = &self.what {
            let (cloud, common) = (&self.cloud, &self.common);
            let point = point.run(global, session, cloud, common, options, self.flags.dry_run);
            return Box::pin(point).await;
        }
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        let storage = Storage::open(&session.rt, &backend).await?;
        let target = RestoreTarget {
            cluster: global.cluster.connect(session).await?,
            storage,
            backend,
            progress: Arc::clone(session.display.progress()),
        };
        if self.flags.dry_run {
            let plan = restore::plan(&target, &options).await?;
            summary::restore_plan(&plan, self.common.json);
            return Ok(());
        }
        let started = session.rt.now();
        let done = Box::pin(restore::restore(&target, &options)).await;
        let done = done.inspect_err(|error| summary::log_failure(options.title(), error))?;
        let took = session.rt.now().since(started);
        summary::restore(&session.rt, options.title(), &done, took, self.common.json);
        Ok(())
    }

    /// The flags, resolved.
    fn options(&self, global: &GlobalFlags) -> Outcome<RestoreOptions> {
        let (flags, common) = (&self.flags, &self.common);
        let strict = global.cluster.check_requirements.0;
        Ok(RestoreOptions {
            crypter: common.crypter.crypter()?,
            compatibility: if strict {
                Compatibility::Strict
            } else {
                Compatibility::Lenient
            },
            check_requirements: strict,
            checksum: common.checksum.0,
            checksum_concurrency: common.checksum_concurrency.max(1),
            downloads_per_store: flags
                .tikv_max_restore_concurrency
                .min(flags.concurrency)
                .max(1),
            region_size_bytes: flags.merge_region_size_bytes,
            region_keys: flags.merge_region_key_count,
            rate_limit_bytes_per_s: common.rate_limit_bytes_per_s(),
            switch_mode_interval: flags.switch_mode_interval,
            online: flags.online.0,
            with_system_tables: flags.with_sys_table.0,
            load_stats: flags.load_stats.0,
            keep_placement: flags.keep_placement()?,
            send_credentials: global.storage.send_credentials_to_tikv.0,
            use_resume: flags.use_checkpoint.0,
            filter_rules: self.what.filter_rules(),
            pause_lease: flags.pause_lease,
            ..RestoreOptions::new(self.what.scope()?)
        })
    }
}

/// Where `--checkpoint-storage` is.
pub(super) async fn progress_storage(
    global: &GlobalFlags,
    session: &Session,
    cloud: &CloudFlags,
    url: &str,
) -> Outcome<Option<Storage>> {
    if url.is_empty() {
        return Ok(None);
    }
    let backend = global.storage.backend_at(url, cloud, Holds::Backup)?;
    Ok(Some(Storage::create_base(&session.rt, &backend).await?))
}

impl What {
    /// The rules of the filter, as they were given.
    pub(super) fn filter_rules(&self) -> Vec<String> {
        match self {
            What::Full(flags) => flags.rules(&FILTER_DEFAULT),
            What::Point(flags) => flags.rules(),
            What::Db(_) | What::Table(_) | What::Raw(_) | What::Txn(_) => Vec::new(),
        }
    }

    pub(super) fn scope(&self) -> Outcome<Scope> {
        Ok(match self {
            What::Full(flags) => Scope::Full {
                filter: flags.filter(&FILTER_DEFAULT)?,
                is_explicit: flags.is_given(),
            },
            What::Db(flags) => Scope::Database { db: flags.db()? },
            What::Table(flags) => Scope::Table {
                db: flags.db()?,
                table: flags.table()?,
            },
            What::Raw(flags) => Scope::Raw {
                range: flags.range()?,
                cf: flags.cf()?,
            },
            What::Txn(flags) => {
                if !flags.range()?.start.is_empty() || !flags.range()?.end.is_empty() {
                    return Err(CommandError::unsupported(
                        "restoring a part of a txn backup",
                        "leave --start and --end out",
                    ));
                }
                Scope::Txn
            }
            What::Point(flags) => flags.scope()?,
        })
    }
}

impl RestoreFlags {
    fn keep_placement(&self) -> Outcome<bool> {
        match self.with_tidb_placement_mode.to_ascii_uppercase().as_str() {
            "STRICT" => Ok(true),
            "IGNORE" => Ok(false),
            other => Err(CommandError::invalid(
                format!("there is no placement mode {other}"),
                "pass STRICT or IGNORE",
            )),
        }
    }
}
