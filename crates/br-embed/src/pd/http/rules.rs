use axum::{
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Shared, answer, body, failed, ok};
use crate::pd::{
    Pd,
    rules::{Rule, RuleError, RuleGroup},
};

/// One operation of a batch.
#[derive(Deserialize)]
struct Operation {
    action: Action,
    #[serde(default)]
    delete_by_id_prefix: bool,
    #[serde(flatten)]
    rule: Value,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Action {
    Add,
    Del,
}

fn done(result: Result<(), RuleError>, message: &str) -> Response {
    match result {
        Ok(()) => ok(&message),
        Err(error) => failed(&error),
    }
}

pub(super) async fn all(State(pd): Shared) -> Response {
    ok(&pd.rules.list(None))
}

pub(super) async fn of_group(State(pd): Shared, Path(group): Path<String>) -> Response {
    ok(&pd.rules.list(Some(&group)))
}

pub(super) async fn one(State(pd): Shared, Path((group, id)): Path<(String, String)>) -> Response {
    match pd.rules.get(&group, &id) {
        Some(rule) => ok(&rule),
        None => answer(
            StatusCode::NOT_FOUND,
            &"[PD:placement:ErrRuleNotFound]rule not found",
        ),
    }
}

pub(super) async fn set(State(pd): Shared, bytes: Bytes) -> Response {
    match body::<Rule>(&bytes) {
        Ok(rule) => done(pd.rules.set(vec![rule]), "Update rule successfully."),
        Err(answer) => answer,
    }
}

pub(super) async fn set_all(State(pd): Shared, bytes: Bytes) -> Response {
    match body::<Vec<Rule>>(&bytes) {
        Ok(rules) => done(pd.rules.set(rules), "Update rules successfully."),
        Err(answer) => answer,
    }
}

pub(super) async fn remove(
    State(pd): Shared,
    Path((group, id)): Path<(String, String)>,
) -> Response {
    done(pd.rules.delete(&group, &id), "Delete rule successfully.")
}

pub(super) async fn batch(State(pd): Shared, bytes: Bytes) -> Response {
    let operations: Vec<Operation> = match body(&bytes) {
        Ok(operations) => operations,
        Err(answer) => return answer,
    };
    for operation in operations {
        if let Err(error) = apply(&pd, operation) {
            return failed(&error);
        }
    }
    ok(&"Batch operations successfully.")
}

fn apply(pd: &Pd, operation: Operation) -> Result<(), RuleError> {
    if operation.action == Action::Add {
        let rule = serde_json::from_value(operation.rule)
            .map_err(|error| RuleError::Invalid(error.to_string()))?;
        return pd.rules.set(vec![rule]);
    }
    let text = |name: &str| {
        operation
            .rule
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, id) = (text("group_id"), text("id"));
    if !operation.delete_by_id_prefix {
        return pd.rules.delete(group, id);
    }
    for rule in pd.rules.list(Some(group)) {
        if rule.id.starts_with(id) {
            pd.rules.delete(group, &rule.id)?;
        }
    }
    Ok(())
}

pub(super) async fn group(State(pd): Shared, Path(id): Path<String>) -> Response {
    match pd.rules.group(&id) {
        Some(group) => ok(&group),
        None => answer(StatusCode::NOT_FOUND, &()),
    }
}

pub(super) async fn groups(State(pd): Shared) -> Response {
    ok(&pd.rules.groups())
}

pub(super) async fn set_group(State(pd): Shared, bytes: Bytes) -> Response {
    match body::<RuleGroup>(&bytes) {
        Ok(group) => done(pd.rules.set_group(group), "Update rule group successfully."),
        Err(answer) => answer,
    }
}

pub(super) async fn remove_group(State(pd): Shared, Path(id): Path<String>) -> Response {
    done(
        pd.rules.delete_group(&id),
        "Delete rule group successfully.",
    )
}

fn bundle_of(pd: &Pd, group: &RuleGroup) -> Value {
    json!({
        "group_id": group.id,
        "group_index": group.index,
        "group_override": group.r#override,
        "rules": pd.rules.list(Some(&group.id)),
    })
}

pub(super) async fn bundles(State(pd): Shared) -> Response {
    let groups = pd.rules.groups();
    ok(&groups
        .iter()
        .map(|group| bundle_of(&pd, group))
        .collect::<Vec<_>>())
}

pub(super) async fn bundle(State(pd): Shared, Path(id): Path<String>) -> Response {
    let group = pd.rules.group(&id).unwrap_or(RuleGroup {
        id,
        ..RuleGroup::default()
    });
    ok(&bundle_of(&pd, &group))
}
