use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use br_proto::keyspacepb::KeyspaceState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, answer, bad, body, failed, ok};
use crate::pd::keyspace::Keyspace;

#[derive(Deserialize)]
struct Create {
    name: String,
}

fn shown(keyspace: &Keyspace) -> Value {
    let state = KeyspaceState::try_from(keyspace.state).unwrap_or(KeyspaceState::Tombstone);
    json!({
        "id": keyspace.id,
        "name": keyspace.name,
        "state": state.as_str_name(),
        "created_at": keyspace.created_at,
        "state_changed_at": keyspace.state_changed_at,
        "config": keyspace.config,
    })
}

pub(super) async fn all(State(pd): Shared) -> Response {
    let keyspaces: Vec<_> = pd.keyspaces.list(0, 0).iter().map(shown).collect();
    ok(&json!({ "keyspaces": keyspaces, "next_page_token": "" }))
}

pub(super) async fn one(State(pd): Shared, Path(name): Path<String>) -> Response {
    match pd.keyspaces.by_name(&name) {
        Some(keyspace) => ok(&shown(&keyspace)),
        None => answer(StatusCode::NOT_FOUND, &"keyspace does not exist"),
    }
}

pub(super) async fn create(State(pd): Shared, bytes: Bytes) -> Response {
    let request: Create = match body(&bytes) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if request.name.is_empty() || request.name.len() > 128 || !request.name.chars().all(allowed) {
        return bad("a keyspace's name is 1 to 128 letters, digits, '-' and '_'");
    }
    match pd.keyspaces.create(&request.name, pd.rt.wall()) {
        Ok(Some(keyspace)) => ok(&shown(&keyspace)),
        Ok(None) => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            &"there are too many keyspaces",
        ),
        Err(error) => failed(&error),
    }
}
