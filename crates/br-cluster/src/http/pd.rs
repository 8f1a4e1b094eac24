//! # What it does
//! PD's API over HTTP: versions, configuration, schedulers, region labels, placement rules,
//! statistics.
//!
//! # Retries
//! Each call is tried at each known member, the leader first, and all of that again by
//! [`HTTP_RETRY`]. Every call may be repeated.
//!
//! # After a crash
//! Settings with a time to live lapse by themselves: paused schedulers, temporary configuration,
//! labels with a `ttl`. Placement rules stay.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use br_rt::{Backoff, CancellationToken, RetryPolicy, Rt};
use br_types::{Classify, EncodedKey, KeyRange, Kind, StoreId, TimeStamp};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{HttpClient, HttpError, client::Request};
use crate::{PdError, pd::members::Members};

/// PD restarts within a minute.
const HTTP_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(4),
    attempts_max: 20,
    elapsed_max: Duration::from_secs(60),
};

/// PD's API over HTTP. Cheap to clone.
#[derive(Clone)]
pub struct PdHttp {
    rt: Rt,
    http: HttpClient,
    members: Arc<Members>,
    cancel: CancellationToken,
}

/// A rule that puts labels on key ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRule {
    /// The rule's name; the same name again replaces.
    pub id: String,
    /// Among rules for the same keys the greatest wins.
    #[serde(default)]
    pub index: i64,
    /// The labels.
    pub labels: Vec<RegionLabel>,
    /// `key-range`.
    pub rule_type: String,
    /// The ranges.
    pub data: Vec<LabelRange>,
}

/// A label of regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLabel {
    /// Such as `schedule`.
    pub key: String,
    /// Such as `deny`.
    pub value: String,
    /// How long it holds, as Go writes durations (`5m0s`); empty: for ever.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ttl: String,
}

/// A range of encoded keys, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRange {
    /// Inclusive.
    pub start_key: String,
    /// Exclusive; empty: no bound.
    pub end_key: String,
}

impl LabelRule {
    /// Keeps PD from moving, merging or splitting the regions of the ranges for `ttl`.
    pub fn deny_scheduling(id: &str, ranges: &[KeyRange<EncodedKey>], ttl: Duration) -> LabelRule {
        let label = RegionLabel {
            key: "schedule".into(),
            value: "deny".into(),
            ttl: format!("{}s", ttl.as_secs().max(1)),
        };
        let data = ranges
            .iter()
            .map(|range| LabelRange {
                start_key: range.start.to_string(),
                end_key: range.end.to_string(),
            })
            .collect();
        LabelRule {
            id: id.into(),
            index: 0,
            labels: vec![label],
            rule_type: "key-range".into(),
            data,
        }
    }
}

/// A rule that says where replicas of a key range belong, as PD's JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlacementRule(pub Map<String, Value>);

impl PlacementRule {
    /// The same placement for one range only, on stores that have `label` with `value`, in force
    /// instead of this rule. `id` names it within this rule's group.
    #[must_use]
    pub fn narrowed(
        &self,
        id: &str,
        range: &KeyRange<EncodedKey>,
        label: &str,
        value: &str,
    ) -> PlacementRule {
        let mut rule = self.0.clone();
        rule.insert("id".into(), id.into());
        // After the rules of the whole key space.
        rule.insert("index".into(), 100.into());
        rule.insert("override".into(), true.into());
        rule.insert("start_key".into(), range.start.to_string().into());
        rule.insert("end_key".into(), range.end.to_string().into());
        let constraint = json!({ "key": label, "op": "in", "values": [value] });
        match rule.get_mut("label_constraints") {
            Some(Value::Array(constraints)) => constraints.push(constraint),
            _ => {
                rule.insert("label_constraints".into(), json!([constraint]));
            }
        }
        PlacementRule(rule)
    }
}

/// What PD knows of the regions of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RegionStats {
    /// Regions.
    pub count: u64,
    /// Their size, MiB.
    #[serde(default)]
    pub storage_size: u64,
    /// Their keys.
    #[serde(default)]
    pub storage_keys: u64,
}

/// Room on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpace {
    /// The store.
    pub id: StoreId,
    /// Its address.
    pub address: String,
    /// `Up`, `Offline`, `Disconnected`, `Down`…
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes in all.
    pub capacity_bytes: u64,
    /// Bytes that are free.
    pub available_bytes: u64,
}

impl PdHttp {
    pub(crate) fn new(
        rt: Rt,
        http: HttpClient,
        members: Arc<Members>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            rt,
            http,
            members,
            cancel,
        }
    }

    /// The same client, under another token.
    #[must_use]
    pub fn with_cancel(&self, cancel: CancellationToken) -> PdHttp {
        PdHttp {
            cancel,
            ..self.clone()
        }
    }

    async fn send(&self, request: Request<'_>) -> Result<Vec<u8>, PdError> {
        let mut backoff = Backoff::new(HTTP_RETRY, &self.rt);
        loop {
            let mut last = HttpError::Cancelled;
            for address in self.members.addresses() {
                match self.http.send(&self.cancel, &address, &request).await {
                    Ok(body) => return Ok(body),
                    Err(HttpError::Cancelled) => return Err(PdError::Cancelled),
                    Err(error) if error.kind() != Kind::Retry => return Err(error.into()),
                    Err(error) => last = error,
                }
            }
            if !backoff.pause(&self.rt, &self.cancel).await {
                let cancelled = self.cancel.is_cancelled();
                return Err(if cancelled {
                    PdError::Cancelled
                } else {
                    last.into()
                });
            }
            tracing::debug!(error = %last, "asking PD over HTTP again");
        }
    }

    async fn json<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, PdError> {
        let (method, url) = (request.method.clone(), request.path.to_owned());
        let body = self.send(request).await?;
        serde_json::from_slice(&body).map_err(|error| {
            HttpError::Unexpected {
                method,
                url,
                cause: error.to_string(),
            }
            .into()
        })
    }

    /// PD's own version, such as `v8.5.0`.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn version(&self) -> Result<String, PdError> {
        #[derive(Deserialize)]
        struct Answer {
            version: String,
        }
        let answer: Answer = self.json(Request::get("/pd/api/v1/version")).await?;
        Ok(answer.version)
    }

    /// The least version of the cluster's stores, such as `8.5.0`.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn cluster_version(&self) -> Result<String, PdError> {
        self.json(Request::get("/pd/api/v1/config/cluster-version"))
            .await
    }

    /// The `schedule` part of the configuration.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn schedule_config(&self) -> Result<Map<String, Value>, PdError> {
        self.json(Request::get("/pd/api/v1/config/schedule")).await
    }

    /// The `replication` part of the configuration, with `max-replicas`.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn replicate_config(&self) -> Result<Map<String, Value>, PdError> {
        self.json(Request::get("/pd/api/v1/config/replicate")).await
    }

    /// Changes settings, named as `schedule.merge-schedule-limit`, for `ttl`; they fall back to
    /// what they were. [`Duration::ZERO`] ends temporary values of these names at once.
    ///
    /// # Errors
    /// PD is out of reach or refuses a value.
    pub async fn set_config_for(
        &self,
        settings: &Map<String, Value>,
        ttl: Duration,
    ) -> Result<(), PdError> {
        let query = [("ttlSecond", ttl.as_secs().to_string())];
        let request = Request::with_json(Method::POST, "/pd/api/v1/config", settings);
        self.send(request.query(&query)).await.map(drop)
    }

    /// The schedulers that run.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn schedulers(&self) -> Result<Vec<String>, PdError> {
        self.json(Request::get("/pd/api/v1/schedulers")).await
    }

    /// Pauses a scheduler; [`Duration::ZERO`] lets it go on.
    ///
    /// # Errors
    /// PD is out of reach, or knows no such scheduler.
    pub async fn pause_scheduler(&self, name: &str, pause: Duration) -> Result<(), PdError> {
        let path = format!("/pd/api/v1/schedulers/{name}");
        let body = json!({ "delay": pause.as_secs() });
        self.send(Request::with_json(Method::POST, &path, &body))
            .await
            .map(drop)
    }

    /// Sets a label rule; the same id again replaces and begins its time to live anew.
    ///
    /// # Errors
    /// PD is out of reach or refuses the rule.
    pub async fn set_label_rule(&self, rule: &LabelRule) -> Result<(), PdError> {
        let path = "/pd/api/v1/config/region-label/rule";
        self.send(Request::with_json(Method::POST, path, rule))
            .await
            .map(drop)
    }

    /// Removes label rules; those that are not there are passed over.
    ///
    /// # Errors
    /// PD is out of reach.
    pub async fn delete_label_rules(&self, ids: &[String]) -> Result<(), PdError> {
        let body = json!({ "sets": [], "deletes": ids });
        let path = "/pd/api/v1/config/region-label/rules";
        self.send(Request::with_json(Method::PATCH, path, &body))
            .await
            .map(drop)
    }

    /// All label rules.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn label_rules(&self) -> Result<Vec<LabelRule>, PdError> {
        // PD fills in fields of its own (`start_at`); rules of other types have other data.
        let rules: Vec<Value> = self
            .json(Request::get("/pd/api/v1/config/region-label/rules"))
            .await?;
        Ok(rules
            .into_iter()
            .filter_map(|rule| serde_json::from_value(rule).ok())
            .collect())
    }

    /// How many regions a range has, and how large they are. PD knows what stores reported last.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn region_stats(&self, range: &KeyRange<EncodedKey>) -> Result<RegionStats, PdError> {
        let query = format!(
            "start_key={}&end_key={}",
            escape(&range.start),
            escape(&range.end)
        );
        let path = format!("/pd/api/v1/stats/region?{query}");
        self.json(Request::get(&path)).await
    }

    /// The number of regions of a range: cheaper for PD than all statistics.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn region_count(&self, range: &KeyRange<EncodedKey>) -> Result<u64, PdError> {
        let query = format!(
            "start_key={}&end_key={}&count",
            escape(&range.start),
            escape(&range.end)
        );
        let path = format!("/pd/api/v1/stats/region?{query}");
        let stats: RegionStats = self.json(Request::get(&path)).await?;
        Ok(stats.count)
    }

    /// The stores with their free room.
    ///
    /// # Errors
    /// PD is out of reach or answers something else.
    pub async fn store_spaces(&self) -> Result<Vec<StoreSpace>, PdError> {
        let path = "/pd/api/v1/stores";
        let answer: Value = self.json(Request::get(path)).await?;
        let unexpected = || {
            let cause = "a store lacks its id or its capacity".into();
            HttpError::Unexpected {
                method: Method::GET,
                url: path.into(),
                cause,
            }
            .into()
        };
        let stores = answer
            .get("stores")
            .and_then(Value::as_array)
            .map(Vec::as_slice);
        stores
            .unwrap_or_default()
            .iter()
            .map(|store| store_space(store).ok_or_else(unexpected))
            .collect()
    }

    /// Lifts the oracle to at least `ts`, so that data committed up to it can be read. `false`: it
    /// was there already.
    ///
    /// # Errors
    /// PD is out of reach or refuses.
    pub async fn reset_ts(&self, ts: TimeStamp) -> Result<bool, PdError> {
        let body = json!({ "tso": ts.0.to_string(), "force-use-larger": true });
        let path = "/pd/api/v1/admin/reset-ts";
        match self
            .send(Request::with_json(Method::POST, path, &body))
            .await
        {
            Ok(_) => Ok(true),
            Err(PdError::Http(error)) if error.status() == Some(StatusCode::FORBIDDEN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A placement rule.
    ///
    /// # Errors
    /// There is none of that name, or PD is out of reach.
    pub async fn placement_rule(&self, group: &str, id: &str) -> Result<PlacementRule, PdError> {
        self.json(Request::get(&format!(
            "/pd/api/v1/config/rule/{group}/{id}"
        )))
        .await
    }

    /// Sets a placement rule; the same name again replaces.
    ///
    /// # Errors
    /// PD is out of reach or refuses the rule.
    pub async fn set_placement_rule(&self, rule: &PlacementRule) -> Result<(), PdError> {
        let path = "/pd/api/v1/config/rule";
        self.send(Request::with_json(Method::POST, path, rule))
            .await
            .map(drop)
    }

    /// Removes a placement rule; one that is not there is passed over.
    ///
    /// # Errors
    /// PD is out of reach.
    pub async fn delete_placement_rule(&self, group: &str, id: &str) -> Result<(), PdError> {
        let path = format!("/pd/api/v1/config/rule/{group}/{id}");
        let request = Request {
            method: Method::DELETE,
            ..Request::get(&path)
        };
        match self.send(request).await {
            Err(PdError::Http(error)) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(()),
            done => done.map(drop),
        }
    }
}

fn store_space(store: &Value) -> Option<StoreSpace> {
    let text = |pointer: &str| store.pointer(pointer).and_then(Value::as_str);
    let labels = store.pointer("/store/labels").and_then(Value::as_array);
    let label = |label: &Value| {
        let part = |name| Some(label.get(name)?.as_str()?.to_owned());
        Some((part("key")?, part("value")?))
    };
    Some(StoreSpace {
        id: StoreId(store.pointer("/store/id")?.as_u64()?),
        address: text("/store/address").unwrap_or_default().into(),
        state: text("/store/state_name").unwrap_or_default().into(),
        labels: labels.into_iter().flatten().filter_map(label).collect(),
        capacity_bytes: bytes_of(text("/status/capacity")?)?,
        available_bytes: bytes_of(text("/status/available")?)?,
    })
}

/// `1.8TiB` in bytes; PD's units are powers of 1024.
fn bytes_of(text: &str) -> Option<u64> {
    super::store_config::size(&Value::from(text))
}

/// Every byte as `%XX`: right for any key.
fn escape(key: &EncodedKey) -> String {
    key.as_bytes()
        .iter()
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrowed_placement_rule_keeps_what_it_does_not_change() {
        let text = r#"{"group_id":"pd","id":"default","start_key":"","end_key":"","role":"voter",
            "count":3,"location_labels":["zone"],"label_constraints":[{"key":"a","op":"exists"}]}"#;
        let rule: PlacementRule = serde_json::from_str(text).expect("parses");
        let range = KeyRange::new(&b"t"[..], &b"u"[..]);
        let narrowed = rule.narrowed("restore-t1", &range, "exclusive", "restore");
        assert_eq!(
            serde_json::to_value(&narrowed).expect("serializes"),
            json!({"group_id": "pd", "id": "restore-t1", "start_key": "74", "end_key": "75",
                   "role": "voter", "count": 3, "location_labels": ["zone"],
                   "label_constraints": [{"key": "a", "op": "exists"},
                       {"key": "exclusive", "op": "in", "values": ["restore"]}],
                   "index": 100, "override": true})
        );
    }

    #[test]
    fn stores_are_read_with_their_labels() {
        let space = store_space(&json!({
            "store": {"id": 4, "address": "a:1", "state_name": "Up",
                      "labels": [{"key": "exclusive", "value": "restore"}]},
            "status": {"capacity": "2GiB", "available": "512MiB"},
        }))
        .expect("complete");
        assert_eq!(space.id, StoreId(4));
        assert_eq!(space.labels["exclusive"], "restore");
        assert_eq!(
            (space.capacity_bytes, space.available_bytes),
            (2 << 30, 512 << 20)
        );
        assert_eq!(store_space(&json!({"store": {}})), None);
    }

    #[test]
    fn a_label_rule_is_written_as_pd_reads_it() {
        let range = KeyRange::new(&b"t\x80"[..], &b""[..]);
        let rule = LabelRule::deny_scheduling("r", &[range], Duration::from_secs(300));
        assert_eq!(
            serde_json::to_value(&rule).expect("serializes"),
            json!({"id": "r", "index": 0, "rule_type": "key-range",
                   "labels": [{"key": "schedule", "value": "deny", "ttl": "300s"}],
                   "data": [{"start_key": "7480", "end_key": ""}]})
        );
    }
}
