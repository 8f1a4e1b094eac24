use std::{path::PathBuf, sync::Arc};

use br_engine::{RocksSstFiles, SstCompression, SstOptions};
use br_log::compact::{self, CompactOptions, CompactTarget, MINIMAL_BYTES_DEFAULT, Shard};
use br_storage::Storage;
use br_types::TimeStamp;
use clap::Args;

use super::super::{common_flags::timestamp, global_flags::GlobalFlags, session::Session};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::Switch,
};

/// `br log compact`.
#[derive(Args)]
pub(super) struct CompactFlags {
    /// Leave files that have nothing from here on: a TSO number or a time.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    from: String,
    /// Leave files that have nothing up to here; without it, as far as the log goes.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    until: String,
    /// What the folder of the compaction begins with.
    #[arg(short, long, default_value = "compaction", value_name = "NAME")]
    name: String,
    /// Only files of some of the stores: part I of T, counted from 1.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "I/T"
    )]
    shard: String,
    /// Also take older values that commits of the range need.
    #[arg(long, default_value = "false")]
    cal_shift_ts: Switch,
    /// Files that are made at once.
    #[arg(short = 'N', long, default_value = "32", value_name = "N")]
    concurrency: usize,
    /// Compression of the files: lz4, zstd or snappy.
    #[arg(long, default_value = "lz4", value_name = "NAME")]
    compression: String,
    /// Level of the compression; 0 is the library's own.
    #[arg(long, default_value = "0", value_name = "N")]
    compression_level: i32,
    /// Leave what would make a smaller file, in bytes.
    #[arg(long, default_value_t = MINIMAL_BYTES_DEFAULT, value_name = "BYTES")]
    minimal_compaction_size: u64,
    /// Folder for files before they are stored.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl CompactFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        const TITLE: &str = "log compact";
        let options = self.options()?;
        let compression = match self.compression.to_ascii_lowercase().as_str() {
            "lz4" => SstCompression::Lz4,
            "zstd" => SstCompression::Zstd,
            "snappy" => SstCompression::Snappy,
            other => {
                return Err(CommandError::invalid(
                    format!("there is no compression {other}"),
                    "pass lz4, zstd or snappy",
                ));
            }
        };
        let backend = global.storage.log_backend()?;
        let target = CompactTarget {
            rt: session.rt.clone(),
            cancel: session.cancel.clone(),
            storage: Storage::open(&session.rt, &backend).await?,
            ssts: Arc::new(RocksSstFiles::new(SstOptions {
                compression,
                level: self.compression_level,
            })),
            progress: Arc::clone(session.display.progress()),
            temp_dir: self.temp_dir.clone().unwrap_or_else(std::env::temp_dir),
        };
        let started = session.rt.now();
        let done = Box::pin(compact::compact(&target, &options)).await;
        let done = done.inspect_err(|error| summary::log_failure(TITLE, error))?;
        let took = session.rt.now().since(started);
        summary::log_compacted(&session.rt, TITLE, &done, took, self.json);
        Ok(())
    }

    fn options(&self) -> Outcome<CompactOptions> {
        Ok(CompactOptions {
            from_ts: timestamp("--from", &self.from)?.unwrap_or(TimeStamp::ZERO),
            until_ts: timestamp("--until", &self.until)?,
            name: self.name.clone(),
            shifts: self.cal_shift_ts.0,
            shard: self.shard()?,
            minimal_bytes: self.minimal_compaction_size,
            concurrency: self.concurrency,
        })
    }

    fn shard(&self) -> Outcome<Option<Shard>> {
        if self.shard.is_empty() {
            return Ok(None);
        }
        let parsed = self.shard.split_once('/').and_then(|(index, total)| {
            let shard = Shard {
                index: index.trim().parse().ok()?,
                total: total.trim().parse().ok()?,
            };
            (shard.index >= 1 && shard.index <= shard.total).then_some(shard)
        });
        let wrong = || {
            CommandError::invalid(
                format!("--shard {:?} is none", self.shard),
                "pass a part and their number, such as 1/4",
            )
        };
        parsed.ok_or_else(wrong).map(Some)
    }
}
