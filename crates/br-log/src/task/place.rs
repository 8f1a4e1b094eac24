//! The place of a log that is to be started: free, or with a log that can go on.

use std::time::Duration;

use br_format::{
    log::names::{META_FOLDER, MetaName, is_meta},
    names::BACKUP_LOCK,
};
use br_storage::Storage;
use br_types::TimeStamp;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::TaskError;
use crate::read::{LogBounds, LogReadError, LogStorage};

/// The part of a log before its end that is looked at object by object before it goes on.
const CHECKED_END: Duration = Duration::from_secs(3600);
/// Objects that are looked up at once.
const LOOKUPS_MAX: usize = 32;

/// A place where a log is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is there.
    Free,
    /// A log is there, which goes on.
    Log(LogBounds),
}

/// Looks at the place of a log that is to be started.
pub(super) async fn look(storage: &Storage) -> Result<Place, TaskError> {
    let place = || storage.to_string();
    if storage.is_noop() {
        return Err(TaskError::Noop { place: place() });
    }
    let bounds = match LogStorage::new(storage.clone()).bounds().await {
        Ok(bounds) => bounds,
        Err(LogReadError::NoLog { .. }) => return look_for_remains(storage).await,
        Err(LogReadError::IsBackup { .. }) => return Err(TaskError::HasBackup { place: place() }),
        Err(error) => return Err(error.into()),
    };
    if bounds.replicated.is_some() {
        return Err(TaskError::IsACopy { place: place() });
    }
    Ok(Place::Log(bounds))
}

/// A lock without an index is of a start that failed half-way and wrote nothing more. Anything else
/// without an index is of nobody, or of a backup under way.
async fn look_for_remains(storage: &Storage) -> Result<Place, TaskError> {
    let mut objects = storage.list("");
    while let Some(entry) = objects.try_next().await? {
        if entry.name != BACKUP_LOCK {
            return Err(TaskError::NotALog {
                place: storage.to_string(),
                object: entry.name,
            });
        }
    }
    Ok(Place::Free)
}

/// That the objects at the end of the log, where the next task joins on, are there.
pub(super) async fn check_end(storage: &Storage, bounds: &LogBounds) -> Result<(), TaskError> {
    let end_ms = u64::try_from(CHECKED_END.as_millis()).unwrap_or(u64::MAX);
    let from = TimeStamp::compose(bounds.max_ts.physical_ms().saturating_sub(end_ms), 0);
    let mut names = Vec::new();
    let mut objects = storage.list(&format!("{META_FOLDER}/"));
    while let Some(entry) = objects.try_next().await? {
        let stats = MetaName::parse(&entry.name).and_then(|name| name.sound_stats());
        if is_meta(&entry.name) && stats.is_some_and(|stats| stats.max_ts >= from) {
            names.push(entry.name);
        }
    }
    let log = LogStorage::new(storage.clone());
    let removed = crate::read::Removed::new(&log.migrations().await?.merged());
    let mut metas = std::pin::pin!(log.metas(names));
    while let Some((name, meta)) = metas.try_next().await? {
        let groups = meta.groups.into_iter();
        let wanted = groups
            .filter(|group| !removed.is_object_removed(&name, &group.path))
            .map(|group| (group.path, group.length));
        stream::iter(wanted)
            .map(|(path, length)| check_object(storage, path, length))
            .buffer_unordered(LOOKUPS_MAX)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

async fn check_object(storage: &Storage, object: String, length: u64) -> Result<(), TaskError> {
    let place = || storage.to_string();
    match storage.size(&object).await {
        Ok(size) if length == 0 || size == length => Ok(()),
        Ok(_) => Err(TaskError::Damaged {
            place: place(),
            object,
        }),
        Err(error) if error.is_not_found() => Err(TaskError::Damaged {
            place: place(),
            object,
        }),
        Err(error) => Err(error.into()),
    }
}
