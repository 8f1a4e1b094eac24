use std::path::PathBuf;

use clap::Args;

use super::{cluster_flags::ClusterFlags, storage_flags::StorageFlags};
use crate::{
    log::{LogFormat, LogOptions},
    value::Switch,
};

/// Flags that every command takes.
#[derive(Args)]
pub(super) struct GlobalFlags {
    /// Print the version.
    #[arg(short = 'V', long)]
    pub(super) version: bool,
    /// Least level that is logged: debug, info, warn, error.
    #[arg(
        short = 'L',
        long,
        global = true,
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: String,
    /// Log file; without it, one in the folder for temporary files. BR_LOG_TO_TERM in the
    /// environment sends the log to the terminal.
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Form of the log.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// Hide keys and values in the log.
    #[arg(long, global = true, default_value = "false")]
    redact_info_log: Switch,
    /// The same, by its old name.
    #[arg(long, global = true, default_value = "false", hide = true)]
    redact_log: Switch,
    #[command(flatten)]
    pub(super) cluster: ClusterFlags,
    #[command(flatten)]
    pub(super) storage: StorageFlags,
}

impl GlobalFlags {
    pub(super) fn log_options(&self) -> LogOptions {
        LogOptions {
            level: self.log_level.clone(),
            file: self
                .log_file
                .clone()
                .filter(|path| !path.as_os_str().is_empty()),
            format: self.log_format,
            redact: self.redact_info_log.0 || self.redact_log.0,
        }
    }
}
