use std::time::Duration;

use br_format::{
    crypter::{Crypter, Method},
    log::task::{END_TS_NONE, TaskEncryption, TaskName},
};
use br_log::task::{self, StartRequest};
use br_storage::{SendCredentials, Storage};
use br_types::TimeStamp;
use clap::Args;
use jiff::tz::TimeZone;

use super::super::{global_flags::GlobalFlags, master_key_flags::MasterKeyFlags, session::Session};
use super::TaskFlags;
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::{Switch, parse_timestamp},
};

/// `br log start`.
#[derive(Args)]
pub(super) struct StartFlags {
    #[command(flatten)]
    task: TaskFlags,
    /// Where the log begins: a TSO number or a time; without it, now. Usually that of the last full
    /// backup. A log that goes on at its old place begins where it ended.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    start_ts: String,
    /// Where it ends; for the record only.
    #[arg(
        long,
        default_value = "999999999999999999",
        hide = true,
        value_name = "TS"
    )]
    end_ts: String,
    /// Seconds that the cluster keeps old data for until the coordinator has taken over.
    #[arg(long, default_value = "1800", hide = true, value_name = "SECONDS")]
    gc_ttl: u32,
    /// Tables: all of them.
    #[arg(
        short,
        long,
        default_value = "*.*",
        hide = true,
        value_name = "RULE",
        allow_hyphen_values = true
    )]
    filter: Vec<String>,
    /// Names in rules are case-sensitive.
    #[arg(long, default_value = "false", hide = true)]
    case_sensitive: Switch,
    #[command(flatten)]
    crypter: LogCrypterFlags,
    #[command(flatten)]
    master_keys: MasterKeyFlags,
}

/// How the log is encrypted.
#[derive(Args)]
#[command(next_help_heading = "Encryption")]
struct LogCrypterFlags {
    /// plaintext, aes128-ctr, aes192-ctr or aes256-ctr.
    #[arg(
        long = "log.crypter.method",
        default_value = "plaintext",
        value_name = "METHOD"
    )]
    log_crypter_method: String,
    /// The key, hexadecimal.
    #[arg(
        long = "log.crypter.key",
        default_value = "",
        hide_default_value = true,
        value_name = "HEX"
    )]
    log_crypter_key: String,
    /// A file with the key, hexadecimal.
    #[arg(
        long = "log.crypter.key-file",
        default_value = "",
        hide_default_value = true,
        value_name = "FILE"
    )]
    log_crypter_key_file: String,
}

impl StartFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let started_at = session.rt.now();
        let name = TaskName::new(self.task.name()?)?;
        let start_ts = timestamp("--start-ts", &self.start_ts)?;
        let end_ts = timestamp("--end-ts", &self.end_ts)?.unwrap_or(END_TS_NONE);
        let encryption = self.master_keys.encryption(self.crypter.encryption()?)?;
        global.cluster.check()?;
        let backend = global.storage.log_backend()?;
        if backend.is_sealed() && global.storage.seal_keys()?.have_credentials() {
            return Err(CommandError::invalid(
                "--seal-key has credentials, which would lie in etcd as long as the log runs",
                "give them to this command and to the stores by the environment: \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        let storage = Storage::create_base(&session.rt, &backend).await?;
        let send = match global.storage.send_credentials_to_tikv.0 {
            true => SendCredentials::Yes,
            false => SendCredentials::No,
        };
        let request = StartRequest {
            name,
            backend: backend.to_proto(send)?,
            start_ts,
            end_ts,
            gc_ttl: Duration::from_secs(self.gc_ttl.into()),
            table_filter: self.filter.clone(),
            encryption,
        };
        let cluster = global.cluster.connect(session).await?;
        let started = task::start(&cluster, &storage, request)
            .await
            .inspect_err(|error| summary::log_failure("log start", error))?;
        let took = session.rt.now().since(started_at);
        summary::log_started(&session.rt, &started, took);
        Ok(())
    }
}

impl LogCrypterFlags {
    fn encryption(&self) -> Outcome<TaskEncryption> {
        let method: Method = self.log_crypter_method.to_ascii_lowercase().parse()?;
        if method == Method::Plaintext {
            return Ok(TaskEncryption::None);
        }
        let crypter = match (
            self.log_crypter_key.as_str(),
            self.log_crypter_key_file.as_str(),
        ) {
            ("", "") => {
                return Err(CommandError::invalid(
                    format!("the method {method} needs a key"),
                    "pass --log.crypter.key or --log.crypter.key-file",
                ));
            }
            (key, "") => Crypter::from_hex(method, key)?,
            ("", file) => {
                let text = std::fs::read(file).map_err(|error| {
                    CommandError::system(format_args!("cannot read the key file {file}"), &error)
                })?;
                Crypter::from_key_file(method, &text)?
            }
            _ => {
                return Err(CommandError::invalid(
                    "--log.crypter.key and --log.crypter.key-file are both given",
                    "pass one of them",
                ));
            }
        };
        Ok(TaskEncryption::DataKey(crypter))
    }
}

/// The timestamp of a flag; `None` if it is not given.
pub(super) fn timestamp(flag: &str, text: &str) -> Outcome<Option<TimeStamp>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = parse_timestamp(text, &TimeZone::system());
    parsed.map(Some).map_err(|reason| {
        CommandError::invalid(
            format!("{flag} {text:?} is wrong: {reason}"),
            "pass a TSO number or a time such as '2026-11-21 10:17:45 +08:00'",
        )
    })
}
