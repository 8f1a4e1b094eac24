use std::path::PathBuf;

use br_format::backupmeta::Compatibility;
use br_inspect::export::{self, ExportOptions, Format, Layer, LogLayer, SORT_MEMORY_BYTES_DEFAULT};
use br_log::read::LogStorage;
use br_storage::Storage;
use clap::{Args, ValueEnum};

use super::{
    common_flags::{CrypterFlags, LogCrypterFlags, given_timestamp},
    global_flags::GlobalFlags,
    session::Session,
    storage_flags::{CloudFlags, Holds},
    tables::FilterFlags,
};
use crate::{edge::Outcome, summary};

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    Csv,
    Jsonl,
}

/// `br export`.
#[derive(Args)]
pub(super) struct ExportCommand {
    #[command(flatten)]
    filter: FilterFlags,
    /// Rows as of this timestamp: that of one of the backups, or with a log any that it covers.
    /// Without it, the last one.
    #[arg(long, value_name = "TS")]
    at: Option<String>,
    /// URL of an incremental backup on top of the full one; in their order.
    #[arg(long = "incremental", value_name = "URL")]
    incrementals: Vec<String>,
    /// URL of the log backup that goes on from the backups.
    #[arg(long, value_name = "URL")]
    log_storage: Option<String>,
    /// Folder for sorting what the log has of rows, beyond some memory; without it, that of the
    /// system.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// Form of the files.
    #[arg(long, value_enum, default_value = "jsonl", value_name = "FORMAT")]
    format: FormatName,
    /// Folder for the files.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    crypter: CrypterFlags,
    #[command(flatten)]
    log_crypter: LogCrypterFlags,
    #[command(flatten)]
    cloud: CloudFlags,
}

impl ExportCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let log = self.log(global, session).await?;
        let options = self.options(log)?;
        let layers = self.layers(global, session).await?;
        let report = export::export(
            &session.rt,
            &layers,
            &options,
            session.display.progress(),
            &session.cancel,
        )
        .await?;
        summary::export(&report, self.json);
        Ok(())
    }

    async fn log(&self, global: &GlobalFlags, session: &Session) -> Outcome<Option<LogLayer>> {
        let Some(url) = &self.log_storage else {
            return Ok(None);
        };
        let backend = global.storage.backend_at(url, &self.cloud, Holds::Log)?;
        let storage = Storage::open(&session.rt, &backend).await?;
        let keys = &self.log_crypter.master_keys;
        Ok(Some(LogLayer {
            log: LogStorage::new(keys.with_keys(storage, session).await?),
            crypter: self.log_crypter.crypter()?,
            temp_dir: self.temp_dir.clone().unwrap_or_else(std::env::temp_dir),
            memory_bytes: SORT_MEMORY_BYTES_DEFAULT,
        }))
    }

    fn options(&self, log: Option<LogLayer>) -> Outcome<ExportOptions> {
        let at = self.at.as_deref().map(|at| given_timestamp("--at", at));
        Ok(ExportOptions {
            filter: self.filter.filter(&["*.*"])?,
            at: at.transpose()?,
            log,
            format: match self.format {
                FormatName::Csv => Format::Csv,
                FormatName::Jsonl => Format::Jsonl,
            },
            output: self.output.clone(),
        })
    }

    async fn layers(&self, global: &GlobalFlags, session: &Session) -> Outcome<Vec<Layer>> {
        let mut backends = vec![global.storage.backend(&self.cloud, Holds::Backup)?];
        for url in &self.incrementals {
            let backend = global.storage.backend_at(url, &self.cloud, Holds::Backup)?;
            backends.push(backend);
        }
        let mut layers = Vec::new();
        for backend in backends {
            layers.push(Layer {
                storage: Storage::open(&session.rt, &backend).await?,
                crypter: self.crypter.crypter()?,
                compatibility: match global.cluster.check_requirements.0 {
                    true => Compatibility::Strict,
                    false => Compatibility::Lenient,
                },
            });
        }
        Ok(layers)
    }
}
