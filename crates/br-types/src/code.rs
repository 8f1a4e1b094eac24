use std::fmt;

use crate::Kind;

/// A published error code, `BR:Area:Name`; public API, spelled as the official tool spells it.
///
/// `docs/errors/` says for each what it means and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(&'static str);

macro_rules! codes {
    ($($name:ident = $text:literal;)*) => {
        impl Code {
            $(#[doc = concat!("`", $text, "`")] pub const $name: Code = Code($text);)*

            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];
        }
    };
}

codes! {
    BACKUP_CHECKSUM_MISMATCH = "BR:Backup:ErrBackupChecksumMismatch";
    BACKUP_GC_SAFEPOINT_EXCEEDED = "BR:Backup:ErrBackupGCSafepointExceeded";
    BACKUP_INVALID_RANGE = "BR:Backup:ErrBackupInvalidRange";
    BACKUP_KEY_IS_LOCKED = "BR:Backup:ErrBackupKeyIsLocked";
    BACKUP_NO_LEADER = "BR:Backup:ErrBackupNoLeader";
    BACKUP_REGION = "BR:Backup:ErrBackupRegion";
    ENV_NOT_SPECIFIED = "BR:Common:ErrEnvNotSpecified";
    FAILED_TO_CONNECT = "BR:Common:ErrFailedToConnect";
    INVALID_ARGUMENT = "BR:Common:ErrInvalidArgument";
    INVALID_META_FILE = "BR:Common:ErrInvalidMetaFile";
    INVALID_RANGE = "BR:Common:ErrInvalidRange";
    MIGRATION_NOT_FOUND = "BR:Common:ErrMigrationNotFound";
    MIGRATION_VERSION_NOT_SUPPORTED = "BR:Common:ErrMigrationVersionNotSupported";
    UNDEFINED_DB_OR_TABLE = "BR:Common:ErrUndefinedDbOrTable";
    UNKNOWN = "BR:Common:ErrUnknown";
    UNSUPPORTED_OPERATION = "BR:Common:ErrUnsupportedOperation";
    VERSION_MISMATCH = "BR:Common:ErrVersionMismatch";
    STORAGE_INVALID_CONFIG = "BR:ExternalStorage:ErrStorageInvalidConfig";
    STORAGE_INVALID_PERMISSION = "BR:ExternalStorage:ErrStorageInvalidPermission";
    STORAGE_UNKNOWN = "BR:ExternalStorage:ErrStorageUnknown";
    KV_CLUSTER_ID_MISMATCH = "BR:KV:ErrKVClusterIDMismatch";
    KV_DISK_FULL = "BR:KV:ErrKVDiskFull";
    KV_DOWNLOAD_FAILED = "BR:KV:ErrKVDownloadFailed";
    KV_EPOCH_NOT_MATCH = "BR:KV:ErrKVEpochNotMatch";
    KV_INGEST_FAILED = "BR:KV:ErrKVIngestFailed";
    KV_KEY_NOT_IN_REGION = "BR:KV:ErrKVKeyNotInRegion";
    KV_NOT_LEADER = "BR:KV:ErrKVNotLeader";
    KV_RANGE_IS_EMPTY = "BR:KV:ErrKVRangeIsEmpty";
    KV_REWRITE_RULE_NOT_FOUND = "BR:KV:ErrKVRewriteRuleNotFound";
    KV_STORAGE = "BR:KV:ErrKVStorage";
    KV_UNKNOWN = "BR:KV:ErrKVUnknown";
    NOT_TIKV_STORAGE = "BR:KV:ErrNotTiKVStorage";
    POSSIBLE_INCONSISTENCY = "BR:KV:ErrPossibleInconsistency";
    PD_BATCH_SCAN_REGION = "BR:PD:ErrPDBatchScanRegion";
    PD_INVALID_RESPONSE = "BR:PD:ErrPDInvalidResponse";
    PD_LEADER_NOT_FOUND = "BR:PD:ErrPDLeaderNotFound";
    PD_NOT_FULLY_SCATTER = "BR:PD:ErrPDNotFullyScatter";
    PD_REGIONS_NOT_FULLY_SCATTER = "BR:PD:ErrPDRegionsNotFullyScatter";
    PD_UKNOWN_SCATTER_RESULT = "BR:PD:ErrPDUknownScatterResult";
    PD_UPDATE_FAILED = "BR:PD:ErrPDUpdateFailed";
    CHECKPOINT_WATCH_RESTART = "BR:PiTR:ErrCheckpointWatchRestart";
    INVALID_TASK_INFO = "BR:PiTR:ErrInvalidTaskInfo";
    MALFORMED_METADATA = "BR:PiTR:ErrMalformedMetadata";
    PITR_INVALID_CDC_LOG_FORMAT = "BR:PiTR:ErrPiTRInvalidCDCLogFormat";
    TASK_NOT_FOUND = "BR:PiTR:ErrTaskNotFound";
    DATABASES_ALREADY_EXISTED = "BR:Restore:ErrDatabasesAlreadyExisted";
    RESTORE_CHECKPOINT_MISMATCH = "BR:Restore:ErrRestoreCheckpointMismatch";
    RESTORE_CHECKSUM_MISMATCH = "BR:Restore:ErrRestoreChecksumMismatch";
    RESTORE_INCOMPATIBLE_SYS = "BR:Restore:ErrRestoreIncompatibleSys";
    RESTORE_INVALID_BACKUP = "BR:Restore:ErrRestoreInvalidBackup";
    RESTORE_INVALID_REWRITE = "BR:Restore:ErrRestoreInvalidRewrite";
    RESTORE_MODE_MISMATCH = "BR:Restore:ErrRestoreModeMismatch";
    RESTORE_NO_PEER = "BR:Restore:ErrRestoreNoPeer";
    RESTORE_NOT_FRESH_CLUSTER = "BR:Restore:ErrRestoreNotFreshCluster";
    RESTORE_RANGE_MISMATCH = "BR:Restore:ErrRestoreRangeMismatch";
    RESTORE_REJECT_STORE = "BR:Restore:ErrRestoreRejectStore";
    RESTORE_RESOLVED_TS_CONSTRAIN = "BR:Restore:ErrRestoreResolvedTsConstrain";
    RESTORE_SCHEMA_NOT_EXISTS = "BR:Restore:ErrRestoreSchemaNotExists";
    RESTORE_SPLIT_FAILED = "BR:Restore:ErrRestoreSplitFailed";
    RESTORE_TABLE_ID_MISMATCH = "BR:Restore:ErrRestoreTableIDMismatch";
    RESTORE_WRITE_AND_INGEST = "BR:Restore:ErrRestoreWriteAndIngest";
    TABLES_ALREADY_EXISTED = "BR:Restore:ErrTablesAlreadyExisted";
    UNSUPPORTED_SYS_TABLE = "BR:Restore:ErrUnsupportedSysTable";
    STREAM_LOG_TASK_EXIST = "BR:Stream:ErrStreamLogTaskExist";
    STREAM_LOG_TASK_HAS_NO_STORAGE = "BR:Stream:ErrStreamLogTaskHasNoStorage";
    CANCELLED = "BR:Common:ErrCancelled";
    INTERNAL = "BR:Common:ErrInternal";
    STORAGE_IN_USE = "BR:Common:ErrStorageInUse";
    DATA_DAMAGED = "BR:Common:ErrDataDamaged";
}

impl Code {
    /// The code as users see and search it.
    pub const fn text(self) -> &'static str {
        self.0
    }

    /// The code of an error that has none of its own.
    pub const fn of_kind(kind: Kind) -> Code {
        match kind {
            Kind::Retry | Kind::Reroute => Code::FAILED_TO_CONNECT,
            Kind::Conflict => Code::STORAGE_IN_USE,
            Kind::Cancelled => Code::CANCELLED,
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::Data => Code::DATA_DAMAGED,
            Kind::Internal => Code::INTERNAL,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_well_formed() {
        let unique: HashSet<_> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(unique.len(), Code::ALL.len());
        for code in Code::ALL {
            let parts: Vec<_> = code.text().split(':').collect();
            assert!(
                parts.len() == 3 && parts[0] == "BR" && parts[2].starts_with("Err"),
                "{code}"
            );
        }
    }
}
