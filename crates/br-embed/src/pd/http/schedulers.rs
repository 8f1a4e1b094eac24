use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;

use super::{Shared, answer, bad, body, ok, query::Query};

#[derive(Deserialize)]
struct Pause {
    delay: i64,
}

#[derive(Deserialize)]
struct Add {
    name: String,
}

pub(super) async fn names(State(pd): Shared, query: Query) -> Response {
    match query.text("status") {
        Some("paused") => ok(&pd.schedulers.paused()),
        Some("disabled") => ok(&[""; 0]),
        _ => ok(&pd.schedulers.names()),
    }
}

pub(super) async fn add(State(pd): Shared, bytes: Bytes) -> Response {
    match body::<Add>(&bytes) {
        Ok(add) if add.name.is_empty() => bad("missing scheduler name"),
        Ok(add) => {
            pd.schedulers.add(&add.name);
            ok(&"The scheduler is created.")
        }
        Err(answer) => answer,
    }
}

pub(super) async fn pause(State(pd): Shared, Path(name): Path<String>, bytes: Bytes) -> Response {
    let pause: Pause = match body(&bytes) {
        Ok(pause) => pause,
        Err(answer) => return answer,
    };
    // Below zero resumes too, as in PD.
    let delay = Duration::from_secs(u64::try_from(pause.delay).unwrap_or(0));
    match pd.schedulers.pause(&name, delay) {
        Ok(()) => ok(&"Pause or resume the scheduler successfully."),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(super) async fn remove(State(pd): Shared, Path(name): Path<String>) -> Response {
    match pd.schedulers.remove(&name) {
        Ok(()) => ok(&"The scheduler is removed."),
        Err(error) => answer(StatusCode::NOT_FOUND, &error.to_string()),
    }
}
