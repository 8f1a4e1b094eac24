use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_proto::import_sstpb::SetDownloadSpeedLimitRequest;
use br_rt::{Monotonic, RateLimit, Rt};

/// Tasks that hold a limit at the same time at most: each is one running restore.
const TASKS_MAX: usize = 1024;

/// A limit that cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SpeedLimitError {
    /// A task may die, so its limit must end by itself.
    #[error("the speed limit of task {0:?} needs a time to live")]
    NoTtl(String),
    /// Too many tasks.
    #[error("more than {TASKS_MAX} tasks hold a speed limit")]
    TooManyTasks,
}

/// How fast files may be downloaded: the least of the limits of live tasks and the one without a
/// task, in bytes a second; 0 is none.
#[derive(Debug)]
pub(super) struct SpeedLimits {
    rt: Rt,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    general: u64,
    tasks: BTreeMap<String, (u64, Monotonic)>,
    /// The bucket that serves `rate`; replaced when the rate changes.
    rate: u64,
    bucket: Option<Arc<RateLimit>>,
}

impl SpeedLimits {
    pub(super) fn new(rt: Rt) -> SpeedLimits {
        SpeedLimits {
            rt,
            inner: Mutex::default(),
        }
    }

    /// Sets or, with a speed of 0, removes a limit.
    ///
    /// # Errors
    /// [`SpeedLimitError`]; nothing has changed then.
    pub(super) fn set(
        &self,
        request: &SetDownloadSpeedLimitRequest,
    ) -> Result<(), SpeedLimitError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let task = &request.task_id;
        if task.is_empty() {
            inner.general = request.speed_limit;
            return Ok(());
        }
        if request.speed_limit == 0 {
            inner.tasks.remove(task);
            return Ok(());
        }
        if request.ttl_seconds == 0 {
            return Err(SpeedLimitError::NoTtl(task.clone()));
        }
        let now = self.rt.now();
        inner.tasks.retain(|_, (_, until)| now < *until);
        if inner.tasks.len() >= TASKS_MAX && !inner.tasks.contains_key(task) {
            return Err(SpeedLimitError::TooManyTasks);
        }
        let until = now.plus(Duration::from_secs(request.ttl_seconds));
        inner
            .tasks
            .insert(task.clone(), (request.speed_limit, until));
        Ok(())
    }

    /// The bucket to take bytes from; `None` if there is no limit now.
    pub(super) fn current(&self) -> Option<Arc<RateLimit>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.rt.now();
        inner.tasks.retain(|_, (_, until)| now < *until);
        let rate = inner
            .tasks
            .values()
            .map(|(rate, _)| *rate)
            .chain((inner.general > 0).then_some(inner.general))
            .min()
            .unwrap_or(0);
        if rate != inner.rate {
            inner.rate = rate;
            inner.bucket = RateLimit::new(self.rt.clone(), rate).map(Arc::new);
        }
        inner.bucket.clone()
    }

    #[cfg(test)]
    pub(super) fn rate(&self) -> u64 {
        self.current();
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rate
    }
}
