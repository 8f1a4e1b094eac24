//! What `br verify` and `br drill` found: text for people, or JSON.

use std::time::Duration;

use br_drill::{Compared, Drilled, Rehearsal, What};
use br_inspect::verify::{
    Contents, Depth, Finding, LostTables, Note, Part, Restorable, Sample, Verified, Window,
};
use br_types::{Code, Kind, TimeStamp};
use serde_json::{Value, json};

use super::{
    print,
    show::{content_name, ts_json, ts_text},
};
use crate::{
    cli::judge,
    edge::{CommandError, Outcome},
    value::{go_duration, human_size},
};

/// Objects of a note that are named in text; JSON has more.
const OBJECTS_SHOWN: usize = 5;

/// Prints what was found.
pub(crate) fn verified(verified: &Verified, as_json: bool) {
    if as_json {
        print(&json_of(verified));
    } else {
        text(verified);
    }
}

/// Prints what was found, and what came of the rehearsal.
pub(crate) fn rehearsed(
    verified: &Verified,
    outcome: Outcome<Option<Rehearsal>>,
    as_json: bool,
) -> Outcome {
    if as_json {
        let mut value = json_of(verified);
        let restore = match &outcome {
            Ok(Some(done)) => rehearsal_json(done),
            Ok(None) => Value::Null,
            Err(error) => json!({ "error": error.to_string() }),
        };
        if let Value::Object(fields) = &mut value {
            fields.insert("restore".into(), restore);
        }
        print(&value);
    } else {
        text(verified);
        match &outcome {
            Ok(Some(done)) => rehearsal_text(done),
            Ok(None) => print(&"Not restored: the backup is damaged."),
            Err(_) => {}
        }
    }
    // What is damaged explains why a restore failed.
    judge(verified)?;
    match outcome? {
        Some(done) => judge_rehearsal(&done),
        None => Ok(()),
    }
}

/// Prints a drill.
pub(crate) fn drilled(drilled: &Drilled, as_json: bool) -> Outcome {
    if as_json {
        print(&json!({
            "seed": drilled.seed,
            "restorable_from": drilled.window.map(|(from_ts, _)| ts_json(from_ts)),
            "restorable_until": drilled.window.map(|(_, until_ts)| ts_json(until_ts)),
            "rpo_seconds": drilled.exposed.map(|exposed| exposed.as_secs_f64()),
            "objects": json_of(&drilled.verified),
            "restore": drilled.rehearsal.as_ref().map(rehearsal_json),
        }));
    } else {
        text(&drilled.verified);
        if let Some((from_ts, until_ts)) = drilled.window.filter(|(from, until)| from != until) {
            print(&format_args!(
                "Drill with seed {}, of the points from {from_ts} to {until_ts}",
                drilled.seed
            ));
        }
        match &drilled.rehearsal {
            Some(done) => rehearsal_text(done),
            None => print(&"Not restored: the backup is damaged."),
        }
        if let Some(exposed) = drilled.exposed {
            print(&format_args!(
                "  RPO      {}: what was written after the last point that can be restored is \
                 that old",
                whole_seconds(exposed)
            ));
        }
    }
    judge(&drilled.verified)?;
    match &drilled.rehearsal {
        Some(done) => judge_rehearsal(done),
        None => Ok(()),
    }
}

fn judge_rehearsal(done: &Rehearsal) -> Outcome {
    match done.differences().count() {
        0 => Ok(()),
        count => Err(CommandError {
            kind: Kind::Data,
            code: Code::RESTORE_CHECKSUM_MISMATCH,
            cause: match count {
                1 => "a table came out of the restore with other contents".to_owned(),
                n => format!("{n} tables came out of the restore with other contents"),
            },
            next_step: Some("see above which; do not rely on this backup".into()),
        }),
    }
}

fn whole_seconds(duration: Duration) -> String {
    go_duration(Duration::from_secs(duration.as_secs()))
}

fn text(verified: &Verified) {
    if let Some(backup) = &verified.backup {
        match &backup.head {
            Some(head) => {
                let at = match head.backup_ts.is_zero() {
                    true => String::new(),
                    false => format!(" as of {}", ts_text(head.backup_ts)),
                };
                print(&format_args!(
                    "backup: {} of cluster {}{at}",
                    content_name(head),
                    head.cluster_id
                ));
            }
            None => print(&"backup: its index cannot be read"),
        }
        print(&format_args!(
            "  named    {} objects; {} tables, {} pairs in {} data files of {}",
            backup.objects,
            backup.tables,
            backup.sums.total_kvs,
            backup.files,
            human_size(backup.file_bytes)
        ));
        contents_text(verified, "data files", &backup.contents);
        part_text(verified, Part::Backup);
    }
    if let Some(log) = &verified.log {
        match &log.bounds {
            Some(bounds) => print(&format_args!(
                "log: of cluster {} from {} to {}",
                bounds.marker.cluster_id,
                ts_text(bounds.min_ts),
                ts_text(bounds.max_ts)
            )),
            None => print(&"log: where it begins and ends cannot be read"),
        }
        print(&format_args!(
            "  named    {} objects; {} records in {} of {} flushes",
            log.objects,
            log.records,
            human_size(log.object_bytes),
            log.metas
        ));
        contents_text(verified, "objects with events", &log.contents);
        part_text(verified, Part::Log);
    }
    restorable_text(&verified.restorable, verified.backup.is_some());
}

fn contents_text(verified: &Verified, what: &str, contents: &Contents) {
    if verified.depth == Depth::Objects {
        return print(&"  contents not looked at, only that all are there with their sizes");
    }
    print(&format_args!(
        "  contents {} {what} of {} read and checked",
        contents.read,
        human_size(contents.read_bytes)
    ));
    if !verified.sample.is_all() {
        print(&format_args!(
            "           {} {what} of {} not looked at: a sample of {} with seed {}",
            contents.skipped,
            human_size(contents.skipped_bytes),
            percent(verified.sample),
            verified.sample.seed()
        ));
    }
}

fn percent(sample: Sample) -> String {
    format!("{}%", sample.percent())
}

fn part_text(verified: &Verified, part: Part) {
    let findings = || verified.findings.iter().filter(|item| item.part == part);
    for finding in findings() {
        finding_text(finding);
    }
    for note in verified.notes.iter().filter(|note| note.part == part) {
        note_text(note);
    }
    match findings().count() {
        0 => print(&"  whole    nothing is missing or damaged"),
        1 => print(&"  DAMAGED  1 object"),
        count => print(&format_args!("  DAMAGED  {count} objects")),
    }
}

fn finding_text(finding: &Finding) {
    print(&format_args!("  DAMAGED  {}", finding.object));
    print(&format_args!("           {}", finding.problem));
    if let Some(named_by) = &finding.named_by {
        print(&format_args!("           named by {named_by}"));
    }
    let tables = match &finding.tables {
        LostTables::None => "no rows".to_owned(),
        LostTables::All => "any table".to_owned(),
        LostTables::Named(tables) => tables.join(", "),
    };
    let window = finding.window.map_or(String::new(), |window| {
        format!(
            ", what was committed from {} to {}",
            ts_text(window.from_ts),
            ts_text(window.to_ts)
        )
    });
    print(&format_args!("           costs {tables}{window}"));
}

fn note_text(note: &Note) {
    print(&format_args!("  note     {}", note.text));
    for object in note.objects.iter().take(OBJECTS_SHOWN) {
        print(&format_args!("           {object}"));
    }
    if note.objects.len() > OBJECTS_SHOWN {
        let more = note.objects.len() - OBJECTS_SHOWN;
        print(&format_args!("           and {more} more; --json has them"));
    }
}

fn restorable_text(rest: &Restorable, has_backup: bool) {
    if let Some(reason) = &rest.apart {
        print(&format_args!(
            "Backup and log do not go together: {reason}."
        ));
    }
    if rest.is_backup_lost {
        print(&"Can be restored: nothing, as long as an index of the backup is damaged.");
        return;
    }
    if !rest.damaged_tables.is_empty() {
        print(&format_args!(
            "Can still be restored: all tables but {}, with --filter.",
            rest.damaged_tables.join(", ")
        ));
    }
    let (Some(from_ts), Some(until_ts), Some(end_ts)) =
        (rest.from_ts, rest.until_ts, rest.log_end_ts)
    else {
        match rest.on_top_of_ts {
            _ if !rest.damaged_tables.is_empty() || !has_backup => {}
            None => print(&"Can be restored: all of it."),
            Some(ts) => print(&format_args!(
                "Can be restored: all of it, on top of the backup of {}.",
                ts_text(ts)
            )),
        }
        return;
    };
    let whom = match has_backup {
        true => "",
        false => " on top of a backup of that time",
    };
    let (from, until) = (ts_text(from_ts), ts_text(until_ts));
    print(&format_args!(
        "Can be restored{whom}: every point from {from} to {until}."
    ));
    if until_ts >= end_ts {
        return;
    }
    if let Some(object) = &rest.ended_by {
        print(&format_args!(
            "  The log goes on to {end_ts}, but for {object}."
        ));
    }
    if !rest.without.is_empty() {
        print(&format_args!(
            "  Without {} every point up to {}, with --filter.",
            rest.without.join(", "),
            ts_text(end_ts)
        ));
    }
}

fn rehearsal_text(done: &Rehearsal) {
    let at = done
        .at
        .map_or(String::new(), |at| format!(" as of {}", ts_text(at)));
    print(&format_args!("restored into a cluster of its own{at}"));
    let bytes = done.kv_bytes.saturating_add(done.log_bytes);
    print(&format_args!(
        "  restore  {}, {} ({} of the backup, {} records of {} of the log), {}/s",
        go_duration(done.restore_took),
        human_size(bytes),
        human_size(done.kv_bytes),
        done.log_records,
        human_size(done.log_bytes),
        human_size(done.bytes_per_second() as u64)
    ));
    for phase in &done.phases {
        print(&format_args!(
            "           {:<24} {}",
            phase.title,
            go_duration(phase.took)
        ));
    }
    let same = done.compared.len() - done.differences().count();
    let count = |what| done.compared.iter().filter(|one| one.what == what).count();
    let what = match (count(What::Rows), count(What::IndexKeys)) {
        (0, _) => format!("rows and index entries of {} tables", done.compared.len()),
        (tables, indexes) => format!("rows of {tables} tables and keys of {indexes} indexes"),
    };
    print(&format_args!(
        "  compared {what} in {}: {same} are the same",
        go_duration(done.compare_took)
    ));
    for one in done.differences() {
        print(&format_args!(
            "  DIFFERS  {}: {} pairs of {} bytes with CRC-64 {:016x}; it should have {} of {} with \
             {:016x}",
            one.name,
            one.found.total_kvs,
            one.found.total_bytes,
            one.found.crc64_xor,
            one.expected.total_kvs,
            one.expected.total_bytes,
            one.expected.crc64_xor
        ));
    }
    if !done.not_restored.is_empty() {
        print(&format_args!(
            "  sample   {} tables were not restored",
            done.not_restored.len()
        ));
    }
    if done.system_tables > 0 {
        print(&format_args!(
            "  note     {} tables of TiDB's own databases were left out, as a restore does",
            done.system_tables
        ));
    }
    for index in &done.left_out_indexes {
        print(&format_args!(
            "  note     index {index} is not in the log and would have to be added again"
        ));
    }
}

fn json_of(verified: &Verified) -> Value {
    let backup = verified.backup.as_ref().map(|backup| {
        json!({
            "kind": backup.head.as_ref().map(content_name),
            "cluster_id": backup.head.as_ref().map(|head| head.cluster_id.0),
            "backup_ts": backup.head.as_ref().map(|head| ts_json(head.backup_ts)),
            "objects": backup.objects,
            "tables": backup.tables,
            "data_files": backup.files,
            "data_file_bytes": backup.file_bytes,
            "pairs": backup.sums.total_kvs,
            "pair_bytes": backup.sums.total_bytes,
            "contents": contents_json(&backup.contents),
        })
    });
    let log = verified.log.as_ref().map(|log| {
        json!({
            "cluster_id": log.bounds.as_ref().map(|bounds| bounds.marker.cluster_id.0),
            "from": log.bounds.as_ref().map(|bounds| ts_json(bounds.min_ts)),
            "until": log.bounds.as_ref().map(|bounds| ts_json(bounds.max_ts)),
            "flushes": log.metas,
            "objects": log.objects,
            "object_bytes": log.object_bytes,
            "records": log.records,
            "record_bytes": log.record_bytes,
            "contents": contents_json(&log.contents),
        })
    });
    json!({
        "depth": match verified.depth {
            Depth::Objects => "objects",
            Depth::Checksums => "checksums",
        },
        "sample": {
            "percent": verified.sample.percent(),
            "seed": verified.sample.seed(),
        },
        "backup": backup,
        "log": log,
        "damage": verified.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "notes": verified.notes.iter().map(note_json).collect::<Vec<_>>(),
        "restorable": restorable_json(&verified.restorable),
    })
}

fn contents_json(contents: &Contents) -> Value {
    json!({
        "read": contents.read,
        "read_bytes": contents.read_bytes,
        "not_looked_at": contents.skipped,
        "not_looked_at_bytes": contents.skipped_bytes,
    })
}

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Backup => "backup",
        Part::Log => "log",
    }
}

fn finding_json(finding: &Finding) -> Value {
    let window =
        |window: Window| json!({ "from": ts_json(window.from_ts), "to": ts_json(window.to_ts) });
    json!({
        "part": part_name(finding.part),
        "object": finding.object,
        "named_by": finding.named_by,
        "problem": finding.problem,
        "all_tables": finding.tables == LostTables::All,
        "tables": match &finding.tables {
            LostTables::Named(tables) => tables.as_slice(),
            LostTables::None | LostTables::All => &[],
        },
        "window": finding.window.map(window),
    })
}

fn note_json(note: &Note) -> Value {
    json!({ "part": part_name(note.part), "text": note.text, "objects": note.objects })
}

fn restorable_json(rest: &Restorable) -> Value {
    let ts = |ts: Option<TimeStamp>| ts.map(ts_json);
    json!({
        "backup_ts": ts(rest.backup_ts),
        "on_top_of": ts(rest.on_top_of_ts),
        "backup_is_lost": rest.is_backup_lost,
        "damaged_tables": rest.damaged_tables,
        "from": ts(rest.from_ts),
        "until": ts(rest.until_ts),
        "log_end": ts(rest.log_end_ts),
        "ended_by": rest.ended_by,
        "up_to_log_end_without": rest.without,
        "apart": rest.apart,
    })
}

fn rehearsal_json(done: &Rehearsal) -> Value {
    let phases = done
        .phases
        .iter()
        .map(|phase| json!({ "title": phase.title, "seconds": phase.took.as_secs_f64() }));
    json!({
        "at": done.at.map(ts_json),
        "start_seconds": done.start_took.as_secs_f64(),
        "recovery_seconds": done.restore_took.as_secs_f64(),
        "phases": phases.collect::<Vec<_>>(),
        "compare_seconds": done.compare_took.as_secs_f64(),
        "stored_bytes": done.stored_bytes,
        "pair_bytes": done.kv_bytes,
        "log_records": done.log_records,
        "log_bytes": done.log_bytes,
        "bytes_per_second": done.bytes_per_second(),
        "tables_compared": done.compared.len(),
        "differences": done.differences().map(compared_json).collect::<Vec<_>>(),
        "tables_not_restored": done.not_restored,
        "system_tables_left_out": done.system_tables,
        "indexes_left_out": done.left_out_indexes,
    })
}

fn compared_json(one: &Compared) -> Value {
    let sums = |sums: &br_format::kv_stats::KvStats| {
        json!({
            "pairs": sums.total_kvs,
            "bytes": sums.total_bytes,
            "crc64xor": format!("{:016x}", sums.crc64_xor),
        })
    };
    json!({ "table": one.name, "expected": sums(&one.expected), "found": sums(&one.found) })
}
