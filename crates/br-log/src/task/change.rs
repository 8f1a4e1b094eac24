use std::time::Duration;

use br_cluster::{Cluster, GcScope, PdError};
use br_format::log::task::{Pause, PauseReason, PauseV2, Severity};

use super::{Task, TaskError, TaskStore, pause_safe_point_id};
use crate::Operator;

/// How long versions are kept for stores to take up a task that was resumed.
const RESUME_GC_TTL: Duration = Duration::from_secs(30 * 60);

/// A pause by a person.
#[derive(Clone, Debug)]
pub struct PauseRequest<'a> {
    /// The name of the task.
    pub name: &'a str,
    /// How long versions are kept, so that the task can be resumed.
    pub gc_ttl: Duration,
    /// For whoever wonders why; may be empty.
    pub message: &'a str,
    /// Who does it.
    pub operator: &'a Operator,
}

/// Removes a task. Its log stays on the storage.
///
/// # Errors
/// [`TaskError::NotFound`]; PD is out of reach.
pub async fn stop(cluster: &Cluster, name: &str) -> Result<Task, TaskError> {
    let tasks = TaskStore::new(cluster.etcd().clone());
    let task = tasks.get(name).await?;
    tasks.delete(&task).await?;
    let pd = cluster.pd();
    let id = pause_safe_point_id(name);
    if let Err(error) = pd.unprotect_from_gc(GcScope::Cluster, &id).await {
        tracing::warn!(%error, id, "the safe point stays until it lapses");
    }
    Ok(task)
}

/// Pauses a task. What has not been uploaded is read again when it is resumed.
///
/// # Errors
/// [`TaskError::NotFound`], [`TaskError::PausedAlready`]; [`TaskError::Collected`]: it could never
/// be resumed; PD is out of reach.
pub async fn pause(cluster: &Cluster, request: &PauseRequest<'_>) -> Result<Task, TaskError> {
    let tasks = TaskStore::new(cluster.etcd().clone());
    let task = tasks.get(request.name).await?;
    let paused_already = || TaskError::PausedAlready {
        name: task.info.name.clone(),
    };
    if task.pause.is_some() {
        return Err(paused_already());
    }
    protect(cluster, &task, request.gc_ttl).await?;
    let reason = match request.message {
        // As the official tool: no type, no payload.
        "" => PauseReason::Other(String::new(), Vec::new()),
        message => PauseReason::Text(message.to_owned()),
    };
    let who = (request.operator.host.clone(), request.operator.pid);
    let now_unix_ms = cluster.rt().wall().0;
    let pause = Pause::V2(PauseV2::new(Severity::Manual, who, now_unix_ms, reason));
    if !tasks.pause(&task, &pause).await? {
        // It was paused or stopped at the same time.
        tasks.get(request.name).await?;
        return Err(paused_already());
    }
    Ok(task)
}

/// Lets a paused task go on.
///
/// # Errors
/// [`TaskError::NotFound`], [`TaskError::NotPaused`]; [`TaskError::Collected`]: what was not
/// uploaded before the pause may be gone; PD is out of reach.
pub async fn resume(cluster: &Cluster, name: &str) -> Result<Task, TaskError> {
    let tasks = TaskStore::new(cluster.etcd().clone());
    let task = tasks.get(name).await?;
    if task.pause.is_none() {
        return Err(TaskError::NotPaused {
            name: task.info.name.clone(),
        });
    }
    // Protected first: nothing can be collected between the check and the stores' scans.
    protect(cluster, &task, RESUME_GC_TTL).await?;
    tasks.resume(&task).await?;
    Ok(task)
}

/// Keeps the versions that stores have to read again.
async fn protect(cluster: &Cluster, task: &Task, ttl: Duration) -> Result<(), TaskError> {
    let checkpoint = task.global_checkpoint();
    let id = pause_safe_point_id(task.name());
    let pd = cluster.pd();
    let protected = pd
        .protect_from_gc(GcScope::Cluster, &id, checkpoint.prev(), ttl)
        .await;
    match protected {
        Err(PdError::SafePointExceeded { safe_point, .. }) => Err(TaskError::Collected {
            wanted: checkpoint,
            safe_point,
            is_restart: true,
        }),
        result => Ok(result?),
    }
}
