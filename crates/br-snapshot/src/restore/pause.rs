//! # What it does
//! Keeps PD from moving regions while files are ingested, and stores in import mode and within the
//! user's limit of downloads.
//!
//! # Objects it reads and writes
//! PD's schedulers (paused with a delay), its scheduling limits (set with a time to live) or, for
//! a part of the key space, one region label rule with a time to live; each store's import mode,
//! which ends by itself ten minutes after the last call; each store's download limit, as a task with
//! a time to live.
//!
//! # Ordering and invariants
//! Everything is a lease that is renewed in the background. [`Pause::undo`] takes it back at once;
//! dropping stops the renewal.
//!
//! # After a crash
//! PD forgets everything after [`RestoreOptions::pause_lease`], the stores after ten minutes; a download limit, which
//! hurts only other restores, after [`SPEED_LIMIT_TTL_SECONDS`].

use std::{sync::Arc, time::Duration};

use br_cluster::{Cluster, KvError, LabelRule, PdClient, PdError, PdHttp, StorePool};
use br_proto::{
    import_sstpb::{SetDownloadSpeedLimitRequest, SwitchMode, SwitchModeRequest},
    metapb,
};
use br_rt::{CancellationToken, Rt, Task, kill_point};
use br_types::{EncodedKey, KeyRange};
use serde_json::{Map, Value};

use super::{error::RestoreError, options::RestoreOptions, resume::PausedInPd};

/// How long a store keeps a download limit that is not renewed, as in the official tool.
const SPEED_LIMIT_TTL_SECONDS: u64 = 3600;

/// Schedulers that move peers or leaders of regions under an ingest.
const PAUSED_SCHEDULERS: [&str; 7] = [
    "balance-leader-scheduler",
    "balance-hot-region-scheduler",
    "balance-region-scheduler",
    "shuffle-leader-scheduler",
    "shuffle-region-scheduler",
    "shuffle-hot-region-scheduler",
    "evict-slow-store-scheduler",
];

/// PD's own bound on limits that are raised with the number of stores.
const LIMIT_MAX: u64 = 40;

/// What is kept still.
#[derive(Clone, Debug)]
pub(super) enum PauseScope {
    /// All of the cluster.
    Cluster,
    /// Some ranges of it.
    Ranges(Vec<KeyRange<EncodedKey>>),
    /// Nothing: an online restore.
    Nothing,
}

/// A pause under way.
pub(super) struct Pause {
    lease: Arc<Lease>,
    renewals: Vec<Task<()>>,
}

struct Lease {
    rt: Rt,
    http: PdHttp,
    pd: PdClient,
    stores: StorePool,
    scope: PauseScope,
    rule_id: String,
    /// How long PD keeps a pause without renewal.
    pd_lease: Duration,
    /// Bytes per second that each store downloads; 0 is no limit.
    rate_limit_bytes_per_s: u64,
    schedulers: Vec<String>,
    /// The settings as they were, and as they are during the pause.
    settings_before: Map<String, Value>,
    settings_paused: Map<String, Value>,
}

impl Pause {
    /// Pauses, and goes on to keep it so.
    ///
    /// `earlier` is what an interrupted command named its label rule, and what it paused: PD may show
    /// that still, and what was before is undone to.
    ///
    /// # Errors
    /// PD refuses or is out of reach; nothing stays paused then beyond the lease.
    pub(super) async fn start(
        rt: Rt,
        pd: &PdClient,
        http: &PdHttp,
        stores: &StorePool,
        scope: PauseScope,
        options: &RestoreOptions,
        earlier: Option<(String, PausedInPd)>,
    ) -> Result<Pause, RestoreError> {
        let (rule_id, paused_earlier) = earlier.unwrap_or_else(|| {
            let rule_id = rt.uuid().to_string();
            (rule_id, PausedInPd::default())
        });
        let mut lease = Lease {
            rule_id,
            pd_lease: options.pause_lease,
            rate_limit_bytes_per_s: options.rate_limit_bytes_per_s,
            rt: rt.clone(),
            http: http.with_cancel(CancellationToken::new()),
            pd: pd.with_cancel(CancellationToken::new()),
            stores: stores.clone(),
            scope,
            schedulers: Vec::new(),
            settings_before: Map::new(),
            settings_paused: Map::new(),
        };
        if let PauseScope::Cluster = lease.scope {
            let running = lease.http.schedulers().await?;
            lease.schedulers = running
                .into_iter()
                .filter(|name| PAUSED_SCHEDULERS.contains(&name.as_str()))
                .collect();
            let current = lease.http.schedule_config().await?;
            let store_count = lease.pd.live_stores().await?.len() as u64;
            (lease.settings_before, lease.settings_paused) = paused_settings(&current, store_count);
            for (name, value) in paused_earlier.settings_before {
                lease.settings_before.insert(name, value);
            }
        }
        let lease = Arc::new(lease);
        if let Err(error) = lease.renew_pd().await {
            lease.undo_pd().await;
            return Err(error.into());
        }
        kill_point("restore.paused_pd");
        lease.tell_stores(SwitchMode::Import).await;
        kill_point("restore.paused");
        let import_mode_renewal = options.switch_mode_interval;
        let (for_pd, for_stores) = (lease.clone(), lease.clone());
        let renewals = vec![
            rt.spawn(async move {
                loop {
                    // Two renewals may fail before it ends.
                    for_pd.rt.sleep(for_pd.pd_lease / 3).await;
                    if let Err(error) = for_pd.renew_pd().await {
                        tracing::warn!(%error, "PD's pause could not be renewed");
                    }
                }
            }),
            rt.spawn(async move {
                loop {
                    for_stores.rt.sleep(import_mode_renewal).await;
                    for_stores.tell_stores(SwitchMode::Import).await;
                }
            }),
        ];
        Ok(Pause { lease, renewals })
    }

    /// What is paused in PD.
    pub(super) fn paused_in_pd(&self) -> PausedInPd {
        PausedInPd {
            schedulers: self.lease.schedulers.clone(),
            settings_before: self.lease.settings_before.clone(),
        }
    }

    /// Lets everything go on. What cannot be undone now ends with its lease.
    pub(super) async fn undo(mut self) {
        self.renewals.clear();
        self.lease.tell_stores(SwitchMode::Normal).await;
        kill_point("restore.unpaused_stores");
        self.lease.undo_pd().await;
        kill_point("restore.unpaused");
    }
}

/// Takes back what a restore paused that is not there any more.
///
/// # Errors
/// PD is out of reach or refuses.
pub(super) async fn undo_left_behind(
    cluster: &Cluster,
    rule_id: &str,
    paused: &PausedInPd,
) -> Result<(), RestoreError> {
    let http = cluster.http();
    http.delete_label_rules(&[rule_id.to_owned()]).await?;
    for name in &paused.schedulers {
        http.pause_scheduler(name, Duration::ZERO).await?;
    }
    if !paused.settings_before.is_empty() {
        let before = &paused.settings_before;
        http.set_config_for(before, Duration::ZERO).await?;
    }
    let lease = Lease {
        rt: cluster.rt().clone(),
        http: http.clone(),
        pd: cluster.pd().clone(),
        stores: cluster.stores().clone(),
        scope: PauseScope::Cluster,
        rule_id: rule_id.to_owned(),
        pd_lease: Duration::ZERO,
        rate_limit_bytes_per_s: 0,
        schedulers: Vec::new(),
        settings_before: Map::new(),
        settings_paused: Map::new(),
    };
    lease.tell_stores(SwitchMode::Normal).await;
    Ok(())
}

impl Lease {
    async fn renew_pd(&self) -> Result<(), PdError> {
        if let PauseScope::Ranges(ranges) = &self.scope {
            let rule = LabelRule::deny_scheduling(&self.rule_id, ranges, self.pd_lease);
            return self.http.set_label_rule(&rule).await;
        }
        // Both are empty when nothing is paused.
        for name in &self.schedulers {
            self.http.pause_scheduler(name, self.pd_lease).await?;
            kill_point("restore.paused_scheduler");
        }
        if self.settings_paused.is_empty() {
            return Ok(());
        }
        self.http
            .set_config_for(&self.settings_paused, self.pd_lease)
            .await
    }

    async fn undo_pd(&self) {
        if let PauseScope::Ranges(_) = &self.scope {
            self.report(
                self.http
                    .delete_label_rules(std::slice::from_ref(&self.rule_id))
                    .await,
            );
            return;
        }
        for name in &self.schedulers {
            self.report(self.http.pause_scheduler(name, Duration::ZERO).await);
        }
        if !self.settings_before.is_empty() {
            self.report(
                self.http
                    .set_config_for(&self.settings_before, Duration::ZERO)
                    .await,
            );
        }
    }

    fn report(&self, outcome: Result<(), PdError>) {
        if let Err(error) = outcome {
            tracing::warn!(%error, "a pause in PD could not be taken back; it ends by itself");
        }
    }

    /// Import mode and limit are for speed only: a store that does not take them is left as it is.
    async fn tell_stores(&self, mode: SwitchMode) {
        let stores = match self.pd.live_stores().await {
            Ok(stores) => stores,
            Err(error) => {
                tracing::warn!(%error, "the stores could not be prepared");
                return;
            }
        };
        for store in stores {
            if let Err(error) = self.tell_store(&store, mode).await {
                tracing::warn!(store = store.id, %error, "the store could not be prepared");
            }
        }
    }

    async fn tell_store(&self, store: &metapb::Store, mode: SwitchMode) -> Result<(), KvError> {
        let client = self.stores.client_of(store).await?;
        if !matches!(self.scope, PauseScope::Nothing) {
            let request = SwitchModeRequest {
                mode: mode as i32,
                ..Default::default()
            };
            client.switch_mode(request).await?;
        }
        if self.rate_limit_bytes_per_s > 0 {
            let is_over = mode == SwitchMode::Normal;
            let request = SetDownloadSpeedLimitRequest {
                speed_limit: if is_over {
                    0
                } else {
                    self.rate_limit_bytes_per_s
                },
                task_id: self.rule_id.clone(),
                ttl_seconds: if is_over { 0 } else { SPEED_LIMIT_TTL_SECONDS },
            };
            client.set_download_speed_limit(request).await?;
        }
        Ok(())
    }
}

/// PD's settings before and during a pause: no merges, no other location, no limit on pending
/// peers, and moves for scatter as many as the stores can take. Only those that PD has.
fn paused_settings(
    current: &Map<String, Value>,
    stores: u64,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut before, mut paused) = (Map::new(), Map::new());
    let mut set = |name: &str, during: &dyn Fn(&Value) -> Value| {
        if let Some(value) = current.get(name) {
            before.insert(format!("schedule.{name}"), value.clone());
            paused.insert(format!("schedule.{name}"), during(value));
        }
    };
    let raised = |value: &Value| match value.as_u64() {
        Some(number) => number.saturating_mul(stores).min(LIMIT_MAX).into(),
        None => value.clone(),
    };
    set("merge-schedule-limit", &|_| 0.into());
    set("leader-schedule-limit", &raised);
    set("region-schedule-limit", &raised);
    set("max-snapshot-count", &raised);
    set("enable-location-replacement", &|_| "false".into());
    set("max-pending-peer-count", &|_| i32::MAX.into());
    (before, paused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_settings_that_pd_has_are_touched() {
        let Value::Object(current) = json!({
            "merge-schedule-limit": 8,
            "leader-schedule-limit": 4,
            "max-snapshot-count": 64,
            "hot-region-schedule-limit": 4,
        }) else {
            unreachable!("an object")
        };
        let (before, paused) = paused_settings(&current, 3);
        assert_eq!(
            Value::Object(before),
            json!({
                "schedule.merge-schedule-limit": 8,
                "schedule.leader-schedule-limit": 4,
                "schedule.max-snapshot-count": 64,
            })
        );
        assert_eq!(
            Value::Object(paused),
            json!({
                "schedule.merge-schedule-limit": 0,
                "schedule.leader-schedule-limit": 12,
                "schedule.max-snapshot-count": 40,
            })
        );
    }
}
