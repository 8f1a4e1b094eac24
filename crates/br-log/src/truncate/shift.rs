//! Up to where a log that is cut off at a timestamp can really be deleted: values that were written
//! before it belong to transactions that commit after it.

use std::time::Duration;

use br_format::log::{
    metadata::{LogMeta, META_SIZE_BYTES_MAX},
    migration::Compaction,
    names::{META_FOLDER, MetaName, is_meta},
};
use br_storage::Storage;
use br_types::TimeStamp;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::migrate::MigrateError;

/// Metadata that is read at once.
pub(super) const READS_MAX: usize = 32;

/// No transaction lives longer: TiDB's garbage collection waits for a day at most. Only the SSTs of
/// compactions need it, which do not say when their transactions began.
const TRANSACTION_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// All metadata of a log, and what of it lies before a cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Events before this can be deleted.
    pub(crate) shift_ts: TimeStamp,
    /// Metadata that may have some.
    pub(super) affected: Vec<String>,
    /// Metadata without events, of flushes before the cut.
    pub(super) empty: Vec<String>,
}

/// Looks at all metadata for a cut at `until`.
pub(crate) async fn find_cut(
    storage: &Storage,
    until: TimeStamp,
    compactions: &[Compaction],
) -> Result<Cut, MigrateError> {
    let mut names = Vec::new();
    let mut objects = storage.list(&format!("{META_FOLDER}/"));
    while let Some(entry) = objects.try_next().await? {
        if is_meta(&entry.name) {
            names.push(entry.name);
        }
    }
    names.sort();
    let mut shift_ts = until;
    for compaction in compactions.iter().filter(|it| it.input_max_ts >= until) {
        shift_ts = shift_ts.min(oldest_value(compaction));
    }
    let doubtful = names.iter().filter(|name| may_reach_back(name, until));
    let shifts: Vec<Option<TimeStamp>> = stream::iter(doubtful)
        .map(|name| async move {
            let meta = read_meta(storage, name).await?;
            Ok::<_, MigrateError>(meta.and_then(|meta| meta.shift_ts(until, TimeStamp::MAX)))
        })
        .buffer_unordered(READS_MAX)
        .try_collect()
        .await?;
    for shift in shifts.into_iter().flatten() {
        shift_ts = shift_ts.min(shift);
    }
    let mut cut = Cut {
        shift_ts,
        ..Cut::default()
    };
    for name in names {
        let parsed = MetaName::parse(&name);
        let is_empty = parsed.as_ref().is_some_and(MetaName::is_empty);
        let stats = parsed.as_ref().and_then(MetaName::sound_stats);
        if is_empty {
            let flushed = parsed.and_then(|name| name.flush_ts());
            if flushed.is_some_and(|flushed| flushed < until) {
                cut.empty.push(name);
            }
        } else if stats.is_none_or(|stats| stats.min_ts < shift_ts) {
            cut.affected.push(name);
        }
    }
    Ok(cut)
}

/// Whether metadata may have commits at or after the cut of transactions that began before it. A
/// name says it, unless it is of an old form.
fn may_reach_back(name: &str, until: TimeStamp) -> bool {
    match MetaName::parse(name) {
        Some(parsed) if parsed.is_empty() => false,
        Some(parsed) => parsed
            .sound_stats()
            .is_none_or(|stats| stats.max_ts >= until && stats.min_begin_ts < until),
        None => true,
    }
}

/// The oldest value that a commit in the SSTs of a compaction may have left in the log.
fn oldest_value(compaction: &Compaction) -> TimeStamp {
    let life_ms = u64::try_from(TRANSACTION_LIFE_MAX.as_millis()).unwrap_or(u64::MAX);
    let from = compaction.from_ts.min(compaction.input_min_ts);
    TimeStamp::compose(from.physical_ms().saturating_sub(life_ms), 0)
}

/// Reads metadata; none if it is gone.
pub(super) async fn read_meta(
    storage: &Storage,
    name: &str,
) -> Result<Option<LogMeta>, MigrateError> {
    match storage.read_at_most(name, META_SIZE_BYTES_MAX).await {
        Ok(bytes) => Ok(Some(LogMeta::decode(name, &bytes)?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
