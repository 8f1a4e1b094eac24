//! What the user asked for, typed. The command fills it; nothing here knows flags.

use std::time::Duration;

use br_format::{backupmeta::Compatibility, crypter::Crypter};
use br_storage::Storage;
use br_tidb::filter::TableFilter;
use br_types::{Cf, KeyRange, RawKey};

/// `--tikv-max-restore-concurrency` when the user gives none: downloads of one store at a time.
pub const DOWNLOADS_PER_STORE_DEFAULT: usize = 128;
/// `--table-concurrency` when the user gives none: tables whose checksum is computed at a time.
pub const TABLE_CONCURRENCY_DEFAULT: usize = 64;
/// `--checksum-concurrency` when the user gives none: checksum requests of one table at a time.
pub const CHECKSUM_CONCURRENCY_DEFAULT: usize = 4;
/// `--merge-region-size-bytes` when neither the user nor the stores say anything.
pub const REGION_SIZE_BYTES_DEFAULT: u64 = 96 << 20;
/// `--merge-region-key-count` when neither the user nor the stores say anything.
pub const REGION_KEYS_DEFAULT: u64 = 960_000;
/// `--switch-mode-interval` when the user gives none.
pub const SWITCH_MODE_INTERVAL_DEFAULT: Duration = Duration::from_secs(300);

/// How long PD keeps what a restore paused when it is not told otherwise, as in the official tool.
pub const PAUSE_LEASE_DEFAULT: Duration = Duration::from_secs(300);

/// One restore, apart from where the cluster and the external storage are: those are given opened.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// What is restored.
    pub scope: Scope,
    /// `--crypter.*`: how the backup is encrypted.
    pub crypter: Crypter,
    /// Whether fields of newer tools are refused (`--check-requirements`).
    pub compatibility: Compatibility,
    /// `--check-requirements`: refuse clusters that the backup was not made for.
    pub check_requirements: bool,
    /// `--checksum`: compare the restored tables with the backup.
    pub checksum: bool,
    /// `--table-concurrency`: tables whose checksum is computed at a time.
    pub table_concurrency: usize,
    /// `--checksum-concurrency`: checksum requests of one table at a time.
    pub checksum_concurrency: usize,
    /// `--tikv-max-restore-concurrency`: downloads of one store at a time.
    pub downloads_per_store: usize,
    /// `--merge-region-size-bytes`; `None` takes it from the stores.
    pub region_size_bytes: Option<u64>,
    /// `--merge-region-key-count`; `None` takes it from the stores.
    pub region_keys: Option<u64>,
    /// `--ratelimit` times its unit: bytes per second that each store downloads; 0 is no limit.
    pub rate_limit_bytes_per_s: u64,
    /// `--switch-mode-interval`: how often import mode is renewed.
    pub switch_mode_interval: Duration,
    /// `--online`: pause nothing in the cluster.
    pub online: bool,
    /// `--with-sys-table`: users, privileges and what else of TiDB's own tables the filter takes
    /// come over.
    pub with_system_tables: bool,
    /// `--load-stats`: the optimizer's statistics of the restored tables come over.
    pub load_stats: bool,
    /// `--with-tidb-placement-mode`: whether placement policies are kept.
    pub keep_placement: bool,
    /// `--send-credentials-to-tikv`: stores get the credentials of the external storage.
    pub send_credentials: bool,
    /// `--use-checkpoint`: write down what is done, and go on with an interrupted restore. Without,
    /// a restore that ends without success removes what it brought in.
    pub use_resume: bool,
    /// `--checkpoint-storage`: where what is done is written down; `None`: in the target cluster, in
    /// PD.
    pub progress_storage: Option<Storage>,
    /// The rules of `--filter` as they were given, with [`super::CASE_SENSITIVE`] among them if the
    /// filter heeds case: they have to be the same to go on.
    pub filter_rules: Vec<String>,
    /// How long PD keeps what the restore paused after its last sign of life.
    pub pause_lease: Duration,
    /// Whether a log comes on top: `restore point`.
    pub to_point: bool,
}

/// What is restored.
#[derive(Clone, Debug)]
pub enum Scope {
    /// `restore full`.
    Full {
        /// `--filter`.
        filter: TableFilter,
        /// Whether the user gave a filter; without one the cluster has to be fresh.
        is_explicit: bool,
    },
    /// `restore db`: one database.
    Database {
        /// Its name, in any case.
        db: String,
    },
    /// `restore table`: one table.
    Table {
        /// The name of its database, in any case.
        db: String,
        /// Its name, in any case.
        table: String,
    },
    /// `restore raw`: raw keys.
    Raw {
        /// The keys, as in [`crate::backup::Scope::Raw`] without a keyspace name: in API v2 they
        /// begin with `r` and the keyspace, and an open range is that of all keyspaces.
        range: KeyRange<RawKey>,
        /// The column family.
        cf: Cf,
    },
    /// `restore txn`: transactional keys, without schemas.
    Txn,
}

impl RestoreOptions {
    /// The official defaults.
    pub fn new(scope: Scope) -> RestoreOptions {
        RestoreOptions {
            scope,
            crypter: Crypter::plaintext(),
            compatibility: Compatibility::Strict,
            check_requirements: true,
            checksum: false,
            table_concurrency: TABLE_CONCURRENCY_DEFAULT,
            checksum_concurrency: CHECKSUM_CONCURRENCY_DEFAULT,
            downloads_per_store: DOWNLOADS_PER_STORE_DEFAULT,
            region_size_bytes: None,
            region_keys: None,
            rate_limit_bytes_per_s: 0,
            switch_mode_interval: SWITCH_MODE_INTERVAL_DEFAULT,
            online: false,
            with_system_tables: true,
            load_stats: true,
            keep_placement: true,
            send_credentials: true,
            use_resume: true,
            progress_storage: None,
            filter_rules: Vec::new(),
            pause_lease: PAUSE_LEASE_DEFAULT,
            to_point: false,
        }
    }

    /// The name of the command, which is the title of its summary.
    pub fn title(&self) -> &'static str {
        match self.scope {
            Scope::Full { .. } if self.to_point => "Point Restore",
            Scope::Full { .. } => "Full Restore",
            Scope::Database { .. } => "DataBase Restore",
            Scope::Table { .. } => "Table Restore",
            Scope::Raw { .. } => "Raw Restore",
            Scope::Txn => "Txn Restore",
        }
    }

    /// Whether a database, named as in the backup, is asked for.
    pub fn takes_db(&self, db: &str) -> bool {
        match &self.scope {
            Scope::Full { filter, .. } => filter.matches_db(db),
            Scope::Database { db: wanted } => wanted.eq_ignore_ascii_case(db),
            Scope::Table { .. } | Scope::Raw { .. } | Scope::Txn => false,
        }
    }

    /// Whether a table, named as in the backup, is asked for.
    pub fn takes_table(&self, db: &str, table: &str) -> bool {
        match &self.scope {
            Scope::Full { filter, .. } => filter.matches_table(db, table),
            Scope::Database { db: wanted } => wanted.eq_ignore_ascii_case(db),
            Scope::Table {
                db: wanted_db,
                table: wanted,
            } => wanted_db.eq_ignore_ascii_case(db) && wanted.eq_ignore_ascii_case(table),
            Scope::Raw { .. } | Scope::Txn => false,
        }
    }

    /// What is asked for, for messages.
    pub(super) fn wanted(&self) -> String {
        match &self.scope {
            Scope::Full { .. } => "table that the filter takes".to_owned(),
            Scope::Database { db } => format!("database {db}"),
            Scope::Table { db, table } => format!("table {db}.{table}"),
            Scope::Raw { .. } => "raw keys in the range".to_owned(),
            Scope::Txn => "keys".to_owned(),
        }
    }
}
