use br_cluster::{KvError, PdError};
use br_format::backupmeta::MetaError;
use br_storage::StorageError;
use br_tidb::schema::SchemaError;
use br_types::{Classify, Code, KeyRange, Kind, RawKey, RegionId, StoreId, TimeStamp};

use super::file_groups::GroupError;

/// Why a restore ended without success.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A store did not help.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The schemas of the cluster make no sense.
    #[error(transparent)]
    Catalog(br_catalog::CatalogError),
    /// The stores did not give a checksum.
    #[error(transparent)]
    NoChecksum(#[from] crate::checksum::ChecksumError),
    /// The stores cannot be told where the backup is.
    #[error("the stores cannot read the backup: {message}")]
    Backend {
        /// Why not.
        message: String,
    },
    /// A log backup runs, which would not see what is ingested.
    #[error("log backup task {task} runs on the cluster, and would not see what is restored")]
    LogTask {
        /// Its name.
        task: String,
    },
    /// The storage of the backup did not help.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The backup's metadata is damaged or not for this tool.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// There is no backup there.
    #[error("there is no finished backup in {storage}: it has no backupmeta{}", if *.unfinished { ", only what a backup left that did not end" } else { "" })]
    NoBackup {
        /// The storage.
        storage: String,
        /// Whether there is a `backup.lock`.
        unfinished: bool,
    },
    /// A schema of the backup cannot be restored.
    #[error("schema of {name}: {source}")]
    Schema {
        /// The table or database.
        name: String,
        /// Why.
        source: SchemaError,
    },
    /// A DDL job of an incremental backup makes no sense.
    #[error("DDL job in {object}: {problem}")]
    DdlJob {
        /// The object that it stands in.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The backup's files contradict each other.
    #[error(transparent)]
    Files(#[from] GroupError),
    /// The backup holds something else than the command restores.
    #[error("the backup holds {found}, not {wanted}")]
    WrongContent {
        /// What it holds.
        found: &'static str,
        /// What the command restores.
        wanted: &'static str,
        /// The command for what it holds.
        command: &'static str,
    },
    /// No database or table of the backup is asked for.
    #[error("the backup has no {what} to restore")]
    NothingSelected {
        /// What was asked for.
        what: String,
    },
    /// A full restore into a cluster that has tables already.
    #[error("the target cluster is not fresh: it has {}", list(.existing))]
    NotFresh {
        /// Some databases that it has.
        existing: Vec<String>,
    },
    /// Tables of the backup exist in the cluster.
    #[error("the target cluster has already {}", list(.tables))]
    TablesExist {
        /// Some of them.
        tables: Vec<String>,
    },
    /// A range that is not one of raw keys.
    #[error(
        "{range} is no range of raw keys of an API v2 cluster: those begin with 72 (`r`) and the \
         keyspace"
    )]
    NotRawKeys {
        /// The range.
        range: KeyRange<RawKey>,
    },
    /// Rows of a table of TiDB's own cannot be taken over.
    #[error("table {table} of the backup does not fit the cluster's: {why}")]
    IncompatibleSystemTable {
        /// The table.
        table: String,
        /// Why not.
        why: String,
    },
    /// Keys exist where a raw or transactional backup is to go.
    #[error("the target cluster has keys in the range of the backup, such as {key}")]
    KeysExist {
        /// The first of them, in hexadecimal.
        key: String,
    },
    /// An incremental backup without what it builds upon.
    #[error(
        "the backup holds changes since {last_backup_ts} only, and the cluster lacks {missing}"
    )]
    NoBase {
        /// Where its changes begin.
        last_backup_ts: TimeStamp,
        /// What the cluster lacks.
        missing: String,
    },
    /// Keys sort differently in the cluster.
    #[error("the backup was made with new_collation_enabled {backup}, the cluster has {cluster}")]
    Collation {
        /// As the backup says.
        backup: bool,
        /// As the cluster says.
        cluster: bool,
    },
    /// Versions that do not go together.
    #[error("{what}")]
    Version {
        /// Which, and why not.
        what: String,
    },
    /// Not enough room.
    #[error(
        "store {store} has {available_bytes} bytes free, and the restore needs about {needed_bytes} on each"
    )]
    NoSpace {
        /// The store.
        store: StoreId,
        /// What it has.
        available_bytes: u64,
        /// What a store's share will be.
        needed_bytes: u64,
    },
    /// No store to restore to.
    #[error("no store of the cluster is up")]
    NoStore,
    /// An option that cannot be had here.
    #[error("{option} {why}")]
    Unsupported {
        /// The flag.
        option: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A store could not fetch a file.
    #[error("store {store} could not fetch {file}: {message}")]
    Download {
        /// The store.
        store: StoreId,
        /// The file.
        file: String,
        /// In the store's words.
        message: String,
        /// What to do about it, judged from the words.
        kind: Kind,
    },
    /// A store could not take files in.
    #[error("region {region} on store {store} could not take files in: {message}")]
    Ingest {
        /// The region.
        region: RegionId,
        /// Its leader's store.
        store: StoreId,
        /// In the store's words.
        message: String,
        /// What to do about it.
        kind: Kind,
    },
    /// The restored data differs from what was backed up.
    #[error("checksum of {table} is {found}, and its backup says {expected}")]
    Checksum {
        /// The table.
        table: String,
        /// As the stores compute it.
        found: String,
        /// As the files say.
        expected: String,
    },
    /// Somebody else changed the schemas in the meantime.
    #[error("{name} was created by somebody else while the restore was running")]
    CreatedMeanwhile {
        /// The table or database.
        name: String,
    },
    /// Another restore runs, and the two would disturb each other.
    #[error("{what} is running on the cluster since {since}: {holder}")]
    Running {
        /// Its command.
        what: String,
        /// When it began, UTC.
        since: String,
        /// Who it is.
        holder: String,
    },
    /// PD lost the registration of the restore.
    #[error("PD does not know of this restore any more, as it was out of reach for too long")]
    RegistrationLost,
    /// Another restore was begun and not ended, and wants the same table.
    #[error(
        "an interrupted {title}, begun at {since}, restores {shared} too, and is another one: \
         {differences}"
    )]
    Unfinished {
        /// Its command.
        title: String,
        /// When it began, UTC.
        since: String,
        /// A table that both want.
        shared: String,
        /// What was asked for that is not now.
        differences: String,
    },
    /// The same restore was begun with other options.
    #[error("the {title} that was interrupted, begun at {since}, has other options: {differences}")]
    OtherOptions {
        /// Its command.
        title: String,
        /// When it began, UTC.
        since: String,
        /// What was asked for that is not now.
        differences: String,
    },
    /// A restore that is to be given up has all data in, and may have changed schemas.
    #[error("all data of the {title} that began at {since} is in: only schemas are left")]
    OnlySchemasLeft {
        /// Its command.
        title: String,
        /// When it began, UTC.
        since: String,
    },
    /// The progress of the interrupted restore is elsewhere.
    #[error("the interrupted restore was begun with --checkpoint-storage {was}, this one has {is}")]
    OtherProgressStorage {
        /// Where it is.
        was: String,
        /// Where this command looks.
        is: String,
    },
    /// What is kept of an interrupted restore makes no sense.
    #[error("what the cluster keeps of the interrupted restore {task} is damaged: {problem}")]
    BadRecord {
        /// Its digest.
        task: String,
        /// What is wrong.
        problem: String,
    },
    /// No restore of these options was begun and not ended.
    #[error(
        "no interrupted restore has these options{}",
        if others.is_empty() { String::new() } else { format!("; there is: {}", list(others)) }
    )]
    NothingToAbort {
        /// The ones that there are.
        others: Vec<String>,
    },
    /// Several restores of these options were begun and not ended.
    #[error("several interrupted restores have these options: {}", list(.found))]
    ManyToAbort {
        /// They.
        found: Vec<String>,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// The first few names, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Classify for RestoreError {
    fn kind(&self) -> Kind {
        match self {
            RestoreError::Pd(error) => error.kind(),
            RestoreError::Kv(error) => error.kind(),
            RestoreError::Storage(error) => error.kind(),
            RestoreError::Catalog(error) => error.kind(),
            RestoreError::NoChecksum(error) => error.kind(),
            RestoreError::Meta(error) => error.kind(),
            RestoreError::NoBackup { .. }
            | RestoreError::Backend { .. }
            | RestoreError::WrongContent { .. }
            | RestoreError::NothingSelected { .. }
            | RestoreError::NotRawKeys { .. }
            | RestoreError::NoBase { .. }
            | RestoreError::Collation { .. }
            | RestoreError::IncompatibleSystemTable { .. }
            | RestoreError::Version { .. }
            | RestoreError::Unsupported { .. } => Kind::Invalid,
            RestoreError::Schema { .. }
            | RestoreError::DdlJob { .. }
            | RestoreError::Files(_)
            | RestoreError::Checksum { .. } => Kind::Data,
            RestoreError::BadRecord { .. } => Kind::Data,
            RestoreError::NothingToAbort { .. } | RestoreError::ManyToAbort { .. } => Kind::Invalid,
            RestoreError::RegistrationLost => Kind::Retry,
            RestoreError::NotFresh { .. }
            | RestoreError::Running { .. }
            | RestoreError::Unfinished { .. }
            | RestoreError::OtherOptions { .. }
            | RestoreError::OnlySchemasLeft { .. }
            | RestoreError::OtherProgressStorage { .. }
            | RestoreError::TablesExist { .. }
            | RestoreError::KeysExist { .. }
            | RestoreError::LogTask { .. }
            | RestoreError::CreatedMeanwhile { .. } => Kind::Conflict,
            RestoreError::NoSpace { .. } | RestoreError::NoStore => Kind::Retry,
            RestoreError::Download { kind, .. } | RestoreError::Ingest { kind, .. } => *kind,
            RestoreError::Cancelled => Kind::Cancelled,
        }
    }

    fn code(&self) -> Code {
        match self {
            RestoreError::Pd(error) => error.code(),
            RestoreError::Kv(error) => error.code(),
            RestoreError::Storage(error) => error.code(),
            RestoreError::Catalog(error) => error.code(),
            RestoreError::NoChecksum(error) => error.code(),
            RestoreError::Backend { .. } => Code::STORAGE_INVALID_CONFIG,
            RestoreError::LogTask { .. } => Code::STREAM_LOG_TASK_EXIST,
            RestoreError::Meta(error) => error.code(),
            RestoreError::NoBackup { .. } | RestoreError::Files(_) => Code::RESTORE_INVALID_BACKUP,
            RestoreError::Schema { .. } | RestoreError::DdlJob { .. } => Code::INVALID_META_FILE,
            RestoreError::WrongContent { .. } => Code::RESTORE_MODE_MISMATCH,
            RestoreError::NothingSelected { .. } => Code::UNDEFINED_DB_OR_TABLE,
            RestoreError::NotRawKeys { .. } => Code::BACKUP_INVALID_RANGE,
            RestoreError::NotFresh { .. } | RestoreError::KeysExist { .. } => {
                Code::RESTORE_NOT_FRESH_CLUSTER
            }
            RestoreError::TablesExist { .. } | RestoreError::CreatedMeanwhile { .. } => {
                Code::TABLES_ALREADY_EXISTED
            }
            RestoreError::Running { .. }
            | RestoreError::Unfinished { .. }
            | RestoreError::OtherOptions { .. }
            | RestoreError::OnlySchemasLeft { .. } => Code::of_kind(Kind::Conflict),
            RestoreError::OtherProgressStorage { .. }
            | RestoreError::NothingToAbort { .. }
            | RestoreError::ManyToAbort { .. } => Code::INVALID_ARGUMENT,
            RestoreError::BadRecord { .. } => Code::DATA_DAMAGED,
            RestoreError::RegistrationLost => Code::of_kind(Kind::Retry),
            RestoreError::NoBase { .. } => Code::RESTORE_SCHEMA_NOT_EXISTS,
            RestoreError::Collation { .. } | RestoreError::Unsupported { .. } => {
                Code::UNSUPPORTED_OPERATION
            }
            RestoreError::IncompatibleSystemTable { .. } => Code::RESTORE_INCOMPATIBLE_SYS,
            RestoreError::Version { .. } => Code::VERSION_MISMATCH,
            RestoreError::NoSpace { .. } => Code::KV_DISK_FULL,
            RestoreError::NoStore => Code::FAILED_TO_CONNECT,
            RestoreError::Download { .. } => Code::KV_DOWNLOAD_FAILED,
            RestoreError::Ingest { .. } => Code::KV_INGEST_FAILED,
            RestoreError::Checksum { .. } => Code::RESTORE_CHECKSUM_MISMATCH,
            RestoreError::Cancelled => Code::CANCELLED,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            RestoreError::Pd(error) => return error.next_step(),
            RestoreError::Kv(error) => return error.next_step(),
            RestoreError::Storage(error) => return error.next_step(),
            RestoreError::Catalog(error) => return error.next_step(),
            RestoreError::NoChecksum(error) => return error.next_step(),
            RestoreError::LogTask { .. } => "Stop it with `br log stop` first",
            RestoreError::Meta(error) => return error.next_step(),
            RestoreError::NoBackup {
                unfinished: true, ..
            } => "Run the backup again, or restore from another one",
            RestoreError::NoBackup { .. } => "Check --storage",
            RestoreError::WrongContent { command, .. } => return Some(format!("Use `{command}`")),
            RestoreError::NothingSelected { .. } => {
                "Check the names and filters; `br export` shows what a backup holds"
            }
            RestoreError::NotFresh { .. } => {
                "Drop the existing databases, or name with --filter what to restore"
            }
            RestoreError::Running { .. } => "Wait for it to end, then run it again",
            RestoreError::RegistrationLost => "Check PD, then run the same command again to go on",
            RestoreError::Unfinished { .. } | RestoreError::OtherOptions { .. } => {
                "Run it again with the options that it had, or give it up with `br abort restore`"
            }
            RestoreError::OnlySchemasLeft { .. } => {
                "Run the restore again with the options that it had: it ends at once"
            }
            RestoreError::OtherProgressStorage { .. } => {
                "Run it again with the --checkpoint-storage that it had, or give it up with `br \
                 abort restore`"
            }
            RestoreError::BadRecord { .. } => {
                "Drop the tables that it made, delete the keys below /holdfast/restore/ in PD's \
                 etcd, and restore anew"
            }
            RestoreError::NothingToAbort { .. } => {
                "Pass the command and options of the restore to be given up"
            }
            RestoreError::ManyToAbort { .. } => "Name the backup with --storage",
            RestoreError::TablesExist { .. } => {
                "Drop or rename them, or leave them out with --filter"
            }
            RestoreError::NotRawKeys { .. } => {
                "Put r and the three bytes of the keyspace before --start and --end, or leave them \
                 away"
            }
            RestoreError::KeysExist { .. } => "Restore into an empty cluster or range",
            RestoreError::NoBase { .. } => {
                "Restore the full backup that it builds upon first, and nothing in between"
            }
            RestoreError::Collation { .. } => {
                "Restore into a cluster that was bootstrapped with the same setting"
            }
            RestoreError::IncompatibleSystemTable { .. } => {
                "Pass --with-sys-table=false and make the users anew, or leave the table out with \
                 --filter"
            }
            RestoreError::Version { .. } => {
                "Use versions that go together, or --check-requirements=false at your own risk"
            }
            RestoreError::NoSpace { .. } => "Free disk space or add stores, then run it again",
            RestoreError::NoStore => "Start the stores, then run it again",
            RestoreError::Download {
                kind: Kind::Data, ..
            }
            | RestoreError::DdlJob { .. }
            | RestoreError::Files(_) => "Restore from another copy of the backup",
            RestoreError::Schema { .. } => "Leave the table out with --filter, and report it",
            RestoreError::Download { .. } => {
                "Check that every store reaches the storage, then run it again"
            }
            RestoreError::Ingest { .. } => "Look at the store's log, then run it again",
            RestoreError::Checksum { .. } => {
                "Nothing of the backup is visible in the cluster; restore from another copy"
            }
            RestoreError::CreatedMeanwhile { .. } => {
                "Let nobody change schemas during a restore, and run it again"
            }
            RestoreError::Backend { .. } => "Check --storage and its options",
            RestoreError::Cancelled => "Run the same command again",
            RestoreError::Unsupported { .. } => return None,
        };
        Some(step.to_owned())
    }
}
