//! # What it does
//! Keeps one stream of flushes open to each store and raises the spans by what comes.
//!
//! # Retries
//! A stream that broke is opened anew by the next [`Subscriptions::maintain`]. A store without the
//! service is left alone until its process is another one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::Task as Running;
use br_types::{StoreId, TimeStamp};
use futures::StreamExt as _;
use tokio::sync::Notify;

use super::{
    AdvanceError, Environment, SpanTree,
    environment::{Flushed, StoreAt},
};

/// A stream without any flush for so long is opened anew: it may be dead without anybody knowing.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a store may take to open a stream.
const OPEN_LIMIT: Duration = Duration::from_secs(8);

/// The progress of one task, which streams and polling raise. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    spans: Arc<Mutex<SpanTree>>,
    risen: Arc<Notify>,
}

impl Progress {
    pub(crate) fn new(spans: SpanTree) -> Progress {
        Progress {
            spans: Arc::new(Mutex::new(spans)),
            risen: Arc::default(),
        }
    }

    pub(crate) fn spans(&self) -> MutexGuard<'_, SpanTree> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises what is lower. One message of a store is one call.
    pub(crate) fn raise(&self, flushed: &[Flushed]) {
        let mut risen = false;
        {
            let mut spans = self.spans();
            for flushed in flushed {
                risen |= spans.raise(&flushed.range, flushed.checkpoint);
            }
        }
        if risen {
            self.risen.notify_one();
        }
    }

    /// The checkpoint of all keys.
    pub(crate) fn min(&self) -> Option<TimeStamp> {
        self.spans().min()
    }

    /// Waits until something was raised since the last time.
    pub(crate) async fn risen(&self) {
        self.risen.notified().await;
    }
}

/// The streams.
#[derive(Default)]
pub(crate) struct Subscriptions {
    open: BTreeMap<StoreId, Subscription>,
}

struct Subscription {
    started_at: i64,
    unsupported: Arc<Mutex<bool>>,
    task: Running<()>,
}

impl Subscriptions {
    /// Opens streams to stores that have none, drops those of stores that are gone. Gives the
    /// number of stores that are connected again because their stream broke.
    pub(crate) fn maintain<E: Environment>(
        &mut self,
        env: &Arc<E>,
        stores: &[StoreAt],
        progress: &Progress,
    ) -> usize {
        self.open
            .retain(|id, _| stores.iter().any(|store| store.id == *id));
        let mut broken = 0;
        for store in stores {
            if let Some(open) = self.open.get(&store.id) {
                let is_same = open.started_at == store.started_at;
                if is_same && (!open.task.is_finished() || open.is_unsupported()) {
                    continue;
                }
                broken += usize::from(is_same);
            }
            self.open
                .insert(store.id, Subscription::start(env, *store, progress));
        }
        broken
    }
}

impl Subscription {
    fn start<E: Environment>(env: &Arc<E>, store: StoreAt, progress: &Progress) -> Subscription {
        let unsupported = Arc::new(Mutex::new(false));
        let (env, progress, flag) = (env.clone(), progress.clone(), unsupported.clone());
        let task = env.rt().clone().spawn(async move {
            match follow(&*env, store.id, &progress).await {
                Ok(why) => tracing::info!(store = %store.id, why, "the stream of flushes ended"),
                Err(AdvanceError::Unsupported(_)) => {
                    *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    tracing::warn!(store = %store.id, "the store does not tell of flushes; it is asked");
                }
                Err(error) => {
                    tracing::warn!(store = %store.id, %error, "the stream of flushes broke");
                }
            }
        });
        Subscription {
            started_at: store.started_at,
            unsupported,
            task,
        }
    }

    fn is_unsupported(&self) -> bool {
        *self
            .unsupported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows one stream to its end, and says why it ended.
async fn follow<E: Environment>(
    env: &E,
    store: StoreId,
    progress: &Progress,
) -> Result<&'static str, AdvanceError> {
    let rt = env.rt();
    let Ok(opened) = rt.timeout(OPEN_LIMIT, env.subscribe(store)).await else {
        return Ok("the store did not open it");
    };
    let mut flushes = opened?;
    loop {
        match rt.timeout(IDLE_MAX, flushes.next()).await {
            Ok(Some(flushed)) => progress.raise(&flushed?),
            Ok(None) => return Ok("the store ended it"),
            Err(_) => return Ok("nothing came for long"),
        }
    }
}
