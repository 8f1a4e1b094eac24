//! Names of all objects of a log storage, below its prefix.
//!
//! | object | name |
//! |---|---|
//! | events | [`DataName`] |
//! | index of one flush | [`MetaName`] |
//! | how far a store has come | [`global_checkpoint`] |
//! | edits of the log | [`crate::log::migration::MigrationName`] |
//! | everything else | the constants here |

mod data;
mod meta;
#[cfg(test)]
mod tests;

use br_types::{ClusterId, StoreId, TimeStamp};

pub use data::DataName;
pub use meta::{MetaFlags, MetaName, Stats};

/// Where the indices of flushes lie.
pub const META_FOLDER: &str = "v1/backupmeta";
/// How far each store has come; see [`global_checkpoint`].
pub const GLOBAL_CHECKPOINT_FOLDER: &str = "v1/global_checkpoint";
/// The end of the names in [`GLOBAL_CHECKPOINT_FOLDER`].
pub const GLOBAL_CHECKPOINT_SUFFIX: &str = ".ts";
/// The coordinator's copy of the global checkpoint.
pub const CENTRAL_CHECKPOINT: &str = "v1/global_checkpoint/central_global.ts";
/// Before which timestamp the log has been cut off; the spelling is that of all tools.
pub const TRUNCATE_SAFE_POINT: &str = "v1_stream_trancate_safepoint.txt";
/// Held while a log is cut off.
pub const TRUNCATE_LOCK: &str = "truncating.lock";
/// The place of the locks of readers and writers of migrations.
pub const MIGRATION_LOCK: &str = "v1/LOCK";
/// The place of the lock of those who append a migration.
pub const MIGRATION_APPEND_LOCK: &str = "v1/APPEND_LOCK";
/// Where migrations lie.
pub const MIGRATION_FOLDER: &str = "v1/migrations";
/// Where compactions put what they make.
pub const COMPACTION_FOLDER: &str = "v1/compactions";
/// The end of the names of a compaction's indices.
pub const COMPACTION_META_SUFFIX: &str = ".cmeta";
/// Where SSTs lie that a restore took in while the log was written.
pub const INGESTED_FOLDER: &str = "v1/ext_backups";
/// What a later restore must not take out of this log.
pub const BLOCKLIST_FOLDER: &str = "v1/log_restore_tables_blocklists";
/// Where ids of restored tables lie, if not in the cluster.
pub const ID_MAP_FOLDER: &str = "pitr_id_maps";
/// How far a copy of the log in another region has come; of a copy only.
pub const REPLICATION_STATE: &str = "crr-checkpoint/resume-state.json";

/// The store's copy of the global checkpoint.
pub fn global_checkpoint(store: StoreId) -> String {
    format!("{GLOBAL_CHECKPOINT_FOLDER}/{store}{GLOBAL_CHECKPOINT_SUFFIX}")
}

/// Whether an object holds a copy of the global checkpoint.
pub fn is_global_checkpoint(name: &str) -> bool {
    name.strip_prefix(GLOBAL_CHECKPOINT_FOLDER)
        .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(GLOBAL_CHECKPOINT_SUFFIX))
}

/// Of which store an object holds the copy of the global checkpoint, if it is one's.
pub fn store_of_global_checkpoint(name: &str) -> Option<StoreId> {
    let rest = name.strip_prefix(GLOBAL_CHECKPOINT_FOLDER)?;
    let id = rest
        .strip_prefix('/')?
        .strip_suffix(GLOBAL_CHECKPOINT_SUFFIX)?;
    id.parse().ok().map(StoreId)
}

/// How the name of the index of that flush begins.
pub fn meta_prefix(store: StoreId, flush_ts: TimeStamp) -> String {
    format!("{META_FOLDER}/{:016X}{:016X}", flush_ts.0, store.0)
}

/// Whether an object is the index of a flush, whatever its name says besides.
pub fn is_meta(name: &str) -> bool {
    name.strip_prefix(META_FOLDER)
        .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(meta::SUFFIX))
}

/// The object with the ids that a restore to `restored_ts` gave in the cluster `downstream`.
pub fn id_map(downstream: ClusterId, restored_ts: TimeStamp) -> String {
    format!("{ID_MAP_FOLDER}/pitr_id_map.cluster_id:{downstream}.restored_ts:{restored_ts}")
}

/// The folder of SSTs that a restore took in, which began at `start_ts`.
pub fn ingested_folder(start_ts: TimeStamp) -> String {
    format!("{INGESTED_FOLDER}/backup-{:016X}", start_ts.0)
}
