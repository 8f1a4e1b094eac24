use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use br_types::StoreId;
use serde_json::{Map, Value, json};

use super::{Shared, answer, body, failed, ok, query::Query, size_text::size_text};
use crate::pd::{CLUSTER_VERSION, Pd, go_time, stores::StoreInfo};

fn store(pd: &Pd, info: &StoreInfo, counts: (usize, usize)) -> Value {
    let (capacity, available) = pd.sizes.disk_space();
    let labels: Vec<_> = info
        .record
        .labels
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let (leaders, regions) = counts;
    let mut meta = json!({
        "id": info.id.0,
        "address": info.record.address,
        "version": CLUSTER_VERSION,
        "peer_address": info.record.address,
        "status_address": info.record.status_address,
        "git_hash": "None",
        "start_timestamp": info.started.0 / 1000,
        "last_heartbeat": info.last_heartbeat.0.saturating_mul(1_000_000),
        "node_state": 1,
        "state_name": info.health.name(),
    });
    if !labels.is_empty()
        && let Some(meta) = meta.as_object_mut()
    {
        meta.insert("labels".into(), Value::from(labels));
    }
    let uptime = info.last_heartbeat.0.saturating_sub(info.started.0);
    json!({
        "store": meta,
        "status": {
            "capacity": size_text(capacity),
            "available": size_text(available),
            "used_size": size_text(capacity.saturating_sub(available)),
            "leader_count": leaders,
            "leader_weight": 1,
            "leader_score": leaders,
            "leader_size": leaders,
            "region_count": regions,
            "region_weight": 1,
            "region_score": regions,
            "region_size": regions,
            "slow_score": 1,
            "start_ts": go_time::rfc3339(info.started),
            "last_heartbeat_ts": go_time::rfc3339(info.last_heartbeat),
            "uptime": go_time::format_duration(Duration::from_millis(uptime)),
        },
    })
}

pub(super) async fn all(State(pd): Shared) -> Response {
    let counts = pd.regions.store_counts();
    let of = |info: &StoreInfo| counts.get(&info.id).copied().unwrap_or_default();
    let stores: Vec<_> = pd
        .stores
        .all()
        .iter()
        .map(|info| store(&pd, info, of(info)))
        .collect();
    ok(&json!({ "count": stores.len(), "stores": stores }))
}

fn not_found(id: u64) -> Response {
    let message = format!("store {id} not found");
    answer(StatusCode::NOT_FOUND, &message)
}

pub(super) async fn one(State(pd): Shared, Path(id): Path<u64>) -> Response {
    match pd.stores.get(StoreId(id)) {
        Some(info) => {
            let counts = pd
                .regions
                .store_counts()
                .get(&info.id)
                .copied()
                .unwrap_or_default();
            ok(&store(&pd, &info, counts))
        }
        None => not_found(id),
    }
}

pub(super) async fn set_labels(
    State(pd): Shared,
    Path(id): Path<u64>,
    query: Query,
    bytes: Bytes,
) -> Response {
    let labels: Map<String, Value> = match body(&bytes) {
        Ok(labels) => labels,
        Err(answer) => return answer,
    };
    let labels: BTreeMap<String, String> = labels
        .into_iter()
        .map(|(key, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (key, value)
        })
        .collect();
    let replace = query.get("force").is_some();
    match pd.stores.set_labels(StoreId(id), &labels, replace) {
        Ok(true) => ok(&"The store's label is updated."),
        Ok(false) => not_found(id),
        Err(error) => failed(&error),
    }
}

/// The body is the name of the label.
pub(super) async fn remove_label(State(pd): Shared, Path(id): Path<u64>, bytes: Bytes) -> Response {
    let name: String = match body(&bytes) {
        Ok(name) => name,
        Err(answer) => return answer,
    };
    match pd
        .stores
        .set_labels(StoreId(id), &BTreeMap::from([(name, String::new())]), false)
    {
        Ok(true) => ok(&"The label is deleted for the store."),
        Ok(false) => not_found(id),
        Err(error) => failed(&error),
    }
}
