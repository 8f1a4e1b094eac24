//! Keyspaces of API v2: `DEFAULT`, which every cluster has, and those that were made since.
//!
//! # Objects it reads and writes
//! The key `keyspaces`: all of them, as JSON.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_proto::keyspacepb::{KeyspaceMeta, KeyspaceState, keyspace_meta::Keyspace as KeyspaceId};
use br_rt::{Rt, UnixMillis};
use serde::{Deserialize, Serialize};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_json, to_json};

/// The name of the keyspace with id 0.
pub const DEFAULT: &str = "DEFAULT";
/// The greatest id: three bytes in keys.
pub const ID_MAX: u32 = 0x00FF_FFFF;
/// Keyspaces of one embedded cluster.
const COUNT_MAX: usize = 10_000;

const KEY: &[u8] = b"keyspaces";

/// A keyspace as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its id, as it stands in keys.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// A `keyspacepb.KeyspaceState`.
    pub state: i32,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub state_changed_at: i64,
    /// Whatever was set with it.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

impl Keyspace {
    /// As in gRPC answers.
    pub fn to_pb(&self) -> KeyspaceMeta {
        KeyspaceMeta {
            name: self.name.clone(),
            state: self.state,
            created_at: self.created_at,
            state_changed_at: self.state_changed_at,
            config: self.config.clone().into_iter().collect(),
            keyspace: Some(KeyspaceId::Id(self.id)),
        }
    }
}

/// All keyspaces.
pub struct Keyspaces {
    kv: Arc<dyn MetaKv>,
    all: Mutex<BTreeMap<u32, Keyspace>>,
}

impl Keyspaces {
    /// Loads them; makes `DEFAULT` at the first start.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(rt: &Rt, kv: Arc<dyn MetaKv>) -> Result<Keyspaces, MetaError> {
        let stored: Option<Vec<Keyspace>> = get_json(kv.as_ref(), KEY)?;
        let is_new = stored.is_none();
        let all = stored
            .unwrap_or_default()
            .into_iter()
            .map(|one| (one.id, one))
            .collect();
        let keyspaces = Keyspaces {
            kv,
            all: Mutex::new(all),
        };
        if is_new {
            keyspaces.change(|all| {
                all.insert(0, new(0, DEFAULT, rt.wall()));
            })?;
        }
        Ok(keyspaces)
    }

    /// By name.
    pub fn by_name(&self, name: &str) -> Option<Keyspace> {
        self.lock()
            .values()
            .find(|keyspace| keyspace.name == name)
            .cloned()
    }

    /// By id.
    pub fn by_id(&self, id: u32) -> Option<Keyspace> {
        self.lock().get(&id).cloned()
    }

    /// Those with ids from `start` on, at most `limit`; 0 is no limit.
    pub fn list(&self, start: u32, limit: usize) -> Vec<Keyspace> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        self.lock()
            .range(start..)
            .take(limit)
            .map(|(_, keyspace)| keyspace.clone())
            .collect()
    }

    /// Makes one, or gives the one of that name; `None` if there are too many.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn create(&self, name: &str, now: UnixMillis) -> Result<Option<Keyspace>, MetaError> {
        if let Some(known) = self.by_name(name) {
            return Ok(Some(known));
        }
        self.change(|all| {
            let id = all.keys().next_back().map_or(0, |last| last + 1);
            if id > ID_MAX || all.len() >= COUNT_MAX {
                return None;
            }
            let made = new(id, name, now);
            all.insert(id, made.clone());
            Some(made)
        })
    }

    /// Sets the state of one; `None` if there is none of that id.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn set_state(
        &self,
        id: u32,
        state: KeyspaceState,
        now: UnixMillis,
    ) -> Result<Option<Keyspace>, MetaError> {
        self.change(|all| {
            let keyspace = all.get_mut(&id)?;
            keyspace.state = state.into();
            keyspace.state_changed_at = seconds(now);
            Some(keyspace.clone())
        })
    }

    fn change<T>(
        &self,
        apply: impl FnOnce(&mut BTreeMap<u32, Keyspace>) -> T,
    ) -> Result<T, MetaError> {
        let mut all = self.lock();
        let mut next = all.clone();
        let value = apply(&mut next);
        let mut batch = MetaBatch::default();
        batch.put(KEY, to_json(&next.values().collect::<Vec<_>>())?);
        self.kv.write(batch)?;
        *all = next;
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Keyspace>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(now: UnixMillis) -> i64 {
    i64::try_from(now.0 / 1000).unwrap_or(i64::MAX)
}

fn new(id: u32, name: &str, now: UnixMillis) -> Keyspace {
    Keyspace {
        id,
        name: name.to_owned(),
        state: KeyspaceState::Enabled.into(),
        created_at: seconds(now),
        state_changed_at: seconds(now),
        config: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pd::{meta_kv::MemoryKv, simulate};

    #[test]
    fn default_is_there_and_others_can_be_made() {
        simulate(9_000, async |rt| {
            let kv: Arc<MemoryKv> = Arc::default();
            let keyspaces = Keyspaces::open(&rt, kv.clone()).unwrap();
            assert_eq!(keyspaces.by_name(DEFAULT).unwrap().id, 0);
            let made = keyspaces.create("one", rt.wall()).unwrap().unwrap();
            assert_eq!((made.id, made.created_at), (1, 9));
            assert_eq!(keyspaces.create("one", rt.wall()).unwrap().unwrap(), made);
            keyspaces
                .set_state(1, KeyspaceState::Disabled, rt.wall())
                .unwrap();
            let again = Keyspaces::open(&rt, kv).unwrap();
            assert_eq!(again.list(0, 0).len(), 2);
            assert_eq!(
                again.by_id(1).unwrap().state,
                i32::from(KeyspaceState::Disabled)
            );
        });
    }
}
