//! The service `meta_storagepb.MetaStorage`: the etcd store under another protocol.

use std::{pin::Pin, sync::Arc};

use br_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest},
    meta_storagepb::{self as pb, meta_storage_server::MetaStorage},
    mvccpb,
};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Pd,
    etcd::{EtcdError, KeySpan, WatchSpec},
};

/// The service.
#[derive(Clone)]
pub(crate) struct MetaStorageService(pub(crate) Arc<Pd>);

impl MetaStorageService {
    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster_id.0,
            error: None,
            revision,
        })
    }

    fn error_header(&self, error: &EtcdError) -> Option<pb::ResponseHeader> {
        let kind = match error {
            EtcdError::Compacted(_) => pb::ErrorType::DataCompacted,
            _ => pb::ErrorType::Unknown,
        };
        Some(pb::ResponseHeader {
            cluster_id: self.0.cluster_id.0,
            error: Some(pb::Error {
                r#type: kind.into(),
                message: error.to_string(),
            }),
            revision: self.0.etcd.revision(),
        })
    }
}

fn pair(kv: mvccpb::KeyValue) -> pb::KeyValue {
    pb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

fn event(event: mvccpb::Event) -> pb::Event {
    pb::Event {
        r#type: event.r#type,
        kv: event.kv.map(pair),
        prev_kv: event.prev_kv.map(pair),
    }
}

#[tonic::async_trait]
impl MetaStorage for MetaStorageService {
    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<
        Response<Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>>,
        Status,
    > {
        let request = request.get_ref();
        let spec = WatchSpec {
            span: KeySpan::new(&request.key, &request.range_end),
            start_revision: request.start_revision,
            prev_kv: request.prev_kv,
            no_put: false,
            no_delete: false,
        };
        let watching = match self.0.etcd.watch(spec) {
            Ok(watching) => watching,
            Err(error) => {
                let compact_revision = match &error {
                    EtcdError::Compacted(revision) => *revision,
                    _ => 0,
                };
                let header = self.error_header(&error);
                let answer = pb::WatchResponse {
                    header,
                    compact_revision,
                    events: Vec::new(),
                };
                return Ok(Response::new(Box::pin(futures::stream::iter([Ok(answer)]))));
            }
        };
        let service = self.clone();
        let answers = ReceiverStream::new(watching.updates).map(move |update| {
            Ok(pb::WatchResponse {
                header: service.header(update.revision),
                compact_revision: 0,
                events: update.events.into_iter().map(event).collect(),
            })
        });
        let slow = Status::resource_exhausted("the watcher is too slow");
        Ok(Response::new(Box::pin(
            answers.chain(futures::stream::iter([Err(slow)])),
        )))
    }

    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        let request = request.into_inner();
        let revision = self.0.etcd.revision();
        let range = RangeRequest {
            key: request.key,
            range_end: request.range_end,
            limit: request.limit,
            revision: request.revision,
            ..RangeRequest::default()
        };
        Ok(Response::new(match self.0.etcd.range(&range) {
            Ok(found) => pb::GetResponse {
                header: self.header(revision),
                kvs: found.kvs.into_iter().map(pair).collect(),
                more: found.more,
                count: found.count,
            },
            Err(error) => pb::GetResponse {
                header: self.error_header(&error),
                ..Default::default()
            },
        }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        let put = PutRequest {
            key: request.key,
            value: request.value,
            lease: request.lease,
            prev_kv: request.prev_kv,
            ..PutRequest::default()
        };
        Ok(Response::new(match self.0.etcd.put(put) {
            Ok((done, revision)) => pb::PutResponse {
                header: self.header(revision),
                prev_kv: done.prev_kv.map(pair),
            },
            Err(error) => pb::PutResponse {
                header: self.error_header(&error),
                prev_kv: None,
            },
        }))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let request = request.into_inner();
        let delete = DeleteRangeRequest {
            key: request.key,
            range_end: request.range_end,
            prev_kv: request.prev_kv,
        };
        Ok(Response::new(match self.0.etcd.delete_range(&delete) {
            Ok((done, revision)) => pb::DeleteResponse {
                header: self.header(revision),
                deleted: done.deleted,
                prev_kvs: done.prev_kvs.into_iter().map(pair).collect(),
            },
            Err(error) => pb::DeleteResponse {
                header: self.error_header(&error),
                ..Default::default()
            },
        }))
    }
}
