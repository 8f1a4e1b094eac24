//! What a restore of a window needs.

use std::collections::BTreeMap;

use br_format::backupmeta::DataFile;
use br_format::log::file::{LogFile, Window};
use br_format::log::migration::{Migration, Migrations};
use br_types::{Cf, KeyRange, TimeStamp};
use futures::TryStreamExt;

use super::metas::MetaNames;
use super::{IngestedGroup, LogReadError, LogStorage, Removed};

/// An object with files that are needed.
#[derive(Clone, Debug, PartialEq)]
pub struct LogObject {
    /// Its name.
    pub name: String,
    /// The files, by position.
    pub files: Vec<LogFile>,
}

/// What a restore of a window needs.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// The window, with the timestamp from which on values are needed.
    pub window: Window,
    /// Objects with rows and indexes, by name.
    pub data: Vec<LogObject>,
    /// Objects with schemas, by name.
    pub schemas: Vec<LogObject>,
    /// SSTs that stand for files that compactions took out. Sums are in the index; nothing in them
    /// is encrypted.
    pub compacted: Vec<DataFile>,
    /// SSTs of restores that were done within the window.
    pub ingested: Vec<IngestedGroup>,
}

impl LogFiles {
    /// Bytes of the records of rows and indexes.
    pub fn data_bytes(&self) -> u64 {
        let files = self.data.iter().flat_map(|object| &object.files);
        let logs: u64 = files.map(|file| file.length).sum();
        let ssts: u64 = self
            .compacted
            .iter()
            .map(|file| file.stats.total_bytes)
            .sum();
        logs.saturating_add(ssts)
    }
}

impl LogStorage {
    /// What a restore of the commits in `(start_ts, restored_ts]` needs.
    ///
    /// Whether the log has all of that range is another question: see [`super::LogBounds::check`].
    /// Hints of regions are left out of the files, for there are many.
    ///
    /// # Errors
    /// The storage did not help, or an object is damaged or newer than this tool.
    pub async fn select(
        &self,
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<LogFiles, LogReadError> {
        let migrations = self.migrations().await?;
        let merged = migrations.merged();
        let names = self.meta_names().await?;
        let compacted = self.compacted(&merged, restored_ts).await?;
        let window = Window {
            start_ts,
            restored_ts,
            shift_ts: self
                .shift_ts(&names, &migrations, &compacted, start_ts, restored_ts)
                .await?,
        };
        let (data, schemas) = self.objects(names, &Removed::new(&merged), window).await?;
        let compacted = compacted.into_iter().flat_map(|(_, files)| files);
        Ok(LogFiles {
            window,
            data,
            schemas,
            compacted: compacted
                .filter(|file| is_sst_needed(file, window))
                .collect(),
            ingested: self
                .ingested(&merged.ingested_paths, start_ts, restored_ts)
                .await?,
        })
    }

    /// From where on values are needed.
    async fn shift_ts(
        &self,
        names: &MetaNames,
        migrations: &Migrations,
        compacted: &[(String, Vec<DataFile>)],
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<TimeStamp, LogReadError> {
        let mut shift_ts = names.shift_ts(start_ts, restored_ts);
        let by_content = self.metas(names.unsound.iter().cloned());
        shift_ts = by_content
            .try_fold(shift_ts, async |shift_ts, (_, meta)| {
                let of_meta = meta.shift_ts(start_ts, restored_ts);
                Ok(of_meta.map_or(shift_ts, |ts| ts.min(shift_ts)))
            })
            .await?;
        // Metadata that a merged migration took out may be gone, and with it what it said.
        let merged = &migrations.base.compactions;
        let orphans = compacted
            .iter()
            .filter(|(artifacts, _)| merged.iter().any(|item| item.artifacts == *artifacts))
            .flat_map(|(_, files)| files.iter().cloned())
            .collect();
        let of_ssts = self.least_start_ts(orphans, start_ts, restored_ts).await?;
        Ok(of_ssts.map_or(shift_ts, |ts| ts.min(shift_ts)))
    }

    async fn objects(
        &self,
        names: MetaNames,
        removed: &Removed,
        window: Window,
    ) -> Result<(Vec<LogObject>, Vec<LogObject>), LogReadError> {
        let sound = names.sound.into_iter();
        let wanted = sound
            .filter(|(_, name)| name.may_hold(window.shift_ts, window.restored_ts))
            .map(|(name, _)| name)
            .chain(names.unsound)
            .filter(|name| !removed.is_meta_removed(name));
        let wanted: Vec<_> = wanted.collect();
        let mut data = BTreeMap::new();
        let mut schemas = BTreeMap::new();
        let mut metas = std::pin::pin!(self.metas(wanted));
        while let Some((name, meta)) = metas.try_next().await? {
            for (group, file) in meta.needed(window) {
                if removed.is_file_removed(&name, &group.path, file) {
                    continue;
                }
                let objects = match file.identity.is_schema {
                    true => &mut schemas,
                    false => &mut data,
                };
                let files: &mut Vec<LogFile> = objects.entry(group.path.clone()).or_default();
                files.push(LogFile {
                    region_range: KeyRange::default(),
                    region_epochs: Vec::new(),
                    ..file.clone()
                });
            }
        }
        Ok((sorted(data), sorted(schemas)))
    }

    /// The SSTs of each compaction that can have anything up to `restored_ts`, by the folder of its
    /// indices. Values may be of any age.
    async fn compacted(
        &self,
        migration: &Migration,
        restored_ts: TimeStamp,
    ) -> Result<Vec<(String, Vec<DataFile>)>, LogReadError> {
        let mut found = Vec::new();
        for compaction in &migration.compactions {
            if compaction.input_min_ts > restored_ts {
                continue;
            }
            let items = self.subcompactions(compaction).await?;
            let files = items.into_iter().flat_map(|item| item.outputs);
            found.push((compaction.artifacts.clone(), files.collect()));
        }
        Ok(found)
    }
}

fn sorted(objects: BTreeMap<String, Vec<LogFile>>) -> Vec<LogObject> {
    let objects = objects.into_iter().map(|(name, mut files)| {
        files.sort_by_key(|file| file.span);
        // Metadata may have been written twice; a file of an object is one file.
        files.dedup_by_key(|file| file.span);
        LogObject { name, files }
    });
    objects.collect()
}

fn is_sst_needed(file: &DataFile, window: Window) -> bool {
    let from = match file.cf {
        Cf::Default => window.shift_ts,
        Cf::Write | Cf::Lock => window.start_ts,
    };
    file.start_ts <= window.restored_ts && file.end_ts >= from
}
