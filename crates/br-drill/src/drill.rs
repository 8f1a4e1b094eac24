//! A rehearsal at a random point, measured.

use std::sync::Arc;
use std::time::Duration;

use br_inspect::verify::{self, Depth, Verified, VerifyOptions};
use br_rt::{CancellationToken, Progress, Rt};
use br_types::TimeStamp;

use crate::DrillError;
use crate::rehearse::{Rehearsal, RehearsalOptions, Sources, rehearse};

/// How a drill is done.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// How it is restored; without [`RehearsalOptions::at`] the seed chooses.
    pub rehearsal: RehearsalOptions,
    /// What the point is chosen by.
    pub seed: u64,
}

/// A drill.
#[derive(Clone, Debug)]
pub struct Drilled {
    /// What the point was chosen by.
    pub seed: u64,
    /// The objects.
    pub verified: Verified,
    /// The points that the objects prove, of which one was chosen; none for raw keys, or if nothing
    /// can be restored.
    pub window: Option<(TimeStamp, TimeStamp)>,
    /// From the last of those points to now: what would be lost if the cluster were lost now.
    pub exposed: Option<Duration>,
    /// The rehearsal; none if the backup is damaged.
    pub rehearsal: Option<Rehearsal>,
}

/// Looks at the objects, chooses a point, restores and compares.
///
/// # Errors
/// [`DrillError`]. Damage that is found and tables that come out different are part of the result.
pub async fn drill(
    rt: &Rt,
    sources: &Sources,
    options: &DrillOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Drilled, DrillError> {
    let how = &options.rehearsal;
    let look = VerifyOptions {
        crypter: how.crypter.clone(),
        log_crypter: how.log_crypter.clone(),
        compatibility: how.compatibility,
        ..VerifyOptions::new(Depth::Objects)
    };
    let log = sources.log.as_ref().map(|log| &log.storage);
    let storage = &sources.backup.storage;
    let verified = verify::verify(rt, storage, log, &look, progress, cancel);
    let verified = Box::pin(verified).await?;
    let Some(looked) = &verified.backup else {
        return Err(DrillError::NoBackup);
    };
    let rest = &verified.restorable;
    if let Some(reason) = &rest.apart {
        return Err(DrillError::Apart {
            reason: reason.clone(),
        });
    }
    let backup_ts = rest.backup_ts.filter(|ts| !ts.is_zero());
    let window = match (rest.from_ts, rest.until_ts) {
        (Some(from_ts), Some(until_ts)) => Some((from_ts, until_ts)),
        _ => backup_ts.map(|ts| (ts, ts)),
    };
    let is_damaged = rest.is_backup_lost || !rest.damaged_tables.is_empty();
    let mut drilled = Drilled {
        seed: options.seed,
        window: window.filter(|_| !is_damaged),
        exposed: window.filter(|_| !is_damaged).map(|(_, until_ts)| {
            let now = rt.wall().0;
            Duration::from_millis(now.saturating_sub(until_ts.physical_ms()))
        }),
        rehearsal: None,
        verified: verified.clone(),
    };
    if is_damaged {
        return Ok(drilled);
    }
    let at = match (how.at, window) {
        (Some(at), Some((from_ts, until_ts))) if at < from_ts || at > until_ts => {
            return Err(DrillError::NotProven {
                at,
                from_ts,
                until_ts,
            });
        }
        (Some(at), _) => Some(at),
        (None, window) => window.map(|window| choose(window, options.seed)),
    };
    let chosen = RehearsalOptions { at, ..how.clone() };
    let rehearsal = rehearse(rt, sources, looked, &chosen, progress, cancel);
    drilled.rehearsal = Some(Box::pin(rehearsal).await?);
    Ok(drilled)
}

/// A point of the window, by the seed.
fn choose((from_ts, until_ts): (TimeStamp, TimeStamp), seed: u64) -> TimeStamp {
    let points = until_ts.0.saturating_sub(from_ts.0).saturating_add(1);
    TimeStamp(from_ts.0 + mixed(seed) % points)
}

/// SplitMix64: near seeds come far apart.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_in_the_window_and_come_out_again() {
        let window = (TimeStamp(1000), TimeStamp(1009));
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let at = choose(window, seed);
            assert!((window.0..=window.1).contains(&at));
            assert_eq!(at, choose(window, seed));
            seen.insert(at);
        }
        assert_eq!(seen.len(), 10);
        let one = (TimeStamp(7), TimeStamp(7));
        assert_eq!(choose(one, 3), TimeStamp(7));
        let all = (TimeStamp(0), TimeStamp::MAX);
        let _ = choose(all, 3);
    }
}
