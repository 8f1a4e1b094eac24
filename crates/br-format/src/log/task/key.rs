use std::fmt;

use br_types::{RawKey, RegionId, StoreId};

use crate::log::LogFormatError;

/// What all keys of log backup begin with.
pub const PREFIX: &str = "/tidb/br-stream";

const CENTRAL_GLOBAL: &[u8] = b"central_global";

/// The name of a task: letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName(String);

impl TaskName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`LogFormatError::TaskName`].
    pub fn new(name: impl Into<String>) -> Result<TaskName, LogFormatError> {
        let name = name.into();
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_valid) {
            return Err(LogFormatError::TaskName(name));
        }
        Ok(TaskName(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key of log backup in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskKey {
    /// [`super::TaskInfo`].
    Info(TaskName),
    /// A range of raw keys: its start stands in the key as it is, the value is its end.
    Range(TaskName, RawKey),
    /// [`super::Pause`]; a task is paused exactly when it is there.
    Pause(TaskName),
    /// The global checkpoint, big-endian; the coordinator writes it.
    GlobalCheckpoint(TaskName),
    /// A checkpoint that stores of earlier versions wrote, big-endian.
    StoreCheckpoint(TaskName, StoreId),
    /// A checkpoint that earlier versions wrote, with the version of the region's epoch.
    RegionCheckpoint(TaskName, RegionId, u64),
    /// A checkpoint that the first versions wrote: the id stands in the key as 8 bytes.
    BinaryStoreCheckpoint(TaskName, StoreId),
    /// Which global checkpoint a store has copied to the storage, big-endian.
    StorageCheckpoint(TaskName, StoreId),
    /// [`super::TaskError`].
    LastError(TaskName, StoreId),
    /// A candidate of the election of a coordinator, with its lease; the value is its id.
    Owner(i64),
}

impl TaskKey {
    /// The bytes of the key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = match self {
            TaskKey::Info(task) => format!("{PREFIX}/info/{task}"),
            TaskKey::Range(task, start) => {
                let mut key = prefixes::ranges_of(task);
                key.extend_from_slice(start.as_bytes());
                return key;
            }
            TaskKey::Pause(task) => format!("{PREFIX}/pause/{task}"),
            TaskKey::GlobalCheckpoint(task) => {
                format!("{PREFIX}/checkpoint/{task}/central_global")
            }
            TaskKey::StoreCheckpoint(task, store) => {
                format!("{PREFIX}/checkpoint/{task}/store/{store}")
            }
            TaskKey::RegionCheckpoint(task, region, version) => {
                format!("{PREFIX}/checkpoint/{task}/region/{region}/{version}")
            }
            TaskKey::BinaryStoreCheckpoint(task, store) => {
                let mut key = prefixes::checkpoints_of(task);
                key.extend_from_slice(&store.0.to_be_bytes());
                return key;
            }
            TaskKey::StorageCheckpoint(task, store) => {
                format!("{PREFIX}/storage-checkpoint/{task}/{store}")
            }
            TaskKey::LastError(task, store) => format!("{PREFIX}/last-error/{task}/{store}"),
            TaskKey::Owner(lease) => format!("{PREFIX}/owner/{lease:x}"),
        };
        text.into_bytes()
    }

    /// Reads a key; none if it is no key of log backup.
    pub fn parse(key: &[u8]) -> Option<TaskKey> {
        let rest = key.strip_prefix(PREFIX.as_bytes())?.strip_prefix(b"/")?;
        let (kind, rest) = split_slash(rest)?;
        match kind {
            b"info" => Some(TaskKey::Info(task_name(rest)?)),
            b"pause" => Some(TaskKey::Pause(task_name(rest)?)),
            b"owner" => {
                let lease = std::str::from_utf8(rest).ok()?;
                let lease = i64::from_str_radix(lease, 16).ok()?;
                Some(TaskKey::Owner(lease))
            }
            b"ranges" => {
                let (task, start) = split_slash(rest)?;
                Some(TaskKey::Range(task_name(task)?, RawKey::from(start)))
            }
            b"checkpoint" => {
                let (task, rest) = split_slash(rest)?;
                parse_checkpoint(task_name(task)?, rest)
            }
            b"storage-checkpoint" => {
                let (task, store) = split_slash(rest)?;
                let store = StoreId(number(store)?);
                Some(TaskKey::StorageCheckpoint(task_name(task)?, store))
            }
            b"last-error" => {
                let (task, store) = split_slash(rest)?;
                Some(TaskKey::LastError(
                    task_name(task)?,
                    StoreId(number(store)?),
                ))
            }
            _ => None,
        }
    }
}

fn parse_checkpoint(task: TaskName, rest: &[u8]) -> Option<TaskKey> {
    if rest == CENTRAL_GLOBAL {
        return Some(TaskKey::GlobalCheckpoint(task));
    }
    if let Some(store) = rest.strip_prefix(b"store/") {
        return Some(TaskKey::StoreCheckpoint(task, StoreId(number(store)?)));
    }
    if let Some(region) = rest.strip_prefix(b"region/") {
        let (region, version) = split_slash(region)?;
        let region = RegionId(number(region)?);
        return Some(TaskKey::RegionCheckpoint(task, region, number(version)?));
    }
    let store = u64::from_be_bytes(rest.try_into().ok()?);
    Some(TaskKey::BinaryStoreCheckpoint(task, StoreId(store)))
}

fn split_slash(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b'/')?;
    let (head, rest) = bytes.split_at_checked(at)?;
    Some((head, rest.get(1..)?))
}

fn task_name(bytes: &[u8]) -> Option<TaskName> {
    TaskName::new(std::str::from_utf8(bytes).ok()?).ok()
}

fn number(bytes: &[u8]) -> Option<u64> {
    let is_number = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| std::str::from_utf8(bytes).ok()?.parse().ok())
        .flatten()
}

/// What groups of keys begin with.
pub mod prefixes {
    use super::{PREFIX, TaskName};

    /// All tasks.
    pub fn infos() -> Vec<u8> {
        format!("{PREFIX}/info/").into_bytes()
    }

    /// All pauses.
    pub fn pauses() -> Vec<u8> {
        format!("{PREFIX}/pause/").into_bytes()
    }

    /// The ranges of a task.
    pub fn ranges_of(task: &TaskName) -> Vec<u8> {
        format!("{PREFIX}/ranges/{task}/").into_bytes()
    }

    /// The checkpoints of a task.
    pub fn checkpoints_of(task: &TaskName) -> Vec<u8> {
        format!("{PREFIX}/checkpoint/{task}/").into_bytes()
    }

    /// What stores have copied to the storage. Other tools leave the last slash away, and so meet
    /// tasks whose names begin with this one.
    pub fn storage_checkpoints_of(task: &TaskName) -> Vec<u8> {
        format!("{PREFIX}/storage-checkpoint/{task}/").into_bytes()
    }

    /// The errors of a task.
    pub fn last_errors_of(task: &TaskName) -> Vec<u8> {
        format!("{PREFIX}/last-error/{task}/").into_bytes()
    }

    /// The election of a coordinator.
    pub fn owners() -> Vec<u8> {
        format!("{PREFIX}/owner/").into_bytes()
    }
}
