//! The service `keyspacepb.Keyspace`.

use std::sync::Arc;

use br_proto::{
    keyspacepb::{self as pb, keyspace_server::Keyspace},
    pdpb::ErrorType,
};
use tonic::{Request, Response};

use super::{Answer, StreamOf, check_cluster, error_header, header, internal};
use crate::pd::{Pd, keyspace};

/// The service `keyspacepb.Keyspace`.
#[derive(Clone)]
pub(crate) struct KeyspaceService(pub(crate) Arc<Pd>);

impl KeyspaceService {
    fn found(&self, found: Option<keyspace::Keyspace>) -> pb::LoadKeyspaceResponse {
        match found {
            Some(keyspace) => pb::LoadKeyspaceResponse {
                header: header(&self.0),
                keyspace: Some(keyspace.to_pb()),
            },
            None => pb::LoadKeyspaceResponse {
                header: error_header(&self.0, ErrorType::EntryNotFound, "keyspace does not exist"),
                keyspace: None,
            },
        }
    }

    fn all(&self) -> Vec<pb::KeyspaceMeta> {
        self.0
            .keyspaces
            .list(0, 0)
            .iter()
            .map(keyspace::Keyspace::to_pb)
            .collect()
    }
}

#[tonic::async_trait]
impl Keyspace for KeyspaceService {
    async fn load_keyspace(
        &self,
        request: Request<pb::LoadKeyspaceRequest>,
    ) -> Answer<pb::LoadKeyspaceResponse> {
        let request = request.get_ref();
        check_cluster(&self.0, request.header.as_ref())?;
        Ok(Response::new(
            self.found(self.0.keyspaces.by_name(&request.name)),
        ))
    }

    async fn load_keyspace_by_id(
        &self,
        request: Request<pb::LoadKeyspaceByIdRequest>,
    ) -> Answer<pb::LoadKeyspaceResponse> {
        let request = request.get_ref();
        check_cluster(&self.0, request.header.as_ref())?;
        let Some(pb::load_keyspace_by_id_request::Keyspace::Id(id)) = request.keyspace else {
            return Ok(Response::new(self.found(None)));
        };
        Ok(Response::new(self.found(self.0.keyspaces.by_id(id))))
    }

    async fn lookup_keyspace(
        &self,
        request: Request<pb::LookupKeyspaceRequest>,
    ) -> Answer<pb::LookupKeyspaceResponse> {
        let request = request.get_ref();
        check_cluster(&self.0, request.header.as_ref())?;
        let found = self.0.keyspaces.by_name(&request.name);
        let keyspaces = found.iter().map(keyspace::Keyspace::to_pb).collect();
        Ok(Response::new(pb::LookupKeyspaceResponse {
            header: header(&self.0),
            keyspaces,
        }))
    }

    /// All keyspaces once; the stream then stays open.
    async fn watch_keyspaces(
        &self,
        request: Request<pb::WatchKeyspacesRequest>,
    ) -> Answer<StreamOf<pb::WatchKeyspacesResponse>> {
        check_cluster(&self.0, request.get_ref().header.as_ref())?;
        let now = pb::WatchKeyspacesResponse {
            header: header(&self.0),
            keyspaces: self.all(),
        };
        let answers =
            futures::StreamExt::chain(futures::stream::iter([Ok(now)]), futures::stream::pending());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn update_keyspace_state(
        &self,
        request: Request<pb::UpdateKeyspaceStateRequest>,
    ) -> Answer<pb::UpdateKeyspaceStateResponse> {
        let request = request.get_ref();
        check_cluster(&self.0, request.header.as_ref())?;
        let id = match request.keyspace {
            Some(pb::update_keyspace_state_request::Keyspace::Id(id)) => id,
            None => 0,
        };
        if id == 0 {
            let text = "the default keyspace cannot change its state";
            let header = error_header(&self.0, ErrorType::InvalidValue, text);
            return Ok(Response::new(pb::UpdateKeyspaceStateResponse {
                header,
                keyspace: None,
            }));
        }
        let set = self
            .0
            .keyspaces
            .set_state(id, request.state(), self.0.rt.wall());
        let found = self.found(set.map_err(|error| internal(&error))?);
        let (header, keyspace) = (found.header, found.keyspace);
        Ok(Response::new(pb::UpdateKeyspaceStateResponse {
            header,
            keyspace,
        }))
    }

    async fn get_all_keyspaces(
        &self,
        request: Request<pb::GetAllKeyspacesRequest>,
    ) -> Answer<pb::GetAllKeyspacesResponse> {
        let request = request.get_ref();
        check_cluster(&self.0, request.header.as_ref())?;
        let start = match request.start_keyspace {
            Some(pb::get_all_keyspaces_request::StartKeyspace::StartId(id)) => id,
            None => 0,
        };
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let keyspaces = self.0.keyspaces.list(start, limit);
        Ok(Response::new(pb::GetAllKeyspacesResponse {
            header: header(&self.0),
            keyspaces: keyspaces.iter().map(keyspace::Keyspace::to_pb).collect(),
        }))
    }
}
