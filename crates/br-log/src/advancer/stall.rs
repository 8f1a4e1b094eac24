//! # What it does
//! Decides when a checkpoint has stood still for so long that locks are looked for, and has them
//! resolved beside everything else.
//!
//! # Ordering and invariants
//! One search at a time. Only locks of transactions that began two flush intervals ago or earlier
//! are touched, and of these only those of transactions that have ended or outlived their time.

use std::{sync::Arc, time::Duration};

use br_rt::{Monotonic, Task as Running};
use br_types::{EncodedKey, KeyRange, TimeStamp};
use futures::StreamExt as _;

use super::Environment;

/// Ranges that are searched at once.
const SEARCHES_MAX: usize = 8;

/// A checkpoint and since when it stands there.
pub(crate) struct Stall {
    checkpoint: TimeStamp,
    since: Monotonic,
    search: Option<Running<()>>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Wait,
    /// Resolve the locks up to that timestamp.
    Resolve(TimeStamp),
}

impl Stall {
    pub(crate) fn new(now: Monotonic, checkpoint: TimeStamp) -> Stall {
        Stall {
            checkpoint,
            since: now,
            search: None,
        }
    }

    /// Looks at the checkpoint; `interval` is that of flushes.
    pub(crate) fn step(
        &mut self,
        now: Monotonic,
        checkpoint: TimeStamp,
        cluster_now: TimeStamp,
        interval: Duration,
    ) -> Step {
        if checkpoint > self.checkpoint {
            self.checkpoint = checkpoint;
            self.since = now;
        }
        match &self.search {
            Some(search) if !search.is_finished() => return Step::Wait,
            // The next one comes only if this one did not help.
            Some(_) => {
                self.search = None;
                self.since = now;
            }
            None => {}
        }
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let old_ms = interval_ms.saturating_mul(2);
        let max_version = TimeStamp::compose(cluster_now.physical_ms().saturating_sub(old_ms), 0);
        let is_due = now.since(self.since) > interval && max_version > checkpoint;
        match is_due {
            true => Step::Resolve(max_version),
            false => Step::Wait,
        }
    }

    /// Begins to resolve the locks in `ranges`.
    pub(crate) fn resolve<E: Environment>(
        &mut self,
        env: &Arc<E>,
        ranges: Vec<KeyRange<EncodedKey>>,
        max_version: TimeStamp,
    ) {
        let env = env.clone();
        let rt = env.rt().clone();
        let checkpoint = self.checkpoint;
        self.search = Some(rt.spawn(async move {
            let search = |range: KeyRange<EncodedKey>| {
                let env = env.clone();
                async move { env.resolve_locks(&range, max_version).await }
            };
            let results: Vec<_> = futures::stream::iter(ranges)
                .map(search)
                .buffer_unordered(SEARCHES_MAX)
                .collect()
                .await;
            let (mut found, mut alive) = (0, 0);
            for result in results {
                match result {
                    Ok(resolved) => {
                        found += resolved.found;
                        alive += resolved.alive;
                    }
                    Err(error) => tracing::warn!(%error, "not all locks could be resolved"),
                }
            }
            tracing::info!(%checkpoint, %max_version, found, alive, "looked for old locks");
        }));
    }
}
