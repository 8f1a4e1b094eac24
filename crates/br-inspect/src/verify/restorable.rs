//! What can be restored in spite of what was found.

use std::collections::BTreeSet;

use br_log::read::restorable_until;
use br_types::TimeStamp;

use super::Part;
use super::report::{Cost, Found, Report};

/// What can be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restorable {
    /// The backup's own timestamp, if its index can be read.
    pub backup_ts: Option<TimeStamp>,
    /// Of an incremental backup: the timestamp of the backup that it goes on top of.
    pub on_top_of_ts: Option<TimeStamp>,
    /// Tables of the backup that have lost rows; the others can be restored with `--filter`.
    pub damaged_tables: Vec<String>,
    /// Whether nothing of the backup can be restored: a restore needs all of its indices.
    pub is_backup_lost: bool,
    /// With the log, or of the log alone: the first point.
    pub from_ts: Option<TimeStamp>,
    /// The last point to which all tables can be restored.
    pub until_ts: Option<TimeStamp>,
    /// The last point that the log reaches.
    pub log_end_ts: Option<TimeStamp>,
    /// What keeps all tables from being restored up to the end.
    pub ended_by: Option<String>,
    /// Without these tables the others can be restored up to the end of the log; empty if there is
    /// no need for that, or no such way.
    pub without: Vec<String>,
    /// Why backup and log do not go together, if they do not.
    pub apart: Option<String>,
}

pub(super) fn of(report: &Report) -> Restorable {
    let mut rest = Restorable::default();
    let head = report.backup.as_ref().and_then(|it| it.head.as_ref());
    rest.backup_ts = head.map(|head| head.backup_ts);
    let incremental = head.filter(|head| head.is_incremental());
    rest.on_top_of_ts = incremental.map(|head| head.last_backup_ts);
    let of_backup = report.found.iter().filter(|it| it.part == Part::Backup);
    let mut damaged = BTreeSet::new();
    for found in of_backup {
        match &found.cost {
            Cost::Nothing => {}
            Cost::All => rest.is_backup_lost = true,
            Cost::Tables(ids) => damaged.extend(report.names.tables(ids)),
        }
    }
    rest.is_backup_lost |= report.is_index_broken;
    rest.damaged_tables = damaged.into_iter().collect();
    let Some(bounds) = report.log.as_ref().and_then(|log| log.bounds.as_ref()) else {
        return rest;
    };
    let from_ts = match head {
        Some(head) => {
            let full = (head.cluster_id, head.backup_ts);
            if let Err(error) = bounds.check(full, head.backup_ts) {
                rest.apart = Some(error.to_string());
                return rest;
            }
            head.backup_ts
        }
        None => bounds.min_ts,
    };
    let lost: Vec<&Found> = report
        .found
        .iter()
        .filter(|it| it.part == Part::Log && !matches!(it.cost, Cost::Nothing))
        .collect();
    let windows = lost.iter().map(|found| match found.window {
        Some(window) => (window.from_ts, window.to_ts),
        None => (TimeStamp::ZERO, TimeStamp::MAX),
    });
    let until_ts = restorable_until(&report.log_ranges, bounds.max_ts, from_ts, windows);
    rest.from_ts = Some(from_ts);
    rest.until_ts = Some(until_ts);
    rest.log_end_ts = Some(bounds.max_ts);
    if until_ts >= bounds.max_ts {
        return rest;
    }
    let needed: Vec<&&Found> = lost
        .iter()
        .filter(|found| found.window.is_none_or(|window| window.to_ts > until_ts))
        .collect();
    let first = needed.iter().min_by_key(|found| {
        let window = found.window;
        window.map(|window| window.from_ts)
    });
    rest.ended_by = first.map(|found| found.object.clone());
    let mut without = BTreeSet::new();
    for found in needed {
        match &found.cost {
            Cost::Tables(ids) => without.extend(report.names.tables(ids)),
            Cost::All => return rest,
            Cost::Nothing => {}
        }
    }
    rest.without = without.into_iter().collect();
    rest
}
