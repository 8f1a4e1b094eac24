//! # What it does
//! Merges what stores have flushed into one checkpoint for the whole task, publishes it, keeps
//! garbage collection behind it, and gets rid of what holds it back.
//!
//! # Objects it reads and writes
//! In etcd everything below `/tidb/br-stream/` is read; `checkpoint/<task>/central_global` and, at
//! the lag limit, `pause/<task>` are written. The GC safe point `log-backup-coordinator` of PD. On
//! the task's storage `v1/global_checkpoint/central_global.ts`.
//!
//! # Ordering and invariants
//! - The published checkpoint is never above the least value that stores reported for any key of
//!   the task, and never goes back: it is written only in the place of the value that was read,
//!   and only while the task is the one that was read.
//! - A task that has just appeared is left alone for [`GRACE`]: stores that have not heard of it
//!   yet could tell of flushes for one before it, to another storage.
//! - The storage gets a checkpoint only after etcd has it.
//! - Pauses are state: each tick reads them. A paused task is not touched.
//!
//! # Retries
//! Each tick tries everything anew. What collects (streams, polling, locks) can fail without
//! keeping that from being published which is known.
//!
//! # After a crash
//! Nothing is kept: whoever is elected next starts from the published checkpoint, which holds for
//! all keys, and learns the rest from the stores.

use std::{sync::Arc, time::Duration};

use br_codec::key;
use br_rt::{CancellationToken, Monotonic};
use br_types::{EncodedKey, KeyRange, TimeStamp};
use futures::StreamExt as _;

use super::{
    AdvanceError, AdvancerConfig, Environment, POLL_AFTER_DEFAULT, SpanTree,
    environment::Raised,
    polling::ask_leaders,
    stall::{Stall, Step},
    subscriptions::{Progress, Subscriptions},
};
use crate::task::Task;

/// How long a task that has just appeared is left alone. Stores hear of tasks within milliseconds,
/// and look again every five seconds when they do not.
pub const GRACE: Duration = Duration::from_secs(6);

/// The checkpoint is published at most so often; a write to etcd each time.
const PUBLISH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How often the stores are asked for their flush interval.
const FLUSH_INTERVAL_AGE_MAX: Duration = Duration::from_secs(60);

/// Ranges that are polled at once.
const POLLS_MAX: usize = 8;

/// The work of the elected coordinator.
pub struct Coordinator<E> {
    env: Arc<E>,
    config: AdvancerConfig,
    current: Option<Current>,
    /// Whether the safe point of a task that nobody removed it for is gone.
    is_swept: bool,
    flush_interval: Option<Duration>,
    flush_interval_read: Option<Monotonic>,
}

/// The task at work.
struct Current {
    task: Task,
    is_paused: bool,
    seen: Monotonic,
    /// It had a checkpoint of its own already: it is not new to the stores.
    is_known: bool,
    progress: Progress,
    subscriptions: Subscriptions,
    /// The published checkpoint.
    checkpoint: TimeStamp,
    /// What the storage has, as far as this coordinator wrote it.
    stored: TimeStamp,
    stall: Stall,
    broken_streams: usize,
}

impl<E: Environment> Coordinator<E> {
    /// Knows nothing yet.
    pub fn new(env: Arc<E>, config: AdvancerConfig) -> Coordinator<E> {
        Coordinator {
            env,
            config,
            current: None,
            is_swept: false,
            flush_interval: None,
            flush_interval_read: None,
        }
    }

    /// Works until `end` is set.
    pub async fn run(&mut self, end: &CancellationToken) {
        let rt = self.env.rt().clone();
        while !end.is_cancelled() {
            let pause = match self.tick().await {
                Ok(()) => self.config.tick_interval,
                Err(error) => {
                    tracing::warn!(%error, "the tasks of log backup could not be looked after");
                    self.config.backoff
                }
            };
            let next_tick = rt.now().plus(pause);
            tokio::select! {
                biased;
                () = self.publish_until(next_tick) => {}
                () = end.cancelled() => {}
            }
        }
    }

    /// Publishes whenever stores tell of something, until it is time to look at everything.
    async fn publish_until(&mut self, next_tick: Monotonic) {
        let env = self.env.clone();
        let rt = env.rt();
        loop {
            let left = next_tick.since(rt.now());
            if left.is_zero() {
                return;
            }
            let risen = async {
                match &self.current {
                    Some(current) if !current.is_paused => current.progress.risen().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = rt.sleep(left) => return,
                () = env.tasks_changed() => return,
                () = risen => {}
            }
            if let Some(current) = &mut self.current
                && let Err(error) = current.publish(&*env).await
            {
                tracing::warn!(%error, "the checkpoint could not be published");
            }
            rt.sleep(PUBLISH_INTERVAL_MIN.min(left)).await;
        }
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// The tasks cannot be read, or what is known cannot be published.
    pub async fn tick(&mut self) -> Result<(), AdvanceError> {
        self.adopt().await?;
        let Some(mut current) = self.current.take() else {
            return self.sweep().await;
        };
        let result = self.look_after(&mut current).await;
        self.current = Some(current);
        result
    }

    /// The published checkpoint of the task at work, as far as this coordinator knows.
    pub fn checkpoint(&self) -> Option<TimeStamp> {
        self.current.as_ref().map(|current| current.checkpoint)
    }

    /// Takes over what etcd says.
    async fn adopt(&mut self) -> Result<(), AdvanceError> {
        let mut tasks = self.env.tasks().await?;
        if tasks.len() > 1 {
            tracing::warn!("more than one task of log backup; only the first is looked after");
        }
        if tasks.is_empty() {
            self.current = None;
            return Ok(());
        }
        let task = tasks.swap_remove(0);
        self.is_swept = false;
        match &mut self.current {
            Some(current) if current.task.is_same(&task) => current.refresh(task),
            _ => self.current = Some(Current::new(self.env.rt().now(), task)),
        }
        Ok(())
    }

    /// Gives garbage collection free when there is no task. The safe point of the last one would
    /// stay for a day.
    async fn sweep(&mut self) -> Result<(), AdvanceError> {
        if !self.is_swept {
            self.env.unprotect().await?;
            self.is_swept = true;
        }
        Ok(())
    }

    async fn look_after(&mut self, current: &mut Current) -> Result<(), AdvanceError> {
        if current.is_paused {
            return Ok(());
        }
        let env = self.env.clone();
        let rt = env.rt();
        if current.is_known || rt.now().since(current.seen) >= GRACE {
            let collected = rt
                .timeout(self.config.tick_interval, self.collect(current))
                .await;
            match collected {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "not all progress could be collected"),
                Err(elapsed) => tracing::warn!(%elapsed, "not all progress could be collected"),
            }
        }
        current.publish(&*env).await?;
        self.check_lag(current).await?;
        if current.is_paused {
            return Ok(());
        }
        // What is on the storage is there all the same.
        if let Err(error) = env.protect(current.checkpoint.prev()).await {
            tracing::warn!(%error, "garbage collection could not be held back behind the checkpoint");
        }
        if current.checkpoint > current.stored && current.has_published() {
            env.store_checkpoint(&current.task, current.checkpoint)
                .await?;
            current.stored = current.checkpoint;
        }
        Ok(())
    }

    /// Keeps streams open, asks for what they did not tell, resolves locks.
    async fn collect(&mut self, current: &mut Current) -> Result<(), AdvanceError> {
        let env = self.env.clone();
        let rt = env.rt();
        self.read_flush_interval().await;
        let interval = self
            .flush_interval
            .unwrap_or(self.config.tick_interval.saturating_mul(2));
        let now = env.now().await?;
        match current
            .stall
            .step(rt.now(), current.checkpoint, now, interval)
        {
            Step::Wait => {}
            Step::Resolve(max_version) => {
                let ranges = current.progress.spans().below(max_version);
                current.stall.resolve(&env, ranges, max_version);
            }
        }
        let stores = env.stores().await?;
        current.broken_streams = current
            .subscriptions
            .maintain(&env, &stores, &current.progress);
        self.poll(current, now).await
    }

    /// Asks the leaders of regions that lie behind.
    async fn poll(&self, current: &Current, now: TimeStamp) -> Result<(), AdvanceError> {
        let after = self.poll_after(current.broken_streams > 0);
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let limit = TimeStamp::compose(now.physical_ms().saturating_sub(after_ms), 0);
        let behind = current.progress.spans().below(limit);
        let ask = |range: KeyRange<EncodedKey>| {
            let (env, progress) = (self.env.clone(), current.progress.clone());
            async move {
                ask_leaders(&*env, &range, |answer| {
                    if let Some(flushed) = answer.flushed() {
                        progress.raise(&[flushed]);
                    }
                    true
                })
                .await
            }
        };
        let polls: Vec<Result<(), AdvanceError>> = futures::stream::iter(behind)
            .map(ask)
            .buffer_unordered(POLLS_MAX)
            .collect()
            .await;
        polls.into_iter().collect()
    }

    /// How old a checkpoint may be before its leader is asked; sooner if streams broke.
    fn poll_after(&self, is_broken: bool) -> Duration {
        let of_interval = |interval: Duration| interval.saturating_mul(4) / 3;
        let after = self
            .config
            .poll_after
            .or(self.flush_interval.map(of_interval))
            .unwrap_or(POLL_AFTER_DEFAULT);
        match is_broken {
            true => after.saturating_mul(9) / 20,
            false => after,
        }
    }

    async fn read_flush_interval(&mut self) {
        let now = self.env.rt().now();
        let is_fresh = self
            .flush_interval_read
            .is_some_and(|at| now.since(at) < FLUSH_INTERVAL_AGE_MAX);
        if is_fresh {
            return;
        }
        match self.env.flush_interval().await {
            Ok(found) => self.flush_interval = found.or(self.flush_interval),
            Err(error) => tracing::warn!(%error, "the flush interval of stores is not known"),
        }
        self.flush_interval_read = Some(now);
    }

    /// Pauses a task that fell too far behind.
    async fn check_lag(&self, current: &mut Current) -> Result<(), AdvanceError> {
        let limit_ms = u64::try_from(self.config.lag_limit.as_millis()).unwrap_or(u64::MAX);
        if limit_ms == 0 || current.checkpoint < current.task.start_ts() {
            return Ok(());
        }
        let now = self.env.now().await?;
        let lag_ms = now
            .physical_ms()
            .saturating_sub(current.checkpoint.physical_ms());
        if lag_ms <= limit_ms {
            return Ok(());
        }
        let reason = format!(
            "the checkpoint {} lags {} s behind, more than the limit of {} s",
            current.checkpoint,
            lag_ms / 1000,
            limit_ms / 1000
        );
        tracing::error!(
            task = current.task.name(),
            reason,
            "the log backup is paused"
        );
        self.env.pause(&current.task, &reason).await?;
        current.is_paused = true;
        Ok(())
    }
}

impl Current {
    fn new(now: Monotonic, task: Task) -> Current {
        let checkpoint = task
            .checkpoints
            .global
            .unwrap_or_default()
            .max(task.start_ts());
        let ranges: Vec<KeyRange<_>> = task.ranges.iter().map(key::encode_range).collect();
        Current {
            is_paused: task.pause.is_some(),
            seen: now,
            is_known: checkpoint > task.start_ts(),
            progress: Progress::new(SpanTree::new(ranges, checkpoint)),
            subscriptions: Subscriptions::default(),
            checkpoint,
            stored: TimeStamp::ZERO,
            stall: Stall::new(now, checkpoint),
            broken_streams: 0,
            task,
        }
    }

    /// What etcd says of the same task now. Another coordinator may have raised the checkpoint.
    fn refresh(&mut self, task: Task) {
        self.is_paused = task.pause.is_some();
        let published = task.checkpoints.global.unwrap_or_default();
        self.checkpoint = self.checkpoint.max(published);
        self.task = task;
    }

    /// Whether the task has a checkpoint of its own, beyond where it started.
    fn has_published(&self) -> bool {
        self.task.checkpoints.global.is_some()
    }

    /// Publishes what is known, if it is more than what is published.
    async fn publish<E: Environment>(&mut self, env: &E) -> Result<(), AdvanceError> {
        let Some(proven) = self.progress.min() else {
            return Ok(());
        };
        let published = self.task.checkpoints.global;
        if self.is_paused || published.is_some_and(|published| proven <= published) {
            return Ok(());
        }
        match env.raise(&self.task, proven).await? {
            Raised::Done => {
                self.task.checkpoints.global = Some(proven);
                self.checkpoint = self.checkpoint.max(proven);
            }
            Raised::Changed => {
                tracing::info!("the task or its checkpoint changed; looking again");
            }
        }
        Ok(())
    }
}
