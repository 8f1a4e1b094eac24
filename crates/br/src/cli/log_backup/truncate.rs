use br_log::{
    Operator,
    storage_lock::LockRequest,
    truncate::{self, TruncateOptions, Truncation},
};
use br_storage::Storage;
use clap::Args;

use super::super::{common_flags::timestamp, global_flags::GlobalFlags, session::Session};
use crate::{
    edge::{CommandError, Outcome},
    prompt::confirm,
    summary,
};

/// `br log truncate`.
#[derive(Args)]
pub(super) struct TruncateFlags {
    /// Delete what no restore needs from a full backup at or after this: a TSO number or a time.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TS")]
    until: String,
    /// Print what would be deleted, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Merge migrations, and delete the files of compactions that lie before, too.
    #[arg(long)]
    clean_up_compactions: bool,
}

impl TruncateFlags {
    pub(super) async fn run(&self, global: &GlobalFlags, session: &Session) -> Outcome {
        let until = timestamp("--until", &self.until)?.ok_or_else(|| {
            CommandError::invalid("--until is missing", "pass a TSO number or a time")
        })?;
        let options = TruncateOptions {
            until,
            clean_up_compactions: self.clean_up_compactions,
        };
        let backend = global.storage.log_backend()?;
        let storage = Storage::open(&session.rt, &backend).await?;
        if self.dry_run {
            summary::log_truncate_plan(&truncate::plan(&storage, &options).await?);
            return Ok(());
        }
        let operator = Operator::this();
        let request = LockRequest {
            storage: &storage,
            rt: &session.rt,
            cancel: &session.cancel,
            operator: &operator,
            hint: "the log is being truncated by br log truncate",
        };
        let truncation = Truncation::begin(request, options).await?;
        summary::log_truncate_plan(truncation.plan());
        match self.may_go_on(session).await {
            Ok(true) => {}
            answer => {
                truncation.give_up().await;
                return answer.map(drop);
            }
        }
        let done = truncation.run(session.display.progress()).await;
        let done = done.inspect_err(|error| summary::log_failure("log truncate", error))?;
        summary::log_truncated(&done);
        Ok(())
    }

    async fn may_go_on(&self, session: &Session) -> Outcome<bool> {
        if self.yes {
            return Ok(true);
        }
        confirm(session, "Are you sure?").await
    }
}
