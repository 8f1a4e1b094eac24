//! What lies in a storage: backups, logs, and the points that can be restored from them.
//!
//! # What it does
//! Finds every `backupmeta` at a place and in its folders, reads the indices of what it finds, and
//! holds them against the listing: each object that an index names must be there with its size;
//! with [`ShowOptions::check_contents`] its content is read as well. From what is complete it
//! computes [`RestoreWindow`]s.
//!
//! # Objects it reads and writes
//! Reads the indices of all backups and the metadata of all logs; with a check all other objects.
//! Writes nothing.
//!
//! # Cancellation
//! Between places; dropping the future stops it.

mod backup;
mod error;
mod places;
mod windows;

use std::sync::Arc;

use br_format::backupmeta::{BackupHead, Compatibility};
use br_format::crypter::Crypter;
use br_log::read::{ContentCheck, LogStorage, LogSurvey};
use br_rt::{CancellationToken, Phase, Progress, Rt, Unit};
use br_storage::{Backend, MasterKeys, Storage};
use br_types::{Classify, TableId, TimeStamp};

pub use error::ShowError;

/// How it is looked at.
#[derive(Clone)]
pub struct ShowOptions {
    /// How backups are encrypted.
    pub crypter: Crypter,
    /// How logs are encrypted; for checks of contents only.
    pub log_crypter: Crypter,
    /// Under which keys of the log lie.
    pub log_master_keys: Option<MasterKeys>,
    /// What to do about fields of newer tools.
    pub compatibility: Compatibility,
    /// Whether contents are checked against their sums: reads everything.
    pub check_contents: bool,
}

/// What lies in a storage.
#[derive(Debug)]
pub struct Shown {
    /// By folder.
    pub places: Vec<Place>,
    /// What can be restored, by its beginning.
    pub windows: Vec<RestoreWindow>,
}

impl Shown {
    /// Objects that are missing or damaged, and places that cannot be read.
    pub fn problems(&self) -> usize {
        let of_place = |place: &Place| match &place.what {
            What::Backup(backup) => backup.missing.len(),
            What::Log(log) => log.missing.len(),
            What::Unreadable { .. } => 1,
        };
        self.places.iter().map(of_place).sum()
    }
}

/// A folder with a backup or a log.
#[derive(Debug)]
pub struct Place {
    /// The folder, relative; empty: the storage itself.
    pub folder: String,
    /// What it holds.
    pub what: What,
}

/// What a folder holds.
#[derive(Debug)]
pub enum What {
    /// A backup.
    Backup(Box<ShownBackup>),
    /// A log.
    Log(Box<LogSurvey>),
    /// Something that cannot be read.
    Unreadable {
        /// Why.
        problem: String,
        /// What to do about it.
        next_step: Option<String>,
    },
}

/// A backup.
#[derive(Debug)]
pub struct ShownBackup {
    /// What it is.
    pub head: BackupHead,
    /// Data files.
    pub files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Pairs of keys and values in them.
    pub kvs: u64,
    /// The bytes of those.
    pub kv_bytes: u64,
    /// Its tables, in the order of the backup. Databases without tables have one without a name.
    pub tables: Vec<ShownTable>,
    /// Data files that are missing or damaged.
    pub missing: Vec<MissingFile>,
    /// Whether contents were checked, not sizes only.
    pub checked: bool,
}

/// A table of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownTable {
    /// Its database, as users know it.
    pub db: String,
    /// Its name; none: the database has no tables.
    pub table: Option<String>,
    /// Its id and those of its partitions, if it is of a user: they come from one counter for the
    /// whole cluster.
    pub user_ids: Vec<TableId>,
    /// Pairs of keys and values, indexes included.
    pub kvs: u64,
    /// Their bytes.
    pub kv_bytes: u64,
}

/// A data file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Its name.
    pub name: String,
    /// What is wrong, as part of a sentence.
    pub problem: String,
}

/// Points that can be restored: every timestamp from `from_ts` to `until_ts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreWindow {
    /// The folder of the full backup.
    pub full: String,
    /// The folders of incremental backups on top of it, in their order.
    pub incrementals: Vec<String>,
    /// The folder of the log on top of them; none: the window is one timestamp.
    pub log: Option<String>,
    /// The timestamp of the last of the backups.
    pub from_ts: TimeStamp,
    /// The last timestamp.
    pub until_ts: TimeStamp,
    /// What ends it before the end of the log: an object that is missing.
    pub ended_by: Option<String>,
}

/// Looks at a place and its folders.
///
/// # Errors
/// [`ShowError`]; what is wrong with single backups is part of what is shown.
pub async fn show(
    rt: &Rt,
    backend: &Backend,
    options: &ShowOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Shown, ShowError> {
    // Which folders are sealed shows when they are opened.
    let storage = Storage::open(rt, backend.unsealed()).await?;
    let found = places::find(&storage).await?;
    if found.is_empty() {
        return Err(ShowError::Nothing {
            place: storage.to_string(),
        });
    }
    let phase = Phase::start(progress, "Look", Unit::Ranges, found.len() as u64);
    let mut places = Vec::new();
    for place in found {
        if cancel.is_cancelled() {
            return Err(ShowError::Cancelled);
        }
        let backend = backend.below(&place.folder);
        let what = tokio::select! {
            biased;
            what = look_at(rt, &backend, &place, options) => what?,
            () = cancel.cancelled() => return Err(ShowError::Cancelled),
        };
        places.push(Place {
            folder: place.folder,
            what,
        });
        phase.advance(1, 0);
    }
    let windows = windows::windows(&places);
    Ok(Shown { places, windows })
}

/// Opens a place and looks at it. Keys that do not fit one of several places hide that one only.
async fn look_at(
    rt: &Rt,
    backend: &Backend,
    place: &places::Found,
    options: &ShowOptions,
) -> Result<What, ShowError> {
    let shown = match Storage::open(rt, backend).await {
        Ok(storage) => look(rt, storage, place, options).await,
        Err(error) => Err(error.into()),
    };
    match shown {
        Err(ShowError::Storage(error)) if error.is_of_keys() || error.damage().is_some() => {
            Ok(What::Unreadable {
                problem: error.to_string(),
                next_step: error.next_step(),
            })
        }
        shown => shown,
    }
}

async fn look(
    rt: &Rt,
    storage: Storage,
    place: &places::Found,
    options: &ShowOptions,
) -> Result<What, ShowError> {
    let unreadable = |error: &dyn Classify| What::Unreadable {
        problem: error.to_string(),
        next_step: error.next_step(),
    };
    if !place.has_log {
        match backup::look(rt, &storage, options).await {
            Ok(backup) => return Ok(What::Backup(Box::new(backup))),
            Err(backup::LookError::Storage(error)) => return Err(error.into()),
            // A log that has just begun has nothing but its mark.
            Err(backup::LookError::Meta(error)) => {
                let log = LogStorage::new(storage.clone());
                if log.bounds().await.is_err() {
                    return Ok(unreadable(&error));
                }
            }
        }
    }
    let check = options.check_contents.then(|| ContentCheck {
        rt: rt.clone(),
        crypter: options.log_crypter.clone(),
    });
    let log = LogStorage::new(match &options.log_master_keys {
        None => storage,
        Some(keys) => storage.with_master_keys(keys.clone()),
    });
    match Box::pin(log.survey(check.as_ref())).await {
        Ok(survey) => Ok(What::Log(Box::new(survey))),
        Err(br_log::read::LogReadError::Storage(error)) => Err(error.into()),
        Err(error) => Ok(unreadable(&error)),
    }
}
