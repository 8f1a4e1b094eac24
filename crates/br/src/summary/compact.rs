use std::time::Duration;

use br_log::compact::CompactSummary;
use br_rt::Rt;
use serde_json::json;

use super::{Line, print};
use crate::value::{go_duration, human_size};

/// A compaction of a log that is complete.
pub(crate) fn log_compacted(
    rt: &Rt,
    title: &'static str,
    done: &CompactSummary,
    took: Duration,
    as_json: bool,
) {
    if as_json {
        return print(&json!({
            "command": title,
            "from_ts": done.from_ts.0,
            "until_ts": done.until_ts.0,
            "folder": done.folder,
            "migration": done.migration,
            "input_files": done.input_files,
            "input_bytes": done.input_bytes,
            "output_files": done.output_files,
            "output_bytes": done.output_bytes,
            "records": done.records,
            "seconds": took.as_secs_f64(),
        }));
    }
    let mut line = Line::new(title, done.output_files);
    if done.output_files == 0 {
        line.add("Result", "Nothing to compact");
    }
    line.add("total-take", go_duration(took))
        .add("from-ts", done.from_ts)
        .add("until-ts", done.until_ts)
        .add("input-files", done.input_files)
        .add("input-size", human_size(done.input_bytes))
        .add("output-files", done.output_files)
        .add("output-size", human_size(done.output_bytes))
        .add("total-kv", done.records)
        .add("migration", &done.migration);
    line.show(rt);
}
