//! # What it does
//! The duplex stream on which client-go sends most of its commands: many in one message, answered
//! in any order, each under its id.
//!
//! # Ordering and invariants
//! Each id is answered at most once. At most `batch_commands_max` commands of one stream are under
//! way; the rest wait unread on the connection. A command that waits for a lock does not hold up
//! the others.
//!
//! # Cancellation
//! A client that drops the stream drops its commands: reads end, writes that have begun go on.

use std::pin::Pin;

use br_proto::{
    kvrpcpb,
    tikvpb::{
        BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse,
        batch_commands_request::{Request, request::Cmd},
        batch_commands_response::{Response, response::Cmd as Answer},
    },
};
use futures::{FutureExt, Stream, StreamExt, stream};
use tonic::{Code, Status, Streaming};

use super::command::handle;
use crate::{context::StoreContext, coprocessor::coprocess, region_check::check_store};

/// Answers put into one message at most.
const ANSWERS_MAX: usize = 128;

/// Serves one stream.
pub(super) fn serve(
    store: StoreContext,
    requests: Streaming<BatchCommandsRequest>,
) -> impl Stream<Item = Result<BatchCommandsResponse, Status>> + Send {
    let limit = store.config.batch_commands_max.max(1);
    let commands = requests.flat_map(|message| stream::iter(unpack(message)));
    commands
        .map(move |command| {
            let store = store.clone();
            async move {
                let (id, request) = command?;
                Ok((id, run(&store, request).await?))
            }
        })
        .buffer_unordered(limit)
        // An error of the stream ends it after what is ready has been sent.
        .ready_chunks(ANSWERS_MAX)
        .flat_map(|ready| stream::iter(pack(ready)))
}

type Command = Result<(u64, Request), Status>;

fn unpack(message: Result<BatchCommandsRequest, Status>) -> Vec<Command> {
    match message {
        Ok(message) => message
            .request_ids
            .into_iter()
            .zip(message.requests)
            .map(Ok)
            .collect(),
        Err(status) => vec![Err(status)],
    }
}

type Answered = Result<(u64, Option<Answer>), Status>;

/// One message of what succeeded, then the error that ends the stream, if there is one.
fn pack(ready: Vec<Answered>) -> Vec<Result<BatchCommandsResponse, Status>> {
    let mut message = BatchCommandsResponse::default();
    let mut failure = None;
    for answered in ready {
        match answered {
            Ok((id, Some(answer))) => {
                message.request_ids.push(id);
                message.responses.push(Response { cmd: Some(answer) });
            }
            // As the official store: what fails inside is never answered.
            Ok((_, None)) => {}
            Err(status) => failure = failure.or(Some(status)),
        }
    }
    let mut out = Vec::with_capacity(2);
    if !message.request_ids.is_empty() {
        out.push(Ok(message));
    }
    out.extend(failure.map(Err));
    out
}

macro_rules! dispatch {
    ($store:ident, $command:ident, $($name:ident)*) => {
        match $command {
            $(Cmd::$name(request) => boxed(async {
                handle($store, request).await.map(Answer::$name)
            }),)*
            Cmd::Coprocessor(request) => boxed(async {
                coprocess($store, request).await.map(Answer::Coprocessor)
            }),
            Cmd::GetHealthFeedback(_) => boxed(async {
                Ok(Answer::GetHealthFeedback(health_feedback($store)))
            }),
            Cmd::BroadcastTxnStatus(_) => boxed(async {
                Ok(Answer::BroadcastTxnStatus(kvrpcpb::BroadcastTxnStatusResponse::default()))
            }),
            Cmd::Empty(request) => boxed(async move {
                let test_id = request.test_id;
                Ok(Answer::Empty(BatchCommandsEmptyResponse { test_id }))
            }),
            // What is UNIMPLEMENTED as a call of its own.
            Cmd::Import(_)
            | Cmd::Gc(_)
            | Cmd::RawCoprocessor(_)
            | Cmd::FlashbackToVersion(_)
            | Cmd::PrepareFlashbackToVersion(_)
            | Cmd::Flush(_)
            | Cmd::BufferBatchGet(_) => boxed(async {
                Err(Status::unimplemented("not served here"))
            }),
        }
    };
}

type Running<'s> = Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send + 's>>;

/// On the heap, for the sum of all kinds of commands is large.
fn boxed<'s>(command: impl Future<Output = Result<Answer, Status>> + Send + 's) -> Running<'s> {
    command.boxed()
}

/// Runs one command. `None`: it failed inside.
///
/// # Errors
/// Only what ends the whole stream: another cluster, or a store that is down.
async fn run(store: &StoreContext, request: Request) -> Result<Option<Answer>, Status> {
    let Some(command) = request.cmd else {
        return Ok(Some(Answer::Empty(BatchCommandsEmptyResponse::default())));
    };
    let running = dispatch!(store, command,
        Get Scan Prewrite Commit Cleanup BatchGet BatchRollback ScanLock ResolveLock DeleteRange
        RawGet RawBatchGet RawPut RawBatchPut RawDelete RawBatchDelete RawScan RawDeleteRange
        RawBatchScan PessimisticLock PessimisticRollback CheckTxnStatus TxnHeartBeat
        CheckSecondaryLocks
    );
    match running.await {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::Unavailable) => {
            Err(status)
        }
        Err(status) => {
            check_store(store, 0)?;
            tracing::warn!(%status, "a batched command failed");
            Ok(None)
        }
    }
}

/// Says that the store is well.
pub(super) fn health_feedback(store: &StoreContext) -> kvrpcpb::GetHealthFeedbackResponse {
    let feedback = kvrpcpb::HealthFeedback {
        store_id: store.store_id.0,
        feedback_seq_no: store.rt.wall().0,
        // The scale runs from 1, well, to 100.
        slow_score: 1,
    };
    kvrpcpb::GetHealthFeedbackResponse {
        health_feedback: Some(feedback),
        ..Default::default()
    }
}
