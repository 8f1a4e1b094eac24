//! # What it does
//! Keeps versions readable for as long as an operation needs them.
//!
//! # Objects it reads and writes
//! One service safe point (or GC barrier) of PD, named by [`GcProtection::id`].
//!
//! # Ordering and invariants
//! While [`GcKeeper::lost`] is pending, every version at or after the protected timestamp is
//! readable. It is renewed three times within its time to live, and every five seconds PD's safe
//! point is looked at, in case that somebody forced it forward.
//!
//! # Retries
//! A renewal that fails is tried again by the client's policy and then with the next one.
//!
//! # After a crash
//! The protection lapses when its time to live is over.

use std::time::Duration;

use br_rt::{CancellationToken, Task};
use br_types::TimeStamp;
use tokio::sync::watch;

use super::{GcScope, PdClient, PdError};

/// How often the safe point itself is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What is protected from garbage collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcProtection {
    /// Whose garbage collection.
    pub scope: GcScope,
    /// The name, such as `br-<uuid>`; whoever has the same name replaces it.
    pub id: String,
    /// Versions from here on stay readable.
    pub ts: TimeStamp,
    /// How long it outlives its keeper.
    pub ttl: Duration,
}

/// A protection that is kept up; see the module.
#[must_use = "dropped, the protection lapses after its time to live"]
pub struct GcKeeper {
    pd: PdClient,
    protection: GcProtection,
    failure: watch::Receiver<Option<TimeStamp>>,
    task: Task<()>,
}

impl GcKeeper {
    /// Sets the protection and begins to keep it up. The renewals do not end when the client's
    /// token is set, but when the keeper is dropped or closed.
    ///
    /// # Errors
    /// [`PdError::SafePointExceeded`]: it is too late. PD is out of reach or refuses.
    pub async fn start(pd: &PdClient, protection: GcProtection) -> Result<GcKeeper, PdError> {
        let GcProtection {
            scope,
            ref id,
            ts,
            ttl,
        } = protection;
        pd.protect_from_gc(scope, id, ts, ttl).await?;
        let (sender, failure) = watch::channel(None);
        let kept = protection.clone();
        let keeper = pd.with_cancel(CancellationToken::new());
        let task = pd
            .rt()
            .spawn(async move { keep(&keeper, &kept, &sender).await });
        Ok(GcKeeper {
            pd: pd.clone(),
            protection,
            failure,
            task,
        })
    }

    /// What is protected.
    pub fn protection(&self) -> &GcProtection {
        &self.protection
    }

    /// Fails as soon as the protected versions may be gone.
    ///
    /// # Errors
    /// [`PdError::SafePointExceeded`].
    pub fn check(&self) -> Result<(), PdError> {
        match *self.failure.borrow() {
            None => Ok(()),
            Some(safe_point) => Err(PdError::SafePointExceeded {
                wanted: self.protection.ts,
                safe_point,
            }),
        }
    }

    /// Waits until the protected versions may be gone; for ever if all is well.
    pub async fn lost(&self) -> PdError {
        let mut failure = self.failure.clone();
        let safe_point = match failure.wait_for(Option::is_some).await {
            Ok(safe_point) => safe_point.unwrap_or_default(),
            // The task ends only after a failure, or with the runtime.
            Err(_) => std::future::pending().await,
        };
        PdError::SafePointExceeded {
            wanted: self.protection.ts,
            safe_point,
        }
    }

    /// Stops renewing and takes the protection back, whatever state the client's token is in.
    ///
    /// # Errors
    /// PD is out of reach or refuses; it lapses by itself then.
    pub async fn close(self) -> Result<(), PdError> {
        self.task.abort();
        self.pd
            .with_cancel(CancellationToken::new())
            .unprotect_from_gc(self.protection.scope, &self.protection.id)
            .await
    }

    /// Stops renewing and leaves the protection for its time to live, so that whoever resumes finds
    /// the versions. Gives until when, counted from the last renewal at the latest.
    pub fn keep(self) -> Duration {
        self.task.abort();
        self.protection.ttl
    }
}

async fn keep(
    pd: &PdClient,
    protection: &GcProtection,
    failure: &watch::Sender<Option<TimeStamp>>,
) {
    let GcProtection {
        scope,
        ref id,
        ts,
        ttl,
    } = *protection;
    let renewal = (ttl / 3).max(Duration::from_secs(1));
    let mut renewed = pd.rt().now();
    loop {
        pd.rt().sleep(CHECK_INTERVAL.min(renewal)).await;
        let mut checked = Ok(());
        // Renewed first, and whatever else fails.
        if pd.rt().now().since(renewed) >= renewal {
            checked = pd.protect_from_gc(scope, id, ts, ttl).await;
            if checked.is_ok() {
                renewed = pd.rt().now();
            }
        }
        if checked.is_ok() {
            checked = match pd.gc_state(scope).await {
                // What a reader at the safe point itself sees is still there.
                Ok(state) if state.gc_safe_point > ts => Err(PdError::SafePointExceeded {
                    wanted: ts,
                    safe_point: state.gc_safe_point,
                }),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
        }
        match checked {
            Ok(()) => {}
            Err(PdError::SafePointExceeded { safe_point, .. }) => {
                failure.send_replace(Some(safe_point));
                return;
            }
            Err(error) => tracing::warn!(%error, id, "the GC protection could not be renewed yet"),
        }
    }
}
