use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use br_rt::Monotonic;

use super::{Etcd, EtcdError, KeySpan};
use crate::pd::meta_kv::{MetaBatch, MetaError, MetaKv};

/// etcd's limit of a lease's life.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Leases at one time; a TiDB server holds about ten.
const LEASES_MAX: usize = 100_000;
/// How often ended leases are looked for; they end at most this much late.
const EXPIRY_TICK: Duration = Duration::from_millis(500);

const PREFIX: &[u8] = b"etcd/lease/";

pub(super) struct Lease {
    ttl_seconds: u32,
    ends: Monotonic,
    pub(super) keys: BTreeSet<Vec<u8>>,
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds that it has left.
    pub left_seconds: i64,
    /// Seconds that it was granted for.
    pub granted_seconds: i64,
    /// The keys that go with it.
    pub keys: Vec<Vec<u8>>,
}

fn stored_key(id: i64) -> Vec<u8> {
    [PREFIX, &id.to_be_bytes()].concat()
}

/// Every lease, with its whole time before it.
pub(super) fn load(kv: &dyn MetaKv, now: Monotonic) -> Result<BTreeMap<i64, Lease>, MetaError> {
    let mut leases = BTreeMap::new();
    for (key, value) in kv.scan_prefix(PREFIX)? {
        let id = key
            .get(PREFIX.len()..)
            .and_then(|id| id.try_into().ok())
            .map(i64::from_be_bytes);
        let ttl = value.as_slice().try_into().ok().map(u32::from_be_bytes);
        let (Some(id), Some(ttl_seconds)) = (id, ttl) else {
            return Err(MetaError::damaged(&key, &"it is not a lease"));
        };
        let ends = now.plus(Duration::from_secs(ttl_seconds.into()));
        leases.insert(
            id,
            Lease {
                ttl_seconds,
                ends,
                keys: BTreeSet::new(),
            },
        );
    }
    Ok(leases)
}

impl Etcd {
    /// Makes a lease; `id` 0 picks one. Gives the id, and the seconds it lives.
    ///
    /// # Errors
    /// [`EtcdError::LeaseExists`], [`EtcdError::LeaseTtl`], [`EtcdError::TooMany`],
    /// [`EtcdError::Meta`].
    pub fn lease_grant(&self, id: i64, ttl_seconds: i64) -> Result<(i64, i64), EtcdError> {
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(EtcdError::LeaseTtl);
        }
        // A life of more than a century is one without end.
        let ttl_seconds = u32::try_from(ttl_seconds.max(1)).unwrap_or(u32::MAX);
        let mut state = self.lock();
        if state.leases.len() >= LEASES_MAX {
            return Err(EtcdError::TooMany);
        }
        if id != 0 && state.leases.contains_key(&id) {
            return Err(EtcdError::LeaseExists);
        }
        let mut id = id;
        while id == 0 || state.leases.contains_key(&id) {
            id = (self.rt.random_u64() >> 1).cast_signed();
        }
        let mut batch = MetaBatch::default();
        batch.put(stored_key(id), ttl_seconds.to_be_bytes());
        self.kv.write(batch)?;
        let ends = self.rt.now().plus(Duration::from_secs(ttl_seconds.into()));
        state.leases.insert(
            id,
            Lease {
                ttl_seconds,
                ends,
                keys: BTreeSet::new(),
            },
        );
        Ok((id, ttl_seconds.into()))
    }

    /// Ends a lease; its keys go. Gives the revision.
    ///
    /// # Errors
    /// [`EtcdError::LeaseNotFound`], [`EtcdError::Meta`].
    pub fn lease_revoke(&self, id: i64) -> Result<i64, EtcdError> {
        let mut state = self.lock();
        let lease = state.leases.get(&id).ok_or(EtcdError::LeaseNotFound)?;
        let keys: Vec<_> = lease.keys.iter().cloned().collect();
        let mut events = Vec::new();
        for key in keys {
            events.extend(state.delete(&KeySpan::new(&key, &[])));
        }
        let mut batch = MetaBatch::default();
        batch.delete(stored_key(id));
        self.commit(&mut state, events, batch)?;
        state.leases.remove(&id);
        Ok(state.revision)
    }

    /// Starts a lease's time anew; gives the seconds it lives, 0 if there is no such lease.
    pub fn lease_keep_alive(&self, id: i64) -> i64 {
        let now = self.rt.now();
        match self.lock().leases.get_mut(&id) {
            Some(lease) if lease.ends > now => {
                lease.ends = now.plus(Duration::from_secs(lease.ttl_seconds.into()));
                lease.ttl_seconds.into()
            }
            _ => 0,
        }
    }

    /// A lease as it stands, if there is one.
    pub fn lease_info(&self, id: i64) -> Option<LeaseInfo> {
        let now = self.rt.now();
        let state = self.lock();
        let lease = state.leases.get(&id)?;
        Some(LeaseInfo {
            left_seconds: i64::try_from(lease.ends.since(now).as_secs()).unwrap_or(i64::MAX),
            granted_seconds: lease.ttl_seconds.into(),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// The ids of all leases.
    pub fn leases(&self) -> Vec<i64> {
        self.lock().leases.keys().copied().collect()
    }

    /// Ends leases whose time is over, for ever.
    pub async fn expire_leases(&self) {
        loop {
            self.rt.sleep(EXPIRY_TICK).await;
            let now = self.rt.now();
            let ended: Vec<i64> = {
                let state = self.lock();
                let over = state.leases.iter().filter(|(_, lease)| lease.ends <= now);
                over.map(|(&id, _)| id).collect()
            };
            for id in ended {
                if let Err(error) = self.lease_revoke(id) {
                    tracing::warn!(id, %error, "cannot end a lease; trying again");
                }
            }
        }
    }
}
