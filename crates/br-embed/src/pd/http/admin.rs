use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use br_types::{Classify, TimeStamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, answer, bad, body, failed, ok};
use crate::pd::tso::TsoError;

#[derive(Deserialize)]
struct BaseId {
    id: String,
}

/// `{"tso": "<number as text>", "force-use-larger": bool}`.
pub(super) async fn reset_ts(State(pd): Shared, bytes: Bytes) -> Response {
    let request: Value = match body(&bytes) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let Some(text) = request.get("tso").and_then(Value::as_str) else {
        return bad("invalid tso value");
    };
    let Some(ts) = text.parse().ok().filter(|ts| *ts != 0).map(TimeStamp) else {
        return bad("invalid tso value");
    };
    let force = match request.get("force-use-larger") {
        None => false,
        Some(Value::Bool(force)) => *force,
        Some(_) => return bad("invalid force-use-larger value"),
    };
    match pd.tso.reset(ts, force) {
        Ok(()) => ok(&"Reset ts successfully."),
        Err(error @ (TsoError::ResetBack { .. } | TsoError::ResetAhead { .. })) => {
            answer(StatusCode::FORBIDDEN, &error.to_string())
        }
        Err(error) => failed(&error),
    }
}

pub(super) async fn base_alloc_id(State(pd): Shared, bytes: Bytes) -> Response {
    let Some(id) = body::<BaseId>(&bytes)
        .ok()
        .and_then(|request| request.id.parse().ok())
    else {
        return (StatusCode::BAD_REQUEST, "invalid id value").into_response();
    };
    match pd.is_snapshot_recovering() {
        Ok(true) => {}
        Ok(false) => {
            let text = "can only recover alloc id when recovering mark marked";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
        Err(error) => return failed(&error),
    }
    done(pd.ids.raise(id))
}

pub(super) async fn recovering(State(pd): Shared) -> Response {
    match pd.is_snapshot_recovering() {
        Ok(marked) => ok(&json!({ "marked": marked })),
        Err(error) => failed(&error),
    }
}

pub(super) async fn mark_recovering(State(pd): Shared) -> Response {
    done(pd.set_snapshot_recovering(true))
}

pub(super) async fn unmark_recovering(State(pd): Shared) -> Response {
    done(pd.set_snapshot_recovering(false))
}

fn done(result: Result<(), impl Classify>) -> Response {
    match result {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => failed(&error),
    }
}
