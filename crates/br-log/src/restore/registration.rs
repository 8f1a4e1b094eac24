use std::time::Duration;

use br_cluster::{Cluster, etcd::Lease};
use br_rt::CancellationToken;

use super::error::PointError;

/// Where running restores are listed; log backups refuse to begin meanwhile.
const PREFIX: &str = "/tidb/brie/import/restore/";
/// How long PD keeps the entry of a restore that died, as in the official tool.
const LEASE: Duration = Duration::from_secs(180);

/// An entry in PD that says that a restore runs. It goes when it is [`Registration::end`]ed, or
/// with its lease.
pub(crate) struct Registration {
    lease: Lease,
}

impl Registration {
    /// Registers this restore.
    ///
    /// # Errors
    /// Another one is registered, or PD is out of reach.
    pub(crate) async fn start(cluster: &Cluster) -> Result<Registration, PointError> {
        // The end of a restore that was cancelled is told under no token.
        let etcd = cluster.etcd().with_cancel(CancellationToken::new());
        let running = etcd.get_prefix(PREFIX.as_bytes()).await?;
        if let Some(other) = running.kvs.first() {
            let name = String::from_utf8_lossy(&other.key).into_owned();
            return Err(PointError::Registered(name));
        }
        let lease = etcd.lease(LEASE).await?;
        let name = format!("{PREFIX}restore-{}", cluster.rt().uuid());
        etcd.put(name.as_bytes(), b"", Some(lease.id())).await?;
        Ok(Registration { lease })
    }

    /// Waits until the registration is lost.
    pub(crate) async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Takes the entry away. Failing is only told: it ends by itself.
    pub(crate) async fn end(self) {
        if let Err(error) = self.lease.revoke().await {
            tracing::warn!(%error, "the registration of the restore ends by itself");
        }
    }
}
