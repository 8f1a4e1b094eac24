//! # What it does
//! The part of etcd v3 that PD serves on its port: keys, compare-and-set, leases, watches. TiDB's
//! schema version and the tasks of log backup live there.
//!
//! # Retries
//! Reads, and writes whose repetition changes nothing, by [`ETCD_RETRY`]. [`Etcd::commit`] is
//! tried once: whether an attempt that got no answer was carried out only the keys can tell.

use std::{future::Future, sync::Arc, time::Duration};

use br_proto::{
    etcdserverpb::{self as pb, compare, request_op},
    mvccpb,
};
use br_rt::{Backoff, CancellationToken, RetryPolicy, Rt, Task};
use br_types::{Classify, Kind};
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Channel};

use crate::{
    pd::{
        PdError,
        members::{Leader, Members},
    },
    rpc::{self, MESSAGE_BYTES_MAX, RpcError, Target},
};

/// One call; etcd answers within milliseconds when it is well.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// As long as PD may be without a leader.
pub const ETCD_RETRY: RetryPolicy = crate::pd::PD_RETRY;

/// The events that a watch may be ahead of its reader; more wait at the server.
const WATCH_QUEUE: usize = 4;

/// A client of the etcd in PD. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    rt: Rt,
    members: Arc<Members>,
    cancel: CancellationToken,
}

/// What a transaction checks before it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent(Vec<u8>),
    /// The key exists.
    Present(Vec<u8>),
    /// No key with the prefix exists.
    AbsentPrefix(Vec<u8>),
    /// The key was last written at this revision.
    ModRevision(Vec<u8>, i64),
    /// The key has this value.
    Value(Vec<u8>, Vec<u8>),
}

/// What a transaction writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key, for as long as the lease lives if there is one.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// The lease it hangs on.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete(Vec<u8>),
    /// Removes all keys with a prefix.
    DeletePrefix(Vec<u8>),
}

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// Keys at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The keys and values, in key order.
    pub kvs: Vec<mvccpb::KeyValue>,
    /// The revision at which they were read; a watch from the next one misses nothing.
    pub revision: i64,
}

type KvStub = pb::kv_client::KvClient<Channel>;

impl Etcd {
    pub(crate) fn new(rt: Rt, members: Arc<Members>, cancel: CancellationToken) -> Self {
        Self {
            rt,
            members,
            cancel,
        }
    }

    /// The same client, under another token.
    #[must_use]
    pub fn with_cancel(&self, cancel: CancellationToken) -> Etcd {
        Etcd {
            cancel,
            ..self.clone()
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn get(&self, key: &[u8]) -> Result<Option<mvccpb::KeyValue>, PdError> {
        Ok(self.range(key, &[]).await?.kvs.pop())
    }

    /// All keys with a prefix. Memory grows with them: it is for the few keys of tasks.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn get_prefix(&self, prefix: &[u8]) -> Result<Found, PdError> {
        self.range(prefix, &prefix_end(prefix)).await
    }

    async fn range(&self, key: &[u8], range_end: &[u8]) -> Result<Found, PdError> {
        let request = pb::RangeRequest {
            key: key.to_vec(),
            range_end: range_end.to_vec(),
            ..Default::default()
        };
        let answer = self
            .repeat("Range", |mut stub| {
                let request = request.clone();
                async move { stub.range(request).await }
            })
            .await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok(Found {
            kvs: answer.kvs,
            revision,
        })
    }

    /// Sets a key, for as long as the lease lives if there is one.
    ///
    /// # Errors
    /// PD is out of reach or refuses; the lease does not live.
    pub async fn put(
        &self,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<(), PdError> {
        let request = pb::PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
            lease: lease.map_or(0, |lease| lease.0),
            ..Default::default()
        };
        self.repeat("Put", |mut stub| {
            let request = request.clone();
            async move { stub.put(request).await }
        })
        .await
        .map(drop)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn delete(&self, key: &[u8]) -> Result<(), PdError> {
        self.delete_range(key, &[]).await
    }

    /// Removes all keys with a prefix.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn delete_prefix(&self, prefix: &[u8]) -> Result<(), PdError> {
        self.delete_range(prefix, &prefix_end(prefix)).await
    }

    async fn delete_range(&self, key: &[u8], range_end: &[u8]) -> Result<(), PdError> {
        let request = pb::DeleteRangeRequest {
            key: key.to_vec(),
            range_end: range_end.to_vec(),
            ..Default::default()
        };
        self.repeat("DeleteRange", |mut stub| {
            let request = request.clone();
            async move { stub.delete_range(request).await }
        })
        .await
        .map(drop)
    }

    /// Writes all of it if everything is as expected; `false` if not, and then nothing.
    ///
    /// # Errors
    /// PD is out of reach or refuses. It may have been written all the same then.
    pub async fn commit(&self, expect: Vec<Expect>, write: Vec<Write>) -> Result<bool, PdError> {
        let request = pb::TxnRequest {
            compare: expect.into_iter().map(compare).collect(),
            success: write.into_iter().map(operation).collect(),
            failure: Vec::new(),
        };
        let answer = self
            .once("Txn", |mut stub| async move { stub.txn(request).await })
            .await?;
        Ok(answer.succeeded)
    }

    /// A lease that is renewed until the [`Lease`] is dropped or revoked.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn lease(&self, ttl: Duration) -> Result<Lease, PdError> {
        let ttl_seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = pb::LeaseGrantRequest {
            ttl: ttl_seconds,
            id: 0,
        };
        let granted = self
            .with_leader("LeaseGrant", |leader| async move {
                lease_stub(&leader).lease_grant(request).await
            })
            .await?;
        let id = LeaseId(granted.id);
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(1).max(1));
        let lost = CancellationToken::new();
        let keeper = self.with_cancel(CancellationToken::new());
        let signal = lost.clone();
        let task = self
            .rt
            .spawn(async move { keep_alive(&keeper, id, ttl, &signal).await });
        Ok(Lease {
            etcd: self.clone(),
            id,
            lost,
            task,
        })
    }

    /// The changes of all keys with a prefix from `revision` on.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn watch_prefix(&self, prefix: &[u8], revision: i64) -> Result<Watch, PdError> {
        let leader = self.members.leader(&self.cancel).await?;
        let mut stub = pb::watch_client::WatchClient::new(leader.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let create = pb::WatchCreateRequest {
            key: prefix.to_vec(),
            range_end: prefix_end(prefix),
            start_revision: revision,
            ..Default::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        let (requests, outgoing) = mpsc::channel(WATCH_QUEUE);
        // There is room for the first request.
        let _ = requests.try_send(request);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let target = Target {
            method: "Watch",
            address: &leader.address,
            limit: CALL_LIMIT,
        };
        let events = rpc::call(&self.rt, &self.cancel, target, stub.watch(outgoing)).await?;
        Ok(Watch {
            cancel: self.cancel.clone(),
            leader,
            events,
            _requests: requests,
        })
    }

    /// Calls the leader until it answers, for requests that may be repeated.
    async fn repeat<T, F>(
        &self,
        method: &'static str,
        send: impl Fn(KvStub) -> F,
    ) -> Result<T, PdError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut backoff = Backoff::new(ETCD_RETRY, &self.rt);
        loop {
            let error = match self.once(method, &send).await {
                Ok(answer) => return Ok(answer),
                Err(PdError::Rpc(RpcError::Cancelled)) => return Err(PdError::Cancelled),
                Err(error) if error.kind() != Kind::Retry => return Err(error),
                Err(error) => error,
            };
            if !backoff.pause(&self.rt, &self.cancel).await {
                let cancelled = self.cancel.is_cancelled();
                return Err(if cancelled { PdError::Cancelled } else { error });
            }
        }
    }

    async fn once<T, F>(
        &self,
        method: &'static str,
        send: impl FnOnce(KvStub) -> F,
    ) -> Result<T, PdError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.with_leader(method, |leader| {
            send(
                KvStub::new(leader.channel)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
        })
        .await
    }

    async fn with_leader<T, F>(
        &self,
        method: &'static str,
        send: impl FnOnce(Leader) -> F,
    ) -> Result<T, PdError>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let leader = self.members.leader(&self.cancel).await?;
        let target = Target {
            method,
            address: &leader.address,
            limit: CALL_LIMIT,
        };
        let answer = rpc::call(&self.rt, &self.cancel, target, send(leader.clone())).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind() == Kind::Retry)
        {
            self.members.lost(&leader.address);
        }
        Ok(answer?)
    }
}

fn lease_stub(leader: &Leader) -> pb::lease_client::LeaseClient<Channel> {
    pb::lease_client::LeaseClient::new(leader.channel.clone())
}

/// A lease that is kept alive.
#[must_use = "dropped, the lease is not renewed any more"]
pub struct Lease {
    etcd: Etcd,
    id: LeaseId,
    lost: CancellationToken,
    task: Task<()>,
}

impl Lease {
    /// Its name.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Waits until the lease is gone, with all keys that hang on it.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Ends the lease and removes the keys that hang on it, whatever state the client's token is
    /// in.
    ///
    /// # Errors
    /// PD is out of reach or refuses; it lapses by itself then.
    pub async fn revoke(self) -> Result<(), PdError> {
        self.task.abort();
        let request = pb::LeaseRevokeRequest { id: self.id.0 };
        let etcd = self.etcd.with_cancel(CancellationToken::new());
        etcd.with_leader("LeaseRevoke", |leader| async move {
            lease_stub(&leader).lease_revoke(request).await
        })
        .await
        .map(drop)
    }
}

/// Renews a lease each third of its time to live, one short stream at a time, until it is gone.
async fn keep_alive(etcd: &Etcd, id: LeaseId, ttl: Duration, lost: &CancellationToken) {
    let mut renewed = etcd.rt.now();
    loop {
        etcd.rt.sleep(ttl / 3).await;
        match renew(etcd, id).await {
            Ok(true) => renewed = etcd.rt.now(),
            Ok(false) => break,
            Err(error) => tracing::warn!(%error, "the lease could not be renewed yet"),
        }
        if etcd.rt.now().since(renewed) > ttl * 2 {
            break;
        }
    }
    lost.cancel();
}

/// `false`: the lease is gone.
async fn renew(etcd: &Etcd, id: LeaseId) -> Result<bool, PdError> {
    let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id: id.0 });
    let mut answers = etcd
        .with_leader("LeaseKeepAlive", |leader| async move {
            lease_stub(&leader).lease_keep_alive(request).await
        })
        .await?;
    match etcd.rt.timeout(CALL_LIMIT, answers.message()).await {
        Ok(Ok(Some(answer))) => Ok(answer.ttl > 0),
        Ok(Err(status)) => Err(rpc::failed("LeaseKeepAlive", "PD", status).into()),
        Ok(Ok(None)) | Err(_) => Err(RpcError::Timeout {
            method: "LeaseKeepAlive",
            address: "PD".into(),
            limit: CALL_LIMIT,
        }
        .into()),
    }
}

/// Changes as they happen.
pub struct Watch {
    cancel: CancellationToken,
    leader: Leader,
    events: Streaming<pb::WatchResponse>,
    /// The watch ends with it.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

/// What a watch gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// Changes, in order. The next watch goes on from the revision after `revision`.
    Events {
        /// The revision of the last of them.
        revision: i64,
        /// The changes.
        events: Vec<mvccpb::Event>,
    },
    /// History before `oldest` is gone: read the keys again and watch from there.
    Compacted {
        /// The least revision that can be watched.
        oldest: i64,
    },
}

impl Watch {
    /// The next changes, waited for as long as it takes.
    ///
    /// # Errors
    /// The stream broke: watch again from the revision after the last one seen.
    pub async fn next(&mut self) -> Result<Watched, PdError> {
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.events.message() => answer,
                () = self.cancel.cancelled() => return Err(PdError::Cancelled),
            };
            let status = |status| rpc::failed("Watch", &self.leader.address, status);
            let answer = answer
                .map_err(status)?
                .ok_or_else(|| status(tonic::Status::unavailable("the stream ended")))?;
            if answer.compact_revision > 0 {
                return Ok(Watched::Compacted {
                    oldest: answer.compact_revision,
                });
            }
            if answer.canceled {
                return Err(status(tonic::Status::unavailable(answer.cancel_reason)).into());
            }
            if !answer.events.is_empty() {
                let revision = answer.header.map_or(0, |header| header.revision);
                return Ok(Watched::Events {
                    revision,
                    events: answer.events,
                });
            }
        }
    }
}

fn compare(expect: Expect) -> pb::Compare {
    use compare::{CompareTarget as Target, TargetUnion};
    let range_end = match &expect {
        Expect::AbsentPrefix(prefix) => prefix_end(prefix),
        _ => Vec::new(),
    };
    let result = match &expect {
        Expect::Present(_) => compare::CompareResult::Greater,
        _ => compare::CompareResult::Equal,
    };
    let (key, target, value) = match expect {
        Expect::Present(key) => (key, Target::Create, TargetUnion::CreateRevision(0)),
        Expect::Absent(key) | Expect::AbsentPrefix(key) => {
            (key, Target::Create, TargetUnion::CreateRevision(0))
        }
        Expect::ModRevision(key, revision) => {
            (key, Target::Mod, TargetUnion::ModRevision(revision))
        }
        Expect::Value(key, value) => (key, Target::Value, TargetUnion::Value(value)),
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        target_union: Some(value),
        range_end,
    }
}

fn operation(write: Write) -> pb::RequestOp {
    let request = match write {
        Write::Put { key, value, lease } => request_op::Request::RequestPut(pb::PutRequest {
            key,
            value,
            lease: lease.map_or(0, |lease| lease.0),
            ..Default::default()
        }),
        Write::Delete(key) => request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key,
            ..Default::default()
        }),
        Write::DeletePrefix(prefix) => {
            request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                range_end: prefix_end(&prefix),
                key: prefix,
                ..Default::default()
            })
        }
    };
    pb::RequestOp {
        request: Some(request),
    }
}

/// The end of the range of all keys with a prefix; a single zero byte is etcd's "no bound".
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let end = br_types::RawKey::from(prefix).prefix_end().into_bytes();
    if end.is_empty() { vec![0] } else { end }
}
