//! What a restore of a window needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use br_format::backupmeta::DataFile;
use br_format::crypter::Crypter;
use br_format::log::file::{LogFile, Window};
use br_format::log::metadata::LogMeta;
use br_format::log::migration::{Migration, Migrations};
use br_format::log::names::{self, MetaName};
use br_types::{Cf, KeyRange, TimeStamp};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};

use super::chain::{Witnesses, is_witness};
use super::{Chain, IngestedGroup, LogBounds, LogReadError, LogStorage, Removed};

/// An object with files that are needed.
#[derive(Clone, Debug, PartialEq)]
pub struct LogObject {
    /// Its name.
    pub name: String,
    /// The files, by position.
    pub files: Vec<LogFile>,
}

/// Files of one part of a log that are kept in memory at once, some 400 bytes each. Of more only the
/// metadata is known, and read again when the files are wanted.
pub const FILES_HELD_MAX: usize = 1 << 18;
/// Names of metadata that are kept in memory at once, some 200 bytes each. More are listed again.
const NAMES_HELD_MAX: usize = 1 << 18;
/// Objects in which a file is looked for that shows whether the key is right: a task encrypts all or
/// nothing.
const KEY_CHECK_OBJECTS_MAX: usize = 16;

/// Which files of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// Those with rows and indexes.
    Rows,
    /// Those with schemas.
    Schemas,
}

/// What a restore of a window needs. Cheap to clone but for the files that it holds.
#[derive(Clone)]
pub struct LogFiles {
    /// The window, with the timestamp from which on values are needed.
    pub window: Window,
    /// Files with rows and indexes.
    pub rows: PartFiles,
    /// Files with schemas.
    pub schemas: PartFiles,
    /// SSTs that stand for files that compactions took out. Sums are in the index; nothing in them
    /// is encrypted.
    pub compacted: Vec<DataFile>,
    /// SSTs of restores that were done within the window.
    pub ingested: Vec<IngestedGroup>,
    log: LogStorage,
    metas: WantedMetas,
}

/// The files of one part: how many there are, and they themselves if those are not too many.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartFiles {
    /// Files.
    pub files: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// By name of the object.
    held: Option<Vec<LogObject>>,
}

impl PartFiles {
    /// Whether they are in memory.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl LogFiles {
    /// Bytes of the records of rows and indexes.
    pub fn data_bytes(&self) -> u64 {
        let ssts = self.compacted.iter().map(|file| file.stats.total_bytes);
        ssts.fold(self.rows.bytes, u64::saturating_add)
    }

    /// Opens one file with rows, if the first ones are encrypted, so that a wrong key is told before anything
    /// is changed.
    ///
    /// # Errors
    /// The key is missing or another one; the file is missing or damaged.
    pub async fn check_key(&self, crypter: &Crypter) -> Result<(), LogReadError> {
        let mut objects = self.objects(LogPart::Rows).take(KEY_CHECK_OBJECTS_MAX);
        while let Some(object) = objects.try_next().await? {
            let encrypted = object.files.iter().filter(|file| file.encryption.is_some());
            if let Some(file) = encrypted.min_by_key(|file| file.length) {
                self.log.read_file(&object.name, file, crypter).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The files of a part, those of one object together. If they are not held, those of one object
    /// of metadata are in memory at a time, and an object comes once for each that names it.
    pub fn objects(&self, part: LogPart) -> BoxStream<'_, Result<LogObject, LogReadError>> {
        let files = match part {
            LogPart::Rows => &self.rows,
            LogPart::Schemas => &self.schemas,
        };
        if let Some(held) = &files.held {
            return stream::iter(held.iter().cloned().map(Ok)).boxed();
        }
        let metas = self.log.wanted_metas(&self.metas);
        let objects = metas.map_ok(move |(name, meta)| {
            let mut objects = Objects::default();
            for (object, file) in self.metas.files(&name, &meta, part) {
                objects.add(object, file);
            }
            stream::iter(objects.sorted().into_iter().map(Ok))
        });
        objects.try_flatten().boxed()
    }
}

/// Which metadata has files of a window, and which of its files those are.
#[derive(Clone)]
struct WantedMetas {
    /// Their names, if those are not too many; else they are listed again.
    names: Option<Arc<Vec<String>>>,
    removed: Arc<Removed>,
    window: Window,
    /// Those that are read for what they say of others, too.
    witnesses: Witnesses,
}

impl WantedMetas {
    /// Whether the metadata of that name may have any, or is to be read for what it says of others.
    fn may_have(&self, name: &str) -> bool {
        let window = self.window;
        let parsed = MetaName::parse(name);
        if parsed
            .as_ref()
            .is_some_and(|name| is_witness(&self.witnesses, name))
        {
            return true;
        }
        let may_hold = match parsed {
            Some(parsed) if parsed.is_empty() => false,
            Some(parsed) if parsed.sound_stats().is_some() => {
                parsed.may_hold(window.shift_ts, window.restored_ts)
            }
            _ => true,
        };
        names::is_meta(name) && may_hold && !self.removed.is_meta_removed(name)
    }

    /// The files of a part in that metadata, with their objects. Hints of regions are left out, for
    /// there are many.
    fn files<'m>(
        &'m self,
        name: &'m str,
        meta: &'m LogMeta,
        part: LogPart,
    ) -> impl Iterator<Item = (&'m str, LogFile)> {
        let needed = meta.needed(self.window).filter(move |(group, file)| {
            file.identity.is_schema == (part == LogPart::Schemas)
                && !self.removed.is_file_removed(name, &group.path, file)
        });
        needed.map(|(group, file)| {
            let file = LogFile {
                region_range: KeyRange::default(),
                region_epochs: Vec::new(),
                ..file.clone()
            };
            (group.path.as_str(), file)
        })
    }
}

/// Files by object, up to a number.
#[derive(Default)]
struct Objects {
    by_name: BTreeMap<String, Vec<LogFile>>,
    files: usize,
}

impl Objects {
    fn add(&mut self, object: &str, file: LogFile) {
        self.files += 1;
        match self.by_name.get_mut(object) {
            Some(files) => files.push(file),
            None => {
                self.by_name.insert(object.to_owned(), vec![file]);
            }
        }
    }

    fn sorted(self) -> Vec<LogObject> {
        let objects = self.by_name.into_iter().map(|(name, mut files)| {
            files.sort_by_key(|file| file.span);
            // Metadata may have been written twice; a file of an object is one file.
            files.dedup_by_key(|file| file.span);
            LogObject { name, files }
        });
        objects.collect()
    }
}

/// Counts the files of a part, and keeps them as long as they are not too many.
struct Collector {
    held: Option<Objects>,
    held_max: usize,
    files: u64,
    bytes: u64,
}

impl Collector {
    fn new(held_max: usize) -> Collector {
        Collector {
            held: Some(Objects::default()),
            held_max,
            files: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, object: &str, file: LogFile) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(file.length);
        if let Some(held) = self.held.as_mut().filter(|held| held.files < self.held_max) {
            held.add(object, file);
        } else {
            self.held = None;
        }
    }

    fn finish(self) -> PartFiles {
        let Some(held) = self.held.map(Objects::sorted) else {
            return PartFiles {
                files: self.files,
                bytes: self.bytes,
                held: None,
            };
        };
        let files = held.iter().flat_map(|object| &object.files);
        PartFiles {
            files: files.clone().count() as u64,
            bytes: files.map(|file| file.length).fold(0, u64::saturating_add),
            held: Some(held),
        }
    }
}

impl LogStorage {
    /// What a restore of the commits in `(start_ts, restored_ts]` needs. Memory is bounded by
    /// [`FILES_HELD_MAX`] for files in the log; what compactions made and took out is held.
    ///
    /// Whether the log has all of that range is another question: see [`LogBounds::check`]. That no
    /// flush of it is gone is seen here, as far as seals say it.
    ///
    /// # Errors
    /// The storage did not help, or an object is damaged, missing or newer than this tool.
    pub async fn select(
        &self,
        bounds: &LogBounds,
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<LogFiles, LogReadError> {
        let migrations = self.migrations().await?;
        let merged = migrations.merged();
        let compacted = self.compacted(&merged, restored_ts).await?;
        let mut chain = Chain::default();
        let (of_metas, names) = self.scan_names(start_ts, restored_ts, &mut chain).await?;
        let of_ssts = self.shift_ts_of_orphans(&migrations, &compacted, start_ts, restored_ts);
        let window = Window {
            start_ts,
            restored_ts,
            shift_ts: of_ssts.await?.map_or(of_metas, |ts| ts.min(of_metas)),
        };
        let mut metas = WantedMetas {
            names: None,
            removed: Arc::new(Removed::new(&merged)),
            window,
            witnesses: chain.witnesses(window.shift_ts, restored_ts),
        };
        metas.names = names.map(|mut names| {
            names.retain(|name| metas.may_have(name));
            Arc::new(names)
        });
        let (rows, schemas) = self.collect(&metas, &mut chain).await?;
        chain.add_copies(&bounds.checkpoints);
        let lost = self.lost_flushes(&chain, bounds, &merged.compactions);
        let mut lost = lost.await?.into_iter();
        if let Some(lost) = lost.find(|lost| lost.is_needed(window.shift_ts, restored_ts)) {
            return Err(LogReadError::LostFlush(Box::new(lost)));
        }
        let compacted = compacted.into_iter().flat_map(|(_, files)| files);
        Ok(LogFiles {
            window,
            rows,
            schemas,
            compacted: compacted
                .filter(|file| is_sst_needed(file, window))
                .collect(),
            ingested: self
                .ingested(&merged.ingested_paths, start_ts, restored_ts)
                .await?,
            log: self.clone(),
            metas,
        })
    }

    /// Whether no flush is gone that a restore of the commits in `(start_ts, restored_ts]` needs, as
    /// far as seals say it.
    ///
    /// # Errors
    /// [`LogReadError::LostFlush`] and those of [`LogStorage::select`].
    pub async fn check_flushes(
        &self,
        bounds: &LogBounds,
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<(), LogReadError> {
        let log = self.clone().with_files_held_max(0);
        log.select(bounds, start_ts, restored_ts).await.map(drop)
    }

    /// From where on values are needed, as far as metadata says; and its names, if those are not too
    /// many.
    async fn scan_names(
        &self,
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
        chain: &mut Chain,
    ) -> Result<(TimeStamp, Option<Vec<String>>), LogReadError> {
        let mut shift_ts = start_ts;
        let mut held = Some(Vec::new());
        let listed = self.listed_metas();
        let mut listed = std::pin::pin!(listed.map_ok(|name| (MetaName::parse(&name), name)));
        // Those whose names are not to be relied upon are read, several at once.
        let mut unsound = Vec::new();
        loop {
            let next = listed.try_next().await?;
            let is_last = next.is_none();
            if let Some((parsed, name)) = next {
                if let Some(parsed) = &parsed {
                    chain.note(parsed);
                }
                match parsed.as_ref().and_then(MetaName::sound_stats) {
                    Some(stats) if stats.min_ts <= restored_ts && stats.max_ts >= start_ts => {
                        shift_ts = shift_ts.min(stats.min_begin_ts);
                    }
                    Some(_) => {}
                    None if parsed.as_ref().is_some_and(MetaName::is_empty) => {}
                    None => unsound.push(name.clone()),
                }
                match held.as_mut().filter(|held| held.len() < NAMES_HELD_MAX) {
                    Some(held) => held.push(name),
                    None => held = None,
                }
            }
            if unsound.len() >= self.reads() || is_last {
                let metas = self.metas(std::mem::take(&mut unsound));
                shift_ts = metas
                    .try_fold(shift_ts, async |shift_ts, (_, meta)| {
                        let of_meta = meta.shift_ts(start_ts, restored_ts);
                        Ok(of_meta.map_or(shift_ts, |ts| ts.min(shift_ts)))
                    })
                    .await?;
            }
            if is_last {
                break;
            }
        }
        if let Some(held) = &mut held {
            held.sort_unstable();
        }
        Ok((shift_ts, held))
    }

    /// Metadata that a merged migration took out may be gone, and with it what it said.
    async fn shift_ts_of_orphans(
        &self,
        migrations: &Migrations,
        compacted: &[(String, Vec<DataFile>)],
        start_ts: TimeStamp,
        restored_ts: TimeStamp,
    ) -> Result<Option<TimeStamp>, LogReadError> {
        let merged = &migrations.base.compactions;
        let orphans = compacted
            .iter()
            .filter(|(artifacts, _)| merged.iter().any(|item| item.artifacts == *artifacts))
            .flat_map(|(_, files)| files.iter().cloned())
            .collect();
        self.least_start_ts(orphans, start_ts, restored_ts).await
    }

    async fn collect(
        &self,
        metas: &WantedMetas,
        chain: &mut Chain,
    ) -> Result<(PartFiles, PartFiles), LogReadError> {
        let mut rows = Collector::new(self.files_held_max());
        let mut schemas = Collector::new(self.files_held_max());
        let mut read = self.wanted_metas(metas);
        while let Some((name, meta)) = read.try_next().await? {
            chain.add(&name, meta.seal);
            for (part, into) in [(LogPart::Rows, &mut rows), (LogPart::Schemas, &mut schemas)] {
                for (object, file) in metas.files(&name, &meta, part) {
                    into.add(object, file);
                }
            }
        }
        Ok((rows.finish(), schemas.finish()))
    }

    /// The names of all metadata, as they are listed.
    fn listed_metas(&self) -> impl Stream<Item = Result<String, LogReadError>> + Send + use<> {
        let listed = self.storage().list(&format!("{}/", names::META_FOLDER));
        listed.err_into::<LogReadError>().try_filter_map(|entry| {
            let name = names::is_meta(&entry.name).then_some(entry.name);
            future::ready(Ok(name))
        })
    }

    /// Reads the metadata that may have wanted files.
    fn wanted_metas<'a>(
        &'a self,
        metas: &'a WantedMetas,
    ) -> BoxStream<'a, Result<(String, LogMeta), LogReadError>> {
        let names = match &metas.names {
            Some(names) => stream::iter(names.iter().cloned().map(Ok)).boxed(),
            None => self
                .listed_metas()
                .try_filter(|name| future::ready(metas.may_have(name)))
                .boxed(),
        };
        names
            .map_ok(move |name| self.meta(name))
            .try_buffer_unordered(self.reads())
            .boxed()
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

fn is_sst_needed(file: &DataFile, window: Window) -> bool {
    let from = match file.cf {
        Cf::Default => window.shift_ts,
        Cf::Write | Cf::Lock => window.start_ts,
    };
    file.start_ts <= window.restored_ts && file.end_ts >= from
}
