use std::{sync::Arc, time::Duration};

use br_cluster::KeyPrefix;
use br_format::{backupmeta::Layout, resume::ResumeConfig};
use br_proto::backup::CompressionType;
use br_snapshot::backup::{self, BackupContext, BackupOptions, BackupTime, Scope, StoreLabel};
use br_storage::{Backend, Storage};
use br_types::TimeStamp;
use clap::{Args, Subcommand, ValueEnum};

use super::{
    common_flags::{CommonFlags, given_timestamp},
    global_flags::GlobalFlags,
    keys::{KeyFlags, RawFlags},
    session::Session,
    storage_flags::{CloudFlags, Holds},
    tables::{DbFlags, FilterFlags, TableFlags},
    version,
};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::{Switch, parse_duration},
};

/// `br backup`.
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct BackupCommand {
    #[command(flatten)]
    flags: BackupFlags,
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    cloud: CloudFlags,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// All databases and tables, or those that a filter takes.
    Full(FilterFlags),
    /// One database.
    Db(DbFlags),
    /// One table.
    Table(TableFlags),
    /// Raw keys.
    Raw(RawFlags),
    /// Transactional keys, without schemas.
    Txn(KeyFlags),
}

#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    Zstd,
    Lz4,
    Snappy,
}

#[derive(Args)]
struct BackupFlags {
    /// The point in time: a TSO number, or 'YYYY-MM-DD HH:MM:SS', with an offset such as +08:00
    /// or in local time. Without it, now.
    #[arg(
        long,
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "TS"
    )]
    backupts: String,
    /// So long before now, such as 10m.
    #[arg(long, global = true, value_parser = parse_duration, default_value = "0", value_name = "DURATION")]
    timeago: Duration,
    /// Only changes after this TSO: an incremental backup.
    #[arg(long, global = true, default_value = "0", value_name = "TSO")]
    lastbackupts: u64,
    /// Seconds that the cluster keeps old data for after this command has gone.
    #[arg(long, global = true, default_value = "300", value_name = "SECONDS")]
    gcttl: u32,
    /// Compression of data files.
    #[arg(
        long,
        global = true,
        value_enum,
        ignore_case = true,
        default_value = "zstd",
        value_name = "METHOD"
    )]
    compression: Compression,
    /// Its level; 0 is its default.
    #[arg(
        long,
        global = true,
        default_value = "0",
        value_name = "N",
        allow_negative_numbers = true
    )]
    compression_level: i32,
    /// Requests to one store at a time, at most 256.
    #[arg(long, global = true, default_value = "4", value_name = "N")]
    concurrency: u32,
    /// Tables whose checksum is computed at a time.
    #[arg(long, global = true, default_value = "64", value_name = "N")]
    table_concurrency: usize,
    /// Leave statistics out.
    #[arg(long, global = true, default_value = "true")]
    ignore_stats: Switch,
    /// Write the index in many files (version 2) rather than one.
    #[arg(long, global = true, default_value = "true")]
    use_backupmeta_v2: Switch,
    /// Resume an interrupted backup.
    #[arg(long, global = true, default_value = "true", hide = true)]
    use_checkpoint: Switch,
    /// Read from replicas on stores with this label, KEY:VALUE.
    #[arg(
        long,
        global = true,
        default_value = "",
        hide_default_value = true,
        value_name = "KEY:VALUE"
    )]
    replica_read_label: String,
    /// Print what would be done, and do nothing.
    #[arg(long, global = true)]
    dry_run: bool,
}

impl BackupCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let options = self.options(global)?;
        global.cluster.check()?;
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        // The storage first: a wrong URL shows at once, and nothing is asked of the cluster.
        let storage = match self.flags.dry_run {
            false => Storage::create_base(&session.rt, &backend).await?,
            true => match Storage::open(&session.rt, &backend).await {
                // A directory that is not there is as free as an empty one.
                Err(error) if error.is_not_found() || error.is_unused() => {
                    Storage::open(&session.rt, &Backend::Noop).await?
                }
                opened => opened?,
            },
        };
        let context = BackupContext {
            cluster: global.cluster.connect(session).await?,
            key_prefix: KeyPrefix::default(),
            storage,
            backend,
            progress: Arc::clone(session.display.progress()),
        };
        if self.flags.dry_run {
            summary::print(&backup::plan(&context, &options).await?);
            return Ok(());
        }
        let done = Box::pin(backup::run(&context, &options)).await;
        let done = done.inspect_err(|error| summary::log_failure(options.title(), error))?;
        summary::backup(&session.rt, &done, self.common.json);
        Ok(())
    }

    /// The flags, resolved.
    fn options(&self, global: &GlobalFlags) -> Outcome<BackupOptions> {
        let flags = &self.flags;
        let (scope, common) = (self.what.scope()?, &self.common);
        Ok(BackupOptions {
            at: flags.time()?,
            last_backup_ts: (flags.lastbackupts > 0).then_some(TimeStamp(flags.lastbackupts)),
            gc_ttl: Duration::from_secs(flags.gcttl.into()),
            compression: match flags.compression {
                Compression::Zstd => CompressionType::Zstd,
                Compression::Lz4 => CompressionType::Lz4,
                Compression::Snappy => CompressionType::Snappy,
            },
            compression_level: flags.compression_level,
            crypter: common.crypter.crypter()?,
            rate_limit_bytes_per_s: common.rate_limit_bytes_per_s(),
            concurrency: flags.concurrency()?,
            table_concurrency: flags.table_concurrency.max(1),
            checksum: common.checksum.0,
            checksum_concurrency: common.checksum_concurrency.max(1),
            ignore_stats: flags.ignore_stats.0,
            layout: if flags.use_backupmeta_v2.0 {
                Layout::V2
            } else {
                Layout::V1
            },
            check_requirements: global.cluster.check_requirements.0,
            use_resume: flags.use_checkpoint.0,
            filter_rules: self.what.filter_rules(),
            config_hashes: self.resume_config(global)?.hashes().into(),
            replica_read_label: flags.label()?,
            keyspace_name: None,
            send_credentials: global.storage.send_credentials_to_tikv.0,
            ..BackupOptions::new(scope, version::text())
        })
    }
}

impl BackupCommand {
    /// What the official tool makes its digest of.
    fn resume_config(&self, global: &GlobalFlags) -> Outcome<ResumeConfig> {
        let flags = &self.flags;
        let (s3, gcs, azblob) = global.storage.resume_options(&self.cloud);
        Ok(ResumeConfig {
            last_backup_ts: flags.lastbackupts,
            ignore_stats: flags.ignore_stats.0,
            use_checkpoint: flags.use_checkpoint.0,
            s3,
            gcs,
            azblob,
            storage: global.storage.url().to_owned(),
            pd: global.cluster.pd_addresses(),
            send_credentials_to_tikv: global.storage.send_credentials_to_tikv.0,
            no_credentials: false,
            filter_strings: self.what.official_filter()?,
            cipher: self.common.crypter.crypter()?,
            keyspace_name: String::new(),
        })
    }
}

impl What {
    /// The rules of the filter, as they were given.
    fn filter_rules(&self) -> Vec<String> {
        match self {
            What::Full(flags) => flags.rules(&["*.*"]),
            What::Db(_) | What::Table(_) | What::Raw(_) | What::Txn(_) => Vec::new(),
        }
    }

    /// The filter that the official tool makes of the flags.
    fn official_filter(&self) -> Outcome<Vec<String>> {
        Ok(match self {
            What::Full(flags) => flags.given_rules(&["*.*"]),
            What::Db(flags) => vec![format!("`{}`.*", flags.db()?)],
            What::Table(flags) => vec![format!("`{}`.`{}`", flags.db()?, flags.table()?)],
            What::Raw(_) | What::Txn(_) => vec!["*.*".to_owned()],
        })
    }

    fn scope(&self) -> Outcome<Scope> {
        Ok(match self {
            What::Full(flags) => Scope::Full {
                filter: flags.filter(&["*.*"])?,
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
            What::Txn(flags) => Scope::Txn {
                range: flags.range()?,
            },
        })
    }
}

impl BackupFlags {
    fn time(&self) -> Outcome<BackupTime> {
        match (self.backupts.as_str(), self.timeago) {
            ("", Duration::ZERO) => Ok(BackupTime::Now),
            ("", ago) => Ok(BackupTime::Ago(ago)),
            // As in the official tool, the timestamp goes before the age.
            (text, _) => given_timestamp("--backupts", text).map(BackupTime::At),
        }
    }

    fn concurrency(&self) -> Outcome<usize> {
        let wanted = usize::try_from(self.concurrency).unwrap_or(usize::MAX);
        match wanted {
            0 => Ok(backup::CONCURRENCY_DEFAULT),
            1..=backup::CONCURRENCY_MAX => Ok(wanted),
            _ => Err(CommandError::invalid(
                format!("--concurrency {wanted} is too much"),
                format!("pass at most {}", backup::CONCURRENCY_MAX),
            )),
        }
    }

    fn label(&self) -> Outcome<Option<StoreLabel>> {
        match self.replica_read_label.split_once(':') {
            None if self.replica_read_label.is_empty() => Ok(None),
            Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(Some(StoreLabel {
                key: key.into(),
                value: value.into(),
            })),
            _ => Err(CommandError::invalid(
                "--replica-read-label is not of the form KEY:VALUE",
                "pass a label that stores have, such as zone:backup",
            )),
        }
    }
}
