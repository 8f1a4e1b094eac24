//! The one queue through which everything reaches the collector.
//!
//! # Ordering and invariants
//! First in, first out, for events, scans and seals alike: what was put in before a seal is in the
//! payload that the seal takes. A write is acknowledged only after its events are here.
//!
//! Foreground writers never wait. An event for which there is no room is dropped, and in the same
//! step its subscription is marked lost: no seal can come between the two, so that nothing is
//! claimed of a region whose events have a gap. It is subscribed anew later on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use br_types::{EncodedKey, KeyRange};
use tokio::sync::{Notify, oneshot};

use super::{
    collector::{SealRequest, Sealed},
    scan::ScanBatch,
    subscription::{SubscriptionId, SubscriptionSpec},
};
use crate::engine::{Batch, Change};

/// Bytes of events that wait for the collector at most; as many can be with the collector. It
/// copies more than this in a tenth of a second, so that only a standstill fills the queue.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 20;
/// What an event takes besides its keys and values.
const EVENT_OVERHEAD_BYTES: usize = 64;

/// What the collector does next.
pub(crate) enum Message {
    /// A batch with changes for a subscription.
    Applied(SubscriptionId, Arc<Batch>),
    /// An event of the subscription was dropped.
    Lost(SubscriptionId),
    /// All keys of a range were removed physically.
    Removed(KeyRange<EncodedKey>),
    /// A new subscription; comes before its first event.
    Subscribe(Box<SubscriptionSpec>),
    /// The subscription has ended; comes after its last event.
    Unsubscribe(SubscriptionId),
    /// A part of an initial scan; answered once it is taken.
    Scanned(SubscriptionId, Box<ScanBatch>, oneshot::Sender<()>),
    /// The initial scan is through.
    ScanDone(SubscriptionId),
    /// Take what there is.
    Seal(SealRequest, oneshot::Sender<Sealed>),
}

/// The queue. Shared by writers, scans and the flush loop on one side and the collector on the
/// other.
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    event_bytes: usize,
}

/// There was no room for an event; its subscription is lost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl EventQueue {
    pub(crate) fn new(bytes_max: usize) -> EventQueue {
        EventQueue {
            waiting: Mutex::default(),
            wake: Notify::new(),
            bytes_max,
        }
    }

    /// Puts in a batch for a subscription.
    pub(crate) fn push_batch(
        &self,
        subscription: SubscriptionId,
        batch: &Arc<Batch>,
        bytes: usize,
    ) -> Result<(), Full> {
        let mut waiting = self.lock();
        let was_empty = waiting.messages.is_empty();
        let after = waiting.event_bytes.saturating_add(bytes);
        let is_taken = after <= self.bytes_max || waiting.event_bytes == 0;
        let message = if is_taken {
            waiting.event_bytes = after;
            Message::Applied(subscription, batch.clone())
        } else {
            Message::Lost(subscription)
        };
        waiting.messages.push(message);
        drop(waiting);
        if was_empty {
            self.wake.notify_one();
        }
        if is_taken { Ok(()) } else { Err(Full) }
    }

    /// Puts in anything else; there are only as many of these as regions, scans and flushes.
    pub(crate) fn push(&self, message: Message) {
        self.lock().messages.push(message);
        self.wake.notify_one();
    }

    /// Seals the payload behind everything that is in the queue now. `None`: the collector has
    /// ended.
    pub(crate) async fn seal(&self, request: SealRequest) -> Option<Sealed> {
        let (reply, sealed) = oneshot::channel();
        self.push(Message::Seal(request, reply));
        sealed.await.ok()
    }

    /// Waits until there is something.
    pub(crate) async fn filled(&self) {
        loop {
            let notified = self.wake.notified();
            if !self.lock().messages.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Takes all there is.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.lock()).messages
    }

    /// Whether something other than events waits: somebody waits for an answer then.
    pub(crate) fn is_urgent(&self) -> bool {
        let waiting = self.lock();
        let is_event =
            |message: &Message| matches!(message, Message::Applied(..) | Message::Lost(_));
        waiting.messages.last().is_some_and(|last| !is_event(last))
            || waiting.event_bytes > self.bytes_max / 2
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch takes in the queue.
pub(crate) fn batch_bytes(batch: &Batch) -> usize {
    let changes = batch.changes.iter().map(|change| match change {
        Change::Put(_, key, value) => key.len() + value.len() + EVENT_OVERHEAD_BYTES,
        Change::Delete(_, key) => key.len() + EVENT_OVERHEAD_BYTES,
    });
    changes.sum()
}

#[cfg(test)]
mod tests {
    use br_types::Cf;

    use super::*;

    fn batch(len: usize) -> Arc<Batch> {
        let mut batch = Batch::default();
        batch.put(Cf::Write, vec![b'z'; len], Vec::new());
        Arc::new(batch)
    }

    #[test]
    fn what_does_not_fit_loses_its_subscription_in_the_same_place() {
        let queue = EventQueue::new(1000);
        let (a, b) = (SubscriptionId(1), SubscriptionId(2));
        let small = batch(100);
        let bytes = batch_bytes(&small);
        for _ in 0..6 {
            queue.push_batch(a, &small, bytes).unwrap();
        }
        assert_eq!(queue.push_batch(b, &small, bytes), Err(Full));
        let (reply, _sealed) = oneshot::channel();
        queue.push(Message::Seal(SealRequest { min_ts: None }, reply));
        let messages = queue.take();
        assert!(matches!(messages[6], Message::Lost(id) if id == b));
        assert!(matches!(messages[7], Message::Seal(..)));
        // Taking makes room; one batch larger than the queue is taken alone.
        let large = batch(5000);
        queue.push_batch(b, &large, batch_bytes(&large)).unwrap();
        assert_eq!(queue.push_batch(a, &small, bytes), Err(Full));
    }
}
