//! The stores as PD knows them.
//!
//! # Objects it reads and writes
//! `store/` + id: address and labels, as JSON.
//!
//! # Ordering and invariants
//! The last heartbeat of a store that is up is now: it lives in this process. That of a store that
//! is down stands still, so that it turns Disconnected and then Down as clients expect.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use br_proto::metapb;
use br_rt::{Rt, UnixMillis};
use br_storage::SEALED_FORM;
use br_types::StoreId;
use serde::{Deserialize, Serialize};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, to_json};

/// Without a heartbeat for this long, a store counts as disconnected.
pub const DISCONNECTED_AFTER: Duration = Duration::from_secs(20);
/// Without a heartbeat for this long, a store counts as down (`max-store-down-time`).
pub const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);
/// What stands for the build in the answers.
const GIT_HASH: &str = "None";

const PREFIX: &[u8] = b"store/";

/// What is stored of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRecord {
    /// `host:port` of its gRPC services; the last ones, if it is not running.
    pub address: String,
    /// `host:port` of its status server.
    pub status_address: String,
    /// Labels set through PD.
    pub labels: BTreeMap<String, String>,
}

/// How a store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// No heartbeat for [`DISCONNECTED_AFTER`].
    Disconnected,
    /// No heartbeat for [`DOWN_AFTER`].
    Down,
}

impl Health {
    /// As in `state_name` of the HTTP API.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Up => "Up",
            Health::Disconnected => "Disconnected",
            Health::Down => "Down",
        }
    }
}

/// A store as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreInfo {
    /// Its id.
    pub id: StoreId,
    /// Address and labels.
    pub record: StoreRecord,
    /// Whether it runs.
    pub up: bool,
    /// When it was started.
    pub started: UnixMillis,
    /// The last time that it was known to run.
    pub last_heartbeat: UnixMillis,
    /// How that looks to clients.
    pub health: Health,
}

impl StoreInfo {
    /// As in gRPC answers.
    pub fn to_pb(&self, version: &str) -> metapb::Store {
        metapb::Store {
            id: self.id.0,
            address: self.record.address.clone(),
            peer_address: self.record.address.clone(),
            status_address: self.record.status_address.clone(),
            state: metapb::StoreState::Up.into(),
            node_state: metapb::NodeState::Serving.into(),
            labels: self
                .record
                .labels
                .iter()
                .map(|(key, value)| metapb::StoreLabel {
                    key: key.clone(),
                    value: value.clone(),
                })
                .collect(),
            version: version.to_owned(),
            git_hash: GIT_HASH.to_owned(),
            start_timestamp: i64::try_from(self.started.0 / 1000).unwrap_or(i64::MAX),
            last_heartbeat: i64::try_from(self.last_heartbeat.0.saturating_mul(1_000_000))
                .unwrap_or(i64::MAX),
            sealed_form: SEALED_FORM,
            ..metapb::Store::default()
        }
    }
}

struct Entry {
    record: StoreRecord,
    up: bool,
    started: UnixMillis,
    stopped: UnixMillis,
}

/// All stores.
pub struct Stores {
    rt: Rt,
    kv: Arc<dyn MetaKv>,
    entries: RwLock<BTreeMap<StoreId, Entry>>,
}

impl Stores {
    /// Loads the stores of this cluster; none of them is up yet.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(rt: Rt, kv: Arc<dyn MetaKv>) -> Result<Stores, MetaError> {
        let mut entries = BTreeMap::new();
        let now = rt.wall();
        for (key, value) in kv.scan_prefix(PREFIX)? {
            let id = key.get(PREFIX.len()..).and_then(|id| id.try_into().ok());
            let id = id.map(u64::from_be_bytes);
            let id = id.ok_or_else(|| MetaError::damaged(&key, &"it is not a store's id"))?;
            let record =
                serde_json::from_slice(&value).map_err(|error| MetaError::damaged(&key, &error))?;
            entries.insert(
                StoreId(id),
                Entry {
                    record,
                    up: false,
                    started: now,
                    stopped: now,
                },
            );
        }
        Ok(Stores {
            rt,
            kv,
            entries: RwLock::new(entries),
        })
    }

    /// The ids of all stores, ascending.
    pub fn ids(&self) -> Vec<StoreId> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }

    /// Sets a store's record, new or known.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn put(&self, id: StoreId, record: StoreRecord) -> Result<(), MetaError> {
        let mut batch = MetaBatch::default();
        batch.put([PREFIX, &id.0.to_be_bytes()].concat(), to_json(&record)?);
        self.kv.write(batch)?;
        let now = self.rt.wall();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(id).or_insert_with(|| Entry {
            record: StoreRecord::default(),
            up: false,
            started: now,
            stopped: now,
        });
        entry.record = record;
        Ok(())
    }

    /// Adds or changes labels of a store; an empty value removes one. `false`: no such store.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn set_labels(
        &self,
        id: StoreId,
        labels: &BTreeMap<String, String>,
        replace: bool,
    ) -> Result<bool, MetaError> {
        let Some(mut record) = self.get(id).map(|store| store.record) else {
            return Ok(false);
        };
        if replace {
            record.labels.clear();
        }
        record.labels.extend(labels.clone());
        record.labels.retain(|_, value| !value.is_empty());
        self.put(id, record)?;
        Ok(true)
    }

    /// Notes that a store came up or went down.
    pub fn set_up(&self, id: StoreId, up: bool) {
        let now = self.rt.wall();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(&id)
            && entry.up != up
        {
            entry.up = up;
            if up {
                entry.started = now;
            } else {
                entry.stopped = now;
            }
        }
    }

    /// Whether a store runs.
    pub fn is_up(&self, id: StoreId) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&id).is_some_and(|entry| entry.up)
    }

    /// A store as it is now.
    pub fn get(&self, id: StoreId) -> Option<StoreInfo> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&id).map(|entry| self.info(id, entry))
    }

    /// All stores as they are now, by id.
    pub fn all(&self) -> Vec<StoreInfo> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .map(|(id, entry)| self.info(*id, entry))
            .collect()
    }

    fn info(&self, id: StoreId, entry: &Entry) -> StoreInfo {
        let now = self.rt.wall();
        let last_heartbeat = if entry.up { now } else { entry.stopped };
        let silent = Duration::from_millis(now.0.saturating_sub(last_heartbeat.0));
        let health = if entry.up || silent < DISCONNECTED_AFTER {
            Health::Up
        } else if silent < DOWN_AFTER {
            Health::Disconnected
        } else {
            Health::Down
        };
        StoreInfo {
            id,
            record: entry.record.clone(),
            up: entry.up,
            started: entry.started,
            last_heartbeat,
            health,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pd::{meta_kv::MemoryKv, simulate};

    #[test]
    fn the_heartbeat_of_a_store_that_is_up_advances() {
        simulate(1_000_000, async |rt| {
            let stores = Stores::open(rt.clone(), Arc::new(MemoryKv::default())).unwrap();
            let id = StoreId(4);
            stores.put(id, StoreRecord::default()).unwrap();
            stores.set_up(id, true);
            let first = stores.get(id).unwrap().to_pb("8.5.0").last_heartbeat;
            rt.sleep(Duration::from_secs(200)).await;
            let store = stores.get(id).unwrap();
            assert_eq!(store.to_pb("8.5.0").last_heartbeat - first, 200_000_000_000);
            assert_eq!(store.health, Health::Up);

            stores.set_up(id, false);
            rt.sleep(Duration::from_secs(30)).await;
            assert_eq!(stores.get(id).unwrap().health, Health::Disconnected);
            assert_eq!(stores.get(id).unwrap().last_heartbeat, store.last_heartbeat);
            rt.sleep(Duration::from_secs(1800)).await;
            assert_eq!(stores.get(id).unwrap().health, Health::Down);
            stores.set_up(id, true);
            assert_eq!(stores.get(id).unwrap().health, Health::Up);
        });
    }

    #[test]
    fn labels_survive() {
        simulate(1_000, async |rt| {
            let kv: Arc<MemoryKv> = Arc::default();
            let stores = Stores::open(rt.clone(), kv.clone()).unwrap();
            stores.put(StoreId(1), StoreRecord::default()).unwrap();
            let labels = |pairs: &[(&str, &str)]| {
                pairs
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect()
            };
            let set = labels(&[("exclusive", "restore"), ("zone", "a")]);
            assert!(stores.set_labels(StoreId(1), &set, false).unwrap());
            assert!(
                stores
                    .set_labels(StoreId(1), &labels(&[("zone", "")]), false)
                    .unwrap()
            );
            assert!(!stores.set_labels(StoreId(9), &set, false).unwrap());
            let again = Stores::open(rt, kv).unwrap();
            assert_eq!(
                again.get(StoreId(1)).unwrap().record.labels,
                labels(&[("exclusive", "restore")])
            );
        });
    }
}
