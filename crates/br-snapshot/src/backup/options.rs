//! What the user asked for, typed. The command fills it; nothing here knows flags.

use std::time::Duration;

use br_format::{backupmeta::Layout, crypter::Crypter, resume::ConfigHash};
use br_proto::backup::CompressionType;
use br_tidb::filter::TableFilter;
use br_types::{Cf, KeyRange, RawKey, TimeStamp};

/// `--gcttl` when the user gives none.
pub const GC_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// What [`GC_TTL_DEFAULT`] becomes for a backup that can be resumed, as in the official tool: so long
/// the cluster waits for somebody to notice and start the command again.
pub const GC_TTL_RESUME_DEFAULT: Duration = Duration::from_secs(72 * 60);
/// `--concurrency` when the user gives none: requests to one store at a time.
pub const CONCURRENCY_DEFAULT: usize = 4;
/// No more requests to one store at a time, as in the official tool.
pub const CONCURRENCY_MAX: usize = 256;
/// `--table-concurrency` when the user gives none: tables whose checksum is computed at a time.
pub const TABLE_CONCURRENCY_DEFAULT: usize = 64;
/// `--checksum-concurrency` when the user gives none: checksum requests of one table at a time.
pub const CHECKSUM_CONCURRENCY_DEFAULT: usize = 4;

/// One backup, apart from where the cluster and the external storage are: those are given opened.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What is backed up.
    pub scope: Scope,
    /// The point in time that the backup shows. Not for raw backups, which have none.
    pub at: BackupTime,
    /// `--lastbackupts`: only changes after it, for an incremental backup. Tables only.
    pub last_backup_ts: Option<TimeStamp>,
    /// `--gcttl`: how long the cluster keeps the data readable after the last sign of life of this
    /// process. Renewed every third of it for as long as the backup runs; removed at its end. An
    /// interrupted backup leaves it, for the command that goes on; [`GC_TTL_DEFAULT`] means
    /// [`GC_TTL_RESUME_DEFAULT`] with `use_resume`.
    pub gc_ttl: Duration,
    /// `--compression`: [`CompressionType::Zstd`], `Lz4` or `Snappy`.
    pub compression: CompressionType,
    /// `--compression-level`: 0 is the default of the method.
    pub compression_level: i32,
    /// `--crypter.*`: how data and meta files are encrypted.
    pub crypter: Crypter,
    /// `--ratelimit` times its unit: bytes per second that each store uploads; 0 is no limit.
    /// A limit holds per request, so with one the stores get one request at a time.
    pub rate_limit_bytes_per_s: u64,
    /// `--concurrency`: requests to each store at a time, 1 to [`CONCURRENCY_MAX`].
    pub concurrency: usize,
    /// `--table-concurrency`: tables whose checksum is computed at a time.
    pub table_concurrency: usize,
    /// `--checksum`: compare the sums of the files with those that the cluster computes.
    pub checksum: bool,
    /// `--checksum-concurrency`: checksum requests of one table at a time.
    pub checksum_concurrency: usize,
    /// `--ignore-stats`. `false` is refused: statistics cannot be dumped without a TiDB server.
    pub ignore_stats: bool,
    /// `--use-backupmeta-v2`. Raw and transactional backups are [`Layout::V1`] always.
    pub layout: Layout,
    /// `--check-requirements`: refuse stores whose version this tool was not made for.
    pub check_requirements: bool,
    /// `--use-checkpoint`: write down what is done, and take up where an interrupted backup to the
    /// same place stopped.
    pub use_resume: bool,
    /// The rules of `--filter` as they were given, which have to be the same to take up a backup.
    pub filter_rules: Vec<String>,
    /// The digests of the options as versions of the official tool compute them: so that either tool
    /// can go on with what the other began. The first is written down. None: only this one can.
    pub config_hashes: Vec<ConfigHash>,
    /// `--replica-read-label`: read from replicas on the stores with this label instead of leaders.
    pub replica_read_label: Option<StoreLabel>,
    /// `--keyspace-name`: the keyspace (API v2) whose tables or raw keys are backed up.
    pub keyspace_name: Option<String>,
    /// `--send-credentials-to-tikv`: stores get the credentials of the external storage;
    /// otherwise they use their own.
    pub send_credentials: bool,
    /// What `br --version` says, for backupmeta.
    pub br_version: String,
}

/// What is backed up.
#[derive(Clone, Debug)]
pub enum Scope {
    /// `backup full`: every table that the filter takes, with placement policies.
    Full {
        /// `--filter`; [`TableFilter::all`] without.
        filter: TableFilter,
    },
    /// `backup db`: one database.
    Database {
        /// Its name, in any case.
        db: String,
    },
    /// `backup table`: one table.
    Table {
        /// The name of its database, in any case.
        db: String,
        /// Its name, in any case.
        table: String,
    },
    /// `backup raw`: raw keys.
    Raw {
        /// The keys as clients of the store write them. In an API v2 cluster the whole range, or
        /// keys that begin with `r` and the keyspace; with a keyspace name, keys without those.
        range: KeyRange<RawKey>,
        /// The column family.
        cf: Cf,
    },
    /// `backup txn`: transactional keys, without schemas.
    Txn {
        /// The keys; usually all.
        range: KeyRange<RawKey>,
    },
}

/// Which point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackupTime {
    /// A fresh timestamp of PD.
    #[default]
    Now,
    /// `--backupts`.
    At(TimeStamp),
    /// `--timeago`: so long before now.
    Ago(Duration),
}

/// A label of stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLabel {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl BackupOptions {
    /// The official defaults.
    pub fn new(scope: Scope, br_version: impl Into<String>) -> BackupOptions {
        BackupOptions {
            scope,
            at: BackupTime::Now,
            last_backup_ts: None,
            gc_ttl: GC_TTL_DEFAULT,
            compression: CompressionType::Zstd,
            compression_level: 0,
            crypter: Crypter::plaintext(),
            rate_limit_bytes_per_s: 0,
            concurrency: CONCURRENCY_DEFAULT,
            table_concurrency: TABLE_CONCURRENCY_DEFAULT,
            checksum: false,
            checksum_concurrency: CHECKSUM_CONCURRENCY_DEFAULT,
            ignore_stats: true,
            layout: Layout::V2,
            check_requirements: true,
            use_resume: true,
            filter_rules: Vec::new(),
            config_hashes: Vec::new(),
            replica_read_label: None,
            keyspace_name: None,
            send_credentials: true,
            br_version: br_version.into(),
        }
    }

    /// The name of the command, which is the title of its first phase and of its summary.
    pub fn title(&self) -> &'static str {
        match self.scope {
            Scope::Full { .. } => "Full Backup",
            Scope::Database { .. } => "Database Backup",
            Scope::Table { .. } => "Table Backup",
            Scope::Raw { .. } => "Raw Backup",
            Scope::Txn { .. } => "Txn Backup",
        }
    }

    /// How long the cluster keeps the data after the last sign of life.
    pub fn effective_gc_ttl(&self) -> Duration {
        match self.use_resume && self.gc_ttl == GC_TTL_DEFAULT {
            true => GC_TTL_RESUME_DEFAULT,
            false => self.gc_ttl,
        }
    }

    /// Requests to one store at a time. One when there is a rate limit, which holds per request.
    pub fn requests_per_store(&self) -> usize {
        if self.rate_limit_bytes_per_s > 0 {
            1
        } else {
            self.concurrency.clamp(1, CONCURRENCY_MAX)
        }
    }

    /// Where meta data goes: raw and transactional backups know one layout only.
    pub fn effective_layout(&self) -> Layout {
        match self.scope {
            Scope::Raw { .. } | Scope::Txn { .. } => Layout::V1,
            Scope::Full { .. } | Scope::Database { .. } | Scope::Table { .. } => self.layout,
        }
    }
}
