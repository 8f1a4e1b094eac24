//! # What it does
//! Removes from a storage what migrations took out of its log.
//!
//! # Ordering and invariants
//! Objects are deleted before the metadata that names them is written anew, and that before the
//! migration that asks for it is forgotten. Readers who know the migration miss nothing at any
//! step, and every step can be repeated.

use br_format::log::{
    ingested::IngestedSsts,
    metadata::{LogMeta, META_SIZE_BYTES_MAX},
    migration::{Compaction, DeletedSpans, MetaEdit, Migration},
};
use br_rt::CancellationToken;
use br_storage::{Storage, StorageError};
use br_types::TimeStamp;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::MigrateError;

/// Metadata that is edited at once; each may have some megabytes.
const EDITS_MAX: usize = 16;
/// Names that are deleted in one go below a folder.
const FOLDER_BATCH: usize = 1000;

/// Carries a migration out, as far as that is possible now, and gives what is left to do or to
/// know. Events before `shift_ts` are of no use to anybody: not even values that commits after the
/// cut need lie there.
///
/// # Errors
/// The storage failed, or an object cannot be understood. What was done is done; the migration
/// stays as it was.
pub(crate) async fn carry_out(
    storage: &Storage,
    cancel: &CancellationToken,
    migration: Migration,
    shift_ts: TimeStamp,
) -> Result<Migration, MigrateError> {
    let cut = migration.truncated_to;
    let (gone, compactions): (Vec<_>, Vec<_>) = migration
        .compactions
        .into_iter()
        .partition(|compaction| compaction.input_max_ts < shift_ts);
    for compaction in &gone {
        check(cancel)?;
        remove_compaction(storage, compaction).await?;
    }
    for folder in &migration.destruct_prefixes {
        check(cancel)?;
        remove_folder(storage, folder).await?;
    }
    let ingested_paths = remove_ingested(storage, migration.ingested_paths, cut).await?;
    let edits: Vec<Option<MetaEdit>> = stream::iter(migration.edits)
        .map(|edit| async {
            check(cancel)?;
            carry_out_edit(storage, edit).await
        })
        .buffer_unordered(EDITS_MAX)
        .try_collect()
        .await?;
    let mut edits: Vec<MetaEdit> = edits.into_iter().flatten().collect();
    edits.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Migration {
        edits,
        compactions,
        destruct_prefixes: Vec::new(),
        ingested_paths,
        ..migration
    })
}

pub(super) fn check(cancel: &CancellationToken) -> Result<(), MigrateError> {
    match cancel.is_cancelled() {
        true => Err(MigrateError::Cancelled),
        false => Ok(()),
    }
}

/// SSTs first: indices that point to nothing are found again by the next attempt.
async fn remove_compaction(storage: &Storage, compaction: &Compaction) -> Result<(), MigrateError> {
    for folder in [&compaction.generated_files, &compaction.artifacts] {
        if !folder.is_empty() {
            remove_folder(storage, folder).await?;
        }
    }
    Ok(())
}

/// Deletes everything below a folder.
async fn remove_folder(storage: &Storage, folder: &str) -> Result<(), MigrateError> {
    let folder = checked_folder(folder)?;
    let mut objects = storage.list(&format!("{folder}/")).chunks(FOLDER_BATCH);
    while let Some(batch) = objects.next().await {
        let entries: Vec<_> = batch.into_iter().collect::<Result<_, StorageError>>()?;
        let names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        storage.delete_many(names).await?;
    }
    Ok(())
}

/// A folder that a migration may remove: one below `v1/`, and none that all of a log is in.
pub(super) fn checked_folder(folder: &str) -> Result<&str, MigrateError> {
    use br_format::log::names::{
        COMPACTION_FOLDER, GLOBAL_CHECKPOINT_FOLDER, INGESTED_FOLDER, META_FOLDER, MIGRATION_FOLDER,
    };
    const KEPT: [&str; 6] = [
        "v1",
        COMPACTION_FOLDER,
        GLOBAL_CHECKPOINT_FOLDER,
        INGESTED_FOLDER,
        META_FOLDER,
        MIGRATION_FOLDER,
    ];
    let name = folder.trim_matches('/');
    let is_plain = name
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    match is_plain && name.contains('/') && !KEPT.contains(&name) {
        true => Ok(name),
        false => Err(MigrateError::UnsafeFolder(folder.to_owned())),
    }
}

/// Removes SSTs of restores that lie before the cut as a whole, and gives the indices that stay.
async fn remove_ingested(
    storage: &Storage,
    paths: Vec<String>,
    cut: TimeStamp,
) -> Result<Vec<String>, MigrateError> {
    let mut batches = Vec::new();
    for path in paths {
        match storage.read_at_most(&path, META_SIZE_BYTES_MAX).await {
            Ok(bytes) => batches.push((IngestedSsts::decode(&path, &bytes)?, path)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let is_over = |restore: &[u8]| {
        let mut same = batches.iter().filter(|(batch, _)| batch.restore == restore);
        same.any(|(batch, _)| batch.finished && batch.as_if_ts < cut)
    };
    let (gone, kept): (Vec<_>, Vec<_>) = batches
        .iter()
        .partition(|(batch, _)| is_over(&batch.restore));
    for (batch, _) in &gone {
        let files = batch.files.iter().map(|file| file.name.clone());
        storage.delete_many(files.collect::<Vec<_>>()).await?;
    }
    for (_, path) in &gone {
        storage.delete(path).await?;
    }
    Ok(kept.into_iter().map(|(_, path)| path.clone()).collect())
}

/// Carries one edit out; gives what of it cannot be done yet.
async fn carry_out_edit(
    storage: &Storage,
    edit: MetaEdit,
) -> Result<Option<MetaEdit>, MigrateError> {
    let (whole, partial): (Vec<_>, Vec<_>) = edit
        .delete_spans
        .iter()
        .cloned()
        .partition(DeletedSpans::is_whole);
    let mut objects = edit.delete_objects.clone();
    objects.extend(whole.iter().map(|spans| spans.path.clone()));
    storage.delete_many(objects).await?;
    let bytes = match storage.read_at_most(&edit.path, META_SIZE_BYTES_MAX).await {
        Ok(bytes) => bytes,
        // It went with the last of its objects.
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if edit.destruct_self {
        storage.delete(&edit.path).await?;
        return Ok(None);
    }
    let mut meta = LogMeta::decode_to_rewrite(&edit.path, &bytes)?;
    if take_out(&mut meta, &edit) {
        write_or_delete(storage, &edit.path, &meta).await?;
    }
    let left = MetaEdit {
        delete_objects: Vec::new(),
        delete_spans: partial,
        ..edit
    };
    Ok((!left.delete_spans.is_empty()).then_some(left))
}

/// Takes out of metadata what an edit says. Whether there was any of it.
fn take_out(meta: &mut LogMeta, edit: &MetaEdit) -> bool {
    let before: usize = meta.groups.iter().map(|group| group.files.len()).sum();
    meta.groups
        .retain(|group| !edit.delete_objects.contains(&group.path));
    for spans in &edit.delete_spans {
        let groups = meta.groups.iter_mut();
        for group in groups.filter(|group| group.path == spans.path) {
            group.files.retain(|file| !spans.spans.contains(&file.span));
        }
    }
    meta.groups.retain(|group| !group.files.is_empty());
    let after: usize = meta.groups.iter().map(|group| group.files.len()).sum();
    before != after
}

/// Writes metadata anew, or deletes it if nothing is left in it.
pub(crate) async fn write_or_delete(
    storage: &Storage,
    name: &str,
    meta: &LogMeta,
) -> Result<(), StorageError> {
    if meta.groups.is_empty() {
        return storage.delete(name).await;
    }
    let mut meta = meta.clone();
    for group in &mut meta.groups {
        let files = || group.files.iter();
        group.min_ts = files().map(|file| file.min_ts).min().unwrap_or_default();
        group.max_ts = files().map(|file| file.max_ts).max().unwrap_or_default();
        let resolved = files().map(|file| file.resolved_ts).min();
        group.min_resolved_ts = resolved.unwrap_or_default();
    }
    let groups = || meta.groups.iter();
    let min_ts = groups().map(|group| group.min_ts).min();
    let max_ts = groups().map(|group| group.max_ts).max();
    meta.min_ts = min_ts.unwrap_or_default();
    meta.max_ts = max_ts.unwrap_or_default();
    storage.write(name, meta.encode()).await
}
