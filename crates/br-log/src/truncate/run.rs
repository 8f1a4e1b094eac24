use std::sync::Arc;

use br_format::log::{
    blocklist::Blocklist,
    checkpoint::encode_truncate_safe_point,
    metadata::{LogMeta, META_SIZE_BYTES_MAX},
    migration::Migration,
    names::{BLOCKLIST_FOLDER, TRUNCATE_SAFE_POINT},
};
use br_rt::{Phase, Progress, Unit, kill_point};
use br_storage::{Storage, StorageError};
use br_types::TimeStamp;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    TruncateError,
    shift::{Cut, READS_MAX, find_cut, read_meta},
};
use crate::{
    migrate::{self, MergeUntil, write_or_delete},
    read::LogStorage,
    storage_lock::{LockRequest, StorageLock},
};

/// Metadata that is worked on at once. Most of the time goes into deletions.
const METAS_MAX: usize = 32;

/// What would be deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TruncatePlan {
    /// Restores begin at or after this afterwards.
    pub until: TimeStamp,
    /// Where the log is cut off already; zero if it is not.
    pub truncated_to: TimeStamp,
    /// Events before this are deleted: values from it on are needed by commits after the cut.
    pub shift_ts: TimeStamp,
    /// Objects with events.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Records in them.
    pub entries: u64,
    /// Metadata that is deleted or written anew.
    pub metas: u64,
    /// Metadata without events.
    pub empty_metas: u64,
    /// What migrations ask for, if compactions are cleaned up.
    pub migration: Option<Migration>,
}

/// What was deleted.
#[derive(Clone, Debug, Default)]
pub struct Truncated {
    /// Objects with events.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Objects that could not be deleted, with the reason. They stay in the log, and the next run
    /// tries again.
    pub left: Vec<(String, StorageError)>,
}

/// How a log is cut off.
#[derive(Clone, Debug)]
pub struct TruncateOptions {
    /// Where.
    pub until: TimeStamp,
    /// Merge migrations and remove the SSTs of compactions that lie before the cut, too.
    pub clean_up_compactions: bool,
}

/// A log that is about to be cut off, under its locks.
#[must_use = "its locks stay until it is run or given up"]
pub struct Truncation<'a> {
    request: LockRequest<'a>,
    options: TruncateOptions,
    locks: Vec<StorageLock>,
    cut: Cut,
    merge: Option<migrate::Merge>,
    plan: TruncatePlan,
}

/// What would be done, without locks and without changing anything.
///
/// # Errors
/// There is no log, the cut lies beyond its end, an object is damaged, or the storage failed.
pub async fn plan(
    storage: &Storage,
    options: &TruncateOptions,
) -> Result<TruncatePlan, TruncateError> {
    Ok(look(storage, options).await?.2)
}

async fn look(
    storage: &Storage,
    options: &TruncateOptions,
) -> Result<(Cut, Option<migrate::Merge>, TruncatePlan), TruncateError> {
    let bounds = LogStorage::new(storage.clone()).bounds().await?;
    if options.until > bounds.max_ts {
        return Err(TruncateError::BeyondEnd {
            until: options.until,
            max_ts: bounds.max_ts,
        });
    }
    // A log that is cut off further up is cut off there; what an earlier run left is finished.
    let until = options.until.max(bounds.truncated_to);
    let loaded = migrate::load(storage).await?;
    let compactions = loaded.migrations.merged().compactions;
    let cut = find_cut(storage, until, &compactions).await?;
    let merge = match options.clean_up_compactions {
        true => Some(migrate::fold(&loaded, MergeUntil::Newest, until)?),
        false => None,
    };
    let mut plan = TruncatePlan {
        until,
        truncated_to: bounds.truncated_to,
        shift_ts: cut.shift_ts,
        empty_metas: cut.empty.len() as u64,
        migration: merge.as_ref().map(|merge| merge.base.clone()),
        ..TruncatePlan::default()
    };
    count(storage, &cut, &mut plan).await?;
    Ok((cut, merge, plan))
}

/// Counts what lies before the cut.
async fn count(storage: &Storage, cut: &Cut, plan: &mut TruncatePlan) -> Result<(), TruncateError> {
    let mut metas = stream::iter(&cut.affected)
        .map(|name| read_meta(storage, name))
        .buffer_unordered(READS_MAX);
    while let Some(meta) = metas.try_next().await? {
        let Some(meta) = meta else { continue };
        let before = meta
            .groups
            .iter()
            .filter(|group| group.max_ts < cut.shift_ts);
        let mut is_affected = false;
        for group in before {
            is_affected = true;
            plan.files += 1;
            plan.size_bytes = plan.size_bytes.saturating_add(group.length);
            let entries = group.files.iter().map(|file| file.entries);
            plan.entries = entries.fold(plan.entries, u64::saturating_add);
        }
        plan.metas += u64::from(is_affected);
    }
    Ok(())
}

impl<'a> Truncation<'a> {
    /// Takes the locks and looks at the log: nobody restores, compacts or cuts it off meanwhile.
    ///
    /// # Errors
    /// As [`plan`], and somebody else holds a lock. No lock is held then.
    pub async fn begin(
        request: LockRequest<'a>,
        options: TruncateOptions,
    ) -> Result<Truncation<'a>, TruncateError> {
        let mut truncation = Truncation {
            locks: vec![request.truncate().await?],
            request,
            options,
            cut: Cut::default(),
            merge: None,
            plan: TruncatePlan::default(),
        };
        match truncation.prepare().await {
            Ok(()) => Ok(truncation),
            Err(error) => {
                truncation.give_up().await;
                Err(error)
            }
        }
    }

    async fn prepare(&mut self) -> Result<(), TruncateError> {
        self.locks.push(self.request.write_migrations().await?);
        kill_point("truncate.locked");
        let looked = look(self.request.storage, &self.options).await?;
        (self.cut, self.merge, self.plan) = looked;
        Ok(())
    }

    /// What will be done.
    pub fn plan(&self) -> &TruncatePlan {
        &self.plan
    }

    /// Releases the locks without having changed anything.
    pub async fn give_up(self) {
        for lock in self.locks {
            lock.release().await;
        }
    }

    /// Cuts the log off. See the module for the order of the steps.
    ///
    /// # Errors
    /// The storage failed or the work was cancelled; running it again finishes it.
    pub async fn run(self, progress: &Arc<dyn Progress>) -> Result<Truncated, TruncateError> {
        let result = self.work(progress).await;
        kill_point("truncate.done");
        self.give_up().await;
        result
    }

    async fn work(&self, progress: &Arc<dyn Progress>) -> Result<Truncated, TruncateError> {
        let storage = self.request.storage;
        // The base of migrations may say so alone; other tools look here only.
        if self.plan.until > migrate::truncate_safe_point(storage).await? {
            let text = encode_truncate_safe_point(self.plan.until);
            storage.write(TRUNCATE_SAFE_POINT, text).await?;
        }
        kill_point("truncate.safe_point");
        remove_blocklists(storage, self.plan.until).await?;
        kill_point("truncate.blocklists");
        if let Some(merge) = &self.merge {
            migrate::apply(storage, self.request.cancel, merge, self.cut.shift_ts).await?;
        }
        kill_point("truncate.migrations");
        storage.delete_many(self.cut.empty.clone()).await?;
        kill_point("truncate.empty");
        let phase = Phase::start(
            progress,
            "Truncating Data Files and Metadata",
            Unit::Files,
            self.plan.files,
        );
        let mut done = Truncated::default();
        let mut metas = stream::iter(&self.cut.affected)
            .map(|name| self.truncate_meta(name, &phase))
            .buffer_unordered(METAS_MAX);
        while let Some(part) = metas.try_next().await? {
            done.files += part.files;
            done.size_bytes = done.size_bytes.saturating_add(part.size_bytes);
            done.left.extend(part.left);
        }
        Ok(done)
    }

    /// Deletes the objects of one metadata object that lie before the cut, then writes it anew or
    /// deletes it.
    async fn truncate_meta(&self, name: &str, phase: &Phase) -> Result<Truncated, TruncateError> {
        if self.request.cancel.is_cancelled() {
            return Err(TruncateError::Cancelled);
        }
        let storage = self.request.storage;
        let bytes = match storage.read_at_most(name, META_SIZE_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(Truncated::default()),
            Err(error) => return Err(error.into()),
        };
        let meta = LogMeta::decode_to_rewrite(name, &bytes)?;
        let is_old_and_empty = meta.groups.is_empty() && meta.resolved_ts < self.cut.shift_ts;
        let mut done = Truncated::default();
        let mut kept = LogMeta {
            groups: Vec::new(),
            ..meta.clone()
        };
        for group in meta.groups {
            if group.max_ts >= self.cut.shift_ts {
                kept.groups.push(group);
                continue;
            }
            match storage.delete(&group.path).await {
                Ok(()) => {
                    kill_point("truncate.object");
                    done.files += 1;
                    done.size_bytes = done.size_bytes.saturating_add(group.length);
                    phase.advance(1, group.length);
                }
                Err(error) => {
                    done.left.push((group.path.clone(), error));
                    kept.groups.push(group);
                }
            }
        }
        if done.files > 0 || is_old_and_empty {
            write_or_delete(storage, name, &kept).await?;
            kill_point("truncate.meta");
        }
        Ok(done)
    }
}

/// Removes what restores before the cut left behind for later ones.
async fn remove_blocklists(storage: &Storage, until: TimeStamp) -> Result<(), TruncateError> {
    let mut objects = storage.list(&format!("{BLOCKLIST_FOLDER}/"));
    while let Some(entry) = objects.try_next().await? {
        let committed = Blocklist::parse_name(&entry.name).map(|(commit, _)| commit);
        if committed.is_some_and(|committed| committed <= until) {
            storage.delete(&entry.name).await?;
        }
    }
    Ok(())
}
