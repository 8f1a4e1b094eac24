//! Where a log begins and ends, and its migrations.

use br_format::log::LogFormatError;
use br_format::log::blocklist;
use br_format::log::lock::LockContent;
use br_format::log::marker::Marker;
use br_format::log::migration::Migration;
use br_format::log::names::{self, DataName, MetaName};
use br_format::names::{BACKUP_LOCK, BACKUPMETA};
use br_log::read::LogReadError;
use br_storage::Storage;
use br_types::TimeStamp;
use futures::TryStreamExt;

use super::super::error::{Trouble, VerifyError};
use super::super::report::{Cost, Part, Window};
use super::{Examined, QUIET_MS_MIN, whole};

/// Whether a log lies there, its mark damaged or not.
pub(in super::super) async fn is_log(storage: &Storage) -> Result<bool, VerifyError> {
    match storage.read(BACKUPMETA).await {
        // A backup of raw keys has no timestamp either.
        Ok(stored) if matches!(Marker::decode(&stored), Ok(Marker::Log(_))) => {
            Ok(!is_raw(&stored) || has_metas(storage).await?)
        }
        Ok(_) => has_metas(storage).await,
        Err(error) => match Trouble::from(error) {
            Trouble::Damage(_) => has_metas(storage).await,
            Trouble::End(error) => Err(error),
        },
    }
}

fn is_raw(stored: &bytes::Bytes) -> bool {
    use br_format::backupmeta::{BackupMeta, Compatibility, Content};
    let plain = br_format::crypter::Crypter::plaintext();
    let meta = BackupMeta::decode(stored.clone(), &plain, Compatibility::Lenient);
    meta.is_ok_and(|meta| matches!(meta.head.content, Content::Raw(_)))
}

async fn has_metas(storage: &Storage) -> Result<bool, VerifyError> {
    let mut listed = storage.list(&format!("{}/", names::META_FOLDER));
    Ok(listed.try_next().await?.is_some())
}

/// The object that an error is about.
fn object_of(error: &LogReadError) -> String {
    let object = match error {
        LogReadError::Format(
            LogFormatError::Malformed { object, .. }
            | LogFormatError::Length { object, .. }
            | LogFormatError::Checksum { object, .. },
        )
        | LogReadError::Missing { object, .. } => object,
        LogReadError::Compacted { file, .. } | LogReadError::Checksum { file, .. } => file,
        LogReadError::Storage(error) => &error.name,
        _ => BACKUPMETA,
    };
    object.to_owned()
}

impl Examined<'_> {
    /// Reads the marks; gives the migrations as one, or nothing if it cannot be known what counts.
    pub(super) async fn marks(&mut self) -> Result<Option<Migration>, VerifyError> {
        self.name_marks().await?;
        let bounds = match self.log.bounds().await {
            Ok(bounds) => Some(bounds),
            Err(LogReadError::NoLog { .. }) => {
                let problem = super::super::error::MISSING;
                self.found(BACKUPMETA, None, problem, whole(None));
                None
            }
            Err(LogReadError::IsBackup { .. }) => {
                let problem =
                    "it is that of a backup, and the objects beside it are those of a log";
                self.found(BACKUPMETA, None, problem, whole(None));
                None
            }
            Err(error) => {
                self.damaged_mark(error)?;
                None
            }
        };
        // Protobuf that was cut between two fields is valid.
        if let Some(bounds) = &bounds
            && (bounds.marker.cluster_id.0 == 0 || bounds.marker.start_ts.is_zero())
        {
            let problem = "it does not say of which cluster the log is, or where it begins";
            let lost = whole(Some(bounds));
            self.found(BACKUPMETA, None, problem, lost);
        }
        self.looked.bounds = bounds;
        match self.log.migrations().await {
            Ok(migrations) => Ok(Some(migrations.merged())),
            Err(error) => {
                let object = object_of(&error);
                if !self.report.knows(Part::Log, &object) {
                    self.damaged_mark(error)?;
                }
                Ok(None)
            }
        }
    }

    fn damaged_mark(&mut self, error: LogReadError) -> Result<(), VerifyError> {
        let object = object_of(&error);
        let problem = super::damage(error)?;
        self.found(&object, None, &problem, whole(None));
        Ok(())
    }

    /// Notes what every log has, or may have.
    async fn name_marks(&mut self) -> Result<(), VerifyError> {
        for name in [
            BACKUP_LOCK,
            BACKUPMETA,
            names::TRUNCATE_SAFE_POINT,
            names::REPLICATION_STATE,
        ] {
            self.looked.objects += u64::from(self.listing.name(name).is_some());
        }
        for folder in [names::GLOBAL_CHECKPOINT_FOLDER, names::MIGRATION_FOLDER] {
            let mut listed = self.log.storage().list(&format!("{folder}/"));
            while let Some(entry) = listed.try_next().await? {
                self.listing.name(&entry.name);
                self.looked.objects += 1;
            }
        }
        Ok(())
    }

    /// Ends that no flush can prove, and long times without any.
    pub(super) fn judge_flush_times(&mut self, metas: &[String]) {
        let Some(bounds) = self.looked.bounds.clone() else {
            return;
        };
        let parsed = metas.iter().filter_map(|name| MetaName::parse(name));
        let mut flushes: Vec<TimeStamp> = parsed.filter_map(|name| name.flush_ts()).collect();
        // Names of the first versions say nothing of flushes.
        let (Some(last), true) = (flushes.iter().max().copied(), flushes.len() == metas.len())
        else {
            return;
        };
        // Where copies have seals, these tell lost flushes from a time without writes.
        let bare = bounds.checkpoints.iter();
        for copy in bare.filter(|copy| copy.ts > last && copy.last_flush.is_none()) {
            let problem = format!(
                "it says that the log is complete up to {}, and the last flush was at {last}",
                copy.ts
            );
            let window = Window {
                from_ts: last.next(),
                to_ts: copy.ts,
            };
            self.found(&copy.name, None, &problem, (Cost::All, Some(window)));
        }
        flushes.push(bounds.max_ts.min(last));
        flushes.sort_unstable();
        for (from_ts, to_ts) in flushes.iter().zip(flushes.iter().skip(1)) {
            if to_ts.physical_ms().saturating_sub(from_ts.physical_ms()) >= QUIET_MS_MIN {
                let text = format!(
                    "no store flushed anything from {from_ts} to {to_ts}: the task was paused, or \
                     metadata was lost"
                );
                self.report.note(Part::Log, text, Vec::new());
            }
        }
    }

    /// What lies there beside the log.
    pub(super) async fn remains(&mut self) -> Result<(), VerifyError> {
        let is_of_tools = |name: &str| {
            [names::BLOCKLIST_FOLDER, names::ID_MAP_FOLDER]
                .iter()
                .any(|folder| name.starts_with(folder))
        };
        let unnamed = self
            .listing
            .unnamed(self.log.storage(), is_of_tools)
            .await?;
        let mut leftover = Vec::new();
        let mut strange = Vec::new();
        for name in unnamed.names {
            if is_lock(&name) {
                self.lock(name).await?;
            } else if DataName::is_data(&name) {
                leftover.push(name);
            } else {
                strange.push(name);
            }
        }
        if !leftover.is_empty() {
            let text = "events that no index names: a store died between the two, or the index \
                        was lost";
            self.report.note(Part::Log, text, leftover);
        }
        if !strange.is_empty() {
            let text = format!(
                "of {} objects with {} bytes the log knows nothing",
                unnamed.count, unnamed.bytes
            );
            self.report.note(Part::Log, text, strange);
        }
        self.blocklists().await
    }

    async fn lock(&mut self, name: String) -> Result<(), VerifyError> {
        let stored = match self.log.storage().read(&name).await {
            Ok(stored) => stored,
            // It was given back meanwhile.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => match Trouble::from(error) {
                Trouble::Damage(problem) => {
                    self.found(&name, None, &problem, (Cost::Nothing, None));
                    return Ok(());
                }
                Trouble::End(error) => return Err(error),
            },
        };
        let text = match LockContent::decode(&name, &stored) {
            Ok(lock) => format!(
                "locked since {} by process {} on {} ({})",
                lock.locked_at, lock.locker_pid, lock.locker_host, lock.hint
            ),
            Err(error) => format!("a lock that cannot be read: {error}"),
        };
        self.report.note(Part::Log, text, vec![name]);
        Ok(())
    }

    /// What a restore must not take out of the log.
    async fn blocklists(&mut self) -> Result<(), VerifyError> {
        let folder = format!("{}/", names::BLOCKLIST_FOLDER);
        let mut listed = self.log.storage().list(&folder);
        while let Some(entry) = listed.try_next().await? {
            let read = self.log.storage().read(&entry.name).await;
            let decoded = read.map_err(Trouble::from).and_then(|stored| {
                let decoded = blocklist::Blocklist::decode(&entry.name, &stored);
                decoded.map_err(|error| LogReadError::from(error).into())
            });
            self.looked.objects += 1;
            if let Err(trouble) = decoded {
                let problem = super::damage(trouble)?;
                self.found(&entry.name, None, &problem, (Cost::Nothing, None));
            }
        }
        Ok(())
    }
}

fn is_lock(name: &str) -> bool {
    [
        names::TRUNCATE_LOCK,
        names::MIGRATION_LOCK,
        names::MIGRATION_APPEND_LOCK,
    ]
    .iter()
    .any(|place| name.starts_with(place))
}
