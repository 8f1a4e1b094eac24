use br_proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;

use super::{Etcd, EtcdError, KeySpan, State, revision_of};

/// Updates that wait for one watcher; one that falls further behind is cancelled, so that a
/// client that does not read cannot fill the memory.
pub(super) const QUEUE_MAX: usize = 1024;
/// Watchers at one time, over all clients.
const WATCHERS_MAX: usize = 20_000;

/// What a watch wants.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// The keys.
    pub span: KeySpan,
    /// The first revision; 0 or less: only what comes from now on.
    pub start_revision: i64,
    /// Whether events tell what was there before.
    pub prev_kv: bool,
    /// Leaves out puts.
    pub no_put: bool,
    /// Leaves out removals.
    pub no_delete: bool,
}

/// Events of one revision or, for the past, of several, in order.
#[derive(Clone, Debug)]
pub struct WatchUpdate {
    /// The newest revision in it.
    pub revision: i64,
    /// Never empty.
    pub events: Vec<Event>,
}

/// A watch under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Watching {
    /// The store's revision when the watch began.
    pub revision: i64,
    /// What happens; the end of it means that the watcher was too slow.
    pub updates: mpsc::Receiver<WatchUpdate>,
}

pub(super) struct Watcher {
    spec: WatchSpec,
    sender: mpsc::Sender<WatchUpdate>,
}

impl Etcd {
    /// Begins a watch, with the past from its start revision on.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`] if that past is gone, [`EtcdError::TooMany`].
    pub fn watch(&self, spec: WatchSpec) -> Result<Watching, EtcdError> {
        let mut state = self.lock();
        state
            .watchers
            .retain(|_, watcher| !watcher.sender.is_closed());
        if state.watchers.len() >= WATCHERS_MAX {
            return Err(EtcdError::TooMany);
        }
        let (sender, updates) = mpsc::channel(QUEUE_MAX);
        if spec.start_revision > 0 && spec.start_revision <= state.revision {
            if spec.start_revision < state.history_from {
                return Err(EtcdError::Compacted(state.history_from));
            }
            let past = state
                .history
                .iter()
                .skip_while(|event| revision_of(event) < spec.start_revision)
                .filter_map(|event| spec.pick(event));
            let events: Vec<_> = past.collect();
            if !events.is_empty() {
                // The queue is empty and not closed: there is room.
                let _ = sender.try_send(WatchUpdate {
                    revision: state.revision,
                    events,
                });
            }
        }
        let id = state.next_watcher;
        state.next_watcher += 1;
        state.watchers.insert(id, Watcher { spec, sender });
        Ok(Watching {
            revision: state.revision,
            updates,
        })
    }
}

impl State {
    /// Hands events of the newest revision to who watches for them.
    pub(super) fn tell_watchers(&mut self, events: &[Event]) {
        let revision = self.revision;
        self.watchers.retain(|id, watcher| {
            let picked: Vec<_> = events
                .iter()
                .filter_map(|event| watcher.spec.pick(event))
                .collect();
            if picked.is_empty() || revision < watcher.spec.start_revision {
                return !watcher.sender.is_closed();
            }
            match watcher.sender.try_send(WatchUpdate {
                revision,
                events: picked,
            }) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::warn!(watcher = id, "a watcher is too slow; it is cancelled");
                    false
                }
            }
        });
    }
}

impl WatchSpec {
    fn pick(&self, event: &Event) -> Option<Event> {
        let wanted = match event.r#type() {
            EventType::Put => !self.no_put,
            EventType::Delete => !self.no_delete,
        };
        let in_span = event
            .kv
            .as_ref()
            .is_some_and(|kv| self.span.contains(&kv.key));
        (wanted && in_span).then(|| Event {
            prev_kv: if self.prev_kv {
                event.prev_kv.clone()
            } else {
                None
            },
            ..event.clone()
        })
    }
}
