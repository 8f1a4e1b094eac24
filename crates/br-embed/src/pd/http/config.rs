use std::time::Duration;

use axum::{body::Bytes, extract::State, response::Response};
use serde_json::{Map, Value, json};

use super::{Shared, bad, body, failed, ok, query::Query};
use crate::pd::CLUSTER_VERSION;

pub(super) async fn all(State(pd): Shared) -> Response {
    ok(&json!({
        "client-urls": pd.client_url(),
        "peer-urls": pd.client_url(),
        "advertise-client-urls": pd.client_url(),
        "advertise-peer-urls": pd.client_url(),
        "name": pd.name(),
        "cluster-version": CLUSTER_VERSION,
        "schedule": pd.config.section("schedule"),
        "replication": pd.config.section("replication"),
    }))
}

pub(super) async fn schedule(State(pd): Shared) -> Response {
    ok(&pd.config.section("schedule"))
}

pub(super) async fn replicate(State(pd): Shared) -> Response {
    ok(&pd.config.section("replication"))
}

pub(super) async fn cluster_version() -> Response {
    ok(&CLUSTER_VERSION)
}

pub(super) async fn set(State(pd): Shared, query: Query, bytes: Bytes) -> Response {
    let settings: Map<String, Value> = match body(&bytes) {
        Ok(settings) => settings,
        Err(answer) => return answer,
    };
    let Some(ttl) = query.text("ttlSecond") else {
        return match pd.config.set(&settings) {
            Ok(()) => ok(&"The config is updated."),
            Err(error) => failed(&error),
        };
    };
    let Ok(seconds) = ttl.parse::<u64>() else {
        return bad(format!("ttlSecond {ttl:?} is no number of seconds"));
    };
    match pd
        .config
        .set_temporary(&settings, Duration::from_secs(seconds))
    {
        Ok(()) if seconds == 0 => ok(&"The ttl config is deleted."),
        Ok(()) => ok(&"The ttl config is updated."),
        Err(error) => failed(&error),
    }
}

pub(super) async fn set_schedule(state: Shared, bytes: Bytes) -> Response {
    set_section(state, &bytes, "schedule")
}

pub(super) async fn set_replicate(state: Shared, bytes: Bytes) -> Response {
    set_section(state, &bytes, "replication")
}

fn set_section(State(pd): Shared, bytes: &Bytes, section: &str) -> Response {
    let settings: Map<String, Value> = match body(bytes) {
        Ok(settings) => settings,
        Err(answer) => return answer,
    };
    let whole = settings
        .into_iter()
        .map(|(name, value)| (format!("{section}.{name}"), value));
    match pd.config.set(&whole.collect()) {
        Ok(()) => ok(&"The config is updated."),
        Err(error) => failed(&error),
    }
}
