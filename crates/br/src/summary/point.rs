use std::time::Duration;

use br_log::restore::{PointPlan, PointSummary};
use br_rt::Rt;
use serde_json::Value;

use super::{Line, plan_json, print, restore_plan};
use crate::value::{go_duration, human_size};

/// A restore to a point in time that is complete.
pub(crate) fn point(
    rt: &Rt,
    title: &'static str,
    done: &PointSummary,
    took: Duration,
    as_json: bool,
) {
    if as_json {
        print(&json_of(title, done, took));
    } else {
        line(title, done, took).show(rt);
    }
}

fn line(title: &str, done: &PointSummary, took: Duration) -> Line {
    let plan = &done.plan;
    let bytes = done.load.bytes.saturating_add(plan.tables.files.kv_bytes);
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut line = Line::new(title, plan.tables.files.files + done.load.files);
    line.add("total-take", go_duration(took))
        .add("restore-from", plan.start_ts)
        .add("restore-to", plan.restored_ts)
        .add("tables", plan.tables.tables.len())
        .add("snapshot-kv-count", plan.tables.files.kvs)
        .add("snapshot-kv-size", human_size(plan.tables.files.kv_bytes))
        .add("log-files", done.load.files)
        .add("log-size", human_size(done.load.bytes))
        .add("total-kv-count", done.load.records)
        .add("ingested-kv-count", done.ingest.records)
        .add("ingested-files", done.ingest.files)
        .add("rebuilt-index-entries", done.rebuilt_entries)
        .add("indexes-left-out", plan.left_out.len())
        .add("total-size", human_size(bytes))
        .add(
            "average-speed",
            format!("{}/s", human_size((bytes as f64 / seconds) as u64)),
        );
    let full = &done.full;
    if full.resumed_groups + full.resumed_tables + done.resumed_parts > 0 {
        line.add("skipped-files-by-checkpoint", full.resumed_files)
            .add("skipped-log-parts-by-checkpoint", done.resumed_parts);
    }
    line
}

fn json_of(title: &str, done: &PointSummary, took: Duration) -> Value {
    let mut value = point_plan_json(&done.plan);
    if let Value::Object(fields) = &mut value {
        fields.insert("command".into(), title.into());
        fields.insert("log_records".into(), done.load.records.into());
        fields.insert("log_files_read".into(), done.load.files.into());
        fields.insert("log_bytes_read".into(), done.load.bytes.into());
        fields.insert("ingested_records".into(), done.ingest.records.into());
        fields.insert("ingested_kv_bytes".into(), done.ingest.kv_bytes.into());
        fields.insert("ingested_files".into(), done.ingest.files.into());
        fields.insert("rebuilt_index_entries".into(), done.rebuilt_entries.into());
        fields.insert("resumed_groups".into(), done.full.resumed_groups.into());
        fields.insert("resumed_parts".into(), done.resumed_parts.into());
        fields.insert("resumed_tables".into(), done.full.resumed_tables.into());
        fields.insert("seconds".into(), took.as_secs_f64().into());
    }
    value
}

/// What a restore to a point in time would do.
pub(crate) fn point_plan(plan: &PointPlan, as_json: bool) {
    if as_json {
        return print(&point_plan_json(plan));
    }
    print(&format_args!(
        "commits up to {} from the full backup, up to {} from the log",
        plan.start_ts, plan.restored_ts
    ));
    restore_plan(&plan.tables, false);
    for index in &plan.left_out {
        print(&format_args!("left out: {}", index.sql));
    }
    print(&format_args!(
        "{} log files and {} compacted files, {}",
        plan.log_files,
        plan.compacted_files,
        human_size(plan.log_bytes)
    ));
}

fn point_plan_json(plan: &PointPlan) -> Value {
    let mut value = plan_json(&plan.tables);
    if let Value::Object(fields) = &mut value {
        fields.insert("start_ts".into(), plan.start_ts.0.into());
        fields.insert("restored_ts".into(), plan.restored_ts.0.into());
        fields.insert("log_files".into(), plan.log_files.into());
        fields.insert("compacted_files".into(), plan.compacted_files.into());
        fields.insert("log_bytes".into(), plan.log_bytes.into());
        let sql: Vec<_> = plan
            .left_out
            .iter()
            .map(|index| index.sql.as_str())
            .collect();
        fields.insert("add_index_sql".into(), sql.into());
    }
    value
}
