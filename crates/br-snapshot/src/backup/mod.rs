//! Snapshot backup: whole clusters, databases, tables, raw and transactional keys.
//!
//! [`plan`] says what a backup is going to do, [`run`] does it. The stores write the data files;
//! this side decides the timestamp, keeps GC away from it, asks for every range until all are
//! there, and writes the index.
//!
//! | what | where |
//! |---|---|
//! | order of the steps | [`run`](self::run()) |
//! | the place on external storage | [`target`] |
//! | which timestamp | [`timestamp`] |
//! | which tables, their schemas and checksums | `tables`, `selection` |
//! | what an interrupted backup leaves, and going on from it | `resume` |
//! | rounds over the stores | `push`, over [`crate::range_tree`] |
//! | meta files | `meta_sink` |

mod cluster_stores;
mod collation;
mod error;
mod meta_sink;
mod options;
mod plan;
mod push;
mod raw_keys;
mod resume;
mod run;
mod selection;
mod summary;
mod tables;
pub mod target;
pub mod timestamp;
mod work;

use std::sync::Arc;

use br_cluster::{Cluster, KeyPrefix};
use br_rt::Progress;
use br_storage::{Backend, Storage};

pub use self::{
    error::BackupError,
    options::{
        BackupOptions, BackupTime, CHECKSUM_CONCURRENCY_DEFAULT, CONCURRENCY_DEFAULT,
        CONCURRENCY_MAX, GC_TTL_DEFAULT, GC_TTL_RESUME_DEFAULT, Scope, StoreLabel,
        TABLE_CONCURRENCY_DEFAULT,
    },
    plan::{BackupPlan, PlannedContent, PlannedDatabase},
    push::{PushError, Refusal, STALL_MAX, UNKNOWN_ERRORS_MAX},
    resume::{AbortedBackup, Difference, LockError, abort},
    run::{plan, run},
    summary::BackupSummary,
};

/// What a backup works with.
#[derive(Clone)]
pub struct BackupContext {
    /// The cluster. Its token ends the backup.
    pub cluster: Cluster,
    /// What the cluster was connected with: what stands before all keys of a keyspace.
    pub key_prefix: KeyPrefix,
    /// Where the backup goes.
    pub storage: Storage,
    /// The same, as the stores get it.
    pub backend: Backend,
    /// Whom to tell how far it is.
    pub progress: Arc<dyn Progress>,
}
