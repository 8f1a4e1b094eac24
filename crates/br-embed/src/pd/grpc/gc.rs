//! Safe points and barriers, as `pdpb.PD` answers them.
//!
//! There is one GC state, that of the null keyspace; every keyspace is led to it.

use br_proto::pdpb::{self as pb, ErrorType};
use br_types::TimeStamp;
use tonic::{Response, Status};

use super::{Answer, PdService, internal};
use crate::pd::gc::{Barrier, GcError, GcState};

/// The keyspace of everything that is in none.
const NULL_KEYSPACE: u32 = u32::MAX;

fn scope() -> Option<pb::KeyspaceScope> {
    let keyspace = pb::keyspace_scope::Keyspace::KeyspaceId(NULL_KEYSPACE);
    Some(pb::KeyspaceScope {
        keyspace: Some(keyspace),
    })
}

fn info(barrier: Barrier) -> pb::GcBarrierInfo {
    pb::GcBarrierInfo {
        barrier_id: barrier.id,
        barrier_ts: barrier.ts.0,
        ttl_seconds: barrier.ttl_seconds,
    }
}

fn global_info(barrier: Barrier) -> pb::GlobalGcBarrierInfo {
    pb::GlobalGcBarrierInfo {
        barrier_id: barrier.id,
        barrier_ts: barrier.ts.0,
        ttl_seconds: barrier.ttl_seconds,
    }
}

fn state(state: GcState, exclude_barriers: bool) -> pb::GcState {
    let barriers = if exclude_barriers {
        Vec::new()
    } else {
        state.barriers
    };
    pb::GcState {
        keyspace_scope: scope(),
        is_keyspace_level_gc: false,
        txn_safe_point: state.txn_safe_point.0,
        gc_safe_point: state.gc_safe_point.0,
        gc_barriers: barriers.into_iter().map(info).collect(),
    }
}

/// What the older calls answer with: the gRPC status itself.
fn old_status(error: GcError) -> Status {
    match error {
        GcError::Meta(error) => internal(&error),
        error => Status::unknown(error.to_string()),
    }
}

impl PdService {
    /// What the newer calls answer with: an error in the header.
    fn gc_header(&self, result: Result<(), GcError>) -> Result<Option<pb::ResponseHeader>, Status> {
        match result {
            Ok(()) => Ok(self.header()),
            Err(GcError::Meta(error)) => Err(internal(&error)),
            Err(error) => Ok(self.error_header(ErrorType::Unknown, error.to_string())),
        }
    }

    pub(super) fn gc_update(
        &self,
        request: &pb::UpdateGcSafePointRequest,
    ) -> Answer<pb::UpdateGcSafePointResponse> {
        self.check(request.header.as_ref())?;
        let target = TimeStamp(request.safe_point);
        let new_safe_point = self
            .0
            .gc
            .update_gc_safe_point(target)
            .map_err(old_status)?
            .0;
        let header = self.header();
        Ok(Response::new(pb::UpdateGcSafePointResponse {
            header,
            new_safe_point,
        }))
    }

    pub(super) fn gc_update_service(
        &self,
        request: &pb::UpdateServiceGcSafePointRequest,
    ) -> Answer<pb::UpdateServiceGcSafePointResponse> {
        self.check(request.header.as_ref())?;
        let id = String::from_utf8_lossy(&request.service_id);
        let ts = TimeStamp(request.safe_point);
        let now = self.0.clock();
        let answer = self
            .0
            .gc
            .update_service_safe_point(&id, ts, request.ttl, now);
        let answer = answer.map_err(old_status)?;
        Ok(Response::new(pb::UpdateServiceGcSafePointResponse {
            header: self.header(),
            service_id: answer.service_id.into_bytes(),
            ttl: answer.ttl_seconds,
            min_safe_point: answer.min_safe_point.0,
        }))
    }

    pub(super) fn gc_advance(
        &self,
        request: &pb::AdvanceGcSafePointRequest,
    ) -> Answer<pb::AdvanceGcSafePointResponse> {
        self.check(request.header.as_ref())?;
        let result = self.0.gc.advance_gc_safe_point(TimeStamp(request.target));
        let (old, new) = result.as_ref().map_or((0, 0), |(old, new)| (old.0, new.0));
        Ok(Response::new(pb::AdvanceGcSafePointResponse {
            header: self.gc_header(result.map(|_| ()))?,
            old_gc_safe_point: old,
            new_gc_safe_point: new,
        }))
    }

    pub(super) fn gc_advance_txn(
        &self,
        request: &pb::AdvanceTxnSafePointRequest,
    ) -> Answer<pb::AdvanceTxnSafePointResponse> {
        self.check(request.header.as_ref())?;
        let target = TimeStamp(request.target);
        let mut response = pb::AdvanceTxnSafePointResponse::default();
        let result = self
            .0
            .gc
            .advance_txn_safe_point(target, self.0.clock())
            .map(|moved| {
                response.old_txn_safe_point = moved.old.0;
                response.new_txn_safe_point = moved.new.0;
                response.blocker_description = moved.blocker.map_or_else(String::new, |barrier| {
                    format!("GC barrier {:?} at {}", barrier.id, barrier.ts)
                });
            });
        response.header = self.gc_header(result)?;
        Ok(Response::new(response))
    }

    fn barrier(
        &self,
        id: &str,
        ts: u64,
        ttl_seconds: i64,
    ) -> Result<(Option<pb::ResponseHeader>, Option<Barrier>), Status> {
        let result = self
            .0
            .gc
            .set_barrier(id, TimeStamp(ts), ttl_seconds, self.0.clock());
        let barrier = result.as_ref().ok().cloned();
        Ok((self.gc_header(result.map(|_| ()))?, barrier))
    }

    fn no_barrier(
        &self,
        id: &str,
    ) -> Result<(Option<pb::ResponseHeader>, Option<Barrier>), Status> {
        let result = self.0.gc.delete_barrier(id, self.0.clock());
        let barrier = result.as_ref().ok().cloned().flatten();
        Ok((self.gc_header(result.map(|_| ()))?, barrier))
    }

    pub(super) fn gc_set_barrier(
        &self,
        request: &pb::SetGcBarrierRequest,
    ) -> Answer<pb::SetGcBarrierResponse> {
        self.check(request.header.as_ref())?;
        let (header, barrier) =
            self.barrier(&request.barrier_id, request.barrier_ts, request.ttl_seconds)?;
        let new_barrier_info = barrier.map(info);
        Ok(Response::new(pb::SetGcBarrierResponse {
            header,
            new_barrier_info,
        }))
    }

    pub(super) fn gc_delete_barrier(
        &self,
        request: &pb::DeleteGcBarrierRequest,
    ) -> Answer<pb::DeleteGcBarrierResponse> {
        self.check(request.header.as_ref())?;
        let (header, barrier) = self.no_barrier(&request.barrier_id)?;
        let deleted_barrier_info = barrier.map(info);
        Ok(Response::new(pb::DeleteGcBarrierResponse {
            header,
            deleted_barrier_info,
        }))
    }

    pub(super) fn gc_set_global_barrier(
        &self,
        request: &pb::SetGlobalGcBarrierRequest,
    ) -> Answer<pb::SetGlobalGcBarrierResponse> {
        self.check(request.header.as_ref())?;
        let (header, barrier) =
            self.barrier(&request.barrier_id, request.barrier_ts, request.ttl_seconds)?;
        let new_barrier_info = barrier.map(global_info);
        Ok(Response::new(pb::SetGlobalGcBarrierResponse {
            header,
            new_barrier_info,
        }))
    }

    pub(super) fn gc_delete_global_barrier(
        &self,
        request: &pb::DeleteGlobalGcBarrierRequest,
    ) -> Answer<pb::DeleteGlobalGcBarrierResponse> {
        self.check(request.header.as_ref())?;
        let (header, barrier) = self.no_barrier(&request.barrier_id)?;
        let deleted_barrier_info = barrier.map(global_info);
        Ok(Response::new(pb::DeleteGlobalGcBarrierResponse {
            header,
            deleted_barrier_info,
        }))
    }

    pub(super) fn gc_state(
        &self,
        request: &pb::GetGcStateRequest,
    ) -> Answer<pb::GetGcStateResponse> {
        self.check(request.header.as_ref())?;
        let gc_state = state(self.0.gc.state(self.0.clock()), request.exclude_gc_barriers);
        Ok(Response::new(pb::GetGcStateResponse {
            header: self.header(),
            gc_state: Some(gc_state),
            global_gc_barriers: request
                .include_global_gc_barriers
                .then(pb::GlobalGcBarriersInfo::default),
        }))
    }

    pub(super) fn gc_states(
        &self,
        request: &pb::GetAllKeyspacesGcStatesRequest,
    ) -> Answer<pb::GetAllKeyspacesGcStatesResponse> {
        self.check(request.header.as_ref())?;
        let gc_state = state(self.0.gc.state(self.0.clock()), request.exclude_gc_barriers);
        Ok(Response::new(pb::GetAllKeyspacesGcStatesResponse {
            header: self.header(),
            gc_states: vec![gc_state],
            global_gc_barriers: Vec::new(),
        }))
    }
}
