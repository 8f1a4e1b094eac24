//! What of PD a case must leave as it found it.

use std::collections::BTreeMap;

use br_cluster::Cluster;

/// Settings and what they say, in words.
pub(super) type State = BTreeMap<String, String>;

/// Stores hold the safe point of a log by themselves, and let it run out after the task has ended.
const OF_STORES: &str = "backup-stream-";
/// PD's own, which a new cluster gets as soon as anybody holds one.
const OF_PD: &str = "gc_worker";

pub(super) async fn of(cluster: &Cluster) -> State {
    let http = cluster.http();
    let mut state = State::new();
    for (name, value) in http.schedule_config().await.unwrap() {
        state.insert(format!("schedule.{name}"), value.to_string());
    }
    for (name, value) in http.replicate_config().await.unwrap() {
        state.insert(format!("replication.{name}"), value.to_string());
    }
    for name in http.schedulers().await.unwrap() {
        state.insert(format!("scheduler {name}"), "runs".to_owned());
    }
    for rule in http.label_rules().await.unwrap() {
        state.insert(format!("label rule {}", rule.id), format!("{rule:?}"));
    }
    for name in safe_points(cluster).await {
        state.insert(format!("safe point {name}"), "held".to_owned());
    }
    state
}

pub(super) async fn assert_same(cluster: &Cluster, before: &State) {
    let after = of(cluster).await;
    let names = before.keys().chain(after.keys());
    for name in names {
        assert_eq!(before.get(name), after.get(name), "{name}, before and now");
    }
}

/// Who holds back GC, as PD keeps it in etcd; a playground keeps it elsewhere. Those that have run
/// out are there until PD next looks.
async fn safe_points(cluster: &Cluster) -> Vec<String> {
    let prefix = format!("/pd/{}/gc/safe_point/service/", cluster.id());
    let found = cluster.etcd().get_prefix(prefix.as_bytes()).await.unwrap();
    let now = cluster.rt().wall().0 / 1000;
    let mut names = Vec::new();
    for pair in found.kvs {
        let held: serde_json::Value = serde_json::from_slice(&pair.value).unwrap();
        let name = held["service_id"].as_str().unwrap_or_default().to_owned();
        let is_over = held["expired_at"]
            .as_i64()
            .is_some_and(|at| at.unsigned_abs() < now);
        if !is_over && !name.starts_with(OF_STORES) && name != OF_PD {
            names.push(name);
        }
    }
    names
}
