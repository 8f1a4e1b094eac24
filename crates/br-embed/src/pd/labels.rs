//! Region label rules: labels on key ranges, some for a time.
//!
//! # Objects it reads and writes
//! `label/` + id: a rule, as JSON, with the end of each label's time.
//!
//! # Ordering and invariants
//! A label whose time is over counts as absent; a rule that has lost all its labels is gone. The
//! label `schedule=deny` keeps the background schedulers from the regions that it touches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use br_rt::{Rt, UnixMillis};
use br_types::{Classify, EncodedKey, KeyRange, Kind};
use serde::{Deserialize, Serialize};

use super::{
    go_time,
    meta_kv::{MetaBatch, MetaError, MetaKv, to_json},
};

const PREFIX: &[u8] = b"label/";
/// Rules at one time; a restore sets one.
const RULES_MAX: usize = 100_000;

/// Why a rule was not set.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// A rule that cannot be.
    #[error("invalid region label rule: {0}")]
    Invalid(String),
    /// No rule of that id.
    #[error("[PD:region:ErrRegionRuleNotFound]region label rule not found for id {0}")]
    NotFound(String),
    /// Too many rules.
    #[error("there are {RULES_MAX} region label rules already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl Classify for LabelError {
    fn kind(&self) -> Kind {
        match self {
            LabelError::Meta(error) => error.kind(),
            _ => Kind::Invalid,
        }
    }
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// How long it lives, as Go writes durations; empty: without end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ttl: String,
    /// When its time began, as Go's `time.UnixDate`; set here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub start_at: String,
}

/// A range, in hexadecimal of encoded keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRange {
    /// The first key.
    pub start_key: String,
    /// The first key beyond; empty: no bound.
    pub end_key: String,
}

/// A rule, in the form of PD's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRule {
    /// Its id.
    pub id: String,
    /// Of two rules with the same label, the greater index wins.
    #[serde(default)]
    pub index: i64,
    /// The labels.
    pub labels: Vec<Label>,
    /// Always `key-range`.
    pub rule_type: String,
    /// The ranges.
    pub data: Vec<LabelRange>,
}

/// Several changes at once, in the form of PD's HTTP API.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LabelPatch {
    /// Rules to set.
    #[serde(default)]
    pub sets: Option<Vec<LabelRule>>,
    /// Ids of rules to remove.
    #[serde(default)]
    pub deletes: Option<Vec<String>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    rule: LabelRule,
    /// For each label when it ends, in Unix milliseconds.
    ends_ms: Vec<Option<u64>>,
}

impl Stored {
    /// The rule with the labels that still live.
    fn alive(&self, now: UnixMillis) -> Option<LabelRule> {
        let mut rule = self.rule.clone();
        let mut ends = self.ends_ms.iter();
        rule.labels
            .retain(|_| ends.next().copied().flatten().is_none_or(|end| end > now.0));
        (!rule.labels.is_empty()).then_some(rule)
    }
}

/// All rules.
pub struct Labels {
    rt: Rt,
    kv: Arc<dyn MetaKv>,
    rules: Mutex<BTreeMap<String, Stored>>,
}

impl Labels {
    /// Loads the rules.
    ///
    /// # Errors
    /// [`MetaError`].
    pub fn open(rt: Rt, kv: Arc<dyn MetaKv>) -> Result<Labels, MetaError> {
        let mut rules = BTreeMap::new();
        for (key, value) in kv.scan_prefix(PREFIX)? {
            let stored: Stored =
                serde_json::from_slice(&value).map_err(|error| MetaError::damaged(&key, &error))?;
            rules.insert(stored.rule.id.clone(), stored);
        }
        Ok(Labels {
            rt,
            kv,
            rules: Mutex::new(rules),
        })
    }

    /// The living rules, by id.
    pub fn all(&self) -> Vec<LabelRule> {
        let now = self.rt.wall();
        self.lock()
            .values()
            .filter_map(|stored| stored.alive(now))
            .collect()
    }

    /// The living rules among these ids.
    pub fn some(&self, ids: &[String]) -> Vec<LabelRule> {
        let now = self.rt.wall();
        let rules = self.lock();
        ids.iter()
            .filter_map(|id| rules.get(id)?.alive(now))
            .collect()
    }

    /// Sets and removes rules, all or none.
    ///
    /// # Errors
    /// [`LabelError::Invalid`], [`LabelError::TooMany`], [`LabelError::Meta`].
    pub fn patch(&self, patch: LabelPatch) -> Result<(), LabelError> {
        let now = self.rt.wall();
        let mut batch = MetaBatch::default();
        let mut set = Vec::new();
        for rule in patch.sets.unwrap_or_default() {
            let stored = checked(rule, now)?;
            batch.put(stored_key(&stored.rule.id), to_json(&stored)?);
            set.push(stored);
        }
        let deletes = patch.deletes.unwrap_or_default();
        let mut rules = self.lock();
        let ended: Vec<_> = rules
            .iter()
            .filter(|(_, stored)| stored.alive(now).is_none())
            .map(|(id, _)| id.clone())
            .filter(|id| set.iter().all(|stored| stored.rule.id != *id))
            .collect();
        for id in deletes.iter().chain(&ended) {
            batch.delete(stored_key(id));
        }
        if rules.len() + set.len() > RULES_MAX + deletes.len() {
            return Err(LabelError::TooMany);
        }
        self.kv.write(batch)?;
        for stored in set {
            rules.insert(stored.rule.id.clone(), stored);
        }
        for id in deletes.iter().chain(&ended) {
            rules.remove(id);
        }
        Ok(())
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`LabelError::NotFound`], [`LabelError::Meta`].
    pub fn delete(&self, id: &str) -> Result<(), LabelError> {
        if !self.lock().contains_key(id) {
            return Err(LabelError::NotFound(id.to_owned()));
        }
        self.patch(LabelPatch {
            sets: None,
            deletes: Some(vec![id.to_owned()]),
        })
    }

    /// The ranges in which the background schedulers do nothing.
    pub fn denied_ranges(&self) -> Vec<KeyRange<EncodedKey>> {
        let denies = |label: &Label| label.key == "schedule" && label.value == "deny";
        self.all()
            .into_iter()
            .filter(|rule| rule.labels.iter().any(denies))
            .flat_map(|rule| rule.data)
            .filter_map(|range| {
                let start = hex::decode(&range.start_key).ok()?;
                let end = hex::decode(&range.end_key).ok()?;
                Some(KeyRange::new(start, end))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stored_key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}

fn checked(mut rule: LabelRule, now: UnixMillis) -> Result<Stored, LabelError> {
    let invalid = |message: &str| Err(LabelError::Invalid(message.to_owned()));
    if rule.id.is_empty() {
        return invalid("empty rule id");
    }
    if rule.labels.is_empty() {
        return invalid("no region labels");
    }
    if rule.rule_type != "key-range" {
        return invalid("invalid rule type");
    }
    for range in &rule.data {
        let (Ok(start), Ok(end)) = (hex::decode(&range.start_key), hex::decode(&range.end_key))
        else {
            return invalid("a bound is not in hexadecimal");
        };
        if !end.is_empty() && end <= start {
            return invalid("endKey should be greater than startKey");
        }
    }
    let mut ends_ms = Vec::with_capacity(rule.labels.len());
    for label in &mut rule.labels {
        if label.key.is_empty() || label.value.is_empty() {
            return invalid("region label key or value is empty");
        }
        if label.ttl.is_empty() {
            ends_ms.push(None);
            continue;
        }
        let Some(ttl) = go_time::parse_duration(&label.ttl).filter(|ttl| !ttl.is_zero()) else {
            return Err(LabelError::Invalid(format!(
                "invalid label TTL {:?}",
                label.ttl
            )));
        };
        label.start_at = go_time::unix_date(now);
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        ends_ms.push(Some(now.0.saturating_add(millis)));
    }
    Ok(Stored { rule, ends_ms })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pd::{meta_kv::MemoryKv, simulate};

    fn rule(id: &str, ttl: &str) -> LabelRule {
        LabelRule {
            id: id.to_owned(),
            index: 0,
            labels: vec![Label {
                key: "schedule".into(),
                value: "deny".into(),
                ttl: ttl.into(),
                start_at: String::new(),
            }],
            rule_type: "key-range".into(),
            data: vec![LabelRange {
                start_key: "7480".into(),
                end_key: "7481".into(),
            }],
        }
    }

    fn set(rules: &[LabelRule]) -> LabelPatch {
        LabelPatch {
            sets: Some(rules.to_vec()),
            deletes: None,
        }
    }

    #[test]
    fn labels_for_a_time_end_and_are_renewed() {
        simulate(1_795_249_703_000, async |rt| {
            let kv: Arc<MemoryKv> = Arc::default();
            let labels = Labels::open(rt.clone(), kv.clone()).unwrap();
            labels
                .patch(set(&[rule("a", "5m0s"), rule("b", "")]))
                .unwrap();
            assert_eq!(
                labels.all()[0].labels[0].start_at,
                "Sat Nov 21 08:28:23 UTC 2026"
            );
            assert_eq!(labels.denied_ranges().len(), 2);
            rt.sleep(Duration::from_secs(250)).await;
            labels.patch(set(&[rule("a", "5m0s")])).unwrap();
            rt.sleep(Duration::from_secs(250)).await;
            assert_eq!(labels.all().len(), 2);
            rt.sleep(Duration::from_secs(51)).await;
            assert_eq!(labels.all().len(), 1);
            assert_eq!(labels.some(&["a".to_owned(), "b".to_owned()])[0].id, "b");
            let again = Labels::open(rt, kv).unwrap();
            assert_eq!(again.all(), labels.all());
            again.delete("b").unwrap();
            assert!(again.all().is_empty());
            assert!(matches!(again.delete("b"), Err(LabelError::NotFound(_))));
        });
    }

    #[test]
    fn wrong_rules_are_refused() {
        simulate(1_000, async |rt| {
            let labels = Labels::open(rt, Arc::new(MemoryKv::default())).unwrap();
            let mut no_label = rule("a", "");
            no_label.labels.clear();
            let mut no_hex = rule("a", "");
            no_hex.data[0].start_key = "zz".into();
            let mut backwards = rule("a", "");
            backwards.data[0].end_key = "74".into();
            for wrong in [rule("", ""), rule("a", "soon"), no_label, no_hex, backwards] {
                assert!(matches!(
                    labels.patch(set(&[wrong])),
                    Err(LabelError::Invalid(_))
                ));
            }
            assert!(labels.all().is_empty());
        });
    }
}
