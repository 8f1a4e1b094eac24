//! Which points can be restored.

use std::collections::BTreeSet;

use br_format::backupmeta::Content;
use br_log::read::LogSurvey;
use br_types::{TableId, TimeStamp};

use super::{Place, RestoreWindow, ShownBackup, What};

/// The windows of all complete backups, each with every log that goes on from it.
pub(super) fn windows(places: &[Place]) -> Vec<RestoreWindow> {
    let backups: Vec<(&str, &ShownBackup)> = places.iter().filter_map(complete).collect();
    let mut windows = Vec::new();
    for (folder, backup) in &backups {
        if backup.head.is_incremental() {
            continue;
        }
        let mut chain = RestoreWindow {
            full: (*folder).to_owned(),
            incrementals: Vec::new(),
            log: None,
            from_ts: backup.head.backup_ts,
            until_ts: backup.head.backup_ts,
            ended_by: None,
        };
        let mut last = *backup;
        loop {
            with_logs(places, last, &chain, &mut windows);
            // A chain goes one way: of two backups on top of one, the first is followed.
            let next = backups.iter().find(|(_, next)| {
                next.head.is_incremental()
                    && next.head.last_backup_ts == last.head.backup_ts
                    && next.head.cluster_id == last.head.cluster_id
                    && next.head.backup_ts > last.head.backup_ts
                    && has_base_of(backup, next)
            });
            let Some((folder, next)) = next else { break };
            chain.incrementals.push((*folder).to_owned());
            chain.from_ts = next.head.backup_ts;
            chain.until_ts = next.head.backup_ts;
            last = next;
        }
    }
    windows.sort_by(|a, b| (a.from_ts, &a.full, &a.log).cmp(&(b.from_ts, &b.full, &b.log)));
    windows
}

/// Whether a backup has all tables that an incremental one goes on from; it may be one of a single
/// database. Tables that were made after it have greater ids than all that it has.
fn has_base_of(backup: &ShownBackup, incremental: &ShownBackup) -> bool {
    let ids = |backup: &ShownBackup| -> BTreeSet<TableId> {
        let tables = backup.tables.iter();
        tables.flat_map(|table| table.user_ids.clone()).collect()
    };
    let base = ids(backup);
    let Some(greatest) = base.last() else {
        return true;
    };
    ids(incremental)
        .iter()
        .all(|id| id > greatest || base.contains(id))
}

/// A backup of tables of which nothing is missing.
fn complete(place: &Place) -> Option<(&str, &ShownBackup)> {
    match &place.what {
        What::Backup(backup)
            if backup.missing.is_empty() && backup.head.content == Content::Tables =>
        {
            Some((&place.folder, backup))
        }
        _ => None,
    }
}

/// The window of a chain with each log that goes on from it; alone, if there is none.
fn with_logs(
    places: &[Place],
    last: &ShownBackup,
    chain: &RestoreWindow,
    windows: &mut Vec<RestoreWindow>,
) {
    let before = windows.len();
    for place in places {
        let What::Log(log) = &place.what else {
            continue;
        };
        let full = (last.head.cluster_id, last.head.backup_ts);
        if log.bounds.check(full, last.head.backup_ts).is_err() {
            continue;
        }
        let until_ts = log.restorable_until(last.head.backup_ts);
        windows.push(RestoreWindow {
            log: Some(place.folder.clone()),
            until_ts,
            ended_by: ended_by(log, until_ts),
            ..chain.clone()
        });
    }
    if windows.len() == before {
        windows.push(chain.clone());
    }
}

/// The object that ends a window before the log ends.
fn ended_by(log: &LogSurvey, until_ts: TimeStamp) -> Option<String> {
    if until_ts >= log.bounds.max_ts {
        return None;
    }
    let missing = log.missing.iter();
    let first = missing.filter(|object| object.max_ts > until_ts);
    first
        .min_by_key(|object| object.min_ts)
        .map(|object| object.name.clone())
}
