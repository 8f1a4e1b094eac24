//! PD's HTTP API, as far as backup, restore and their operators use it.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use br_types::{Classify, Kind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{CLUSTER_VERSION, Pd, go_time};

mod admin;
mod config;
mod gc;
mod keyspaces;
mod labels;
mod query;
mod regions;
mod rules;
mod schedulers;
mod size_text;
mod stores;

/// Bytes of a request's body: room for a hundred thousand placement rules.
const BODY_BYTES_MAX: usize = 32 << 20;

type Shared = State<Arc<Pd>>;

/// All routes.
pub(crate) fn router(pd: Arc<Pd>) -> Router {
    let v1 = Router::new()
        .route("/version", get(version))
        .route("/status", get(status))
        .route("/ping", get(ping))
        .route("/health", get(health))
        .route("/members", get(members))
        .route("/leader", get(leader))
        .route("/min-resolved-ts", get(min_resolved_ts))
        .route("/config", get(config::all).post(config::set))
        .route(
            "/config/schedule",
            get(config::schedule).post(config::set_schedule),
        )
        .route(
            "/config/replicate",
            get(config::replicate).post(config::set_replicate),
        )
        .route("/config/cluster-version", get(config::cluster_version))
        .route(
            "/config/region-label/rules",
            get(labels::all).patch(labels::patch),
        )
        .route("/config/region-label/rules/ids", get(labels::some))
        .route("/config/region-label/rule", post(labels::set))
        .route(
            "/config/region-label/rule/{id}",
            get(labels::one).delete(labels::remove),
        )
        .route("/config/rules", get(rules::all).post(rules::set_all))
        .route("/config/rules/batch", post(rules::batch))
        .route("/config/rules/group/{group}", get(rules::of_group))
        .route("/config/rule", post(rules::set))
        .route(
            "/config/rule/{group}/{id}",
            get(rules::one).delete(rules::remove),
        )
        .route("/config/rule_group", post(rules::set_group))
        .route(
            "/config/rule_group/{id}",
            get(rules::group).delete(rules::remove_group),
        )
        .route("/config/rule_groups", get(rules::groups))
        .route("/config/placement-rule", get(rules::bundles))
        .route("/config/placement-rule/{group}", get(rules::bundle))
        .route("/schedulers", get(schedulers::names).post(schedulers::add))
        .route(
            "/schedulers/{name}",
            post(schedulers::pause).delete(schedulers::remove),
        )
        .route("/gc/safepoint", get(gc::safe_points))
        .route("/gc/safepoint/{id}", delete(gc::delete))
        .route("/stats/region", get(regions::stats))
        .route("/region/id/{id}", get(regions::by_id))
        .route("/region/key/{key}", get(regions::by_key))
        .route("/regions", get(regions::all))
        .route("/regions/key", get(regions::scan))
        .route("/regions/count", get(regions::count))
        .route("/regions/store/{id}", get(regions::of_store))
        .route("/stores", get(stores::all))
        .route("/store/{id}", get(stores::one))
        .route(
            "/store/{id}/label",
            post(stores::set_labels).delete(stores::remove_label),
        )
        .route("/admin/reset-ts", post(admin::reset_ts))
        .route("/admin/base-alloc-id", post(admin::base_alloc_id))
        .route(
            "/admin/cluster/markers/snapshot-recovering",
            get(admin::recovering)
                .post(admin::mark_recovering)
                .delete(admin::unmark_recovering),
        );
    let v2 = Router::new()
        .route("/ms/members/{service}", get(no_microservice))
        .route("/keyspaces", get(keyspaces::all).post(keyspaces::create))
        .route("/keyspaces/{name}", get(keyspaces::one))
        .route("/members", get(members));
    Router::new()
        .nest("/pd/api/v1", v1)
        .nest("/pd/api/v2", v2)
        .route("/pd/ping", get(ping))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(pd)
}

/// An answer in JSON, indented as PD's.
fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(mut text) => {
            text.push('\n');
            let content = (header::CONTENT_TYPE, "application/json; charset=UTF-8");
            (status, [content], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn ok(value: &impl Serialize) -> Response {
    answer(StatusCode::OK, value)
}

fn bad(message: impl Into<String>) -> Response {
    answer(StatusCode::BAD_REQUEST, &message.into())
}

/// An error as PD answers it: what the caller did wrong, or what went wrong here.
fn failed(error: &impl Classify) -> Response {
    let status = match error.kind() {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    answer(status, &error.to_string())
}

/// The body as JSON, or the answer to what is none. The content type does not matter.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Response> {
    serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

async fn no_microservice() -> Response {
    let content = (header::CONTENT_TYPE, "application/json; charset=utf-8");
    (
        StatusCode::NOT_FOUND,
        [content],
        "\"not support microservice\"",
    )
        .into_response()
}

async fn ping() -> StatusCode {
    StatusCode::OK
}

async fn version() -> Response {
    let version = format!("v{CLUSTER_VERSION}");
    ok(&json!({ "version": version, "build_time": "", "hash": "", "branch": "" }))
}

async fn status(State(pd): Shared) -> Response {
    ok(&json!({
        "build_ts": "",
        "version": format!("v{CLUSTER_VERSION}"),
        "git_hash": "",
        "start_timestamp": pd.started.0 / 1000,
        "kernel_type": "Classic",
    }))
}

fn member(pd: &Pd) -> serde_json::Value {
    json!({
        "name": pd.name(),
        "member_id": pd.member_id,
        "peer_urls": [pd.client_url()],
        "client_urls": [pd.client_url()],
        "deploy_path": "",
        "binary_version": format!("v{CLUSTER_VERSION}"),
        "git_hash": "",
    })
}

async fn members(State(pd): Shared) -> Response {
    ok(&json!({
        "header": { "cluster_id": pd.cluster_id.0 },
        "members": [member(&pd)],
        "leader": member(&pd),
        "etcd_leader": member(&pd),
    }))
}

async fn leader(State(pd): Shared) -> Response {
    ok(&member(&pd))
}

async fn health(State(pd): Shared) -> Response {
    ok(&json!([{
        "name": pd.name(),
        "member_id": pd.member_id,
        "client_urls": [pd.client_url()],
        "health": true,
    }]))
}

/// Nobody reports resolved timestamps here, and the answer says so.
async fn min_resolved_ts() -> Response {
    ok(&json!({
        "is_real_time": false,
        "min_resolved_ts": 0,
        "persist_interval": go_time::format_duration(std::time::Duration::ZERO),
        "stores_min_resolved_ts": null,
    }))
}
