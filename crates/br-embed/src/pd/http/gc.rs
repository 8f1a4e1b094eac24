use axum::{
    extract::{Path, State},
    response::Response,
};
use br_types::TimeStamp;
use serde_json::{Value, json};

use super::{Shared, failed, ok};
use crate::pd::gc::{Barrier, TTL_FOREVER};

/// The service that the transaction safe point is told as.
const GC_WORKER: &str = "gc_worker";

/// The barriers as service safe points, and the safe points.
pub(super) async fn safe_points(State(pd): Shared) -> Response {
    let now = pd.clock();
    let state = pd.gc.state(now);
    let service = |id: &str, ts: TimeStamp, expires_seconds: i64| -> Value {
        json!({ "service_id": id, "expired_at": expires_seconds, "safe_point": ts.0 })
    };
    let expires = |barrier: &Barrier| match barrier.ttl_seconds {
        TTL_FOREVER => i64::MAX,
        ttl => ttl.saturating_add(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX)),
    };
    let barriers = state.barriers.iter();
    let mut services: Vec<Value> = barriers
        .clone()
        .map(|barrier| service(&barrier.id, barrier.ts, expires(barrier)))
        .collect();
    services.push(service(GC_WORKER, state.txn_safe_point, i64::MAX));
    let min = barriers.map(|barrier| barrier.ts).min();
    let min = min.map_or(state.txn_safe_point, |min| min.min(state.txn_safe_point));
    ok(&json!({
        "service_gc_safe_points": services,
        "min_service_gc_safe_point": min.0,
        "gc_safe_point": state.gc_safe_point.0,
    }))
}

/// Takes a barrier away, as an operator's last resort after a client that never came back.
pub(super) async fn delete(State(pd): Shared, Path(id): Path<String>) -> Response {
    match pd.gc.delete_barrier(&id, pd.clock()) {
        Ok(_) => ok(&"Delete service GC safepoint successfully."),
        Err(error) => failed(&error),
    }
}
