//! What a store says of its regions: the checkpoints of the last flush, and who wants to know.
//!
//! # Ordering and invariants
//! A checkpoint is published after everything up to it is on the storage. A region that was not
//! confirmed in the last flush is not listed. For one region in one epoch the checkpoint never
//! goes back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use br_proto::{
    errorpb,
    logbackup::{FlushEvent, RegionCheckpoint, RegionIdentity, SubscribeFlushEventResponse},
};
use br_types::TimeStamp;
use tokio::sync::mpsc;

use super::collector::RegionProgress;

/// Events in one message, as the official stores send them.
const EVENTS_PER_MESSAGE: usize = 1024;
/// Messages that a subscriber may be behind. More are dropped: it polls for what it misses.
const MESSAGES_BEHIND_MAX: usize = 1024;
/// Subscribers at a time: each candidate of the coordinators' election and a status command or
/// two. The oldest gives way.
const SUBSCRIBERS_MAX: usize = 64;

/// One run of a task on a store, from when it begins there until it is paused, stopped or fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunId(u64);

type Message = Result<SubscribeFlushEventResponse, tonic::Status>;

/// Checkpoints of one store's regions.
#[derive(Default)]
pub(crate) struct Published {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The run of a task that the regions are of.
    run: RunId,
    regions: BTreeMap<u64, RegionProgress>,
    subscribers: Vec<mpsc::Sender<Message>>,
}

impl Published {
    /// A run begins: nothing is known of its regions yet.
    pub(crate) fn begin(&self) -> RunId {
        let mut inner = self.lock();
        inner.run = RunId(inner.run.0 + 1);
        inner.regions.clear();
        inner.run
    }

    /// Replaces what was published by the progress of a flush. What a run says that is over counts
    /// no more: it was of another task, maybe.
    pub(crate) fn publish(&self, run: RunId, progress: Vec<RegionProgress>) {
        let mut inner = self.lock();
        if inner.run != run {
            return;
        }
        let before = std::mem::take(&mut inner.regions);
        for mut region in progress {
            if let Some(old) = before.get(&region.region.id)
                && version(old) == version(&region)
            {
                region.checkpoint = region.checkpoint.max(old.checkpoint);
            }
            inner.regions.insert(region.region.id, region);
        }
        let messages = messages(&inner.regions);
        inner
            .subscribers
            .retain(|subscriber| !subscriber.is_closed());
        for subscriber in &inner.subscribers {
            for message in &messages {
                if subscriber.try_send(Ok(message.clone())).is_err() {
                    break;
                }
            }
        }
    }

    /// The run is over: nothing is known any more.
    pub(crate) fn end(&self, run: RunId) {
        let mut inner = self.lock();
        if inner.run == run {
            inner.regions.clear();
        }
    }

    /// What is published, and then what comes with each flush.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(MESSAGES_BEHIND_MAX);
        let mut inner = self.lock();
        for message in messages(&inner.regions) {
            if sender.try_send(Ok(message)).is_err() {
                break;
            }
        }
        inner
            .subscribers
            .retain(|subscriber| !subscriber.is_closed());
        if inner.subscribers.len() >= SUBSCRIBERS_MAX {
            inner.subscribers.remove(0);
        }
        inner.subscribers.push(sender);
        receiver
    }

    /// The answer for one region.
    pub(crate) fn answer(&self, asked: RegionIdentity) -> RegionCheckpoint {
        let inner = self.lock();
        let Some(found) = inner.regions.get(&asked.id) else {
            return RegionCheckpoint {
                err: Some(errorpb::Error {
                    message: format!(
                        "region {} has no checkpoint here: this store does not lead it, or has \
                         not flushed since it does",
                        asked.id
                    ),
                    not_leader: Some(errorpb::NotLeader {
                        region_id: asked.id,
                        leader: None,
                    }),
                    ..Default::default()
                }),
                region: Some(asked),
                checkpoint: 0,
            };
        };
        let region = Some(RegionIdentity {
            id: asked.id,
            epoch_version: version(found),
        });
        if version(found) != asked.epoch_version {
            return RegionCheckpoint {
                err: Some(errorpb::Error {
                    message: format!("region {} has another epoch here", asked.id),
                    epoch_not_match: Some(errorpb::EpochNotMatch::default()),
                    ..Default::default()
                }),
                region,
                checkpoint: 0,
            };
        }
        RegionCheckpoint {
            err: None,
            region,
            checkpoint: found.checkpoint.0,
        }
    }

    /// The checkpoint of a region, for tests.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<RegionProgress> {
        self.lock().regions.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(progress: &RegionProgress) -> u64 {
    progress.region.region_epoch.unwrap_or_default().version
}

/// Events for subscribers; neighbours with the same checkpoint become one.
fn messages(regions: &BTreeMap<u64, RegionProgress>) -> Vec<SubscribeFlushEventResponse> {
    let mut sorted: Vec<_> = regions.values().collect();
    sorted.sort_by(|a, b| a.region.start_key.cmp(&b.region.start_key));
    let mut events: Vec<FlushEvent> = Vec::new();
    for RegionProgress { region, checkpoint } in sorted {
        match events.last_mut() {
            Some(last)
                if !last.end_key.is_empty()
                    && last.end_key == region.start_key
                    && TimeStamp(last.checkpoint) == *checkpoint =>
            {
                last.end_key.clone_from(&region.end_key);
            }
            _ => events.push(FlushEvent {
                start_key: region.start_key.clone(),
                end_key: region.end_key.clone(),
                checkpoint: checkpoint.0,
            }),
        }
    }
    let chunks = events.chunks(EVENTS_PER_MESSAGE);
    chunks
        .map(|events| SubscribeFlushEventResponse {
            events: events.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use br_proto::metapb;

    use super::*;

    fn progress(id: u64, version: u64, keys: (&str, &str), checkpoint: u64) -> RegionProgress {
        RegionProgress {
            region: metapb::Region {
                id,
                start_key: keys.0.into(),
                end_key: keys.1.into(),
                region_epoch: Some(metapb::RegionEpoch {
                    conf_ver: 1,
                    version,
                }),
                ..Default::default()
            },
            checkpoint: TimeStamp(checkpoint),
        }
    }

    fn identity(id: u64, epoch_version: u64) -> RegionIdentity {
        RegionIdentity { id, epoch_version }
    }

    #[test]
    fn answers_tell_who_and_which_epoch() {
        let published = Published::default();
        let run = published.begin();
        let unknown = published.answer(identity(1, 1)).err.unwrap();
        assert_eq!(unknown.not_leader.unwrap().region_id, 1);
        published.publish(run, vec![progress(1, 2, ("a", "c"), 10)]);
        let other = published.answer(identity(1, 1));
        assert!(other.err.unwrap().epoch_not_match.is_some());
        assert_eq!(other.region, Some(identity(1, 2)));
        let right = published.answer(identity(1, 2));
        assert_eq!((right.err, right.checkpoint), (None, 10));
        // Never back within an epoch; another epoch begins anew; who is not confirmed goes.
        published.publish(run, vec![progress(1, 2, ("a", "c"), 7)]);
        assert_eq!(published.answer(identity(1, 2)).checkpoint, 10);
        published.publish(run, vec![progress(1, 3, ("a", "b"), 7)]);
        assert_eq!(published.answer(identity(1, 3)).checkpoint, 7);
        published.publish(run, Vec::new());
        assert!(published.answer(identity(1, 3)).err.is_some());
        // A run that is over has no say, and takes nothing away.
        let next = published.begin();
        published.publish(run, vec![progress(1, 3, ("a", "b"), 99)]);
        assert!(published.answer(identity(1, 3)).err.is_some());
        published.publish(next, vec![progress(1, 3, ("a", "b"), 8)]);
        published.end(run);
        assert_eq!(published.answer(identity(1, 3)).checkpoint, 8);
        published.end(next);
        assert!(published.answer(identity(1, 3)).err.is_some());
    }

    #[test]
    fn subscribers_get_all_at_first_and_then_each_flush() {
        let published = Published::default();
        let run = published.begin();
        published.publish(
            run,
            vec![
                progress(2, 1, ("b", "c"), 5),
                progress(1, 1, ("a", "b"), 5),
                progress(3, 1, ("c", ""), 6),
            ],
        );
        let mut receiver = published.subscribe();
        let spans = |message: Message| -> Vec<(Vec<u8>, Vec<u8>, u64)> {
            let events = message.unwrap().events.into_iter();
            events
                .map(|event| (event.start_key, event.end_key, event.checkpoint))
                .collect()
        };
        let first = spans(receiver.try_recv().unwrap());
        let span = |start: &str, end: &str, ts| (Vec::from(start), Vec::from(end), ts);
        assert_eq!(first, [span("a", "c", 5), span("c", "", 6)]);
        published.publish(run, vec![progress(3, 1, ("c", ""), 9)]);
        assert_eq!(spans(receiver.try_recv().unwrap()), [span("c", "", 9)]);
    }
}
