//! # What it does
//! Keeps stores from collecting garbage by themselves while versions are written in no order.
//!
//! # Objects it reads and writes
//! `gc.ratio-threshold` of each store that is up, on its status port: below zero TiKV's compactions
//! leave garbage alone, as the official tool has it during its restore of a log. Stores of the
//! embedded cluster look at the barrier of the restore instead, and have the setting for show.
//!
//! # After a crash
//! The setting stays, for TiKV has no lease for it; the next restore with `--pitr-apply` finds a
//! negative value, takes it for what such a one has left, and sets TiKV's default in the end.

use std::time::Duration;

use br_cluster::{Cluster, HttpError};
use br_rt::{Backoff, RetryPolicy};
use br_types::{Classify, Kind};

use super::error::PointError;

/// A store that restarts is back within that.
const RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(200),
    pause_max: Duration::from_secs(3),
    attempts_max: 12,
    elapsed_max: Duration::from_secs(30),
};
/// No garbage is collected.
const OFF: f64 = -1.0;
/// TiKV's default, where an earlier value is not known.
const DEFAULT: f64 = 1.1;

/// Stores without garbage collection, until [`GcHold::end`].
pub(super) struct GcHold<'a> {
    cluster: &'a Cluster,
    /// Status addresses, and what the setting was.
    changed: Vec<(String, f64)>,
}

impl<'a> GcHold<'a> {
    /// # Errors
    /// A store does not say what its setting is, or does not take another.
    pub(super) async fn begin(cluster: &'a Cluster) -> Result<GcHold<'a>, PointError> {
        let mut hold = GcHold {
            cluster,
            changed: Vec::new(),
        };
        match hold.hold().await {
            Ok(()) => Ok(hold),
            Err(error) => {
                hold.end().await;
                Err(error)
            }
        }
    }

    async fn hold(&mut self) -> Result<(), PointError> {
        let status = self.cluster.store_status();
        for store in self.cluster.pd().live_stores().await? {
            let address = store.status_address;
            if address.is_empty() {
                continue;
            }
            let config = self.again(async || status.config(&address).await).await?;
            let before = config.gc_ratio_threshold.filter(|ratio| *ratio > 0.0);
            self.changed
                .push((address.clone(), before.unwrap_or(DEFAULT)));
            let set = async || status.set_gc_ratio_threshold(&address, OFF).await;
            self.again(set).await?;
        }
        Ok(())
    }

    async fn again<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T, HttpError>,
    ) -> Result<T, PointError> {
        let (rt, cancel) = (self.cluster.rt(), self.cluster.cancel());
        let mut backoff = Backoff::new(RETRY, rt);
        loop {
            match call().await {
                Err(error) if matches!(error.kind(), Kind::Retry | Kind::Reroute) => {
                    if !backoff.pause(rt, cancel).await {
                        return Err(PointError::GcSetting(error));
                    }
                }
                done => return done.map_err(PointError::GcSetting),
            }
        }
    }

    /// Sets what was. A store that cannot be reached is named in the log of the command.
    pub(super) async fn end(self) {
        let status = self.cluster.store_status();
        for (address, ratio) in &self.changed {
            let set = async || status.set_gc_ratio_threshold(address, *ratio).await;
            if let Err(error) = self.again(set).await {
                tracing::warn!(
                    %address, %error,
                    "gc.ratio-threshold stays at {OFF}: set it to {ratio} at the store's status address"
                );
            }
        }
    }
}
