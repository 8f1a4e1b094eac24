use std::{collections::BTreeMap, sync::Arc, time::Duration};

use br_proto::{
    backup::{BackupRequest, BackupResponse},
    kvrpcpb,
};
use br_rt::{Rt, Task};
use br_types::{KeyRange, RawKey, StoreId};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::{Answer, LiveStore, Push, PushError, State, Stores, answer, is_passing};

/// Sub ranges of one request, so that it stays far below gRPC's customary 4 MiB.
const SUB_RANGES_MAX: usize = 4_096;
/// Answers that wait for the coordinator; a store waits when they are that many.
const ANSWERS_WAITING_MAX: usize = 64;
/// How often the list of stores is looked at while they work.
const WATCH_INTERVAL: Duration = Duration::from_secs(30);
/// A store that works but says nothing for so long is given up for the round. As in the official
/// tool; one slow upload of a large region under a rate limit can take many minutes.
const SILENCE_MAX: Duration = Duration::from_secs(3_600);

/// Something a store did.
enum Event<E> {
    Answer(Box<BackupResponse>),
    /// A stream broke or did not come about.
    Broken(E),
    /// Nothing for [`SILENCE_MAX`].
    Silent,
}

impl<S: Stores> Push<'_, S> {
    /// Asks each of the stores for everything that is missing and takes all answers, until all are
    /// through or lost.
    pub(super) async fn send(
        &self,
        state: &mut State<'_>,
        live: Vec<LiveStore>,
    ) -> Result<(), PushError<S::Error>> {
        let missing: Arc<[KeyRange<RawKey>]> = state.tree.missing().into();
        let chunk = missing
            .len()
            .div_ceil(self.requests_per_store)
            .clamp(1, SUB_RANGES_MAX);
        let (sender, mut events) = mpsc::channel(ANSWERS_WAITING_MAX);
        let mut working: BTreeMap<StoreId, (LiveStore, Task<()>)> = BTreeMap::new();
        for store in live {
            let work = StoreWork {
                rt: self.rt.clone(),
                stores: self.stores.clone(),
                store: store.id,
                template: state.template.clone(),
                missing: missing.clone(),
                chunk,
                parallel: self.requests_per_store,
                events: sender.clone(),
            };
            working.insert(store.id, (store, self.rt.spawn(work.run())));
        }
        drop(sender);
        let mut watch = Box::pin(self.rt.sleep(WATCH_INTERVAL));
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(PushError::Cancelled),
                () = &mut watch => {
                    self.drop_lost(state, &mut working).await;
                    watch = Box::pin(self.rt.sleep(WATCH_INTERVAL));
                }
                event = events.recv() => match event {
                    Some((store, event)) => self.take_event(state, store, event).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn take_event(
        &self,
        state: &mut State<'_>,
        store: StoreId,
        event: Event<S::Error>,
    ) -> Result<(), PushError<S::Error>> {
        let answer = match event {
            Event::Answer(response) => answer::read(store, self.expected, *response),
            Event::Broken(error) if is_passing(&error) => Answer::Again {
                why: error.to_string(),
                is_known: true,
            },
            Event::Broken(error) => return Err(PushError::Cluster(error)),
            Event::Silent => {
                let why = format!("no answer for {} s", SILENCE_MAX.as_secs());
                Answer::Again {
                    why,
                    is_known: true,
                }
            }
        };
        self.take(state, store, answer).await
    }

    /// Stops waiting for stores that are gone or have started anew.
    async fn drop_lost(
        &self,
        state: &mut State<'_>,
        working: &mut BTreeMap<StoreId, (LiveStore, Task<()>)>,
    ) {
        let live = match self.stores.live().await {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(%error, "the stores could not be watched");
                return;
            }
        };
        working.retain(|id, (store, task)| {
            let is_there = task.is_finished() || live.contains(store);
            if !is_there {
                tracing::warn!(store = %id, "the store is gone; its regions come in the next round");
                state.last_errors.insert(*id, "it is gone or has started anew".to_owned());
            }
            is_there
        });
    }
}

/// The work of one store in one round.
struct StoreWork<S: Stores> {
    rt: Rt,
    stores: Arc<S>,
    store: StoreId,
    template: BackupRequest,
    missing: Arc<[KeyRange<RawKey>]>,
    chunk: usize,
    parallel: usize,
    events: mpsc::Sender<(StoreId, Event<S::Error>)>,
}

/// A store that is not asked for more in this round.
struct Stopped;

impl<S: Stores> StoreWork<S> {
    /// Sends the chunks, some at a time, and stops at the first stream that breaks: the others
    /// would break as well, each after its own time-out.
    async fn run(self) {
        let work = &self;
        let chunks = stream::iter(work.missing.chunks(work.chunk).map(Ok));
        let parallel = work.parallel;
        let _: Result<(), Stopped> = chunks
            .try_for_each_concurrent(parallel, |ranges| work.request(ranges))
            .await;
    }

    async fn request(&self, ranges: &[KeyRange<RawKey>]) -> Result<(), Stopped> {
        let mut request = self.template.clone();
        request.sub_ranges = ranges
            .iter()
            .map(|range| kvrpcpb::KeyRange {
                start_key: range.start.as_bytes().to_vec(),
                end_key: range.end.as_bytes().to_vec(),
            })
            .collect();
        let mut answers = match self.stores.backup(self.store, request).await {
            Ok(answers) => answers,
            Err(error) => return self.stop(Event::Broken(error)).await,
        };
        loop {
            match self.rt.timeout(SILENCE_MAX, answers.next()).await {
                Ok(Some(Ok(response))) => self.tell(Event::Answer(Box::new(response))).await?,
                Ok(Some(Err(error))) => return self.stop(Event::Broken(error)).await,
                Ok(None) => return Ok(()),
                Err(_) => return self.stop(Event::Silent).await,
            }
        }
    }

    async fn tell(&self, event: Event<S::Error>) -> Result<(), Stopped> {
        // Nobody listens once the push has failed.
        self.events
            .send((self.store, event))
            .await
            .map_err(|_| Stopped)
    }

    async fn stop(&self, event: Event<S::Error>) -> Result<(), Stopped> {
        self.tell(event).await?;
        Err(Stopped)
    }
}
