//! Which point in time a backup shows, and whether it still can.

use std::time::Duration;

use br_types::{Classify, Code, Kind, TimeStamp};

use super::BackupTime;

/// A point in time that cannot be backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It has not come yet.
    #[error("the backup timestamp {wanted} lies in the future: it is {now} now")]
    Future {
        /// What was asked for.
        wanted: TimeStamp,
        /// The timestamp of PD.
        now: TimeStamp,
    },
    /// Versions of that time may have been collected.
    #[error(
        "data at timestamp {wanted} may be collected already: the GC safe point is {safe_point}"
    )]
    BehindSafePoint {
        /// What was asked for.
        wanted: TimeStamp,
        /// The safe point of PD.
        safe_point: TimeStamp,
    },
    /// An incremental backup that ends where it starts or before.
    #[error("the last backup, at {last}, is not before this one, at {backup_ts}")]
    LastNotBefore {
        /// `--lastbackupts`.
        last: TimeStamp,
        /// The backup timestamp.
        backup_ts: TimeStamp,
    },
    /// More time back than there is.
    #[error("{} s ago is before all time", ago.as_secs())]
    TooLongAgo {
        /// `--timeago`.
        ago: Duration,
    },
}

impl Classify for TimeError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn code(&self) -> Code {
        match self {
            TimeError::BehindSafePoint { .. } => Code::BACKUP_GC_SAFEPOINT_EXCEEDED,
            _ => Code::INVALID_ARGUMENT,
        }
    }

    fn next_step(&self) -> Option<String> {
        let step = match self {
            TimeError::Future { .. } => "Choose a timestamp that has passed, or leave it away",
            TimeError::BehindSafePoint { .. } => {
                "Choose a later timestamp, or raise tidb_gc_life_time for the next time"
            }
            TimeError::LastNotBefore { .. } => {
                "Give as --lastbackupts the BackupTS of the backup that this one goes on top of"
            }
            TimeError::TooLongAgo { .. } => "Give a shorter --timeago",
        };
        Some(step.to_owned())
    }
}

/// The timestamp of the backup, given the newest one of PD.
///
/// # Errors
/// [`TimeError::Future`], [`TimeError::TooLongAgo`].
pub fn choose(at: BackupTime, now: TimeStamp) -> Result<TimeStamp, TimeError> {
    match at {
        BackupTime::Now => Ok(now),
        BackupTime::At(wanted) if wanted > now => Err(TimeError::Future { wanted, now }),
        BackupTime::At(wanted) => Ok(wanted),
        BackupTime::Ago(ago) => {
            let too_long = TimeError::TooLongAgo { ago };
            let ago_ms = u64::try_from(ago.as_millis()).map_err(|_| too_long)?;
            let physical_ms = now.physical_ms().checked_sub(ago_ms).ok_or(too_long)?;
            Ok(TimeStamp::compose(physical_ms, now.logical()))
        }
    }
}

/// Checks that all versions at `ts` are still there.
///
/// # Errors
/// [`TimeError::BehindSafePoint`].
pub fn check_readable(ts: TimeStamp, safe_point: TimeStamp) -> Result<(), TimeError> {
    if ts <= safe_point {
        return Err(TimeError::BehindSafePoint {
            wanted: ts,
            safe_point,
        });
    }
    Ok(())
}

/// Checks the start of an incremental backup.
///
/// # Errors
/// [`TimeError::LastNotBefore`], [`TimeError::BehindSafePoint`].
pub fn check_last(
    last: TimeStamp,
    backup_ts: TimeStamp,
    safe_point: TimeStamp,
) -> Result<(), TimeError> {
    if last >= backup_ts {
        return Err(TimeError::LastNotBefore { last, backup_ts });
    }
    check_readable(last, safe_point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_chosen_and_the_future_is_not() {
        let now = TimeStamp::compose(10_000, 7);
        assert_eq!(choose(BackupTime::Now, now), Ok(now));
        assert_eq!(choose(BackupTime::At(now.prev()), now), Ok(now.prev()));
        let wanted = now.next();
        assert_eq!(
            choose(BackupTime::At(wanted), now),
            Err(TimeError::Future { wanted, now })
        );
        let ago = Duration::from_secs(9);
        assert_eq!(
            choose(BackupTime::Ago(ago), now),
            Ok(TimeStamp::compose(1_000, 7))
        );
        let ago = Duration::from_secs(11);
        assert_eq!(
            choose(BackupTime::Ago(ago), now),
            Err(TimeError::TooLongAgo { ago })
        );
    }

    #[test]
    fn what_may_be_collected_is_refused() {
        let ts = TimeStamp(100);
        assert!(check_readable(ts, TimeStamp(99)).is_ok());
        let error = check_readable(ts, ts).unwrap_err();
        assert_eq!(error.code(), Code::BACKUP_GC_SAFEPOINT_EXCEEDED);
        assert!(check_last(TimeStamp(50), ts, TimeStamp(49)).is_ok());
        assert!(check_last(TimeStamp(50), ts, TimeStamp(50)).is_err());
        assert!(matches!(
            check_last(ts, ts, TimeStamp(1)),
            Err(TimeError::LastNotBefore { .. })
        ));
    }
}
