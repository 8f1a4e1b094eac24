use std::time::Duration;

use br_format::{
    crypter::Method,
    log::task::{END_TS_NONE, TaskEncryption, TaskName},
};
use br_log::task::{self, StartRequest};
use br_storage::{SendCredentials, Storage};
use clap::Args;

use super::super::{
    common_flags::{LogCrypterFlags, timestamp},
    global_flags::GlobalFlags,
    session::Session,
};
use super::TaskFlags;
use crate::{
    edge::{CommandError, Outcome},
    summary,
    value::Switch,
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
}

impl StartFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let started_at = session.rt.now();
        let name = TaskName::new(self.task.name()?)?;
        let start_ts = timestamp("--start-ts", &self.start_ts)?;
        let end_ts = timestamp("--end-ts", &self.end_ts)?.unwrap_or(END_TS_NONE);
        let encryption = self.encryption()?;
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

    fn encryption(&self) -> Outcome<TaskEncryption> {
        let crypter = self.crypter.crypter()?;
        let by_key = match crypter.method() {
            Method::Plaintext => TaskEncryption::None,
            _ => TaskEncryption::DataKey(crypter),
        };
        self.crypter.master_keys.encryption(by_key)
    }
}
