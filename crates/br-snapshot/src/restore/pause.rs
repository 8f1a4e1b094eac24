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
//! PD forgets everything after [`PD_LEASE`], the stores after ten minutes; a download limit, which
//! hurts only other restores, after [`SPEED_LIMIT_TTL_SECONDS`].

use std::{sync::Arc, time::Duration};

use br_cluster::{KvError, LabelRule, PdClient, PdError, PdHttp, StorePool};
use br_proto::{
    import_sstpb::{SetDownloadSpeedLimitRequest, SwitchMode, SwitchModeRequest},
    metapb,
};
use br_rt::{CancellationToken, Rt, Task};
use br_types::{EncodedKey, KeyRange};
use serde_json::{Map, Value};

use super::{error::RestoreError, options::RestoreOptions};

/// How long PD keeps a pause without renewal.
const PD_LEASE: Duration = Duration::from_secs(300);

/// Each lease is renewed this often: two renewals may fail before it ends.
const PD_RENEWAL: Duration = Duration::from_secs(100);

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
    /// # Errors
    /// PD refuses or is out of reach; nothing stays paused then beyond the lease.
    pub(super) async fn start(
        rt: Rt,
        pd: &PdClient,
        http: &PdHttp,
        stores: &StorePool,
        scope: PauseScope,
        options: &RestoreOptions,
    ) -> Result<Pause, RestoreError> {
        let mut lease = Lease {
            rule_id: rt.uuid().to_string(),
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
        }
        let lease = Arc::new(lease);
        if let Err(error) = lease.renew_pd().await {
            lease.undo_pd().await;
            return Err(error.into());
        }
        lease.tell_stores(SwitchMode::Import).await;
        let import_mode_renewal = options.switch_mode_interval;
        let (for_pd, for_stores) = (lease.clone(), lease.clone());
        let renewals = vec![
            rt.spawn(async move {
                loop {
                    for_pd.rt.sleep(PD_RENEWAL).await;
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

    /// Lets everything go on. What cannot be undone now ends with its lease.
    pub(super) async fn undo(mut self) {
        self.renewals.clear();
        self.lease.tell_stores(SwitchMode::Normal).await;
        self.lease.undo_pd().await;
    }
}

impl Lease {
    async fn renew_pd(&self) -> Result<(), PdError> {
        if let PauseScope::Ranges(ranges) = &self.scope {
            let rule = LabelRule::deny_scheduling(&self.rule_id, ranges, PD_LEASE);
            return self.http.set_label_rule(&rule).await;
        }
        // Both are empty when nothing is paused.
        for name in &self.schedulers {
            self.http.pause_scheduler(name, PD_LEASE).await?;
        }
        if self.settings_paused.is_empty() {
            return Ok(());
        }
        self.http
            .set_config_for(&self.settings_paused, PD_LEASE)
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
