//! What a command came to, on stdout: one line in the official form, or JSON.

mod compact;
mod log_backup;
mod operator;
mod point;
mod show;
mod traffic;
pub(crate) mod verify;

use std::{fmt, time::Duration};

use br_embed::Cluster;
use br_inspect::export::ExportReport;
use br_rt::Rt;
use br_snapshot::{
    backup::{AbortedBackup, BackupSummary},
    restore::{AbortedRestore, RestorePlan, RestoreSummary},
};
use br_types::Classify;
use serde_json::{Value, json};

use crate::{
    log::{READY_LINE, Stamp, bracketed},
    value::{go_duration, human_size},
};

pub(crate) use compact::log_compacted;
pub(crate) use log_backup::{
    log_changed, log_metadata, log_started, log_status, log_truncate_plan, log_truncated,
};
pub(crate) use operator::{flushes, keys_in_tasks, merge_plan, migrations, renamed_keys, rotated};
pub(crate) use point::{point, point_plan};
pub(crate) use show::show;

/// Prints a result.
#[expect(clippy::print_stdout, reason = "the result of the command")]
pub(crate) fn print(result: &impl fmt::Display) {
    println!("{result}");
}

/// How the title of the last line of a command ends.
const SUCCESS: &str = "success summary";

/// One line of a summary in the making.
struct Line {
    title: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn titled(title: &str) -> Line {
        Line {
            title: title.to_owned(),
            fields: Vec::new(),
        }
    }

    fn new(title: &str, ranges: u64) -> Line {
        let mut line = Line::titled(&format!("{title} {SUCCESS}"));
        line.add("total-ranges", ranges)
            .add("ranges-succeed", ranges)
            .add("ranges-failed", 0);
        line
    }

    fn add(&mut self, name: &'static str, value: impl ToString) -> &mut Line {
        self.fields.push((name, value.to_string()));
        self
    }

    fn add_if(&mut self, name: &'static str, value: u64) -> &mut Line {
        if value > 0 {
            self.add(name, value);
        }
        self
    }

    /// On stdout with time and level before it, and in the log; with what the storage was asked for.
    fn show(&mut self, rt: &Rt) {
        if self.title.ends_with(SUCCESS) {
            traffic::add(self);
        }
        tracing::info!(target: READY_LINE, "{self}");
        print(&format_args!(
            "[{}] [INFO] [summary.rs:{}] {self}",
            Stamp::now(rt),
            line!()
        ));
    }
}

/// `["Full Backup success summary"] [total-ranges=20] …`.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", bracketed(&self.title))?;
        for (name, value) in &self.fields {
            write!(f, " [{name}={}]", bracketed(value))?;
        }
        Ok(())
    }
}

/// A backup that is complete.
pub(crate) fn backup(rt: &Rt, done: &BackupSummary, as_json: bool) {
    if as_json {
        print(&backup_json(done));
    } else {
        backup_line(done).show(rt);
    }
}

fn backup_line(done: &BackupSummary) -> Line {
    let mut line = Line::new(done.title, done.files);
    if let Some(took) = done.checksum_took {
        line.add("backup-checksum", go_duration(took));
    }
    line.add_if("backup-total-ranges", done.total_ranges)
        .add_if("backup-total-regions", done.total_regions)
        .add_if("write-CF-files", done.write_cf_files)
        .add_if("default-CF-files", done.default_cf_files);
    if done.files == 0 {
        line.add("Result", "Nothing to backup");
    }
    if done.resumed_pieces > 0 {
        line.add("skipped-kv-count-by-checkpoint", done.resumed_kvs)
            .add(
                "skipped-bytes-by-checkpoint",
                human_size(done.resumed_kv_bytes),
            );
    }
    line.add("total-take", go_duration(done.took))
        .add("total-kv", done.total_kvs)
        .add("total-kv-size", human_size(done.total_kv_bytes))
        .add(
            "average-speed",
            format!("{}/s", human_size(done.average_speed_bytes_per_s())),
        )
        .add(
            "backup-data-size(after-compressed)",
            human_size(done.data_size_bytes),
        )
        .add("Size", done.size_bytes);
    if let Some(ts) = done.backup_ts {
        line.add("BackupTS", ts);
    }
    line
}

fn backup_json(done: &BackupSummary) -> Value {
    json!({
        "command": done.title,
        "backup_ts": done.backup_ts.map(|ts| ts.0),
        "files": done.files,
        "write_cf_files": done.write_cf_files,
        "default_cf_files": done.default_cf_files,
        "ranges": done.total_ranges,
        "regions": done.total_regions,
        "checksum_seconds": done.checksum_took.map(|took| took.as_secs_f64()),
        "seconds": done.took.as_secs_f64(),
        "kvs": done.total_kvs,
        "kv_bytes": done.total_kv_bytes,
        "data_size_bytes": done.data_size_bytes,
        "size_bytes": done.size_bytes,
        "databases": done.databases,
        "tables": done.tables,
        "rounds": done.rounds,
        "superseded_pieces": done.superseded_pieces,
        "locks": done.locks,
        "resumed_pieces": done.resumed_pieces,
        "resumed_kvs": done.resumed_kvs,
        "resumed_kv_bytes": done.resumed_kv_bytes,
        "storage": traffic::json(),
    })
}

/// A restore that is complete.
pub(crate) fn restore(
    rt: &Rt,
    title: &'static str,
    done: &RestoreSummary,
    took: Duration,
    as_json: bool,
) {
    if as_json {
        print(&restore_json(title, done, took));
    } else {
        restore_line(title, done, took).show(rt);
    }
}

fn restore_line(title: &str, done: &RestoreSummary, took: Duration) -> Line {
    let files = done.plan.files;
    let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
    let speed = (files.kv_bytes as f64 / seconds) as u64;
    let mut line = Line::new(title, files.files);
    line.add("merge-ranges", done.groups)
        .add("split-keys", done.split_keys)
        .add("split-regions", done.split_regions)
        .add("default-CF-files", done.default_files)
        .add("write-CF-files", done.write_files);
    if done.resumed_files + done.resumed_tables > 0 {
        line.add("skipped-files-by-checkpoint", done.resumed_files);
    }
    if done.system_rows > 0 {
        line.add("system-rows", done.system_rows);
    }
    if done.tables_with_statistics > 0 {
        line.add("tables-with-statistics", done.tables_with_statistics);
    }
    // Users and privileges may be among them: nobody should find that out at the first login.
    if done.plan.system_tables_left_out > 0 {
        line.add("system-tables-left-out", done.plan.system_tables_left_out);
    }
    line.add("total-take", go_duration(took))
        .add("total-kv", files.kvs)
        .add("total-kv-size", human_size(files.kv_bytes))
        .add("average-speed", format!("{}/s", human_size(speed)))
        .add(
            "restore-data-size(after-compressed)",
            human_size(files.stored_bytes),
        )
        .add("Size", files.stored_bytes)
        .add("BackupTS", done.plan.backup_ts);
    line
}

fn restore_json(title: &str, done: &RestoreSummary, took: Duration) -> Value {
    let mut value = plan_json(&done.plan);
    if let Value::Object(fields) = &mut value {
        fields.insert("command".into(), title.into());
        fields.insert("groups".into(), done.groups.into());
        fields.insert("split_keys".into(), done.split_keys.into());
        fields.insert("split_regions".into(), done.split_regions.into());
        fields.insert("checked_tables".into(), done.checked_tables.into());
        fields.insert("resumed_groups".into(), done.resumed_groups.into());
        fields.insert("resumed_files".into(), done.resumed_files.into());
        fields.insert("resumed_tables".into(), done.resumed_tables.into());
        fields.insert("system_rows".into(), done.system_rows.into());
        let with_statistics = done.tables_with_statistics;
        fields.insert("tables_with_statistics".into(), with_statistics.into());
        fields.insert("storage".into(), traffic::json());
        fields.insert("seconds".into(), took.as_secs_f64().into());
    }
    value
}

/// A backup that was given up.
pub(crate) fn aborted_backup(done: &AbortedBackup, as_json: bool) {
    if as_json {
        return print(&json!({
            "command": "Abort Backup",
            "backup_ts": done.backup_ts.map(|ts| ts.0),
            "data_files": done.data_files,
            "data_size_bytes": done.data_size_bytes,
            "keyring_removed": done.is_keyring_removed,
        }));
    }
    if done.is_keyring_removed {
        print(&"nothing else was there: the place is no longer sealed");
    }
    match done.backup_ts {
        None => print(&"no interrupted backup is there"),
        Some(ts) => print(&format_args!(
            "the backup of timestamp {ts} is given up: {} files, {}, are removed",
            done.data_files,
            human_size(done.data_size_bytes)
        )),
    }
}

/// A restore that was given up.
pub(crate) fn aborted_restore(done: &AbortedRestore, as_json: bool) {
    if as_json {
        return print(&json!({
            "command": "Abort Restore",
            "aborted": done.title,
            "began": done.began,
            "backup": done.backup,
            "tables_dropped": done.tables_dropped,
            "databases_dropped": done.databases_dropped,
            "first_id": done.ids.start,
            "end_id": done.ids.end,
            "is_data_left": done.is_data_left,
            "restored_ts": done.point.as_ref().map(|point| point.restored_ts.0),
        }));
    }
    print(&format_args!(
        "the {} of {}, begun at {}, is given up: {} tables and {} databases are dropped, and {}",
        done.title,
        done.backup,
        done.began,
        done.tables_dropped,
        done.databases_dropped,
        match done.is_data_left {
            true => "its keys stay, as they cannot be told from others",
            false => "its data is removed",
        }
    ));
}

/// What a restore would do.
pub(crate) fn restore_plan(plan: &RestorePlan, as_json: bool) {
    if as_json {
        return print(&plan_json(plan));
    }
    print(&format_args!("restore to backup_ts {}", plan.backup_ts));
    for db in &plan.databases {
        let fate = if db.existing.is_some() {
            "exists"
        } else {
            "create"
        };
        print(&format_args!("database {}: {fate}", db.name));
    }
    for table in &plan.tables {
        let (kvs, bytes) = (table.sums.total_kvs, human_size(table.sums.total_bytes));
        print(&format_args!(
            "table {}: {kvs} kvs, {bytes}",
            plan.full_name(table)
        ));
    }
    for table in &plan.system {
        print(&format_args!("rows of {}", table.full_name()));
    }
    let files = plan.files;
    print(&format_args!(
        "{} files, {}; {} system tables left out",
        files.files,
        human_size(files.stored_bytes),
        plan.system_tables_left_out
    ));
}

fn plan_json(plan: &RestorePlan) -> Value {
    let databases: Vec<_> = plan.databases.iter().map(|db| db.name.as_str()).collect();
    let tables: Vec<_> = plan
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": plan.full_name(table),
                "kvs": table.sums.total_kvs,
                "kv_bytes": table.sums.total_bytes,
            })
        })
        .collect();
    json!({
        "backup_ts": plan.backup_ts.0,
        "last_backup_ts": plan.last_backup_ts.0,
        "databases": databases,
        "tables": tables,
        "system_tables": plan.system.iter().map(|table| table.full_name()).collect::<Vec<_>>(),
        "system_tables_left_out": plan.system_tables_left_out,
        "files": plan.files.files,
        "data_size_bytes": plan.files.stored_bytes,
        "kvs": plan.files.kvs,
        "kv_bytes": plan.files.kv_bytes,
    })
}

/// The tables that were exported.
pub(crate) fn export(report: &ExportReport, as_json: bool) {
    if as_json {
        let tables: Vec<_> = report
            .tables
            .iter()
            .map(|table| {
                json!({
                    "database": table.db,
                    "table": table.table,
                    "rows": table.rows,
                    "path": table.path,
                })
            })
            .collect();
        return print(&json!({ "at": report.at.0, "tables": tables }));
    }
    for table in &report.tables {
        let (db, name, path) = (&table.db, &table.table, table.path.display());
        print(&format_args!("{db}.{name}: {} rows in {path}", table.rows));
    }
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    print(&format_args!(
        "{} tables, {rows} rows as of {}",
        report.tables.len(),
        report.at
    ));
}

/// The one line that says that the cluster is there.
pub(crate) fn ready(cluster: &Cluster, as_json: bool) {
    let pd = cluster.pd_addr();
    let stores: Vec<_> = cluster
        .store_infos()
        .into_iter()
        .map(|store| store.record.address)
        .collect();
    if as_json {
        print(&json!({ "ready": true, "pd": pd, "stores": stores }));
    } else {
        print(&format_args!(
            "ready: PD at {pd}, stores at {}",
            stores.join(", ")
        ));
    }
}

/// The official line of a command that failed, for the log; the error itself is shown at the edge.
pub(crate) fn log_failure(title: &str, error: &impl Classify) {
    tracing::error!(%error, "{title} failed summary");
}

#[cfg(test)]
mod tests {
    use br_types::TimeStamp;

    use super::*;

    #[test]
    fn the_line_of_a_backup_is_the_official_one() {
        let done = BackupSummary {
            title: "Full Backup",
            backup_ts: Some(TimeStamp(470_613_951_976_046_597)),
            files: 60,
            write_cf_files: 56,
            default_cf_files: 4,
            total_ranges: 198,
            total_regions: 198,
            checksum_took: Some(Duration::from_nanos(136_747_882)),
            took: Duration::from_nanos(3_993_202_914),
            total_kvs: 68_742,
            total_kv_bytes: 6_108_000,
            data_size_bytes: 2_798_000,
            size_bytes: 2_798_442,
            ..BackupSummary::default()
        };
        assert_eq!(
            backup_line(&done).to_string(),
            "[\"Full Backup success summary\"] [total-ranges=60] [ranges-succeed=60] \
             [ranges-failed=0] [backup-checksum=136.747882ms] [backup-total-ranges=198] \
             [backup-total-regions=198] [write-CF-files=56] [default-CF-files=4] \
             [total-take=3.993202914s] [total-kv=68742] [total-kv-size=6.108MB] \
             [average-speed=1.53MB/s] [backup-data-size(after-compressed)=2.798MB] \
             [Size=2798442] [BackupTS=470613951976046597]"
        );
    }

    #[test]
    fn the_line_of_a_restore_tells_what_stayed_behind() {
        let mut done = RestoreSummary::default();
        let took = Duration::from_secs(1);
        let line = restore_line("Full Restore", &done, took).to_string();
        assert!(!line.contains("left-out"), "{line}");
        done.plan.system_tables_left_out = 3;
        let line = restore_line("Full Restore", &done, took).to_string();
        assert!(line.contains(" [system-tables-left-out=3] "), "{line}");
    }
}
