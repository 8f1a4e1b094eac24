use std::sync::{Arc, Mutex, MutexGuard};

use br_proto::{
    metapb,
    pdpb::{self, pd_server::Pd},
};
use futures::StreamExt as _;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::{
    locked,
    state::{CLUSTER_ID, State},
};

pub(super) struct FakePd {
    pub(super) member: usize,
    pub(super) state: Arc<Mutex<State>>,
}

fn header() -> Option<pdpb::ResponseHeader> {
    Some(pdpb::ResponseHeader {
        cluster_id: CLUSTER_ID,
        error: None,
    })
}

impl FakePd {
    fn leading(
        &self,
        header: Option<&pdpb::RequestHeader>,
    ) -> Result<MutexGuard<'_, State>, Status> {
        let state = locked(&self.state);
        if state.pd_leader != self.member {
            return Err(Status::unavailable("not leader"));
        }
        match header {
            Some(header) if header.cluster_id == CLUSTER_ID => Ok(state),
            _ => Err(Status::failed_precondition("mismatch cluster id")),
        }
    }
}

fn region_answer(found: Option<pdpb::Region>) -> Response<pdpb::GetRegionResponse> {
    let found = found.unwrap_or_default();
    Response::new(pdpb::GetRegionResponse {
        header: header(),
        region: found.region,
        leader: found.leader,
        ..Default::default()
    })
}

#[tonic::async_trait]
impl Pd for FakePd {
    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        let state = locked(&self.state);
        let member = |index: usize| pdpb::Member {
            name: format!("pd-{index}"),
            member_id: index as u64 + 1,
            client_urls: vec![format!("http://{}", state.members[index])],
            ..Default::default()
        };
        Ok(Response::new(pdpb::GetMembersResponse {
            header: header(),
            members: (0..state.members.len()).map(member).collect(),
            leader: Some(member(state.pd_leader)),
            ..Default::default()
        }))
    }

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<BoxStream<pdpb::TsoResponse>>, Status> {
        let state = self.state.clone();
        let member = self.member;
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            let mut state = locked(&state);
            if state.pd_leader != member {
                return Err(Status::unavailable("not leader"));
            }
            state.tso_counts.push(request.count);
            let (physical, logical) = state.tso(u64::from(request.count));
            Ok(pdpb::TsoResponse {
                header: header(),
                count: request.count,
                timestamp: Some(pdpb::Timestamp {
                    physical: physical as i64,
                    logical: logical as i64,
                    suffix_bits: 0,
                }),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        let request = request.into_inner();
        let state = self.leading(request.header.as_ref())?;
        let store = state.stores.iter().find(|(id, _)| *id == request.store_id);
        Ok(Response::new(pdpb::GetStoreResponse {
            header: header(),
            store: store.map(|(id, address)| metapb::Store {
                id: *id,
                address: address.clone(),
                ..Default::default()
            }),
            stats: None,
        }))
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let state = self.leading(request.header.as_ref())?;
        Ok(region_answer(
            state
                .region_of(&request.region_key)
                .map(|region| region.to_pd()),
        ))
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let state = self.leading(request.header.as_ref())?;
        let holder = state
            .region_of(&request.region_key)
            .map(|region| region.start.clone());
        let before = state
            .regions
            .iter()
            .find(|region| Some(&region.end) == holder.as_ref());
        Ok(region_answer(before.map(|region| region.to_pd())))
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Result<Response<pdpb::ScanRegionsResponse>, Status> {
        let request = request.into_inner();
        let state = self.leading(request.header.as_ref())?;
        let overlapping = state.regions.iter().filter(|region| {
            (region.end.is_empty() || region.end > request.start_key)
                && (request.end_key.is_empty() || region.start < request.end_key)
        });
        let regions = overlapping
            .take(request.limit.max(0) as usize)
            .map(|region| region.to_pd())
            .collect();
        let header = header();
        Ok(Response::new(pdpb::ScanRegionsResponse {
            header,
            regions,
            ..Default::default()
        }))
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGcSafePointResponse>, Status> {
        let state = self.leading(request.get_ref().header.as_ref())?;
        let new_safe_point = state.safe_point;
        Ok(Response::new(pdpb::UpdateGcSafePointResponse {
            header: header(),
            new_safe_point,
        }))
    }

    async fn update_service_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateServiceGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateServiceGcSafePointResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.leading(request.header.as_ref())?;
        let id = String::from_utf8_lossy(&request.service_id).into_owned();
        if request.ttl <= 0 {
            state.protections.remove(&id);
        } else if request.safe_point >= state.safe_point {
            state.protections.insert(id, request.safe_point);
        }
        Ok(Response::new(pdpb::UpdateServiceGcSafePointResponse {
            header: header(),
            service_id: b"gc_worker".to_vec(),
            ttl: i64::MAX,
            min_safe_point: state.safe_point,
        }))
    }
}
