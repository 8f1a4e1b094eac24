use std::{io::IsTerminal as _, time::Duration};

use br_format::log::task::{Pause, PauseReason, TaskInfo};
use br_log::{
    read::LogBounds,
    status::{TaskStatus, Word},
    task::Started,
    truncate::{TruncatePlan, Truncated},
};
use br_rt::Rt;
use br_storage::Backend;
use br_types::TimeStamp;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{Line, print};
use crate::value::{go_duration, human_size};

/// A gap longer than this is shown in red.
const GAP_RED: Duration = Duration::from_secs(600);
/// Names of objects that are shown one by one.
const LEFT_SHOWN: usize = 16;

/// The local time of a timestamp, `2026-11-21 08:31:43.269 +0000`.
fn date(ts: TimeStamp) -> String {
    let millis = i64::try_from(ts.physical_ms()).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    let time = time.to_zoned(TimeZone::system());
    let fraction = match time.subsec_nanosecond() {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!(
        "{}{fraction}{}",
        time.strftime("%Y-%m-%d %H:%M:%S"),
        time.strftime(" %z")
    )
}

fn task_info(info: &TaskInfo) -> String {
    format!(
        "{{taskName={},startTs={},endTS={},tableFilter={}}}",
        info.name,
        info.start_ts,
        info.end_ts,
        info.table_filter.join(",")
    )
}

/// A task that was started.
pub(crate) fn log_started(rt: &Rt, started: &Started, took: Duration) {
    let mut line = Line::titled("log start");
    line.add("streamTaskInfo", task_info(&started.info))
        .add("pausing", false)
        .add("rangeCount", started.ranges);
    if let Some(range) = &started.continued {
        line.add("continues-from", range.max_ts)
            .add("log-min-ts", range.min_ts);
    }
    line.show(rt);
    success(rt, "log start", took);
}

/// A task that was stopped, paused or resumed.
pub(crate) fn log_changed(rt: &Rt, title: &str, info: &TaskInfo, took: Duration) {
    let mut line = Line::titled(title);
    line.add("streamTaskInfo", task_info(info)).show(rt);
    success(rt, title, took);
}

fn success(rt: &Rt, title: &str, took: Duration) {
    let mut line = Line::new(title, 0);
    line.add("total-take", go_duration(took)).show(rt);
}

/// What a log covers.
pub(crate) fn log_metadata(rt: &Rt, range: &LogBounds, took: Duration, as_json: bool) {
    if as_json {
        return print(&json!({
            "log_min_ts": range.min_ts.0,
            "log_min_date": date(range.min_ts),
            "log_max_ts": range.max_ts.0,
            "log_max_date": date(range.max_ts),
            "truncated_to": range.truncated_to.0,
            "cluster_id": range.marker.cluster_id.0,
        }));
    }
    let mut line = Line::titled("log metadata");
    line.add("log-min-ts", range.min_ts)
        .add("log-min-date", date(range.min_ts))
        .add("log-max-ts", range.max_ts)
        .add("log-max-date", date(range.max_ts))
        .show(rt);
    success(rt, "log metadata", took);
}

/// What a truncation would delete.
pub(crate) fn log_truncate_plan(plan: &TruncatePlan) {
    if plan.truncated_to >= plan.until && !plan.truncated_to.is_zero() {
        print(&format_args!(
            "The log is cut off at {} ({}) already.",
            plan.truncated_to,
            date(plan.truncated_to)
        ));
    }
    print(&format_args!(
        "We are going to truncate {} files ({}, {} records) in {} metadata files, up to TS {} ({}).",
        plan.files,
        human_size(plan.size_bytes),
        plan.entries,
        plan.metas,
        plan.until,
        date(plan.until)
    ));
    if plan.shift_ts < plan.until {
        print(&format_args!(
            "Files from {} ({}) on stay: transactions that commit later need values in them.",
            plan.shift_ts,
            date(plan.shift_ts)
        ));
    }
    if plan.empty_metas > 0 {
        print(&format_args!(
            "{} metadata files are empty, and go.",
            plan.empty_metas
        ));
    }
    if let Some(migration) = &plan.migration {
        let is_over = |max_ts: TimeStamp| max_ts < plan.shift_ts;
        let compactions = migration.compactions.iter();
        print(&format_args!(
            "Migrations are merged; they edit {} metadata files, and the files of {} compactions go.",
            migration.edits.len(),
            compactions.filter(|it| is_over(it.input_max_ts)).count()
        ));
    }
}

/// What a truncation deleted.
pub(crate) fn log_truncated(done: &Truncated) {
    print(&format_args!(
        "{} files ({}) are deleted.",
        done.files,
        human_size(done.size_bytes)
    ));
    if done.left.is_empty() {
        return;
    }
    print(&format_args!(
        "{} files could not be deleted; running it again tries them again:",
        done.left.len()
    ));
    for (name, error) in done.left.iter().take(LEFT_SHOWN) {
        print(&format_args!("- {name}: {}", error.failure));
    }
    if done.left.len() > LEFT_SHOWN {
        print(&format_args!("- {} more", done.left.len() - LEFT_SHOWN));
    }
}

/// How tasks are doing.
pub(crate) fn log_status(tasks: &[TaskStatus], as_json: bool) {
    if as_json {
        let all: Vec<Value> = tasks.iter().map(status_json).collect();
        return print(&Value::from(all));
    }
    let paint = Paint {
        colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    if tasks.is_empty() {
        return print(&format_args!("{} No Task Yet.", paint.red("○")));
    }
    print(&format_args!(
        "{} Total {} Tasks.",
        paint.green("●"),
        tasks.len()
    ));
    for (number, task) in tasks.iter().enumerate() {
        print(&format_args!("> #{} <", number + 1));
        let rows = status_rows(task, &paint);
        let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        for (key, value) in rows {
            print(&format_args!("{key:>width$}: {value}"));
        }
    }
}

fn status_json(status: &TaskStatus) -> Value {
    let task = &status.task;
    let of_store = |(store, ts): (&br_types::StoreId, &TimeStamp)| json!({ "store_id": store.0, "checkpoint": ts.0 });
    let progress: Vec<Value> = task.checkpoints.stores.iter().map(of_store).collect();
    let errors = task.errors.iter().map(|(store, error)| {
        json!({
            "store_id": store.0,
            "last_error": {
                "happen_at": error.happened_at_unix_ms,
                "error_code": error.code,
                "error_message": error.message,
                "store_id": error.store.0,
            },
        })
    });
    let holdups = status.holdups.iter().map(|holdup| {
        json!({
            "kind": holdup.kind(),
            "store_id": holdup.store().map(|store| store.0),
            "region_id": holdup.region().map(|region| region.0),
            "message": holdup.to_string(),
        })
    });
    let mut value = json!({
        "name": task.name(),
        "start_ts": task.start_ts().0,
        "end_ts": task.info.end_ts.0,
        "status": status.word().text(),
        "table_filter": task.info.table_filter,
        "progress": progress,
        "storage": storage_url(&task.info),
        "checkpoint": task.storage_checkpoint().0,
        "estimate_qps": qps(status.events_per_second),
        "last_errors": errors.collect::<Vec<_>>(),
    });
    if let Value::Object(fields) = &mut value {
        if let Some(pause @ Pause::V2(_)) = &task.pause {
            let extra = serde_json::from_slice(&pause.encode()).unwrap_or(Value::Null);
            fields.insert("extra_pause_information".into(), extra);
        }
        // What the official tool does not have comes behind.
        fields.insert(
            "global_checkpoint".into(),
            task.global_checkpoint().0.into(),
        );
        fields.insert("explained".into(), status.is_explained.into());
        fields.insert("held_back_by".into(), holdups.collect());
    }
    value
}

/// A whole number without a fraction, as Go writes it.
fn qps(events_per_second: f64) -> Value {
    match events_per_second.fract() == 0.0 && events_per_second < 1e15 {
        true => Value::from(events_per_second as u64),
        false => Value::from(events_per_second),
    }
}

fn status_rows(status: &TaskStatus, paint: &Paint) -> Vec<(String, String)> {
    let task = &status.task;
    let word = match status.word() {
        Word::Normal => format!("{} NORMAL", paint.green("●")),
        Word::Pause => format!("{} PAUSE", paint.yellow("●")),
        Word::Error => format!("{} ERROR", paint.red("○")),
    };
    let checkpoint = |ts: TimeStamp| {
        let gap_ms = status.now.physical_ms().saturating_sub(ts.physical_ms());
        let gap = Duration::from_secs((gap_ms + 500) / 1000);
        let text = go_duration(gap);
        let text = if gap > GAP_RED {
            paint.red(&text)
        } else {
            paint.green(&text)
        };
        format!("{}; gap={text}", date(ts))
    };
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| rows.push((key.to_owned(), value));
    add("name", task.name().to_owned());
    add("status", word);
    add("start", date(task.start_ts()));
    if !task.info.end_ts.is_zero() {
        add("end", date(task.info.end_ts));
    }
    add("storage", storage_url(&task.info));
    add(
        "speed(est.)",
        format!("{:.2} ops/s", status.events_per_second),
    );
    add("checkpoint[global]", checkpoint(task.storage_checkpoint()));
    if task.checkpoints.global.is_none() {
        for (store, ts) in &task.checkpoints.stores {
            add(&format!("checkpoint[store={store}]"), checkpoint(*ts));
        }
    }
    add_pause(&mut add, task.pause.as_ref());
    for (store, error) in &task.errors {
        let at = TimeStamp::compose(error.happened_at_unix_ms, 0);
        add(&format!("error[store={store}]"), error.code.clone());
        add(&format!("error-happen-at[store={store}]"), checkpoint(at));
        add(
            &format!("error-message[store={store}]"),
            error.message.clone(),
        );
    }
    for holdup in &status.holdups {
        add("held-back-by", holdup.to_string());
    }
    if status.is_explained && status.holdups.is_empty() {
        add(
            "held-back-by",
            "nothing; the next flush raises it".to_owned(),
        );
    }
    rows
}

fn add_pause(add: &mut impl FnMut(&str, String), pause: Option<&Pause>) {
    let Some(Pause::V2(pause)) = pause else {
        return;
    };
    add("pause-time", pause.time.clone());
    add("pause-operator", pause.host.clone());
    add("pause-operator-pid", pause.pid.to_string());
    match &pause.reason {
        PauseReason::Text(text) => add("pause-payload", text.clone()),
        PauseReason::Error(error) => {
            add("pause-payload[errcode]", error.code.clone());
            add("pause-payload[errmesg]", error.message.clone());
        }
        PauseReason::Other(kind, _) if kind.is_empty() => {}
        PauseReason::Other(kind, _) => {
            add("pause-payload[errparse]", format!("{kind} is not known"));
        }
    }
}

/// Where the log is, without secrets.
fn storage_url(info: &TaskInfo) -> String {
    match Backend::from_proto(&info.storage) {
        Ok(backend) => backend.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Colours, if there is somebody to see them.
struct Paint {
    colours: bool,
}

impl Paint {
    fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    fn red(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use br_format::log::{
        file::LogCompression,
        task::{END_TS_NONE, TaskEncryption, TaskName},
    };
    use br_log::task::{Checkpoints, Task};
    use br_types::StoreId;

    use super::*;

    fn status() -> TaskStatus {
        let backend = br_proto::backup::storage_backend::Backend::Local(br_proto::backup::Local {
            path: "/data/golden/log".into(),
        });
        let checkpoint = TimeStamp(470_613_990_642_548_738);
        let info = TaskInfo {
            name: TaskName::new("golden").unwrap(),
            storage: br_proto::backup::StorageBackend {
                backend: Some(backend),
                sealed: None,
            },
            start_ts: TimeStamp(470_613_951_373_377_538),
            end_ts: END_TS_NONE,
            table_filter: vec!["*.*".into()],
            compression: LogCompression::Zstd,
            encryption: TaskEncryption::None,
        };
        TaskStatus {
            task: Task {
                info,
                info_revision: 429,
                ranges: Vec::new(),
                pause: None,
                checkpoints: Checkpoints {
                    global: Some(checkpoint),
                    storage: [(StoreId(1), checkpoint)].into(),
                    ..Checkpoints::default()
                },
                errors: Default::default(),
            },
            now: TimeStamp::compose(checkpoint.physical_ms() + 79_400, 0),
            events_per_second: 0.0,
            holdups: Vec::new(),
            is_explained: false,
        }
    }

    #[test]
    fn the_json_is_the_official_one_and_more_behind_it() {
        let golden = include_str!("../../../../tests/golden/tidb-1/status.json").trim();
        let ours = Value::from(vec![status_json(&status())]).to_string();
        let official = golden.strip_suffix("}]").unwrap();
        assert!(ours.starts_with(official), "{ours}\n{official}");
    }

    #[test]
    fn lines_of_tasks_are_the_official_ones() {
        let mut line = Line::titled("log start");
        line.add("streamTaskInfo", task_info(&status().task.info))
            .add("pausing", false);
        assert_eq!(
            line.to_string(),
            "[\"log start\"] [streamTaskInfo=\"{taskName=golden,startTs=470613951373377538,\
             endTS=999999999999999999,tableFilter=*.*}\"] [pausing=false]"
        );
    }

    #[test]
    fn rows_say_the_gap() {
        let paint = Paint { colours: false };
        let rows = status_rows(&status(), &paint);
        let of = |key: &str| rows.iter().find(|(k, _)| k == key).unwrap().1.clone();
        assert_eq!(of("status"), "● NORMAL");
        assert!(
            of("checkpoint[global]").ends_with("; gap=1m19s"),
            "{rows:?}"
        );
        assert_eq!(of("storage"), "local:///data/golden/log");
        assert!(!rows.iter().any(|(key, _)| key == "held-back-by"));
    }
}
