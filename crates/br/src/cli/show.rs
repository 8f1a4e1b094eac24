use br_format::backupmeta::Compatibility;
use br_inspect::show::{self, ShowOptions};
use br_types::{Code, Kind};
use clap::Args;

use super::{
    common_flags::{CrypterFlags, LogCrypterFlags},
    global_flags::GlobalFlags,
    session::Session,
    storage_flags::{CloudFlags, Holds},
};
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::Switch,
};

/// `br show`.
#[derive(Args)]
pub(super) struct ShowCommand {
    /// Name each table of the backups.
    #[arg(long, default_value = "false")]
    tables: Switch,
    /// Check the content of all objects, not their sizes only: reads everything.
    #[arg(long, default_value = "false")]
    checksum: Switch,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    crypter: CrypterFlags,
    #[command(flatten)]
    log_crypter: LogCrypterFlags,
    #[command(flatten)]
    cloud: CloudFlags,
}

impl ShowCommand {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let options = ShowOptions {
            crypter: self.crypter.crypter()?,
            log_crypter: self.log_crypter.crypter()?,
            log_master_keys: self.log_crypter.master_keys.open(session).await?,
            compatibility: match global.cluster.check_requirements.0 {
                true => Compatibility::Strict,
                false => Compatibility::Lenient,
            },
            check_contents: self.checksum.0,
        };
        let backend = global.storage.backend(&self.cloud, Holds::Backup)?;
        let shown = show::show(
            &session.rt,
            &backend,
            &options,
            session.display.progress(),
            &session.cancel,
        );
        let shown = Box::pin(shown).await?;
        summary::show(&shown, self.tables.0, self.json);
        match shown.problems() {
            0 => Ok(()),
            problems => Err(CommandError {
                kind: Kind::Data,
                code: Code::DATA_DAMAGED,
                cause: match problems {
                    1 => "an object is missing, damaged or cannot be read".to_owned(),
                    n => format!("{n} objects are missing, damaged or cannot be read"),
                },
                next_step: Some("see the list above; restore within the windows it shows".into()),
            }),
        }
    }
}
