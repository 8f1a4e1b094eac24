//! The log: a file in the official format, or the terminal if `BR_LOG_TO_TERM` is set.

mod format;

use std::{
    env,
    fs::File,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Mutex,
};

use br_rt::Rt;
use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::edge::{CommandError, Outcome};
use format::OfficialFormat;
pub(crate) use format::{READY_LINE, Stamp, bracketed};

/// Any value sends the log to stderr.
const TO_TERM: &str = "BR_LOG_TO_TERM";

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Bracketed text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How to log.
#[derive(Clone, Debug)]
pub(crate) struct LogOptions {
    pub(crate) level: String,
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: LogFormat,
    pub(crate) redact: bool,
}

/// Starts logging, and says on stderr where the log is.
pub(crate) fn start(rt: &Rt, options: &LogOptions) -> Outcome {
    let filter = filter(&options.level)?;
    let format = OfficialFormat::new(rt.clone(), options.format, options.redact);
    let to_term = env::var_os(TO_TERM).is_some();
    if to_term {
        install(filter, format, std::io::stderr);
        return Ok(());
    }
    let path = match &options.file {
        Some(path) => path.clone(),
        None => env::temp_dir().join(format!("br.log.{}", Stamp::now(rt).for_file_name())),
    };
    let file = open(&path)?;
    announce(&path);
    install(filter, format, Mutex::new(file));
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "the one line that says where the log is"
)]
fn announce(path: &Path) {
    eprintln!("Detail BR log in {} ", path.display());
}

/// Whether stderr is a terminal, and no log goes there.
pub(crate) fn terminal_is_free() -> bool {
    std::io::stderr().is_terminal() && env::var_os(TO_TERM).is_none()
}

fn open(path: &Path) -> Outcome<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| {
            CommandError::system(
                format_args!("cannot open the log file {}", path.display()),
                &error,
            )
        })
}

/// `--log-level`, in the spellings of the official tool.
fn filter(level: &str) -> Outcome<EnvFilter> {
    let ours = match level.to_ascii_lowercase().as_str() {
        "debug" => "debug",
        "info" | "" => "info",
        "warn" | "warning" => "warn",
        "error" | "dpanic" | "panic" | "fatal" => "error",
        _ => {
            return Err(CommandError::invalid(
                format!("there is no log level {level:?}"),
                "pass debug, info, warn or error",
            ));
        }
    };
    // The libraries below have much to say at their lower levels.
    Ok(EnvFilter::new(format!(
        "{ours},h2=warn,hyper=warn,tower=warn,rustls=warn,reqwest=warn"
    )))
}

fn install<W>(filter: EnvFilter, format: OfficialFormat, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // An error means that a test has installed one already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .event_format(format)
        .with_writer(writer)
        .try_init();
}
