use br_log::{
    read::LogStorage,
    status::{self, StatusRequest},
};
use br_storage::Storage;
use clap::Args;

use super::super::{global_flags::GlobalFlags, session::Session};
use crate::{edge::Outcome, summary};

/// `br log status`.
#[derive(Args)]
pub(super) struct StatusFlags {
    /// The name of the task; `*` for all.
    #[arg(long, default_value = "*", value_name = "NAME")]
    task_name: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// Look for what holds the checkpoint back even if it does not lag.
    #[arg(long)]
    explain: bool,
}

/// `br log metadata`.
#[derive(Args)]
pub(super) struct MetadataFlags {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

impl StatusFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let cluster = global.cluster.connect(session).await?;
        let request = StatusRequest {
            name: &self.task_name,
            explain: self.explain,
        };
        let tasks = status::status(&cluster, &request).await?;
        summary::log_status(&tasks, self.json);
        Ok(())
    }
}

impl MetadataFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let began = session.rt.now();
        let backend = global.storage.log_backend()?;
        let storage = Storage::open(&session.rt, &backend).await?;
        let range = LogStorage::new(storage).bounds().await?;
        let took = session.rt.now().since(began);
        summary::log_metadata(&session.rt, &range, took, self.json);
        Ok(())
    }
}
