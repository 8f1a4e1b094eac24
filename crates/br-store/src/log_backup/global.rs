use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_format::log::task::TaskName;
use br_rt::{Monotonic, Rt};
use br_types::TimeStamp;

use super::{board::TaskBoard, error::BoardError};

/// The task's global checkpoint, read again when it is older than wanted. An old one is never
/// wrong: it only grows.
pub(crate) struct GlobalCheckpoint {
    rt: Rt,
    board: Arc<dyn TaskBoard>,
    task: TaskName,
    start_ts: TimeStamp,
    cached: Mutex<Option<(TimeStamp, Monotonic)>>,
}

impl GlobalCheckpoint {
    pub(crate) fn new(
        rt: Rt,
        board: Arc<dyn TaskBoard>,
        task: TaskName,
        start_ts: TimeStamp,
    ) -> GlobalCheckpoint {
        GlobalCheckpoint {
            rt,
            board,
            task,
            start_ts,
            cached: Mutex::default(),
        }
    }

    /// The checkpoint, at most `age_max` old; the start of the task if none has been written.
    pub(crate) async fn get(&self, age_max: Duration) -> Result<TimeStamp, BoardError> {
        let now = self.rt.now();
        if let Some((ts, at)) = self.last()
            && now.since(at) <= age_max
        {
            return Ok(ts);
        }
        let found = self.board.global_checkpoint(&self.task).await?;
        let ts = found.unwrap_or_default().max(self.start_ts);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let ts = cached.map_or(ts, |(before, _)| before.max(ts));
        *cached = Some((ts, now));
        Ok(ts)
    }

    /// What was read last.
    pub(crate) fn known(&self) -> TimeStamp {
        self.last().map_or(self.start_ts, |(ts, _)| ts)
    }

    fn last(&self) -> Option<(TimeStamp, Monotonic)> {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
