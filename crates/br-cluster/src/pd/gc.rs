use std::time::Duration;

use br_proto::pdpb::{self, keyspace_scope};
use br_types::TimeStamp;

use super::{PdClient, PdError};

/// Whose garbage collection is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GcScope {
    /// The cluster's; keyspaces that do not collect by themselves belong to it.
    #[default]
    Cluster,
    /// A keyspace that collects by itself (API v2).
    Keyspace(u32),
}

/// How far garbage collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcState {
    /// Transactions and readers that began before it are out of luck.
    pub txn_safe_point: TimeStamp,
    /// Versions hidden before it may be gone already.
    pub gc_safe_point: TimeStamp,
    /// Whether the keyspace asked for collects by itself.
    pub is_keyspace_level: bool,
}

/// What PD takes as "the cluster" where a keyspace is asked for.
const NULL_KEYSPACE: u32 = u32::MAX;

impl GcScope {
    fn to_pd(self) -> pdpb::KeyspaceScope {
        let id = match self {
            GcScope::Cluster => NULL_KEYSPACE,
            GcScope::Keyspace(id) => id,
        };
        pdpb::KeyspaceScope {
            keyspace: Some(keyspace_scope::Keyspace::KeyspaceId(id)),
        }
    }
}

impl PdClient {
    /// How far garbage collection is. PD before 9.0 knows one safe point only, which stands for
    /// both then.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn gc_state(&self, scope: GcScope) -> Result<GcState, PdError> {
        let answer = self
            .call("GetGCState", |mut stub, header| async move {
                let request = pdpb::GetGcStateRequest {
                    header: Some(header),
                    keyspace_scope: Some(scope.to_pd()),
                    exclude_gc_barriers: true,
                    ..Default::default()
                };
                stub.get_gc_state(request).await
            })
            .await;
        match answer {
            Ok(answer) => {
                let state = answer.gc_state.ok_or(PdError::InvalidResponse {
                    method: "GetGCState",
                    what: "carries no state".into(),
                })?;
                Ok(GcState {
                    txn_safe_point: TimeStamp(state.txn_safe_point),
                    gc_safe_point: TimeStamp(state.gc_safe_point),
                    is_keyspace_level: state.is_keyspace_level_gc,
                })
            }
            Err(error) if error.is_unimplemented() => {
                let safe_point = self.gc_safe_point().await?;
                Ok(GcState {
                    txn_safe_point: safe_point,
                    gc_safe_point: safe_point,
                    is_keyspace_level: false,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The cluster's GC safe point. Setting it to 0 changes nothing and answers with it, in every
    /// version of PD.
    async fn gc_safe_point(&self) -> Result<TimeStamp, PdError> {
        let answer = self
            .call("UpdateGCSafePoint", |mut stub, header| async move {
                let request = pdpb::UpdateGcSafePointRequest {
                    header: Some(header),
                    safe_point: 0,
                };
                stub.update_gc_safe_point(request).await
            })
            .await?;
        Ok(TimeStamp(answer.new_safe_point))
    }

    /// Keeps versions readable from `ts` on for `ttl`, under the name `id`; the same name again
    /// replaces. `ttl` counts in whole seconds, at least one.
    ///
    /// # Errors
    /// [`PdError::SafePointExceeded`]: garbage collection is past it already, nothing is set.
    /// PD is out of reach or refuses.
    pub async fn protect_from_gc(
        &self,
        scope: GcScope,
        id: &str,
        ts: TimeStamp,
        ttl: Duration,
    ) -> Result<(), PdError> {
        let ttl_seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        if scope == GcScope::Cluster {
            match self.set_service_safe_point(id, ts, ttl_seconds).await {
                Err(error) if error.is_unimplemented() => {}
                done => return done,
            }
        }
        self.set_gc_barrier(scope, id, ts, ttl_seconds).await
    }

    /// Takes back [`PdClient::protect_from_gc`]; nothing happens if it is gone already.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn unprotect_from_gc(&self, scope: GcScope, id: &str) -> Result<(), PdError> {
        if scope == GcScope::Cluster {
            match self.set_service_safe_point(id, TimeStamp::MAX, 0).await {
                Err(error) if error.is_unimplemented() => {}
                Err(PdError::SafePointExceeded { .. }) => return Ok(()),
                done => return done,
            }
        }
        self.call("DeleteGCBarrier", |mut stub, header| async move {
            let request = pdpb::DeleteGcBarrierRequest {
                header: Some(header),
                keyspace_scope: Some(scope.to_pd()),
                barrier_id: id.to_owned(),
            };
            stub.delete_gc_barrier(request).await
        })
        .await
        .map(drop)
    }

    async fn set_service_safe_point(
        &self,
        id: &str,
        ts: TimeStamp,
        ttl_seconds: i64,
    ) -> Result<(), PdError> {
        let answer = self
            .call("UpdateServiceGCSafePoint", |mut stub, header| async move {
                let request = pdpb::UpdateServiceGcSafePointRequest {
                    header: Some(header),
                    service_id: id.as_bytes().to_vec(),
                    ttl: ttl_seconds,
                    safe_point: ts.0,
                };
                stub.update_service_gc_safe_point(request).await
            })
            .await?;
        // PD does not refuse a timestamp that is too old: it ignores it, and only this tells.
        let safe_point = TimeStamp(answer.min_safe_point);
        if safe_point > ts {
            return Err(PdError::SafePointExceeded {
                wanted: ts,
                safe_point,
            });
        }
        Ok(())
    }

    async fn set_gc_barrier(
        &self,
        scope: GcScope,
        id: &str,
        ts: TimeStamp,
        ttl_seconds: i64,
    ) -> Result<(), PdError> {
        let answer = self
            .call("SetGCBarrier", |mut stub, header| async move {
                let request = pdpb::SetGcBarrierRequest {
                    header: Some(header),
                    keyspace_scope: Some(scope.to_pd()),
                    barrier_id: id.to_owned(),
                    barrier_ts: ts.0,
                    ttl_seconds,
                };
                stub.set_gc_barrier(request).await
            })
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error @ PdError::Refused { .. }) => {
                let safe_point = self.gc_state(scope).await?.txn_safe_point;
                if safe_point > ts {
                    return Err(PdError::SafePointExceeded {
                        wanted: ts,
                        safe_point,
                    });
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}
