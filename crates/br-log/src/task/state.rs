use std::collections::BTreeMap;

use br_format::log::task::{Pause, TaskError as StoreError, TaskInfo};
use br_types::{KeyRange, RawKey, StoreId, TimeStamp};

/// A task of log backup as etcd has it at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What it was started with.
    pub info: TaskInfo,
    /// The revision of that key. A task that was stopped and started again under the same name has
    /// another one.
    pub info_revision: i64,
    /// The keys that are backed up, as users write them.
    pub ranges: Vec<KeyRange<RawKey>>,
    /// By whom and why it is paused; `None` if it runs.
    pub pause: Option<Pause>,
    /// How far it has come.
    pub checkpoints: Checkpoints,
    /// The last error of each store that had one.
    pub errors: BTreeMap<StoreId, StoreError>,
}

/// How far a task has come, as those say who know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// The coordinator: all keys.
    pub global: Option<TimeStamp>,
    /// Stores of older versions, each for its regions.
    pub stores: BTreeMap<StoreId, TimeStamp>,
    /// What each store has written of the global checkpoint to the storage.
    pub storage: BTreeMap<StoreId, TimeStamp>,
}

impl Task {
    /// Its name.
    pub fn name(&self) -> &str {
        self.info.name.as_str()
    }

    /// Where the log begins.
    pub fn start_ts(&self) -> TimeStamp {
        self.info.start_ts
    }

    /// Whether it is the same task, however much else has changed.
    pub fn is_same(&self, other: &Task) -> bool {
        self.info.name == other.info.name && self.info_revision == other.info_revision
    }

    /// Up to where everything is on the storage, as far as anybody says: the coordinator's word, or
    /// else what stores say.
    pub fn global_checkpoint(&self) -> TimeStamp {
        let of_stores = self.checkpoints.stores.values().min().copied();
        let on_storage = self.checkpoints.storage.values().max().copied();
        self.checkpoints.global.unwrap_or_else(|| {
            let of_stores = of_stores.unwrap_or(self.start_ts());
            of_stores.max(on_storage.unwrap_or_default())
        })
    }

    /// What the storage itself says: the greatest checkpoint that a store has written there.
    pub fn storage_checkpoint(&self) -> TimeStamp {
        let on_storage = self.checkpoints.storage.values().max().copied();
        on_storage.unwrap_or(self.start_ts())
    }
}
