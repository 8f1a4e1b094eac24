//! # What it does
//! Calls PD: timestamps, regions, stores, ids, scheduling, GC.
//!
//! # Ordering and invariants
//! Timestamps of one client grow strictly, across leaders. Each call carries the id of the cluster
//! that the client met first.
//!
//! # Retries
//! Each call goes to the leader and is repeated by [`PD_RETRY`] when the connection breaks, the
//! member turns out not to lead, or the cluster is still starting. Every method is safe to repeat
//! but `alloc_ids`, which may then skip ids.
//!
//! # Cancellation
//! A client belongs to a token: calls and pauses end with [`PdError::Cancelled`] when it is set.
//! [`PdClient::with_cancel`] gives the same client under another token, for undo after Ctrl-C.

use std::{future::Future, sync::Arc, time::Duration};

use br_proto::pdpb;
use br_rt::{Backoff, CancellationToken, RetryPolicy, Rt};
use br_types::{Classify, ClusterId, Kind};

mod error;
mod gc;
mod gc_keeper;
pub(crate) mod members;
mod regions;
mod stores;
#[cfg(test)]
mod tests;
mod tso;

pub use error::PdError;
pub use gc::{GcScope, GcState};
pub use gc_keeper::{GcKeeper, GcProtection};
pub use regions::{OperatorState, ScatterOutcome};

use self::{
    members::{Members, PdStub},
    tso::TsoClient,
};
use crate::{
    Security,
    rpc::{self, Dialer, RpcError, Target},
};

/// One call to PD; it answers within milliseconds when it is well.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How long PD may be without a leader. An election takes a few seconds; a restart of all members
/// in a rolling upgrade up to a minute.
pub const PD_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(50),
    pause_max: Duration::from_secs(3),
    attempts_max: 40,
    elapsed_max: Duration::from_secs(90),
};

/// The first connection: an address that is wrong is told soon.
const CONNECT_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(1),
    attempts_max: 8,
    elapsed_max: Duration::from_secs(10),
};

/// A client of PD. Cheap to clone; clones share connection and timestamps.
#[derive(Clone)]
pub struct PdClient {
    shared: Arc<Shared>,
    cancel: CancellationToken,
}

struct Shared {
    rt: Rt,
    members: Arc<Members>,
    tso: TsoClient,
}

impl std::fmt::Debug for PdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PdClient")
            .field("cluster_id", &self.cluster_id())
            .finish_non_exhaustive()
    }
}

/// Answers of PD that carry its header.
pub(crate) trait PdResponse {
    fn header(&self) -> Option<&pdpb::ResponseHeader>;
}

macro_rules! pd_responses {
    ($($name:ident),* $(,)?) => {$(
        impl PdResponse for pdpb::$name {
            fn header(&self) -> Option<&pdpb::ResponseHeader> {
                self.header.as_ref()
            }
        }
    )*};
}

pd_responses!(
    AllocIdResponse,
    DeleteGcBarrierResponse,
    GetAllStoresResponse,
    GetGcSafePointResponse,
    GetGcStateResponse,
    GetOperatorResponse,
    GetRegionResponse,
    GetStoreResponse,
    ScanRegionsResponse,
    ScatterRegionResponse,
    SetGcBarrierResponse,
    UpdateGcSafePointResponse,
    UpdateServiceGcSafePointResponse,
);

impl PdClient {
    /// Connects to the leader. `endpoints` are `host:port` or URLs, at least one.
    ///
    /// # Errors
    /// After ten seconds without a leader, at once for an address that is none.
    pub async fn connect(
        rt: Rt,
        cancel: CancellationToken,
        endpoints: Vec<String>,
        security: Security,
    ) -> Result<PdClient, PdError> {
        let dialer = Dialer::new(rt.clone(), security);
        let members = Arc::new(Members::new(dialer, endpoints));
        CONNECT_RETRY
            .run(&rt, &cancel, |_| async {
                members.leader(&cancel).await.map(drop)
            })
            .await?;
        let tso = TsoClient::start(rt.clone(), members.clone());
        Ok(PdClient {
            shared: Arc::new(Shared { rt, members, tso }),
            cancel,
        })
    }

    /// The same client, under another token.
    #[must_use]
    pub fn with_cancel(&self, cancel: CancellationToken) -> PdClient {
        PdClient {
            shared: self.shared.clone(),
            cancel,
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.members.cluster_id()
    }

    /// Addresses of the members, `host:port`, the leader's first.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.members.addresses()
    }

    /// The runtime of this client.
    pub fn rt(&self) -> &Rt {
        &self.shared.rt
    }

    /// The token of this client.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.shared.members
    }

    /// Calls the leader, again and again by [`PD_RETRY`], and checks the header of the answer.
    pub(crate) async fn call<T, F>(
        &self,
        method: &'static str,
        send: impl Fn(PdStub, pdpb::RequestHeader) -> F,
    ) -> Result<T, PdError>
    where
        T: PdResponse,
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut backoff = Backoff::new(PD_RETRY, self.rt());
        loop {
            let error = match self.call_once(method, &send).await {
                Ok(answer) => return Ok(answer),
                Err(PdError::Rpc(RpcError::Cancelled)) => return Err(PdError::Cancelled),
                Err(error) if error.kind() != Kind::Retry => return Err(error),
                Err(error) => error,
            };
            if !backoff.pause(self.rt(), &self.cancel).await {
                let cancelled = self.cancel.is_cancelled();
                return Err(if cancelled { PdError::Cancelled } else { error });
            }
            tracing::debug!(method, %error, "asking PD again");
        }
    }

    async fn call_once<T, F>(
        &self,
        method: &'static str,
        send: impl Fn(PdStub, pdpb::RequestHeader) -> F,
    ) -> Result<T, PdError>
    where
        T: PdResponse,
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let members = &self.shared.members;
        let leader = members.leader(&self.cancel).await?;
        let target = Target {
            method,
            address: &leader.address,
            limit: CALL_LIMIT,
        };
        let request = send(leader.stub(), members.header());
        let answer = rpc::call(self.rt(), &self.cancel, target, request).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == Kind::Retry)
        {
            members.lost(&leader.address);
        }
        let answer = answer?;
        check_header(method, answer.header())?;
        Ok(answer)
    }
}

/// The error in a header, if there is one.
pub(crate) fn check_header(
    method: &'static str,
    header: Option<&pdpb::ResponseHeader>,
) -> Result<(), PdError> {
    match header.and_then(|header| header.error.as_ref()) {
        Some(error) if error.r#type() != pdpb::ErrorType::Ok => Err(PdError::Refused {
            method,
            kind: error.r#type(),
            message: error.message.clone(),
        }),
        _ => Ok(()),
    }
}
