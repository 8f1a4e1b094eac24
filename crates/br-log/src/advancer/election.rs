//! # What it does
//! Chooses one of all candidates, TiDB servers and others, to be the coordinator.
//!
//! # Objects it reads and writes
//! `/tidb/br-stream/owner/<lease in hexadecimal>` in etcd, the recipe of etcd's own `Election`: each
//! candidate has a key on a lease, and the oldest key leads.
//!
//! # After a crash
//! The key goes with its lease, and the next one leads.

use std::time::Duration;

use br_cluster::{
    Etcd, PdError,
    etcd::{Expect, Lease, Watched, Write},
};
use br_rt::{CancellationToken, Rt};

/// The election's keys.
pub const OWNER_PREFIX: &[u8] = b"/tidb/br-stream/owner/";

/// How often a candidate looks at the keys when nothing tells that they changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// A place in an election.
pub struct Election {
    etcd: Etcd,
    rt: Rt,
    id: String,
    lease_ttl: Duration,
}

/// Being the leader.
#[must_use = "dropped, the place is kept until its lease runs out"]
pub struct Leadership {
    etcd: Etcd,
    rt: Rt,
    key: Vec<u8>,
    lease: Lease,
}

impl Election {
    /// A candidate of that name.
    pub fn new(etcd: Etcd, rt: Rt, id: String, lease_ttl: Duration) -> Election {
        Election {
            etcd,
            rt,
            id,
            lease_ttl,
        }
    }

    /// Waits to be the leader; `None` when `cancel` came first or the lease was lost meanwhile.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn campaign(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Option<Leadership>, PdError> {
        let lease = self.etcd.lease(self.lease_ttl).await?;
        let key = [OWNER_PREFIX, format!("{:x}", lease.id().0).as_bytes()].concat();
        let place = Leadership {
            etcd: self.etcd.clone(),
            rt: self.rt.clone(),
            key,
            lease,
        };
        match self.wait_for_place(&place, cancel).await {
            Ok(true) => Ok(Some(place)),
            Ok(false) => {
                place.resign().await;
                Ok(None)
            }
            Err(error) => {
                place.resign().await;
                Err(error)
            }
        }
    }

    async fn wait_for_place(
        &self,
        place: &Leadership,
        cancel: &CancellationToken,
    ) -> Result<bool, PdError> {
        let write = Write::Put {
            key: place.key.clone(),
            value: self.id.clone().into_bytes(),
            lease: Some(place.lease.id()),
        };
        let expect = vec![Expect::Absent(place.key.clone())];
        self.etcd.commit(expect, vec![write]).await?;
        loop {
            let found = self.etcd.get_prefix(OWNER_PREFIX).await?;
            let Some(mine) = found.kvs.iter().find(|kv| kv.key == place.key) else {
                return Ok(false);
            };
            let is_first = found
                .kvs
                .iter()
                .all(|kv| kv.create_revision >= mine.create_revision);
            if is_first {
                return Ok(true);
            }
            tokio::select! {
                biased;
                () = self.changed(found.revision) => {}
                () = place.lease.lost() => return Ok(false),
                () = cancel.cancelled() => return Ok(false),
            }
        }
    }

    /// Waits until the keys may be others than at `revision`.
    async fn changed(&self, revision: i64) {
        let watch = async {
            let mut watch = self.etcd.watch_prefix(OWNER_PREFIX, revision + 1).await?;
            watch.next().await
        };
        // A broken watch costs time only.
        if let Ok(Err(_)) = self.rt.timeout(LOOK_INTERVAL, watch).await {
            self.rt.sleep(Duration::from_secs(1)).await;
        }
    }
}

impl Leadership {
    /// Waits until it is over: the lease is lost, or somebody removed the key.
    pub async fn lost(&self) {
        tokio::select! {
            biased;
            () = self.lease.lost() => {}
            () = self.removed() => {}
        }
    }

    async fn removed(&self) {
        loop {
            match self.watch_key().await {
                Ok(true) => return,
                Ok(false) => {}
                // The lease decides for as long as PD is away.
                Err(_) => self.rt.sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Waits for a change of the key; whether it is gone.
    async fn watch_key(&self) -> Result<bool, PdError> {
        let found = self.etcd.get_prefix(&self.key).await?;
        if found.kvs.is_empty() {
            return Ok(true);
        }
        let mut watch = self
            .etcd
            .watch_prefix(&self.key, found.revision + 1)
            .await?;
        match self.rt.timeout(LOOK_INTERVAL * 6, watch.next()).await {
            Ok(Ok(Watched::Events { .. } | Watched::Compacted { .. })) | Err(_) => Ok(false),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Gives the place to the next one at once. If PD cannot be told, the lease runs out.
    pub async fn resign(self) {
        if let Err(error) = self.lease.revoke().await {
            tracing::warn!(%error, "the place in the election stays until its lease runs out");
        }
    }
}
