//! # What it does
//! Gives out timestamps: one task per client asks PD for as many at a time as callers wait for.
//!
//! # Ordering and invariants
//! Every timestamp is greater than all that this client gave out before. PD answers with the last
//! of the timestamps that it grants; the first is that less the number of the others. A caller gets
//! only timestamps that PD granted after the call began, so that what was committed before it is
//! seen.
//!
//! # Retries
//! A broken stream is opened again, at the new leader, by [`PD_RETRY`]; whoever waits goes on
//! waiting. After the last attempt all of them get the error.
//!
//! # Cancellation
//! A caller may go away at any time; its timestamp is lost.

use std::{sync::Arc, time::Duration};

use br_proto::pdpb;
use br_rt::{Backoff, CancellationToken, Rt, Task};
use br_types::{Classify, Kind, TimeStamp};
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

use super::{PD_RETRY, PdClient, PdError, check_header, members::Members};
use crate::rpc::{self, RpcError};

const METHOD: &str = "Tso";
/// Callers that may wait for one answer. PD's counter has 2^18 values each millisecond.
const BATCH_MAX: usize = 1024;
/// Callers that may wait for the next batches; more wait outside of the queue.
const QUEUE_MAX: usize = 8192;
/// An answer that takes longer means that the stream is dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

type Waiter = oneshot::Sender<Result<TimeStamp, Arc<PdError>>>;

/// The callers' end; the task ends with it.
pub(super) struct TsoClient {
    queue: mpsc::Sender<Waiter>,
    _task: Task<()>,
}

impl TsoClient {
    pub(super) fn start(rt: Rt, members: Arc<Members>) -> TsoClient {
        let (queue, waiters) = mpsc::channel(QUEUE_MAX);
        let batcher = Batcher {
            rt: rt.clone(),
            members,
            last: TimeStamp::ZERO,
            stream: None,
        };
        TsoClient {
            queue,
            _task: rt.spawn(batcher.run(waiters)),
        }
    }
}

impl PdClient {
    /// A timestamp greater than every one that any client of the cluster got before the call.
    ///
    /// # Errors
    /// PD is out of reach, or this client's token was set.
    pub async fn tso(&self) -> Result<TimeStamp, PdError> {
        let (sender, receiver) = oneshot::channel();
        let wait = async {
            self.shared.tso.queue.send(sender).await.ok()?;
            receiver.await.ok()
        };
        let answer = tokio::select! {
            biased;
            answer = wait => answer,
            () = self.cancel.cancelled() => return Err(PdError::Cancelled),
        };
        match answer {
            Some(Ok(ts)) => Ok(ts),
            Some(Err(error)) => Err(copy(&error)),
            // The task ends only with the runtime.
            None => Err(PdError::Cancelled),
        }
    }
}

/// One failure for many callers.
fn copy(error: &PdError) -> PdError {
    match error {
        PdError::Cancelled => PdError::Cancelled,
        PdError::InvalidResponse { method, what } => PdError::InvalidResponse {
            method,
            what: what.clone(),
        },
        PdError::ClusterIdMismatch { expected, found } => PdError::ClusterIdMismatch {
            expected: *expected,
            found: *found,
        },
        other => PdError::NoLeader {
            endpoints: METHOD.into(),
            cause: other.to_string(),
        },
    }
}

struct Batcher {
    rt: Rt,
    members: Arc<Members>,
    /// The greatest timestamp given out.
    last: TimeStamp,
    stream: Option<Stream>,
}

struct Stream {
    address: Arc<str>,
    requests: mpsc::Sender<pdpb::TsoRequest>,
    answers: Streaming<pdpb::TsoResponse>,
}

impl Batcher {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiter>) {
        let mut waiters = Vec::new();
        while queue.recv_many(&mut waiters, BATCH_MAX).await > 0 {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                continue;
            }
            match self.ask_until_answered(waiters.len()).await {
                Ok(first) => {
                    for (offset, waiter) in (0_u64..).zip(waiters.drain(..)) {
                        let _ = waiter.send(Ok(TimeStamp(first.0 + offset)));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for waiter in waiters.drain(..) {
                        let _ = waiter.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// The first of `count` new timestamps.
    async fn ask_until_answered(&mut self, count: usize) -> Result<TimeStamp, PdError> {
        let never = CancellationToken::new();
        let mut backoff = Backoff::new(PD_RETRY, &self.rt);
        loop {
            let error = match self.ask(count, &never).await {
                Ok(first) => return Ok(first),
                Err(error) => error,
            };
            if let Some(stream) = self.stream.take() {
                self.members.lost(&stream.address);
            }
            if error.kind() != Kind::Retry || !backoff.pause(&self.rt, &never).await {
                return Err(error);
            }
            tracing::debug!(%error, "asking for timestamps again");
        }
    }

    async fn ask(&mut self, count: usize, never: &CancellationToken) -> Result<TimeStamp, PdError> {
        let request = pdpb::TsoRequest {
            header: Some(self.members.header()),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            dc_location: "global".into(),
        };
        let stream = match self.stream.as_mut() {
            Some(stream) => {
                if stream.requests.send(request).await.is_err() {
                    let status = tonic::Status::unavailable("the stream is closed");
                    return Err(rpc::failed(METHOD, &stream.address, status).into());
                }
                stream
            }
            None => {
                let opened = self.open(request, never).await?;
                self.stream.insert(opened)
            }
        };
        let address = stream.address.clone();
        let status = |status| rpc::failed(METHOD, &address, status);
        let answer = match self
            .rt
            .timeout(ANSWER_LIMIT, stream.answers.message())
            .await
        {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => {
                return Err(status(tonic::Status::unavailable("the stream ended")).into());
            }
            Ok(Err(error)) => return Err(status(error).into()),
            Err(_) => {
                return Err(RpcError::Timeout {
                    method: METHOD,
                    address: address.to_string(),
                    limit: ANSWER_LIMIT,
                }
                .into());
            }
        };
        check_header(METHOD, answer.header.as_ref())?;
        let first = self.first_of(count, &answer)?;
        self.last = TimeStamp(first.0 + count as u64 - 1);
        Ok(first)
    }

    /// Checks an answer: as many as asked for, all of them new.
    fn first_of(&self, count: usize, answer: &pdpb::TsoResponse) -> Result<TimeStamp, PdError> {
        let invalid = |what: String| PdError::InvalidResponse {
            method: METHOD,
            what,
        };
        let Some(ts) = &answer.timestamp else {
            return Err(invalid("has no timestamp".into()));
        };
        if answer.count as usize != count {
            return Err(invalid(format!(
                "grants {} timestamps, not {count}",
                answer.count
            )));
        }
        let (Ok(physical), Ok(logical)) = (u64::try_from(ts.physical), u64::try_from(ts.logical))
        else {
            return Err(invalid("is negative".into()));
        };
        let last = TimeStamp::compose(physical, logical);
        let first = last.0.checked_sub(count as u64 - 1).map(TimeStamp);
        match first {
            Some(first) if first > self.last => Ok(first),
            _ => Err(invalid(format!("went back: {last} after {}", self.last))),
        }
    }

    /// Opens a stream with its first request: PD begins to answer no earlier.
    async fn open(
        &self,
        first: pdpb::TsoRequest,
        never: &CancellationToken,
    ) -> Result<Stream, PdError> {
        let leader = self.members.leader(never).await?;
        // The header must carry the cluster id, which the first search finds.
        let first = pdpb::TsoRequest {
            header: Some(self.members.header()),
            ..first
        };
        let (requests, outgoing) = mpsc::channel(1);
        let _ = requests.try_send(first);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut stub = leader.stub();
        let opened = self
            .rt
            .timeout(ANSWER_LIMIT, Box::pin(stub.tso(outgoing)))
            .await;
        let address = leader.address.clone();
        let error: PdError = match opened {
            Ok(Ok(answers)) => {
                return Ok(Stream {
                    address,
                    requests,
                    answers: answers.into_inner(),
                });
            }
            Ok(Err(status)) => rpc::failed(METHOD, &address, status).into(),
            Err(_) => RpcError::Timeout {
                method: METHOD,
                address: address.to_string(),
                limit: ANSWER_LIMIT,
            }
            .into(),
        };
        self.members.lost(&address);
        Err(error)
    }
}
