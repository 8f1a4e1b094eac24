//! # What it does
//! Tells everybody that a restore runs, and keeps two from one another that would disturb each other.
//!
//! # Objects it reads and writes
//! One key below [`PREFIX`] of PD's etcd, on a lease. Log backups of any tool refuse to begin while
//! there is one.
//!
//! # Ordering and invariants
//! A restore registers first and looks at the others then; of two that do so at once the later key
//! gives way. Two disturb each other if one of them keeps the whole cluster still, or both are the
//! same one.
//!
//! # After a crash
//! The key goes with its lease. On the same machine the next command takes it away at once.

use std::time::Duration;

use br_cluster::{Cluster, etcd::Lease};
use br_format::log::rfc3339;
use br_rt::{CancellationToken, ProcessName, kill_point};
use serde::{Deserialize, Serialize};

use super::super::error::RestoreError;

/// Where running restores are listed, as by the official tool.
const PREFIX: &str = "/tidb/brie/import/restore/";

/// How long PD keeps the key of a restore that died.
const LEASE: Duration = Duration::from_secs(60);

/// What a registered restore says of itself. The official tool says nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    title: String,
    /// Which restore it is.
    task: String,
    /// Whether it keeps the whole cluster still.
    is_whole: bool,
    began_unix_ms: u64,
    host: String,
    pid: u32,
    start_ticks: u64,
    pid_space: String,
}

impl Entry {
    fn process(&self) -> ProcessName {
        ProcessName {
            host: self.host.clone(),
            pid: self.pid,
            start_ticks: self.start_ticks,
            pid_space: self.pid_space.clone(),
        }
    }
}

/// What wants to be registered.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Claim<'a> {
    /// The name of the command.
    pub(in super::super) title: &'a str,
    /// Which restore it is.
    pub(in super::super) task: &'a str,
    /// Whether it keeps the whole cluster still.
    pub(in super::super) is_whole: bool,
}

/// A registered restore; see the module.
#[must_use = "dropped, the registration goes with its lease"]
pub(in super::super) struct Registration {
    lease: Lease,
}

impl Registration {
    /// Registers a restore.
    ///
    /// # Errors
    /// [`RestoreError::Running`]; PD is out of reach.
    pub(in super::super) async fn start(
        cluster: &Cluster,
        claim: Claim<'_>,
    ) -> Result<Registration, RestoreError> {
        // The end of a restore that was cancelled is told under no token.
        let etcd = cluster.etcd().with_cancel(CancellationToken::new());
        let process = ProcessName::current();
        let entry = Entry {
            title: claim.title.to_owned(),
            task: claim.task.to_owned(),
            is_whole: claim.is_whole,
            began_unix_ms: cluster.rt().wall().0,
            host: process.host,
            pid: process.pid,
            start_ticks: process.start_ticks,
            pid_space: process.pid_space,
        };
        let key = format!("{PREFIX}restore-{}", cluster.rt().uuid());
        let lease = etcd.lease(LEASE).await?;
        let value = serde_json::to_vec(&entry).unwrap_or_default();
        etcd.put(key.as_bytes(), &value, Some(lease.id())).await?;
        let registration = Registration { lease };
        match find_rival(cluster, key.as_bytes(), claim).await {
            Ok(None) => Ok(registration),
            Ok(Some(rival)) => {
                registration.end().await;
                Err(rival)
            }
            Err(error) => {
                registration.end().await;
                Err(error)
            }
        }
    }

    /// Works while registered, whatever comes of it.
    ///
    /// # Errors
    /// As [`Registration::start`]; the registration was lost; those of the work.
    pub(in super::super) async fn with<T, E: From<RestoreError>>(
        cluster: &Cluster,
        claim: Claim<'_>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let registration = Registration::start(cluster, claim).await?;
        kill_point("restore.registered");
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            lost = registration.lost() => Err(lost.into()),
        };
        registration.end().await;
        kill_point("restore.unregistered");
        outcome
    }

    /// Waits until the registration is lost.
    async fn lost(&self) -> RestoreError {
        self.lease.lost().await;
        RestoreError::RegistrationLost
    }

    /// Takes the entry away. Failing is only told: it ends by itself.
    pub(in super::super) async fn end(self) {
        if let Err(error) = self.lease.revoke().await {
            tracing::warn!(%error, "the registration of the restore ends by itself");
        }
    }
}

/// The restore that was there before and would be disturbed. Those of dead processes are removed.
async fn find_rival(
    cluster: &Cluster,
    own: &[u8],
    claim: Claim<'_>,
) -> Result<Option<RestoreError>, RestoreError> {
    let etcd = cluster.etcd().with_cancel(CancellationToken::new());
    let found = etcd.get_prefix(PREFIX.as_bytes()).await?.kvs;
    let mine = found.iter().find(|kv| kv.key == own);
    let own_revision = mine.map_or(i64::MAX, |kv| kv.create_revision);
    for kv in &found {
        if kv.key == own || kv.create_revision > own_revision {
            continue;
        }
        let name = String::from_utf8_lossy(&kv.key);
        let name = name.strip_prefix(PREFIX).unwrap_or(&name).to_owned();
        let Ok(entry) = serde_json::from_slice::<Entry>(&kv.value) else {
            // Of another tool, which does not say what it restores.
            return Ok(Some(RestoreError::Running {
                what: name,
                since: "an unknown time".to_owned(),
                holder: "another tool".to_owned(),
            }));
        };
        if entry.process().is_surely_dead() {
            tracing::info!(holder = %entry.process(), "a restore before this one has died");
            etcd.delete(&kv.key).await?;
            continue;
        }
        if entry.is_whole || claim.is_whole || entry.task == claim.task {
            return Ok(Some(RestoreError::Running {
                since: rfc3339(entry.began_unix_ms),
                holder: entry.process().to_string(),
                what: entry.title,
            }));
        }
    }
    Ok(None)
}
