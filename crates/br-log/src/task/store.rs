//! # What it does
//! Reads and writes the tasks of log backup in PD's etcd.
//!
//! # Objects it reads and writes
//! All keys below `/tidb/br-stream`; see [`br_format::log::task`].
//!
//! # Ordering and invariants
//! - A reader sees all keys at one revision.
//! - A task appears and disappears with all its keys in one transaction.
//! - Whoever changes a task names the revision of the task that was read: a task that was stopped
//!   meanwhile, or started anew under the same name, is not touched.
//!
//! # Retries
//! Reads by the client's policy. A transaction whose answer was lost is looked up, and repeated if
//! it was not carried out.

use br_cluster::{
    Etcd, PdError,
    etcd::{Expect, Write},
};
use br_format::log::{
    LogFormatError,
    checkpoint::{decode_etcd_checkpoint, encode_etcd_checkpoint},
    task::{PREFIX, Pause, TaskError as StoreError, TaskInfo, TaskKey, TaskName, prefixes},
};
use br_proto::mvccpb::KeyValue;
use br_types::{Classify, KeyRange, Kind, RawKey, TimeStamp};

use super::{Checkpoints, Task, TaskError};

/// Attempts of a transaction whose answer is lost each time.
const COMMITS_MAX: usize = 5;

/// The tasks, in etcd. Cheap to clone.
#[derive(Clone)]
pub struct TaskStore {
    etcd: Etcd,
}

/// Everything of log backup in etcd at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    /// The tasks, by name.
    pub tasks: Vec<Task>,
    /// Whether somebody stands for election as the coordinator.
    pub has_coordinator: bool,
}

impl TaskStore {
    /// The tasks of a cluster.
    pub fn new(etcd: Etcd) -> TaskStore {
        TaskStore { etcd }
    }

    /// All tasks.
    ///
    /// # Errors
    /// PD is out of reach, or a key cannot be understood.
    pub async fn load(&self) -> Result<Tasks, TaskError> {
        let found = self
            .etcd
            .get_prefix(format!("{PREFIX}/").as_bytes())
            .await?;
        Ok(read_tasks(&found.kvs)?)
    }

    /// One task.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; PD is out of reach, or a key cannot be understood.
    pub async fn get(&self, name: &str) -> Result<Task, TaskError> {
        let mut tasks = self.load().await?.tasks;
        match tasks.iter().position(|task| task.name() == name) {
            Some(at) => Ok(tasks.swap_remove(at)),
            None => Err(TaskError::NotFound {
                name: name.to_owned(),
                tasks: tasks.iter().map(|task| task.name().to_owned()).collect(),
            }),
        }
    }

    /// Creates a task, if there is none yet, of whatever name.
    ///
    /// # Errors
    /// [`TaskError::Exists`]; PD is out of reach.
    pub async fn create(
        &self,
        info: &TaskInfo,
        ranges: &[KeyRange<RawKey>],
    ) -> Result<(), TaskError> {
        let put = |key: TaskKey, value: Vec<u8>| Write::Put {
            key: key.to_bytes(),
            value,
            lease: None,
        };
        let expect = vec![Expect::AbsentPrefix(prefixes::infos())];
        let mut write = vec![put(TaskKey::Info(info.name.clone()), info.encode())];
        write.extend(ranges.iter().map(|range| {
            let key = TaskKey::Range(info.name.clone(), range.start.clone());
            put(key, range.end.as_bytes().to_vec())
        }));
        let is_there = |tasks: &Tasks| tasks.tasks.iter().any(|task| task.info == *info);
        if self.commit(expect, write, is_there).await? {
            return Ok(());
        }
        let tasks = self.load().await?.tasks;
        let name = tasks.into_iter().next().map(|task| task.info.name);
        Err(TaskError::Exists {
            name: name.unwrap_or_else(|| info.name.clone()),
        })
    }

    /// Puts what a task was started with in the place of what was read.
    ///
    /// # Errors
    /// [`TaskError::Changed`]; PD is out of reach.
    pub async fn replace_info(&self, task: &Task, info: &TaskInfo) -> Result<(), TaskError> {
        let write = vec![Write::Put {
            key: TaskKey::Info(info.name.clone()).to_bytes(),
            value: info.encode(),
            lease: None,
        }];
        let is_there = |tasks: &Tasks| tasks.tasks.iter().any(|other| other.info == *info);
        match self.commit(vec![is_same(task)], write, is_there).await? {
            true => Ok(()),
            false => Err(changed(task)),
        }
    }

    /// Removes a task with everything that belongs to it.
    ///
    /// # Errors
    /// [`TaskError::Changed`]; PD is out of reach.
    pub async fn delete(&self, task: &Task) -> Result<(), TaskError> {
        let name = &task.info.name;
        let write = vec![
            Write::Delete(TaskKey::Info(name.clone()).to_bytes()),
            Write::Delete(TaskKey::Pause(name.clone()).to_bytes()),
            Write::DeletePrefix(prefixes::ranges_of(name)),
            Write::DeletePrefix(prefixes::checkpoints_of(name)),
            Write::DeletePrefix(prefixes::last_errors_of(name)),
            Write::DeletePrefix(prefixes::storage_checkpoints_of(name)),
        ];
        let is_gone = |tasks: &Tasks| !tasks.tasks.iter().any(|other| other.is_same(task));
        match self.commit(vec![is_same(task)], write, is_gone).await? {
            true => Ok(()),
            false => Err(changed(task)),
        }
    }

    /// Pauses a task; `false` if it is paused or gone.
    ///
    /// # Errors
    /// PD is out of reach.
    pub async fn pause(&self, task: &Task, pause: &Pause) -> Result<bool, TaskError> {
        let key = TaskKey::Pause(task.info.name.clone()).to_bytes();
        let expect = vec![is_same(task), Expect::Absent(key.clone())];
        let write = vec![Write::Put {
            key,
            value: pause.encode(),
            lease: None,
        }];
        let is_done = |tasks: &Tasks| {
            let mut same = tasks.tasks.iter().filter(|other| other.is_same(task));
            same.any(|other| other.pause.as_ref() == Some(pause))
        };
        self.commit(expect, write, is_done).await
    }

    /// Lets a paused task go on, and forgets the errors of stores.
    ///
    /// # Errors
    /// [`TaskError::Changed`]; PD is out of reach.
    pub async fn resume(&self, task: &Task) -> Result<(), TaskError> {
        let name = &task.info.name;
        let write = vec![
            Write::Delete(TaskKey::Pause(name.clone()).to_bytes()),
            Write::DeletePrefix(prefixes::last_errors_of(name)),
        ];
        let is_done = |tasks: &Tasks| {
            let mut same = tasks.tasks.iter().filter(|other| other.is_same(task));
            same.any(|other| other.pause.is_none())
        };
        match self.commit(vec![is_same(task)], write, is_done).await? {
            true => Ok(()),
            false => Err(changed(task)),
        }
    }

    /// Puts a checkpoint in the place of the one that was read; `false` if that or the task is
    /// another one by now.
    ///
    /// # Errors
    /// PD is out of reach; it may have been written all the same.
    pub async fn raise_checkpoint(
        &self,
        task: &Task,
        checkpoint: TimeStamp,
    ) -> Result<bool, TaskError> {
        let key = TaskKey::GlobalCheckpoint(task.info.name.clone()).to_bytes();
        let expected = match task.checkpoints.global {
            None => Expect::Absent(key.clone()),
            Some(old) => Expect::Value(key.clone(), encode_etcd_checkpoint(old).to_vec()),
        };
        let write = Write::Put {
            key,
            value: encode_etcd_checkpoint(checkpoint).to_vec(),
            lease: None,
        };
        let expect = vec![is_same(task), expected];
        Ok(self.etcd.commit(expect, vec![write]).await?)
    }

    /// Commits; `is_done` tells whether it was carried out when the answer is lost.
    async fn commit(
        &self,
        expect: Vec<Expect>,
        write: Vec<Write>,
        is_done: impl Fn(&Tasks) -> bool,
    ) -> Result<bool, TaskError> {
        let mut failure = PdError::Cancelled;
        for _ in 0..COMMITS_MAX {
            match self.etcd.commit(expect.clone(), write.clone()).await {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() != Kind::Retry => return Err(error.into()),
                Err(error) => failure = error,
            }
            // This waits for PD to be back.
            if is_done(&self.load().await?) {
                return Ok(true);
            }
        }
        Err(failure.into())
    }
}

/// That the task is still the one that was read.
fn is_same(task: &Task) -> Expect {
    let key = TaskKey::Info(task.info.name.clone()).to_bytes();
    Expect::ModRevision(key, task.info_revision)
}

fn changed(task: &Task) -> TaskError {
    TaskError::Changed {
        name: task.info.name.clone(),
    }
}

/// Puts the keys of etcd together.
///
/// # Errors
/// A value cannot be understood.
pub(super) fn read_tasks(kvs: &[KeyValue]) -> Result<Tasks, LogFormatError> {
    let mut all = Tasks::default();
    for kv in kvs {
        match TaskKey::parse(&kv.key) {
            Some(TaskKey::Info(_)) => {
                let key = String::from_utf8_lossy(&kv.key);
                all.tasks.push(Task {
                    info: TaskInfo::decode(&key, &kv.value)?,
                    info_revision: kv.mod_revision,
                    ranges: Vec::new(),
                    pause: None,
                    checkpoints: Checkpoints::default(),
                    errors: std::collections::BTreeMap::new(),
                });
            }
            Some(TaskKey::Owner(_)) => all.has_coordinator = true,
            _ => {}
        }
    }
    for kv in kvs {
        add_key(&mut all.tasks, kv)?;
    }
    for task in &mut all.tasks {
        task.ranges.sort_by(|a, b| a.start.cmp(&b.start));
    }
    all.tasks.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    Ok(all)
}

/// Takes over what one key says of its task.
fn add_key(tasks: &mut [Task], kv: &KeyValue) -> Result<(), LogFormatError> {
    let Some(key) = TaskKey::parse(&kv.key) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&kv.key);
    let checkpoint = || decode_etcd_checkpoint(&text, &kv.value);
    match key {
        TaskKey::Range(name, start) => {
            if let Some(task) = find(tasks, &name) {
                task.ranges.push(KeyRange::new(start, kv.value.clone()));
            }
        }
        TaskKey::Pause(name) => {
            if let Some(task) = find(tasks, &name) {
                task.pause = Some(read_pause(&text, &kv.value));
            }
        }
        TaskKey::GlobalCheckpoint(name) => {
            if let Some(task) = find(tasks, &name) {
                task.checkpoints.global = Some(checkpoint()?);
            }
        }
        TaskKey::StoreCheckpoint(name, store) | TaskKey::BinaryStoreCheckpoint(name, store) => {
            if let Some(task) = find(tasks, &name) {
                task.checkpoints.stores.insert(store, checkpoint()?);
            }
        }
        TaskKey::StorageCheckpoint(name, store) => {
            if let Some(task) = find(tasks, &name) {
                task.checkpoints.storage.insert(store, checkpoint()?);
            }
        }
        TaskKey::LastError(name, store) => {
            if let Some(task) = find(tasks, &name) {
                task.errors
                    .insert(store, StoreError::decode(&text, &kv.value)?);
            }
        }
        TaskKey::Info(_) | TaskKey::RegionCheckpoint(..) | TaskKey::Owner(_) => {}
    }
    Ok(())
}

fn find<'t>(tasks: &'t mut [Task], name: &TaskName) -> Option<&'t mut Task> {
    tasks.iter_mut().find(|task| task.info.name == *name)
}

/// A pause that cannot be read is a pause.
fn read_pause(key: &str, value: &[u8]) -> Pause {
    Pause::decode(key, value).unwrap_or_else(|error| {
        tracing::warn!(%error, "why the task is paused cannot be read");
        Pause::V1
    })
}
