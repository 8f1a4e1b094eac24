//! The master keys that a task names: stores open the sealed storage of its log with them.

use br_cluster::Cluster;
use br_storage::{Backend, SealKeys, SendCredentials};

use super::{Task, TaskError, TaskStore};

/// The task whose log lies at this place.
///
/// # Errors
/// PD is out of reach; a task cannot be understood.
pub async fn task_at(cluster: &Cluster, place: &Backend) -> Result<Option<Task>, TaskError> {
    let tasks = TaskStore::new(cluster.etcd().clone());
    for task in tasks.load().await?.tasks {
        // What is of a kind that is not known here is another place.
        let storage = Backend::from_proto(&task.info.storage);
        if storage.is_ok_and(|storage| storage.is_same_place(place)) {
            return Ok(Some(task));
        }
    }
    Ok(None)
}

/// Lets a task name these master keys and no other; `false` if it does already. Stores that carry it out
/// begin anew from its checkpoint, and open the storage with them.
///
/// # Errors
/// [`TaskError::Changed`]; PD is out of reach.
pub async fn name_seal_keys(
    cluster: &Cluster,
    task: &Task,
    keys: &SealKeys,
) -> Result<bool, TaskError> {
    let mut info = task.info.clone();
    info.storage.sealed = Some(keys.to_proto(SendCredentials::No));
    if info == task.info {
        return Ok(false);
    }
    let tasks = TaskStore::new(cluster.etcd().clone());
    tasks.replace_info(task, &info).await?;
    Ok(true)
}
