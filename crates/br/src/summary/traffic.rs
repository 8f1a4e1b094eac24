//! What a command asked of storages over HTTP, which is what they charge for. Stores have their own
//! requests, which are not in it.

use br_storage::traffic_of_process;
use serde_json::{Value, json};

use super::Line;
use crate::value::human_size;

/// Adds the counts to a summary, if there was anything.
pub(super) fn add(line: &mut Line) {
    let traffic = traffic_of_process();
    if traffic.requests() == 0 {
        return;
    }
    line.add("storage-requests", traffic.requests())
        .add_if("storage-reads", traffic.reads)
        .add_if("storage-lists", traffic.lists)
        .add_if("storage-writes", traffic.writes)
        .add_if("storage-deletes", traffic.deletes)
        .add("storage-received", human_size(traffic.received_bytes))
        .add("storage-sent", human_size(traffic.sent_bytes))
        .add_if("storage-throttled", traffic.throttled)
        .add_if("storage-broken", traffic.broken);
}

/// The same as JSON; null if there was nothing.
pub(super) fn json() -> Value {
    let traffic = traffic_of_process();
    if traffic.requests() == 0 {
        return Value::Null;
    }
    json!({
        "reads": traffic.reads,
        "lists": traffic.lists,
        "writes": traffic.writes,
        "deletes": traffic.deletes,
        "received_bytes": traffic.received_bytes,
        "sent_bytes": traffic.sent_bytes,
        "throttled": traffic.throttled,
        "broken": traffic.broken,
    })
}
