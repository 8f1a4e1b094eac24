use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};

use super::{Shared, answer, body, failed, ok};
use crate::pd::labels::{LabelError, LabelPatch, LabelRule};

pub(super) async fn all(State(pd): Shared) -> Response {
    ok(&pd.labels.all())
}

/// A `GET` with a body: the ids.
pub(super) async fn some(State(pd): Shared, bytes: Bytes) -> Response {
    match body::<Vec<String>>(&bytes) {
        Ok(ids) => ok(&pd.labels.some(&ids)),
        Err(answer) => answer,
    }
}

pub(super) async fn one(State(pd): Shared, Path(id): Path<String>) -> Response {
    match pd.labels.some(&[id]).pop() {
        Some(rule) => ok(&rule),
        None => answer(StatusCode::NOT_FOUND, &()),
    }
}

pub(super) async fn set(State(pd): Shared, bytes: Bytes) -> Response {
    let rule: LabelRule = match body(&bytes) {
        Ok(rule) => rule,
        Err(answer) => return answer,
    };
    match pd.labels.patch(LabelPatch {
        sets: Some(vec![rule]),
        deletes: None,
    }) {
        Ok(()) => ok(&"Update region label rule successfully."),
        Err(error) => failed(&error),
    }
}

pub(super) async fn patch(State(pd): Shared, bytes: Bytes) -> Response {
    let patch: LabelPatch = match body(&bytes) {
        Ok(patch) => patch,
        Err(answer) => return answer,
    };
    match pd.labels.patch(patch) {
        Ok(()) => ok(&"Update region label rules successfully."),
        Err(error) => failed(&error),
    }
}

pub(super) async fn remove(State(pd): Shared, Path(id): Path<String>) -> Response {
    match pd.labels.delete(&id) {
        Ok(()) => ok(&"Delete region label rule successfully."),
        Err(error @ LabelError::NotFound(_)) => answer(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => failed(&error),
    }
}
