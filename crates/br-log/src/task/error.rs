use br_cluster::{HttpError, PdError};
use br_format::log::{LogFormatError, task::TaskName};
use br_storage::{BackendError, StorageError};
use br_types::{Classify, ClusterId, Code, Kind, StoreId, TimeStamp};

use crate::read::LogReadError;

/// Why something could not be done with a task of log backup.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// A store does not say how it is configured.
    #[error("whether store {store} can log is not known: {source}")]
    StoreConfig {
        /// The store.
        store: StoreId,
        /// Why.
        source: HttpError,
    },
    /// A value in etcd or an object on the storage cannot be used.
    #[error(transparent)]
    Format(#[from] LogFormatError),
    /// The log on the storage cannot be read.
    #[error(transparent)]
    Log(#[from] LogReadError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The storage cannot be told to the stores.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// There is no such task.
    #[error("there is no task of log backup named {name:?}{}", known(.tasks))]
    NotFound {
        /// The name.
        name: String,
        /// Those that there are.
        tasks: Vec<String>,
    },
    /// A cluster has one task at most.
    #[error("there is a task of log backup already: {name}")]
    Exists {
        /// Its name.
        name: TaskName,
    },
    /// It is paused.
    #[error("task {name} is paused already")]
    PausedAlready {
        /// Its name.
        name: TaskName,
    },
    /// It is not paused.
    #[error("task {name} is active already")]
    NotPaused {
        /// Its name.
        name: TaskName,
    },
    /// Somebody else changed it at the same time.
    #[error("task {name} was changed by somebody else at the same time")]
    Changed {
        /// Its name.
        name: TaskName,
    },
    /// A store does not log.
    #[error("log backup is switched off on store {store}: log-backup.enable is false")]
    Disabled {
        /// The store.
        store: StoreId,
    },
    /// The log cannot begin in the future.
    #[error("the start timestamp {start} lies in the future: it is {now} now")]
    StartInFuture {
        /// What was asked for.
        start: TimeStamp,
        /// PD's time.
        now: TimeStamp,
    },
    /// The log would have ended.
    #[error("the end timestamp {end} is over: it is {now} now")]
    EndInPast {
        /// What was asked for.
        end: TimeStamp,
        /// PD's time.
        now: TimeStamp,
    },
    /// Something writes without leaving a trace in the log.
    #[error("an import or restore is under way: {}", .tasks.join(", "))]
    ImportRunning {
        /// The registrations.
        tasks: Vec<String>,
    },
    /// Versions that the log needs may be gone.
    #[error(
        "the log cannot {} at {wanted}: versions before {safe_point}, the GC safe point, may be \
         collected already", if *is_restart { "go on" } else { "begin" }
    )]
    Collected {
        /// From where on versions are needed.
        wanted: TimeStamp,
        /// PD's safe point.
        safe_point: TimeStamp,
        /// Whether a log that is there would go on.
        is_restart: bool,
    },
    /// A full backup is at that place.
    #[error("there is a backup at {place}, not a log")]
    HasBackup {
        /// The storage, without secrets.
        place: String,
    },
    /// Something is at that place, but no log that could go on.
    #[error("there is no log at {place} that could go on, and it is not empty: {object} is there")]
    NotALog {
        /// The storage, without secrets.
        place: String,
        /// What is there.
        object: String,
    },
    /// The log at that place is a copy of another one.
    #[error("the log at {place} is a copy that another storage is replicated to")]
    IsACopy {
        /// The storage, without secrets.
        place: String,
    },
    /// The log at that place is of another cluster.
    #[error("the log at {place} is of cluster {found}, and this is cluster {expected}")]
    OtherCluster {
        /// The storage, without secrets.
        place: String,
        /// Whose log it is.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
    /// An object at the end of the log is gone or cut off.
    #[error("the log at {place} has a hole: {object} is missing or cut off")]
    Damaged {
        /// The storage, without secrets.
        place: String,
        /// The object.
        object: String,
    },
    /// The log at that place is ahead of the cluster.
    #[error("the log at {place} goes up to {checkpoint}, and the cluster is at {now} only")]
    LogAhead {
        /// The storage, without secrets.
        place: String,
        /// Where the log ends.
        checkpoint: TimeStamp,
        /// PD's time.
        now: TimeStamp,
    },
    /// Only whole clusters are logged.
    #[error("the log takes all tables; a filter such as {0:?} is not supported")]
    Filter(String),
    /// Nothing that is written there can be read.
    #[error("a log at {place} could never be read")]
    Noop {
        /// The storage.
        place: String,
    },
}

fn known(tasks: &[String]) -> String {
    match tasks {
        [] => ", and none at all".to_owned(),
        tasks => format!("; there is {}", tasks.join(", ")),
    }
}

impl TaskError {
    fn cause(&self) -> Option<&dyn Classify> {
        match self {
            TaskError::Pd(error) => Some(error),
            TaskError::StoreConfig { source, .. } => Some(source),
            TaskError::Format(error) => Some(error),
            TaskError::Log(error) => Some(error),
            TaskError::Storage(error) => Some(error),
            TaskError::Backend(error) => Some(error),
            _ => None,
        }
    }
}

impl Classify for TaskError {
    fn kind(&self) -> Kind {
        if let Some(cause) = self.cause() {
            return cause.kind();
        }
        match self {
            TaskError::Exists { .. }
            | TaskError::PausedAlready { .. }
            | TaskError::NotPaused { .. }
            | TaskError::Changed { .. }
            | TaskError::ImportRunning { .. }
            | TaskError::HasBackup { .. }
            | TaskError::NotALog { .. }
            | TaskError::IsACopy { .. } => Kind::Conflict,
            TaskError::Damaged { .. } => Kind::Data,
            _ => Kind::Invalid,
        }
    }

    fn code(&self) -> Code {
        if let Some(cause) = self.cause() {
            return cause.code();
        }
        match self {
            TaskError::NotFound { .. } => Code::TASK_NOT_FOUND,
            TaskError::Exists { .. } => Code::STREAM_LOG_TASK_EXIST,
            // As the official tool has it.
            TaskError::PausedAlready { .. } | TaskError::NotPaused { .. } => Code::KV_UNKNOWN,
            TaskError::Collected { .. } => Code::BACKUP_GC_SAFEPOINT_EXCEEDED,
            TaskError::Filter(_) => Code::UNSUPPORTED_OPERATION,
            TaskError::Damaged { .. } => Code::DATA_DAMAGED,
            TaskError::HasBackup { .. }
            | TaskError::NotALog { .. }
            | TaskError::IsACopy { .. }
            | TaskError::OtherCluster { .. }
            | TaskError::LogAhead { .. }
            | TaskError::ImportRunning { .. } => Code::INVALID_ARGUMENT,
            _ => Code::of_kind(self.kind()),
        }
    }

    fn next_step(&self) -> Option<String> {
        if let Some(cause) = self.cause() {
            return cause.next_step();
        }
        let step = match self {
            TaskError::NotFound { tasks, .. } if tasks.is_empty() => {
                "Start one with `br log start`"
            }
            TaskError::NotFound { .. } => "Pass the name that `br log status` shows",
            TaskError::Exists { .. } => {
                "A cluster has one task at most: stop that one first, with `br log stop`"
            }
            TaskError::PausedAlready { .. } => "See with `br log status` why",
            TaskError::NotPaused { .. } => "See with `br log status` how far it is",
            TaskError::Changed { .. } => "Look at it with `br log status`, and run again",
            TaskError::Disabled { .. } => "Set log-backup.enable to true and restart the stores",
            TaskError::StartInFuture { .. } => "Leave --start-ts away to begin now",
            TaskError::EndInPast { .. } => "Leave --end-ts away",
            TaskError::ImportRunning { .. } => "Wait for it to end, then start",
            TaskError::Collected {
                is_restart: false, ..
            } => "Leave --start-ts away to begin now, and take a full backup then",
            TaskError::Collected {
                is_restart: true, ..
            } => {
                "The log has a gap from here on: stop the task, start one at an empty place, and \
                 take a full backup"
            }
            TaskError::HasBackup { .. }
            | TaskError::NotALog { .. }
            | TaskError::LogAhead { .. } => "Use an empty directory or prefix",
            TaskError::Damaged { .. } => {
                "Put the object back, or use an empty directory or prefix and take a full backup"
            }
            TaskError::IsACopy { .. } => "Use the original, or an empty directory or prefix",
            TaskError::OtherCluster { .. } => {
                "Use the storage of this cluster's log, or an empty directory or prefix"
            }
            TaskError::Filter(_) => "Leave --filter away, and filter when you restore",
            TaskError::Noop { .. } => "Use a directory or a bucket",
            _ => return None,
        };
        Some(step.to_owned())
    }
}
