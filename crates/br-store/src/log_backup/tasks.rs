//! Which task a store carries out: follows what PD says, and tells PD when it cannot go on.
//!
//! # What it does
//! Reads all tasks and pauses, acts on that state, and reads again when something has changed.
//! A task that is not paused is carried out; of several, one: all tools assume that there is at
//! most one. A fault of the task is told by a pause with its reason, a last error, and a guard for
//! its data.
//!
//! # Ordering and invariants
//! State counts, not events: a pause that was there before the store started counts as well as one
//! that comes now. The watch begins at the revision of the state that was acted on.
//!
//! # Retries
//! For ever: without PD there are no tasks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use br_format::log::task::{Pause, PauseReason, PauseV2, Severity, TaskError, TaskKey, TaskName};
use br_rt::Task;

use super::{
    board::{TaskBoard, TaskWatch, Tasks},
    error::{BoardError, Fault},
    flush::guard_id,
    task::{Store, carry_out, pause_guard_id},
};

/// Pause before PD is asked again.
const PD_PAUSE: Duration = Duration::from_secs(2);
/// How long the data of a task is guarded that an error has paused.
const PAUSE_GUARD_TTL: Duration = Duration::from_secs(24 * 3600);
/// Pause before a fault is told again that could not be told.
const REPORT_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct TaskTracker {
    store: Arc<Store>,
    board: Arc<dyn TaskBoard>,
    running: Option<Running>,
    faulty: Option<Faulty>,
    /// Tasks that were there at the last look.
    known: BTreeSet<TaskName>,
}

struct Running {
    name: TaskName,
    info: Vec<u8>,
    task: Task<Fault>,
}

/// A task that cannot go on; it is not begun again until PD knows.
struct Faulty {
    name: TaskName,
    info: Vec<u8>,
    fault: Fault,
}

enum Happened {
    Changed,
    WatchBroke(BoardError),
    Ended(Fault),
    Remind,
}

impl TaskTracker {
    pub(crate) fn new(store: Arc<Store>, board: Arc<dyn TaskBoard>) -> TaskTracker {
        TaskTracker {
            store,
            board,
            running: None,
            faulty: None,
            known: BTreeSet::new(),
        }
    }

    /// Follows the tasks for ever.
    pub(crate) async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "cannot follow the tasks of log backup; trying again");
                self.store.rt.sleep(PD_PAUSE).await;
            }
        }
    }

    /// Acts on the state, then waits until it has changed.
    async fn follow(&mut self) -> Result<(), BoardError> {
        let tasks = self.board.tasks().await?;
        let mut watch = self.board.watch(tasks.revision).await?;
        self.act_on(&tasks).await;
        loop {
            match self.wait(&mut *watch).await {
                Happened::Changed => return Ok(()),
                Happened::WatchBroke(error) => return Err(error),
                Happened::Ended(fault) => {
                    if let Some(Running { name, info, .. }) = self.running.take() {
                        tracing::error!(task = %name, error = %fault, "log backup has to stop");
                        self.faulty = Some(Faulty { name, info, fault });
                    }
                    self.report().await;
                }
                Happened::Remind => self.report().await,
            }
        }
    }

    async fn wait(&mut self, watch: &mut dyn TaskWatch) -> Happened {
        let running = self.running.as_mut().map(|running| &mut running.task);
        let has_ended = async {
            match running {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        let is_faulty = self.faulty.is_some();
        tokio::select! {
            biased;
            changed = watch.changed() => match changed {
                Ok(()) => Happened::Changed,
                Err(error) => Happened::WatchBroke(error),
            },
            fault = has_ended => Happened::Ended(fault),
            () = self.store.rt.sleep(REPORT_PAUSE), if is_faulty => Happened::Remind,
        }
    }

    async fn act_on(&mut self, tasks: &Tasks) {
        let names: BTreeSet<_> = tasks.infos.iter().map(|(name, _)| name.clone()).collect();
        let gone: Vec<_> = self.known.difference(&names).cloned().collect();
        let is_same = |name: &TaskName, info: &[u8]| {
            let mut infos = tasks.infos.iter();
            infos.any(|(other, other_info)| other == name && other_info == info)
        };
        if let Some(faulty) = &self.faulty
            && (tasks.paused.contains(&faulty.name) || !is_same(&faulty.name, &faulty.info))
        {
            self.faulty = None;
        }
        if let Some(running) = &self.running
            && (tasks.paused.contains(&running.name) || !is_same(&running.name, &running.info))
        {
            tracing::info!(task = %running.name, "log backup ends here");
            self.running = None;
        }
        for name in &gone {
            self.unguard(name).await;
        }
        self.known = names;
        if self.running.is_some() {
            return;
        }
        let faulty = self.faulty.as_ref().map(|faulty| &faulty.name);
        let mut ready = tasks
            .infos
            .iter()
            .filter(|(name, _)| !tasks.paused.contains(name) && Some(name) != faulty);
        if let Some((name, info)) = ready.next() {
            let (store, board) = (self.store.clone(), self.board.clone());
            let work = carry_out(store, board, name.clone(), info.clone());
            self.running = Some(Running {
                name: name.clone(),
                info: info.clone(),
                task: self.store.rt.spawn(work),
            });
        }
        for (name, _) in ready {
            tracing::warn!(task = %name, "a store carries out one task of log backup at a time");
        }
    }

    async fn unguard(&self, name: &TaskName) {
        for id in [
            guard_id(name, self.store.id),
            pause_guard_id(name, self.store.id),
        ] {
            if let Err(error) = self.board.unguard(&id).await {
                tracing::warn!(id, %error, "a guard is left; it ends by itself");
            }
        }
    }

    /// Tells of the fault; what could not be told is told again later.
    async fn report(&mut self) {
        let Some(faulty) = self.faulty.take() else {
            return;
        };
        match self.try_report(&faulty).await {
            // From now on the pause holds the task; once it is gone, the task begins anew.
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(task = %faulty.name, %error, "cannot tell PD of a fault yet");
                self.faulty = Some(faulty);
            }
        }
    }

    async fn try_report(&self, faulty: &Faulty) -> Result<(), BoardError> {
        let store = &self.store;
        let tasks = self.board.tasks().await?;
        let is_there = tasks
            .infos
            .iter()
            .any(|(name, info)| *name == faulty.name && *info == faulty.info);
        if !is_there {
            return Ok(());
        }
        self.guard_pause(faulty).await?;
        let error = TaskError {
            happened_at_unix_ms: store.rt.wall().0,
            code: faulty.fault.code().to_owned(),
            message: format!(
                "[store = {}] {}. {}",
                store.id,
                faulty.fault,
                faulty.fault.next_step()
            ),
            store: store.id,
        };
        let last_error = TaskKey::LastError(faulty.name.clone(), store.id);
        let name = &faulty.name;
        self.board.put(name, &last_error, &error.encode()).await?;
        // Whoever paused it first keeps the word.
        if !tasks.paused.contains(&faulty.name) {
            let pause = Pause::V2(PauseV2::new(
                Severity::Error,
                (host_name(), std::process::id()),
                store.rt.wall().0,
                PauseReason::Error(error),
            ));
            let key = TaskKey::Pause(faulty.name.clone());
            self.board.put(name, &key, &pause.encode()).await?;
        }
        Ok(())
    }

    async fn guard_pause(&self, faulty: &Faulty) -> Result<(), BoardError> {
        let Some(checkpoint) = self.board.global_checkpoint(&faulty.name).await? else {
            return Ok(());
        };
        let id = pause_guard_id(&faulty.name, self.store.id);
        let guarded = self
            .board
            .guard(&id, checkpoint.prev(), PAUSE_GUARD_TTL)
            .await;
        match guarded {
            // Too late for the guard; the pause has to be told all the same.
            Err(BoardError::Pd(br_cluster::PdError::SafePointExceeded { .. })) => Ok(()),
            result => result,
        }
    }
}

/// For people who read who has paused a task.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
