//! Settings of scheduling and replication, and settings for a time.
//!
//! # Objects it reads and writes
//! The key `config`: settings that differ from the defaults, by their whole names, as JSON.
//!
//! # Ordering and invariants
//! A setting for a time (`ttlSecond`) hides the lasting one until it ends or is cleared; while it
//! does, the lasting one cannot be changed. Answers to `GET` show the lasting settings, as PD does,
//! so that a tool can note them and put them back.
//!
//! # After a crash
//! Settings for a time are gone, as after a change of PD's leader.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use br_rt::{Monotonic, Rt};
use br_types::{Classify, Kind};
use serde_json::{Map, Value, json};

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_json, to_json};

const KEY: &[u8] = b"config";

/// Settings that may be set for a time.
const TEMPORARY: &[&str] = &[
    "schedule.max-snapshot-count",
    "schedule.max-merge-region-size",
    "schedule.max-merge-region-keys",
    "schedule.max-pending-peer-count",
    "schedule.leader-schedule-limit",
    "schedule.region-schedule-limit",
    "schedule.replica-schedule-limit",
    "schedule.merge-schedule-limit",
    "schedule.hot-region-schedule-limit",
    "schedule.split-scatter-schedule-limit",
    "schedule.scheduler-max-waiting-operator",
    "schedule.enable-location-replacement",
    "schedule.enable-tikv-split-region",
];

/// Why a setting was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such setting.
    #[error("config item {0} not found")]
    Unknown(String),
    /// Not one that can be set for a time.
    #[error("unsupported ttl config {0}")]
    NotTemporary(String),
    /// Set for a time at present.
    #[error("need to clean up TTL first for {0}")]
    Temporary(String),
    /// Of another type than the setting.
    #[error("the value {value} does not fit the config item {name}")]
    Value {
        /// The setting.
        name: String,
        /// What it was to be.
        value: String,
    },
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            ConfigError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

/// The settings.
pub struct Config {
    rt: Rt,
    kv: Arc<dyn MetaKv>,
    defaults: Map<String, Value>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By whole name, such as `schedule.leader-schedule-limit`.
    lasting: BTreeMap<String, Value>,
    temporary: BTreeMap<String, (Value, Monotonic)>,
}

impl Config {
    /// Loads the settings; `replicas` is the default number of peers of a region.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(rt: Rt, kv: Arc<dyn MetaKv>, replicas: usize) -> Result<Config, MetaError> {
        let lasting = get_json(kv.as_ref(), KEY)?.unwrap_or_default();
        let state = State {
            lasting,
            temporary: BTreeMap::new(),
        };
        Ok(Config {
            rt,
            kv,
            defaults: defaults(replicas),
            state: Mutex::new(state),
        })
    }

    /// The lasting settings of a section, `schedule` or `replication`, by their short names.
    pub fn section(&self, section: &str) -> Map<String, Value> {
        let state = self.lock();
        let prefix = format!("{section}.");
        self.defaults
            .iter()
            .filter_map(|(name, default)| {
                let short = name.strip_prefix(&prefix)?;
                let value = state.lasting.get(name).unwrap_or(default);
                Some((short.to_owned(), value.clone()))
            })
            .collect()
    }

    /// A number as it holds now, settings for a time included; 0 if it is none.
    pub fn number(&self, name: &str) -> u64 {
        match self.effective(name) {
            Some(Value::Number(number)) => number.as_u64().unwrap_or(0),
            _ => 0,
        }
    }

    fn effective(&self, name: &str) -> Option<Value> {
        let now = self.rt.now();
        let state = self.lock();
        if let Some((value, ends)) = state.temporary.get(name)
            && *ends > now
        {
            return Some(value.clone());
        }
        state
            .lasting
            .get(name)
            .or_else(|| self.defaults.get(name))
            .cloned()
    }

    /// Sets settings for good, all or none. Names may lack the section.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn set(&self, settings: &Map<String, Value>) -> Result<(), ConfigError> {
        let now = self.rt.now();
        let mut state = self.lock();
        let mut lasting = state.lasting.clone();
        for (name, value) in settings {
            let name = self.whole_name(name)?;
            if state
                .temporary
                .get(&name)
                .is_some_and(|(_, ends)| *ends > now)
            {
                return Err(ConfigError::Temporary(name));
            }
            let value = self.typed(&name, value)?;
            lasting.insert(name, value);
        }
        let mut batch = MetaBatch::default();
        batch.put(KEY, to_json(&lasting)?);
        self.kv.write(batch)?;
        state.lasting = lasting;
        Ok(())
    }

    /// Sets settings for a time, all or none; a time of zero ends them.
    ///
    /// # Errors
    /// [`ConfigError::NotTemporary`], [`ConfigError::Value`].
    pub fn set_temporary(
        &self,
        settings: &Map<String, Value>,
        ttl: Duration,
    ) -> Result<(), ConfigError> {
        let ends = self.rt.now().plus(ttl);
        let mut typed = Vec::with_capacity(settings.len());
        for (name, value) in settings {
            if !TEMPORARY.contains(&name.as_str()) {
                return Err(ConfigError::NotTemporary(name.clone()));
            }
            typed.push((name.clone(), self.typed(name, value)?));
        }
        let mut state = self.lock();
        for (name, value) in typed {
            if ttl.is_zero() {
                state.temporary.remove(&name);
            } else {
                state.temporary.insert(name, (value, ends));
            }
        }
        Ok(())
    }

    fn whole_name(&self, name: &str) -> Result<String, ConfigError> {
        if self.defaults.contains_key(name) {
            return Ok(name.to_owned());
        }
        ["schedule", "replication"]
            .iter()
            .map(|section| format!("{section}.{name}"))
            .find(|whole| self.defaults.contains_key(whole))
            .ok_or_else(|| ConfigError::Unknown(name.to_owned()))
    }

    /// The value in the type of the default: numbers may come as text, flags as booleans.
    fn typed(&self, name: &str, value: &Value) -> Result<Value, ConfigError> {
        let wrong = || ConfigError::Value {
            name: name.to_owned(),
            value: value.to_string(),
        };
        let numeric = self.defaults.get(name).is_none_or(Value::is_number);
        match value {
            Value::Number(_) if numeric => value.as_u64().map(Value::from).ok_or_else(wrong),
            Value::String(text) if numeric => match text.parse::<u64>() {
                Ok(number) => Ok(Value::from(number)),
                // Settings that have no default here may be flags.
                Err(_) if !self.defaults.contains_key(name) => Ok(value.clone()),
                Err(_) => Err(wrong()),
            },
            Value::String(text) => Ok(Value::from(text.as_str())),
            Value::Bool(flag) if !numeric || !self.defaults.contains_key(name) => {
                Ok(Value::from(flag.to_string()))
            }
            Value::Number(number) => Ok(Value::from(number.to_string())),
            _ => Err(wrong()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What PD 9 answers on a fresh cluster, in its order.
fn defaults(replicas: usize) -> Map<String, Value> {
    let sections = json!({
        "schedule": {
            "max-snapshot-count": 64,
            "max-pending-peer-count": 64,
            "max-merge-region-size": 54,
            "max-merge-region-keys": 540_000,
            "split-merge-interval": "1h0m0s",
            "switch-witness-interval": "1h0m0s",
            "enable-one-way-merge": "false",
            "enable-cross-table-merge": "true",
            "patrol-region-interval": "10ms",
            "max-store-down-time": "30m0s",
            "max-store-preparing-time": "48h0m0s",
            "leader-schedule-limit": 4,
            "leader-schedule-policy": "count",
            "region-schedule-limit": 2048,
            "witness-schedule-limit": 4,
            "replica-schedule-limit": 64,
            "merge-schedule-limit": 8,
            "hot-region-schedule-limit": 4,
            "affinity-schedule-limit": 0,
            "split-scatter-schedule-limit": 4,
            "enable-location-replacement": "true",
        },
        "replication": {
            "max-replicas": replicas,
            "location-labels": "",
            "strictly-match-label": "false",
            "enable-placement-rules": "true",
            "enable-placement-rules-cache": "false",
            "isolation-level": "",
        },
    });
    let Value::Object(sections) = sections else {
        return Map::new();
    };
    let mut all = Map::new();
    for (section, settings) in sections {
        let Value::Object(settings) = settings else {
            continue;
        };
        all.extend(
            settings
                .into_iter()
                .map(|(name, value)| (format!("{section}.{name}"), value)),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pd::{meta_kv::MemoryKv, simulate};

    fn settings(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn settings_for_a_time_end_by_themselves() {
        simulate(1_000, async |rt| {
            let config = Config::open(rt.clone(), Arc::new(MemoryKv::default()), 3).unwrap();
            let limit = "schedule.leader-schedule-limit";
            let paused =
                settings(json!({ limit: 0, "schedule.enable-location-replacement": "false" }));
            config
                .set_temporary(&paused, Duration::from_secs(300))
                .unwrap();
            assert_eq!(config.number(limit), 0);
            assert_eq!(config.section("schedule")["leader-schedule-limit"], 4);
            assert!(matches!(
                config.set(&paused),
                Err(ConfigError::Temporary(_))
            ));
            rt.sleep(Duration::from_secs(301)).await;
            assert_eq!(config.number(limit), 4);

            config
                .set_temporary(&paused, Duration::from_secs(300))
                .unwrap();
            config.set_temporary(&paused, Duration::ZERO).unwrap();
            assert_eq!(config.number(limit), 4);
            let other = settings(json!({ "replication.max-replicas": 1 }));
            assert!(matches!(
                config.set_temporary(&other, Duration::from_secs(1)),
                Err(ConfigError::NotTemporary(_))
            ));
        });
    }

    #[test]
    fn lasting_settings_survive_and_keep_their_types() {
        simulate(1_000, async |rt| {
            let kv: Arc<MemoryKv> = Arc::default();
            let config = Config::open(rt.clone(), kv.clone(), 3).unwrap();
            config
                .set(&settings(json!({ "merge-schedule-limit": "5" })))
                .unwrap();
            let wrong = settings(json!({ "merge-schedule-limit": "many" }));
            assert!(matches!(config.set(&wrong), Err(ConfigError::Value { .. })));
            assert!(matches!(
                config.set(&settings(json!({ "no-such": 1 }))),
                Err(ConfigError::Unknown(_))
            ));
            let again = Config::open(rt, kv, 3).unwrap();
            assert_eq!(again.section("schedule")["merge-schedule-limit"], 5);
            assert_eq!(again.section("replication")["max-replicas"], 3);
        });
    }
}
