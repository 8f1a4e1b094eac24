//! # What it does
//! Sends a request to the leader of the region that holds a key, and follows splits, merges,
//! moves of leaders and stores that come and go, until the request is answered.
//!
//! # Retries
//! By [`REGION_RETRY`]; a region error or a broken connection counts as a failure, each with its
//! pause. What the request's own answer says (locks, conflicts) is the caller's business.

use std::{future::Future, time::Duration};

use br_rt::{Backoff, CancellationToken, RetryPolicy, Rt};
use br_types::{Classify, EncodedKey, Kind};

use super::{RegionCache, RegionFault, RegionResponse, RegionRoute};
use crate::{
    kv_error::KvError,
    pd::PdClient,
    rpc::RpcError,
    store::{StoreClient, StorePool},
};

/// How long a region may be without a leader that answers. A store that died is replaced after its
/// lease of ten seconds; a rolling restart takes half a minute for each.
pub const REGION_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_secs(2),
    attempts_max: 60,
    elapsed_max: Duration::from_secs(60),
};

/// How long locks of others are waited for: their owners may live for tens of seconds, and a store
/// resolves the locks of dead ones after 20 s at the latest.
pub const KEY_ERROR_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(20),
    pause_max: Duration::from_secs(1),
    attempts_max: 200,
    elapsed_max: Duration::from_secs(120),
};

/// Finds the way of requests. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Router {
    pd: PdClient,
    stores: StorePool,
    cache: RegionCache,
}

impl Router {
    pub(crate) fn new(pd: PdClient, stores: StorePool, cache: RegionCache) -> Self {
        Self { pd, stores, cache }
    }

    pub(crate) fn with_cancel(&self, cancel: &CancellationToken) -> Router {
        Router {
            pd: self.pd.with_cancel(cancel.clone()),
            stores: self.stores.with_cancel(cancel),
            cache: self.cache.clone(),
        }
    }

    /// PD.
    pub fn pd(&self) -> &PdClient {
        &self.pd
    }

    /// The stores.
    pub fn stores(&self) -> &StorePool {
        &self.stores
    }

    /// What is known of regions.
    pub fn cache(&self) -> &RegionCache {
        &self.cache
    }

    pub(crate) fn rt(&self) -> &Rt {
        self.pd.rt()
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        self.pd.cancel()
    }

    /// The region that holds a key, waited for if PD does not know one yet.
    ///
    /// # Errors
    /// PD is out of reach, or knows none for as long as [`REGION_RETRY`] says.
    pub async fn locate(&self, key: &EncodedKey) -> Result<RegionRoute, KvError> {
        let mut backoff = Backoff::new(REGION_RETRY, self.rt());
        loop {
            if let Some(route) = self.cache.locate(&self.pd, key).await? {
                return Ok(route);
            }
            if !backoff.pause(self.rt(), self.cancel()).await {
                return Err(self.given_up(KvError::NoRegion { key: key.clone() }));
            }
        }
    }

    /// Sends a request to the leader of the region that holds `key`, until it is answered without
    /// a region error. `send` builds it for the region it is given: the part of the keys that lies
    /// within. Gives the answer and the region that gave it.
    ///
    /// # Errors
    /// The last region error or broken call when the policy is used up, and every error that
    /// another attempt does not help.
    pub async fn send<T, F>(
        &self,
        key: &EncodedKey,
        send: impl Fn(StoreClient, RegionRoute) -> F,
    ) -> Result<(T, RegionRoute), KvError>
    where
        T: RegionResponse,
        F: Future<Output = Result<T, RpcError>>,
    {
        let mut backoff = Backoff::new(REGION_RETRY, self.rt());
        let mut may_have_run = false;
        loop {
            let route = self.locate(key).await?;
            let error = match self.attempt(&route, &send).await {
                Ok(answer) => return Ok((answer, route)),
                Err(error) => error,
            };
            may_have_run |= error.may_have_run();
            let again = matches!(error.kind(), Kind::Retry | Kind::Reroute);
            if !again || !backoff.pause(self.rt(), self.cancel()).await {
                let error = self.given_up(error);
                return Err(if may_have_run {
                    error.after_lost_answer()
                } else {
                    error
                });
            }
            tracing::debug!(region = %route.id(), %error, "sending again");
        }
    }

    async fn attempt<T, F>(
        &self,
        route: &RegionRoute,
        send: impl Fn(StoreClient, RegionRoute) -> F,
    ) -> Result<T, KvError>
    where
        T: RegionResponse,
        F: Future<Output = Result<T, RpcError>>,
    {
        let store = route.leader_store();
        let client = match self.stores.client(store).await {
            Ok(client) => client,
            Err(error) => {
                self.cache.forget_store(store);
                return Err(error);
            }
        };
        let mut answer = match send(client, route.clone()).await {
            Ok(answer) => answer,
            Err(error) => {
                if error.kind() == Kind::Retry {
                    self.stores.forget(store);
                    self.cache.forget(route);
                }
                return Err(error.into());
            }
        };
        let Some(error) = answer.take_region_error() else {
            return Ok(answer);
        };
        let fault = RegionFault::from(error);
        self.cache.learn(route, &fault);
        if let RegionFault::StoreNotMatch { .. } = fault {
            self.stores.forget(store);
        }
        if let RegionFault::ServerIsBusy { backoff_ms, .. } = fault {
            // No store asks for more than this in earnest.
            let wait = Duration::from_millis(backoff_ms.min(5_000));
            tokio::select! {
                biased;
                () = self.rt().sleep(wait) => {}
                () = self.cancel().cancelled() => {}
            }
        }
        Err(KvError::Region {
            region: route.id(),
            store,
            fault: Box::new(fault),
        })
    }

    /// The error to end with: cancellation goes before what it broke.
    fn given_up(&self, error: KvError) -> KvError {
        if self.cancel().is_cancelled() {
            KvError::Cancelled
        } else {
            error
        }
    }
}
