//! etcd's gRPC services over the store.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use br_proto::etcdserverpb::{self as pb, watch_request::RequestUnion};
use br_rt::Task;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{EtcdError, KeySpan, WatchSpec};
use crate::pd::Pd;

/// Answers that wait for one client's stream.
const STREAM_QUEUE_MAX: usize = 256;
/// Watches on one client's stream.
const WATCHES_PER_STREAM_MAX: usize = 4096;
/// The version of etcd that is spoken.
const ETCD_VERSION: &str = "3.5.0";

type StreamOf<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All of etcd's services.
#[derive(Clone)]
pub(crate) struct EtcdService(pub(crate) Arc<Pd>);

impl EtcdService {
    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster_id.0,
            member_id: self.0.member_id,
            revision,
            raft_term: 2,
        })
    }

    fn header_now(&self) -> Option<pb::ResponseHeader> {
        self.header(self.0.etcd.revision())
    }

    /// Fills in the headers within the answer of a transaction, as etcd does: revision only.
    fn fill(responses: &mut [pb::ResponseOp], revision: i64) {
        use pb::response_op::Response as Op;
        let header = Some(pb::ResponseHeader {
            revision,
            ..Default::default()
        });
        for response in responses {
            match &mut response.response {
                Some(Op::ResponseRange(response)) => response.header = header,
                Some(Op::ResponsePut(response)) => response.header = header,
                Some(Op::ResponseDeleteRange(response)) => response.header = header,
                Some(Op::ResponseTxn(response)) => {
                    response.header = header;
                    Self::fill(&mut response.responses, revision);
                }
                None => {}
            }
        }
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for EtcdService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let mut response = self.0.etcd.range(request.get_ref())?;
        response.header = self.header_now();
        Ok(Response::new(response))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let (mut response, revision) = self.0.etcd.put(request.into_inner())?;
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (mut response, revision) = self.0.etcd.delete_range(request.get_ref())?;
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (mut response, revision) = self.0.etcd.txn(request.into_inner())?;
        response.header = self.header(revision);
        Self::fill(&mut response.responses, revision);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let revision = self.0.etcd.compact(request.get_ref().revision)?;
        Ok(Response::new(pb::CompactionResponse {
            header: self.header(revision),
        }))
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for EtcdService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.get_ref();
        let (id, ttl) = self.0.etcd.lease_grant(request.id, request.ttl)?;
        let header = self.header_now();
        Ok(Response::new(pb::LeaseGrantResponse {
            header,
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let revision = self.0.etcd.lease_revoke(request.get_ref().id)?;
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: self.header(revision),
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<StreamOf<pb::LeaseKeepAliveResponse>>, Status> {
        let service = self.clone();
        let answers = request.into_inner().map(move |request| {
            let id = request?.id;
            let ttl = service.0.etcd.lease_keep_alive(id);
            Ok(pb::LeaseKeepAliveResponse {
                header: service.header_now(),
                id,
                ttl,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.get_ref();
        let header = self.header_now();
        Ok(Response::new(match self.0.etcd.lease_info(request.id) {
            None => pb::LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: -1,
                ..Default::default()
            },
            Some(lease) => pb::LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: lease.left_seconds,
                granted_ttl: lease.granted_seconds,
                keys: if request.keys { lease.keys } else { Vec::new() },
            },
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let leases = self
            .0
            .etcd
            .leases()
            .into_iter()
            .map(|id| pb::LeaseStatus { id })
            .collect();
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: self.header_now(),
            leases,
        }))
    }
}

#[tonic::async_trait]
impl pb::watch_server::Watch for EtcdService {
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<StreamOf<pb::WatchResponse>>, Status> {
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE_MAX);
        let session = WatchSession {
            service: self.clone(),
            sender,
            watches: BTreeMap::new(),
            next_id: 0,
        };
        let task = self.0.rt.spawn(session.run(request.into_inner()));
        // The task ends with the stream that the client reads.
        let answers = ReceiverStream::new(receiver).map(move |answer| {
            let _keep = &task;
            answer
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The watches of one client's stream. Cancelled by dropping it.
struct WatchSession {
    service: EtcdService,
    sender: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    watches: BTreeMap<i64, Task<()>>,
    next_id: i64,
}

impl WatchSession {
    async fn run(mut self, mut requests: Streaming<pb::WatchRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            let answer = match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => {
                    if self.create(create).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(RequestUnion::CancelRequest(cancel)) => {
                    if self.watches.remove(&cancel.watch_id).is_none() {
                        continue;
                    }
                    pb::WatchResponse {
                        header: self.service.header_now(),
                        watch_id: cancel.watch_id,
                        canceled: true,
                        ..Default::default()
                    }
                }
                // -1 speaks for all watches of the stream.
                Some(RequestUnion::ProgressRequest(_)) => pb::WatchResponse {
                    header: self.service.header_now(),
                    watch_id: -1,
                    ..Default::default()
                },
                None => continue,
            };
            if self.sender.send(Ok(answer)).await.is_err() {
                return;
            }
        }
        // The client sends no more, but goes on reading.
        self.sender.closed().await;
    }

    /// `Err`: the client is gone.
    async fn create(&mut self, create: pb::WatchCreateRequest) -> Result<(), ()> {
        use pb::watch_create_request::FilterType;
        self.watches.retain(|_, task| !task.is_finished());
        let id = match create.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id => id,
        };
        let refuse = |reason: String, compact_revision: i64| pb::WatchResponse {
            header: self.service.header_now(),
            watch_id: id,
            canceled: true,
            cancel_reason: reason,
            compact_revision,
            ..Default::default()
        };
        // A client that asks for everything sends a zero byte as its key.
        let key = if create.key.is_empty() {
            vec![0]
        } else {
            create.key.clone()
        };
        let spec = WatchSpec {
            span: KeySpan::new(&key, &create.range_end),
            start_revision: create.start_revision,
            prev_kv: create.prev_kv,
            no_put: create.filters().any(|filter| filter == FilterType::Noput),
            no_delete: create
                .filters()
                .any(|filter| filter == FilterType::Nodelete),
        };
        let begun = if self.watches.len() >= WATCHES_PER_STREAM_MAX {
            Err(EtcdError::TooMany)
        } else {
            self.service.0.etcd.watch(spec)
        };
        let created = |service: &EtcdService, revision| pb::WatchResponse {
            header: service.header(revision),
            watch_id: id,
            created: true,
            ..Default::default()
        };
        let answers = match begun {
            _ if self.watches.contains_key(&id) => {
                let mut answer = refuse(
                    "etcdserver: duplicate watch ID provided on the WatchStream".into(),
                    0,
                );
                answer.created = true;
                vec![answer]
            }
            Ok(mut watching) => {
                let service = self.service.clone();
                let sender = self.sender.clone();
                let answer = created(&service, watching.revision);
                self.send(answer).await?;
                let task = self.service.0.rt.spawn(async move {
                    let mut answer = pb::WatchResponse {
                        watch_id: id,
                        ..Default::default()
                    };
                    while let Some(update) = watching.updates.recv().await {
                        answer.header = service.header(update.revision);
                        answer.events = update.events;
                        if sender.send(Ok(answer.clone())).await.is_err() {
                            return;
                        }
                    }
                    answer.header = service.header_now();
                    answer.events.clear();
                    answer.canceled = true;
                    answer.cancel_reason = "the watcher is too slow".into();
                    // Nothing to do if the client is gone.
                    let _ = sender.send(Ok(answer)).await;
                });
                self.watches.insert(id, task);
                return Ok(());
            }
            Err(EtcdError::Compacted(revision)) => {
                let reason = EtcdError::Compacted(revision).to_string();
                vec![
                    created(&self.service, self.service.0.etcd.revision()),
                    refuse(reason, revision),
                ]
            }
            Err(error) => vec![refuse(error.to_string(), 0)],
        };
        for answer in answers {
            self.send(answer).await?;
        }
        Ok(())
    }

    async fn send(&self, answer: pb::WatchResponse) -> Result<(), ()> {
        self.sender.send(Ok(answer)).await.map_err(|_| ())
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for EtcdService {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let member = pb::Member {
            id: self.0.member_id,
            name: self.0.name().to_owned(),
            peer_ur_ls: vec![self.0.client_url()],
            client_ur_ls: vec![self.0.client_url()],
            is_learner: false,
        };
        Ok(Response::new(pb::MemberListResponse {
            header: self.header_now(),
            members: vec![member],
        }))
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for EtcdService {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let revision = self.0.etcd.revision();
        let size = i64::try_from(self.0.etcd.size_bytes()).unwrap_or(i64::MAX);
        Ok(Response::new(pb::StatusResponse {
            header: self.header(revision),
            version: ETCD_VERSION.to_owned(),
            db_size: size,
            leader: self.0.member_id,
            raft_index: revision.cast_unsigned(),
            raft_term: 2,
            raft_applied_index: revision.cast_unsigned(),
            errors: Vec::new(),
            db_size_in_use: size,
            is_learner: false,
        }))
    }
}
