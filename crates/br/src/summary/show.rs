//! What lies in a storage: text for people, or JSON.

use br_format::backupmeta::{BackupHead, Content};
use br_inspect::show::{Place, RestoreWindow, Shown, ShownBackup, What};
use br_log::read::LogSurvey;
use br_types::TimeStamp;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::print;
use crate::value::human_size;

/// Objects that are named one by one in text; JSON has all.
const MISSING_SHOWN: usize = 16;

/// Prints it.
pub(crate) fn show(shown: &Shown, with_tables: bool, as_json: bool) {
    if as_json {
        return print(&json!({
            "places": shown.places.iter().map(place_json).collect::<Vec<_>>(),
            "restore_windows": shown.windows.iter().map(window_json).collect::<Vec<_>>(),
            "problems": shown.problems(),
        }));
    }
    for place in &shown.places {
        match &place.what {
            What::Backup(backup) => backup_text(folder(&place.folder), backup, with_tables),
            What::Log(log) => log_text(folder(&place.folder), log),
            What::Unreadable { problem, next_step } => {
                print(&format_args!("{}: cannot be read", folder(&place.folder)));
                print(&format_args!("  {problem}"));
                if let Some(step) = next_step {
                    print(&format_args!("  {step}"));
                }
            }
        }
    }
    if shown.windows.is_empty() {
        return print(&"Nothing here can be restored.");
    }
    print(&"Can be restored:");
    for window in &shown.windows {
        window_text(shown, window);
    }
}

fn folder(name: &str) -> &str {
    match name {
        "" => ".",
        name => name,
    }
}

/// The number, and the local time.
pub(super) fn ts_text(ts: TimeStamp) -> String {
    format!("{ts} ({})", time(ts, TimeZone::system()))
}

fn time(ts: TimeStamp, zone: TimeZone) -> String {
    let millis = i64::try_from(ts.physical_ms()).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    time.to_zoned(zone)
        .strftime("%Y-%m-%d %H:%M:%S%.3f %:z")
        .to_string()
}

pub(super) fn ts_json(ts: TimeStamp) -> Value {
    json!({ "tso": ts.0, "time": time(ts, TimeZone::UTC) })
}

pub(super) fn content_name(head: &BackupHead) -> &'static str {
    match head.content {
        Content::Tables if head.is_incremental() => "incremental backup",
        Content::Tables => "full backup",
        Content::Txn => "backup of transactional keys",
        Content::Raw(_) => "backup of raw keys",
    }
}

fn table_count(backup: &ShownBackup) -> usize {
    let tables = backup.tables.iter();
    tables.filter(|table| table.table.is_some()).count()
}

fn backup_text(folder: &str, backup: &ShownBackup, with_tables: bool) {
    let head = &backup.head;
    print(&format_args!(
        "{folder}: {} of cluster {} (version {})",
        content_name(&backup.head),
        head.cluster_id,
        head.cluster_version
    ));
    if head.is_incremental() {
        print(&format_args!("  from    {}", ts_text(head.last_backup_ts)));
    }
    if !head.backup_ts.is_zero() {
        print(&format_args!("  as of   {}", ts_text(head.backup_ts)));
    }
    print(&format_args!(
        "  holds   {} tables, {} pairs, {} in {} files of {}",
        table_count(backup),
        backup.kvs,
        human_size(backup.kv_bytes),
        backup.files,
        human_size(backup.stored_bytes)
    ));
    if with_tables {
        for table in &backup.tables {
            if let Some(name) = &table.table {
                let size = human_size(table.kv_bytes);
                let db = &table.db;
                print(&format_args!(
                    "    {db}.{name}: {} pairs, {size}",
                    table.kvs
                ));
            }
        }
    }
    let missing = backup.missing.iter();
    missing_text(
        missing.map(|file| (file.name.as_str(), file.problem.as_str())),
        backup.checked,
    );
}

fn log_text(folder: &str, log: &LogSurvey) {
    let bounds = &log.bounds;
    print(&format_args!(
        "{folder}: log backup of cluster {} (version {})",
        bounds.marker.cluster_id, bounds.marker.cluster_version
    ));
    print(&format_args!("  from    {}", ts_text(bounds.min_ts)));
    if !bounds.truncated_to.is_zero() {
        print(&format_args!(
            "          where it was cut off; it began at {}",
            bounds.marker.start_ts
        ));
    }
    print(&format_args!("  until   {}", ts_text(bounds.max_ts)));
    print(&format_args!(
        "  holds   {} records, {} in {} files in {} objects of {}, of {} flushes of {} stores",
        log.records,
        human_size(log.record_bytes),
        log.files,
        log.objects,
        human_size(log.object_bytes),
        log.metas,
        log.stores.len()
    ));
    for compaction in &log.compactions {
        print(&format_args!(
            "  SSTs    {} for {} to {}, compacted as {:?}",
            human_size(compaction.ssts_size_bytes),
            compaction.input_min_ts,
            compaction.input_max_ts,
            compaction.name
        ));
    }
    if log.leftover.0 > 0 {
        print(&format_args!(
            "  beside  {} objects of {} that nothing refers to",
            log.leftover.0,
            human_size(log.leftover.1)
        ));
    }
    for quiet in &log.quiet {
        print(&format_args!(
            "  quiet   no flush from {} to {}: paused, or its metadata was lost",
            ts_text(quiet.from_ts),
            ts_text(quiet.to_ts)
        ));
    }
    let missing = log.missing.iter();
    missing_text(
        missing.map(|object| (object.name.as_str(), object.problem.as_str())),
        log.checked,
    );
}

fn missing_text<'a>(missing: impl Iterator<Item = (&'a str, &'a str)>, checked: bool) {
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        let what = match checked {
            true => "all objects are there, and their contents are as they were written",
            false => "all objects are there with their sizes",
        };
        return print(&format_args!("  whole   {what}"));
    }
    for (name, problem) in missing.iter().take(MISSING_SHOWN) {
        print(&format_args!("  WRONG   {name}: {problem}"));
    }
    if missing.len() > MISSING_SHOWN {
        let more = missing.len() - MISSING_SHOWN;
        print(&format_args!("  WRONG   {more} more; --json has all"));
    }
}

fn window_text(shown: &Shown, window: &RestoreWindow) {
    // How much a backup holds tells whether it is one of the whole cluster.
    let tables = shown.places.iter().find_map(|place| match &place.what {
        What::Backup(backup) if place.folder == window.full => Some(table_count(backup)),
        _ => None,
    });
    let full = folder(&window.full);
    let mut chain = vec![format!("{full} ({} tables)", tables.unwrap_or_default())];
    chain.extend(window.incrementals.iter().cloned());
    chain.extend(window.log.as_deref().map(|log| folder(log).to_owned()));
    let chain = chain.join(" + ");
    if window.log.is_none() {
        return print(&format_args!("  {}  from {chain}", ts_text(window.from_ts)));
    }
    print(&format_args!(
        "  {} to {}  from {chain}",
        ts_text(window.from_ts),
        ts_text(window.until_ts)
    ));
    if let Some(object) = &window.ended_by {
        print(&format_args!("    not further, because of {object}"));
    }
}

fn place_json(place: &Place) -> Value {
    let mut value = match &place.what {
        What::Backup(backup) => backup_json(backup),
        What::Log(log) => log_json(log),
        What::Unreadable { problem, next_step } => {
            json!({ "kind": "unreadable", "problem": problem, "next_step": next_step })
        }
    };
    value["folder"] = json!(place.folder);
    value
}

fn backup_json(backup: &ShownBackup) -> Value {
    let head = &backup.head;
    let tables = backup.tables.iter().map(|table| {
        json!({
            "database": table.db,
            "table": table.table,
            "kvs": table.kvs,
            "kv_bytes": table.kv_bytes,
        })
    });
    let missing = backup.missing.iter();
    let missing = missing.map(|file| json!({ "name": file.name, "problem": file.problem }));
    json!({
        "kind": content_name(&backup.head),
        "cluster_id": head.cluster_id.0,
        "cluster_version": head.cluster_version,
        "last_backup_ts": head.is_incremental().then(|| ts_json(head.last_backup_ts)),
        "backup_ts": ts_json(head.backup_ts),
        "files": backup.files,
        "stored_bytes": backup.stored_bytes,
        "kvs": backup.kvs,
        "kv_bytes": backup.kv_bytes,
        "tables": tables.collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
        "contents_checked": backup.checked,
    })
}

fn log_json(log: &LogSurvey) -> Value {
    let bounds = &log.bounds;
    let stores = log.stores.iter().map(|(store, flushes)| {
        json!({
            "store_id": store.0,
            "flushes": flushes.flushes,
            "last_flush_ts": ts_json(flushes.last_flush_ts),
        })
    });
    let tables = log.tables.iter().map(|(table, events)| {
        json!({ "table_id": table.0, "records": events.records, "bytes": events.bytes })
    });
    let compactions = log.compactions.iter().map(|compaction| {
        json!({
            "name": compaction.name,
            "from_ts": ts_json(compaction.from_ts),
            "until_ts": ts_json(compaction.until_ts),
            "input_min_ts": ts_json(compaction.input_min_ts),
            "input_max_ts": ts_json(compaction.input_max_ts),
            "sst_bytes": compaction.ssts_size_bytes,
        })
    });
    let missing = log.missing.iter().map(|object| {
        json!({
            "name": object.name,
            "named_by": object.named_by,
            "problem": object.problem,
            "min_ts": ts_json(object.min_ts),
            "max_ts": ts_json(object.max_ts),
        })
    });
    let quiet = log.quiet.iter();
    let quiet = quiet
        .map(|quiet| json!({ "from_ts": ts_json(quiet.from_ts), "to_ts": ts_json(quiet.to_ts) }));
    let checkpoints = bounds.checkpoints.iter();
    let checkpoints = checkpoints
        .map(|checkpoint| json!({ "name": checkpoint.name, "ts": ts_json(checkpoint.ts) }));
    json!({
        "kind": "log backup",
        "cluster_id": bounds.marker.cluster_id.0,
        "cluster_version": bounds.marker.cluster_version,
        "start_ts": ts_json(bounds.marker.start_ts),
        "truncated_to": (!bounds.truncated_to.is_zero()).then(|| ts_json(bounds.truncated_to)),
        "log_min_ts": ts_json(bounds.min_ts),
        "log_max_ts": ts_json(bounds.max_ts),
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "metas": log.metas,
        "empty_metas": log.empty_metas,
        "objects": log.objects,
        "object_bytes": log.object_bytes,
        "files": log.files,
        "records": log.records,
        "record_bytes": log.record_bytes,
        "stores": stores.collect::<Vec<_>>(),
        "tables": tables.collect::<Vec<_>>(),
        "compactions": compactions.collect::<Vec<_>>(),
        "leftover_objects": log.leftover.0,
        "leftover_bytes": log.leftover.1,
        "quiet": quiet.collect::<Vec<_>>(),
        "missing": missing.collect::<Vec<_>>(),
        "contents_checked": log.checked,
    })
}

fn window_json(window: &RestoreWindow) -> Value {
    json!({
        "full": window.full,
        "incrementals": window.incrementals,
        "log": window.log,
        "from_ts": ts_json(window.from_ts),
        "until_ts": ts_json(window.until_ts),
        "ended_by": window.ended_by,
    })
}
