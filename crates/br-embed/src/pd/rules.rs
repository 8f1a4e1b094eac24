//! Placement rules, kept as data: they can be set and read, but no peer moves because of them.
//!
//! # Objects it reads and writes
//! The key `rules`: all rules and groups, as JSON.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_types::{Classify, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta_kv::{MetaBatch, MetaError, MetaKv, get_json, to_json};

const KEY: &[u8] = b"rules";
/// Rules at one time; an online restore sets one for each table.
const RULES_MAX: usize = 100_000;

/// Why a rule was not set.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A rule that cannot be.
    #[error("invalid placement rule: {0}")]
    Invalid(String),
    /// Too many rules.
    #[error("there are {RULES_MAX} placement rules already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for RuleError {
    fn kind(&self) -> Kind {
        match self {
            RuleError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

/// A rule, in the form of PD's HTTP API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Who set it.
    pub group_id: String,
    /// Its id within the group.
    pub id: String,
    /// Rules apply by ascending index.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: i64,
    /// Whether it switches off those with a lesser index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub r#override: bool,
    /// The first key, encoded, in hexadecimal.
    #[serde(default)]
    pub start_key: String,
    /// The first key beyond; empty: no bound.
    #[serde(default)]
    pub end_key: String,
    /// `voter`, `leader`, `follower` or `learner`.
    pub role: String,
    /// Whether the peers hold no data.
    #[serde(default)]
    pub is_witness: bool,
    /// How many peers.
    pub count: u32,
    /// Which stores may have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_constraints: Vec<Value>,
    /// Labels by which the peers lie apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub location_labels: Vec<String>,
    /// The label by which they must.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolation_level: String,
}

/// A group of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleGroup {
    /// Its id.
    pub id: String,
    /// Groups apply by ascending index.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: i64,
    /// Whether it switches off those with a lesser index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub r#override: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Stored {
    /// By group and id.
    rules: BTreeMap<String, BTreeMap<String, Rule>>,
    groups: BTreeMap<String, RuleGroup>,
}

/// All rules.
pub struct Rules {
    kv: Arc<dyn MetaKv>,
    state: Mutex<Stored>,
}

impl Rules {
    /// Loads the rules; a new cluster has `pd`/`default`, of `replicas` voters everywhere.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(kv: Arc<dyn MetaKv>, replicas: usize) -> Result<Rules, MetaError> {
        let state = match get_json(kv.as_ref(), KEY)? {
            Some(state) => state,
            None => {
                let rule = Rule {
                    group_id: "pd".into(),
                    id: "default".into(),
                    index: 0,
                    r#override: false,
                    start_key: String::new(),
                    end_key: String::new(),
                    role: "voter".into(),
                    is_witness: false,
                    count: u32::try_from(replicas).unwrap_or(u32::MAX),
                    label_constraints: Vec::new(),
                    location_labels: Vec::new(),
                    isolation_level: String::new(),
                };
                let mut state = Stored::default();
                let group = state.rules.entry("pd".into()).or_default();
                group.insert("default".into(), rule);
                state
            }
        };
        Ok(Rules {
            kv,
            state: Mutex::new(state),
        })
    }

    /// Every rule, or those of one group, in the order in which they apply.
    pub fn list(&self, group: Option<&str>) -> Vec<Rule> {
        let state = self.lock();
        let mut rules: Vec<Rule> = state
            .rules
            .iter()
            .filter(|(id, _)| group.is_none_or(|group| group == *id))
            .flat_map(|(_, rules)| rules.values().cloned())
            .collect();
        rules.sort_by(|a, b| (a.index, &a.group_id, &a.id).cmp(&(b.index, &b.group_id, &b.id)));
        rules
    }

    /// One rule.
    pub fn get(&self, group: &str, id: &str) -> Option<Rule> {
        self.lock().rules.get(group)?.get(id).cloned()
    }

    /// Sets rules, all or none.
    ///
    /// # Errors
    /// [`RuleError::Invalid`], [`RuleError::TooMany`], [`RuleError::Meta`].
    pub fn set(&self, rules: Vec<Rule>) -> Result<(), RuleError> {
        for rule in &rules {
            check(rule)?;
        }
        self.change(|state| {
            for rule in rules {
                let group = state.rules.entry(rule.group_id.clone()).or_default();
                group.insert(rule.id.clone(), rule);
            }
        })
    }

    /// Removes a rule, if it is there.
    ///
    /// # Errors
    /// [`RuleError::Meta`].
    pub fn delete(&self, group: &str, id: &str) -> Result<(), RuleError> {
        self.change(|state| {
            if let Some(rules) = state.rules.get_mut(group) {
                rules.remove(id);
            }
            state.rules.retain(|_, rules| !rules.is_empty());
        })
    }

    /// A group: set, or known by its rules.
    pub fn group(&self, id: &str) -> Option<RuleGroup> {
        let state = self.lock();
        state.groups.get(id).cloned().or_else(|| {
            let known = state.rules.contains_key(id);
            known.then(|| RuleGroup {
                id: id.to_owned(),
                ..RuleGroup::default()
            })
        })
    }

    /// Every group.
    pub fn groups(&self) -> Vec<RuleGroup> {
        let ids: Vec<String> = {
            let state = self.lock();
            let mut ids: Vec<_> = state
                .rules
                .keys()
                .chain(state.groups.keys())
                .cloned()
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        ids.iter().filter_map(|id| self.group(id)).collect()
    }

    /// Sets a group.
    ///
    /// # Errors
    /// [`RuleError::Invalid`], [`RuleError::Meta`].
    pub fn set_group(&self, group: RuleGroup) -> Result<(), RuleError> {
        if group.id.is_empty() {
            return Err(RuleError::Invalid("a group without an id".into()));
        }
        self.change(|state| {
            state.groups.insert(group.id.clone(), group);
        })
    }

    /// Forgets what was set of a group; its rules stay.
    ///
    /// # Errors
    /// [`RuleError::Meta`].
    pub fn delete_group(&self, id: &str) -> Result<(), RuleError> {
        self.change(|state| {
            state.groups.remove(id);
        })
    }

    fn change(&self, apply: impl FnOnce(&mut Stored)) -> Result<(), RuleError> {
        let mut state = self.lock();
        let mut next = state.clone();
        apply(&mut next);
        let count = next.rules.values().map(BTreeMap::len).sum::<usize>() + next.groups.len();
        if count > RULES_MAX {
            return Err(RuleError::TooMany);
        }
        let mut batch = MetaBatch::default();
        batch.put(KEY, to_json(&next)?);
        self.kv.write(batch)?;
        *state = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(rule: &Rule) -> Result<(), RuleError> {
    let invalid = |message: String| Err(RuleError::Invalid(message));
    if rule.group_id.is_empty() || rule.id.is_empty() {
        return invalid("a rule without group or id".into());
    }
    let (Ok(start), Ok(end)) = (hex::decode(&rule.start_key), hex::decode(&rule.end_key)) else {
        return invalid("a bound is not in hexadecimal".into());
    };
    if !end.is_empty() && end <= start {
        return invalid("the end key is not greater than the start key".into());
    }
    if !["voter", "leader", "follower", "learner"].contains(&rule.role.as_str()) {
        return invalid(format!("invalid role {}", rule.role));
    }
    if rule.count == 0 || (rule.role == "leader" && rule.count > 1) {
        return invalid(format!("invalid count {}", rule.count));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pd::meta_kv::MemoryKv;

    #[test]
    fn rules_are_kept_as_they_were_set() {
        let kv: Arc<MemoryKv> = Arc::default();
        let rules = Rules::open(kv.clone(), 3).unwrap();
        assert_eq!(rules.get("pd", "default").unwrap().count, 3);
        let sent = json!({
            "group_id": "pd", "id": "restore-t5", "index": 100, "override": true,
            "start_key": "7480", "end_key": "7481", "role": "voter", "is_witness": false,
            "count": 3,
            "label_constraints": [{ "key": "exclusive", "op": "in", "values": ["restore"] }],
        });
        rules
            .set(vec![serde_json::from_value(sent.clone()).unwrap()])
            .unwrap();
        let again = Rules::open(kv, 3).unwrap();
        let rule = again.get("pd", "restore-t5").unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap(), sent);
        assert_eq!(again.list(Some("pd")).len(), 2);
        again.delete("pd", "restore-t5").unwrap();
        assert_eq!(again.list(None).len(), 1);
    }

    #[test]
    fn wrong_rules_are_refused() {
        let rules = Rules::open(Arc::new(MemoryKv::default()), 3).unwrap();
        let good = rules.get("pd", "default").unwrap();
        let wrong = [
            Rule {
                id: String::new(),
                ..good.clone()
            },
            Rule {
                count: 0,
                ..good.clone()
            },
            Rule {
                role: "king".into(),
                ..good.clone()
            },
            Rule {
                start_key: "02".into(),
                end_key: "01".into(),
                ..good
            },
        ];
        for rule in wrong {
            assert!(matches!(rules.set(vec![rule]), Err(RuleError::Invalid(_))));
        }
    }
}
