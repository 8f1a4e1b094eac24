use br_format::{crypter::Method, log::task::TaskEncryption};
use br_proto::backup::MasterKeyConfig;
use br_storage::{MasterKeys, Storage, parse_master_key};
use clap::Args;

use super::session::Session;
use crate::edge::{CommandError, Outcome};

/// Keys under which the keys of a log lie.
#[derive(Args)]
#[command(next_help_heading = "Encryption")]
pub(super) struct MasterKeyFlags {
    /// URLs of master keys, separated by commas: local:///file or aws-kms:///KEY-ID?REGION=…;
    /// the first that works is used.
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    master_key: Vec<String>,
    /// How the log is encrypted under master keys: aes128-ctr, aes192-ctr or aes256-ctr.
    #[arg(long, default_value = "plaintext", value_name = "METHOD")]
    master_key_crypter_method: String,
}

impl MasterKeyFlags {
    /// The keys; `None` if there are none.
    fn config(&self) -> Outcome<Option<MasterKeyConfig>> {
        let method: Method = self
            .master_key_crypter_method
            .to_ascii_lowercase()
            .parse()?;
        let urls = self.master_key.iter().filter(|url| !url.trim().is_empty());
        let keys = urls.map(|url| parse_master_key(url.trim()));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match (method, keys.is_empty()) {
            (Method::Plaintext, true) => Ok(None),
            (method, false) if method != Method::Plaintext => Ok(Some(MasterKeyConfig {
                encryption_type: method.number(),
                master_keys: keys,
            })),
            _ => Err(CommandError::invalid(
                "--master-key and --master-key-crypter-method go together",
                "pass both or neither",
            )),
        }
    }

    /// How a new log is encrypted; `data_key`: what `--log.crypter.*` say, which goes first.
    pub(super) fn encryption(&self, data_key: TaskEncryption) -> Outcome<TaskEncryption> {
        Ok(match (self.config()?, data_key) {
            (Some(_), TaskEncryption::DataKey(_)) => {
                return Err(CommandError::invalid(
                    "--log.crypter.method and --master-key-crypter-method are both given",
                    "pass one of them: a key for all, or keys under a master key",
                ));
            }
            (Some(config), _) => TaskEncryption::MasterKeys(config),
            (None, data_key) => data_key,
        })
    }

    /// The storage of a log with its master keys.
    pub(super) async fn with_keys(&self, storage: Storage, session: &Session) -> Outcome<Storage> {
        Ok(match self.open(session).await? {
            None => storage,
            Some(keys) => storage.with_master_keys(keys),
        })
    }

    /// The keys, opened.
    pub(super) async fn open(&self, session: &Session) -> Outcome<Option<MasterKeys>> {
        Ok(match self.config()? {
            None => None,
            Some(config) => Some(MasterKeys::open(&session.rt, &config.master_keys).await?),
        })
    }
}
