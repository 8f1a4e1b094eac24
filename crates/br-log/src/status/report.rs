use std::time::Duration;

use br_cluster::Cluster;
use br_types::TimeStamp;

use super::{
    holdups::{Holdup, find_holdups},
    speed::events_per_second,
};
use crate::{
    advancer::{ClusterEnvironment, Environment as _},
    task::{Task, TaskError, TaskStore},
};

/// How long to look for what holds a checkpoint back. What is found by then is shown.
const SEARCH_LIMIT: Duration = Duration::from_secs(15);

/// A checkpoint younger than so many flush intervals needs no explanation: the next flush raises
/// it.
const HEALTHY_INTERVALS: u32 = 2;

/// The flush interval of stores that do not say theirs.
const FLUSH_INTERVAL_DEFAULT: Duration = Duration::from_secs(180);

/// What to show.
#[derive(Clone, Debug)]
pub struct StatusRequest<'a> {
    /// The name of the task; `*` for all.
    pub name: &'a str,
    /// Look for what holds a checkpoint back even if it does not lag.
    pub explain: bool,
}

/// The state of a task in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It runs.
    Normal,
    /// Somebody paused it.
    Pause,
    /// An error paused it.
    Error,
}

impl Word {
    /// As it is shown.
    pub const fn text(self) -> &'static str {
        match self {
            Word::Normal => "NORMAL",
            Word::Pause => "PAUSE",
            Word::Error => "ERROR",
        }
    }
}

/// How a task is doing.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// The task.
    pub task: Task,
    /// PD's time.
    pub now: TimeStamp,
    /// Records a second that the stores log; an estimate over one second.
    pub events_per_second: f64,
    /// What holds its checkpoint back, the worst first; empty if nothing does.
    pub holdups: Vec<Holdup>,
    /// Whether that was looked for.
    pub is_explained: bool,
}

impl TaskStatus {
    /// In a word.
    pub fn word(&self) -> Word {
        match &self.task.pause {
            None => Word::Normal,
            Some(pause) if pause.is_error() || !self.task.errors.is_empty() => Word::Error,
            Some(_) => Word::Pause,
        }
    }
}

/// The tasks, by name.
///
/// # Errors
/// [`TaskError::NotFound`] for a name that there is not; PD is out of reach.
pub async fn status(
    cluster: &Cluster,
    request: &StatusRequest<'_>,
) -> Result<Vec<TaskStatus>, TaskError> {
    let store = TaskStore::new(cluster.etcd().clone());
    let all = store.load().await?;
    let mut tasks = all.tasks;
    if request.name != "*" {
        tasks = vec![store.get(request.name).await?];
    }
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let now = cluster.pd().tso().await?;
    let events_per_second = events_per_second(cluster).await;
    let env = ClusterEnvironment::new(cluster.clone(), "br log status".into());
    let interval = env.flush_interval().await.ok().flatten();
    let healthy = interval.unwrap_or(FLUSH_INTERVAL_DEFAULT) * HEALTHY_INTERVALS;
    let mut statuses = Vec::new();
    for task in tasks {
        let lag_ms = now
            .physical_ms()
            .saturating_sub(task.global_checkpoint().physical_ms());
        let is_explained = request.explain
            || task.pause.is_some()
            || !all.has_coordinator
            || u128::from(lag_ms) > healthy.as_millis();
        let holdups = match is_explained {
            true => {
                let search = find_holdups(cluster, &env, &task, all.has_coordinator);
                let found = cluster.rt().timeout(SEARCH_LIMIT, search).await;
                found.unwrap_or_else(|_| vec![Holdup::SearchTooLong])
            }
            false => Vec::new(),
        };
        statuses.push(TaskStatus {
            task,
            now,
            events_per_second,
            holdups,
            is_explained,
        });
    }
    Ok(statuses)
}
