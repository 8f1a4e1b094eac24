//! What a log consists of, and whether all of it is there.
//!
//! # What it does
//! Lists everything below `v1`, reads all metadata, and holds one against the other: an object that
//! metadata names must be there with its size, and so must flushes that others name ([`Chain`]). In logs
//! of other tools, where none does, metadata that was lost as a whole shows at best as a [`Quiet`]
//! time.

use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};

use br_format::crypter::Crypter;
use br_format::log::content;
use br_format::log::metadata::{LogGroup, LogMeta};
use br_format::log::migration::Compaction;
use br_format::log::names::{DataName, MetaName, Stats};
use br_rt::Rt;
use br_types::{StoreId, TableId, TimeStamp};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Chain, LogBounds, LogReadError, LogStorage, Removed};

/// Objects whose sums are checked at once: each is in memory as a whole.
const CHECKS_MAX: usize = 3;
/// Stores flush every few minutes at least. Nothing of any store for so long means that the task
/// was paused, or that metadata was lost.
const QUIET_MS_MIN: u64 = 30 * 60 * 1000;

/// An object that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingObject {
    /// Its name.
    pub name: String,
    /// The metadata that names it, or `a compaction`.
    pub named_by: String,
    /// What is wrong, as part of a sentence: `it is not there`.
    pub problem: String,
    /// The least timestamp of a record in it.
    pub min_ts: TimeStamp,
    /// The greatest timestamp of a record in it.
    pub max_ts: TimeStamp,
}

/// What a log has of one table or partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableEvents {
    /// Records of both column families.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A long time without any flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The flush before.
    pub from_ts: TimeStamp,
    /// The flush after; the end of the log, if there is none.
    pub to_ts: TimeStamp,
}

/// What one store wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFlushes {
    /// Metadata objects.
    pub flushes: u64,
    /// The last of them; zero in logs of the first versions.
    pub last_flush_ts: TimeStamp,
}

/// What a log consists of.
#[derive(Clone, Debug)]
pub struct LogSurvey {
    /// Whose log it is, where it begins and where it ends.
    pub bounds: LogBounds,
    /// Metadata objects.
    pub metas: u64,
    /// Those without files.
    pub empty_metas: u64,
    /// Objects with events.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Files in them.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the records.
    pub record_bytes: u64,
    /// By store.
    pub stores: BTreeMap<StoreId, StoreFlushes>,
    /// By table or partition; 0 has the schemas.
    pub tables: BTreeMap<TableId, TableEvents>,
    /// Compactions, whose SSTs stand for files of the log.
    pub compactions: Vec<Compaction>,
    /// Objects that are missing or damaged.
    pub missing: Vec<MissingObject>,
    /// Objects that no metadata names, of stores that died between the two; and their bytes.
    pub leftover: (u64, u64),
    /// Long times without any flush.
    pub quiet: Vec<Quiet>,
    /// Whether contents were checked against their sums, not sizes only.
    pub checked: bool,
    ranges: Vec<Stats>,
}

impl LogSurvey {
    /// The last timestamp to which a restore on top of a full backup of `start_ts` can go; what
    /// the log has of the backup's cluster is checked with [`LogBounds::check`] before.
    ///
    /// Objects that are missing end it before the first record that they might have held.
    pub fn restorable_until(&self, start_ts: TimeStamp) -> TimeStamp {
        let missing = self.missing.iter();
        let lost = missing.map(|object| (object.min_ts, object.max_ts));
        restorable_until(&self.ranges, self.bounds.max_ts, start_ts, lost)
    }
}

/// The last timestamp up to which a log that ends at `max_ts` can be restored on top of a full
/// backup of `start_ts`. `ranges` are those of all metadata, `lost` the least and the greatest
/// timestamp of each loss.
///
/// A loss before `start_ts` counts as long as values may be that old.
pub fn restorable_until(
    ranges: &[Stats],
    max_ts: TimeStamp,
    start_ts: TimeStamp,
    lost: impl IntoIterator<Item = (TimeStamp, TimeStamp)>,
) -> TimeStamp {
    let in_range = |stats: &&Stats| stats.min_ts <= max_ts && stats.max_ts >= start_ts;
    let begun = ranges.iter().filter(in_range);
    let shift_ts = begun
        .filter(|stats| !stats.min_begin_ts.is_zero())
        .map(|stats| stats.min_begin_ts)
        .fold(start_ts, TimeStamp::min);
    lost.into_iter()
        .filter(|(_, lost_max_ts)| *lost_max_ts >= shift_ts)
        .map(|(lost_min_ts, _)| lost_min_ts.prev().max(start_ts))
        .fold(max_ts, TimeStamp::min)
}

/// How contents are checked.
#[derive(Clone)]
pub struct ContentCheck {
    /// Where it is computed.
    pub rt: Rt,
    /// The key of the log.
    pub crypter: Crypter,
}

impl LogStorage {
    /// Looks at everything; with `check` at contents as well.
    ///
    /// # Errors
    /// The storage did not help, or metadata is damaged. Objects with events may be damaged or
    /// missing: that is what the survey says.
    pub async fn survey(&self, check: Option<&ContentCheck>) -> Result<LogSurvey, LogReadError> {
        let bounds = self.bounds().await?;
        let merged = self.migrations().await?.merged();
        let removed = Removed::new(&merged);
        let mut names = Vec::new();
        let mut there = Sizes::default();
        let mut listed = self.storage().list("v1/");
        while let Some(entry) = listed.try_next().await? {
            if br_format::log::names::is_meta(&entry.name) {
                names.push(entry.name);
            } else {
                there.add(&entry.name, entry.size_bytes);
            }
        }
        names.sort_unstable();
        let mut survey = LogSurvey::new(bounds, check.is_some());
        survey.note_names(&names);
        let mut chain = Chain::default();
        for name in names.iter().filter_map(|name| MetaName::parse(name)) {
            chain.note(&name);
        }
        let mut metas = std::pin::pin!(self.metas(names));
        while let Some((name, meta)) = metas.try_next().await? {
            chain.add(&name, meta.seal);
            survey.add(&name, &meta, &removed, &mut there);
            if let Some(check) = check {
                self.check_meta(check, &name, meta, &removed, &mut survey)
                    .await?;
            }
        }
        for compaction in &merged.compactions {
            self.survey_compaction(compaction, check, &mut there, &mut survey)
                .await?;
        }
        chain.add_copies(&survey.bounds.checkpoints);
        let lost = self.lost_flushes(&chain, &survey.bounds, &merged.compactions);
        for lost in lost.await? {
            let Some((min_ts, max_ts)) = lost.window else {
                continue;
            };
            survey.missing.push(MissingObject {
                name: lost.object(),
                named_by: lost.named_by,
                problem: "the index of this flush is not there".to_owned(),
                min_ts,
                max_ts,
            });
        }
        survey.compactions = merged.compactions;
        survey.leftover = there.leftover();
        survey.missing.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(survey)
    }

    async fn check_meta(
        &self,
        check: &ContentCheck,
        name: &str,
        meta: LogMeta,
        removed: &Removed,
        survey: &mut LogSurvey,
    ) -> Result<(), LogReadError> {
        let known = |group: &LogGroup| survey.missing.iter().any(|item| item.name == group.path);
        let mut groups = meta.groups;
        for group in &mut groups {
            let path = &group.path;
            group
                .files
                .retain(|file| !removed.is_file_removed(name, path, file));
        }
        groups.retain(|group| !group.files.is_empty() && !known(group));
        let found: Vec<_> = stream::iter(groups)
            .map(|group| self.check_group(check, name, group))
            .buffer_unordered(CHECKS_MAX)
            .try_collect()
            .await?;
        survey.missing.extend(found.into_iter().flatten());
        Ok(())
    }

    async fn check_group(
        &self,
        check: &ContentCheck,
        named_by: &str,
        group: LogGroup,
    ) -> Result<Option<MissingObject>, LogReadError> {
        let stored = match self.storage().read(&group.path).await {
            Ok(stored) => stored,
            Err(error) => {
                let problem = error.damage().ok_or(error)?;
                return Ok(Some(MissingObject {
                    name: group.path,
                    named_by: named_by.to_owned(),
                    problem,
                    min_ts: group.min_ts,
                    max_ts: group.max_ts,
                }));
            }
        };
        let crypter = check.crypter.clone();
        let (group, checked) = check
            .rt
            .blocking(move || {
                let checked = check_files(&group, &stored, &crypter);
                (group, checked)
            })
            .await;
        match checked {
            Ok(()) => Ok(None),
            // Without the key nothing can be said of the object.
            Err(
                error @ (br_format::log::LogFormatError::NoKey { .. }
                | br_format::log::LogFormatError::NoMasterKey { .. }
                | br_format::log::LogFormatError::WrongKey { .. }),
            ) => Err(error.into()),
            Err(error) => Ok(Some(MissingObject {
                name: group.path,
                named_by: named_by.to_owned(),
                problem: error.to_string(),
                min_ts: group.min_ts,
                max_ts: group.max_ts,
            })),
        }
    }

    async fn survey_compaction(
        &self,
        compaction: &Compaction,
        check: Option<&ContentCheck>,
        there: &mut Sizes,
        survey: &mut LogSurvey,
    ) -> Result<(), LogReadError> {
        for item in self.subcompactions(compaction).await? {
            for file in item.outputs {
                let mut problem = there.problem(&file.name, Some(file.size_bytes));
                if problem.is_none() && check.is_some() {
                    problem = match self.read_sst(&file).await {
                        Ok(_) => None,
                        Err(error @ LogReadError::Checksum { .. }) => Some(error.to_string()),
                        Err(error) => return Err(error),
                    };
                }
                if let Some(problem) = problem {
                    survey.missing.push(MissingObject {
                        name: file.name,
                        named_by: "a compaction".to_owned(),
                        problem,
                        min_ts: file.start_ts,
                        max_ts: file.end_ts,
                    });
                }
            }
        }
        Ok(())
    }
}

fn check_files(
    group: &LogGroup,
    stored: &bytes::Bytes,
    crypter: &Crypter,
) -> Result<(), br_format::log::LogFormatError> {
    for file in &group.files {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(stored.len());
        let bytes = match file.span.length {
            0 => stored.clone(),
            _ => stored.slice(place(file.span.offset)..place(file.span.end().unwrap_or(u64::MAX))),
        };
        let records = content::open(&group.path, file, bytes, crypter)?;
        content::check_records(&group.path, file, &records)?;
    }
    Ok(())
}

impl LogSurvey {
    fn new(bounds: LogBounds, checked: bool) -> LogSurvey {
        LogSurvey {
            bounds,
            metas: 0,
            empty_metas: 0,
            objects: 0,
            object_bytes: 0,
            files: 0,
            records: 0,
            record_bytes: 0,
            stores: BTreeMap::new(),
            tables: BTreeMap::new(),
            compactions: Vec::new(),
            missing: Vec::new(),
            leftover: (0, 0),
            quiet: Vec::new(),
            checked,
            ranges: Vec::new(),
        }
    }

    fn note_names(&mut self, names: &[String]) {
        let parsed = names.iter().filter_map(|name| MetaName::parse(name));
        let mut flushes: Vec<TimeStamp> = parsed.filter_map(|name| name.flush_ts()).collect();
        // Names of the first versions say nothing of flushes.
        if flushes.len() != names.len() || flushes.is_empty() {
            return;
        }
        flushes.push(self.bounds.max_ts);
        flushes.sort_unstable();
        for (from_ts, to_ts) in flushes.iter().zip(flushes.iter().skip(1)) {
            if to_ts.physical_ms() - from_ts.physical_ms() >= QUIET_MS_MIN {
                self.quiet.push(Quiet {
                    from_ts: *from_ts,
                    to_ts: *to_ts,
                });
            }
        }
    }

    fn add(&mut self, name: &str, meta: &LogMeta, removed: &Removed, there: &mut Sizes) {
        self.metas += 1;
        self.empty_metas += u64::from(meta.groups.is_empty());
        let flush_ts = MetaName::parse(name).and_then(|name| name.flush_ts());
        let store = self.stores.entry(meta.store).or_default();
        store.flushes += 1;
        store.last_flush_ts = store.last_flush_ts.max(flush_ts.unwrap_or_default());
        if !meta.groups.is_empty() {
            let files = meta.groups.iter().flat_map(|group| &group.files);
            let least = files.map(|file| file.min_begin_ts.min(file.min_ts)).min();
            self.ranges.push(Stats {
                min_begin_ts: least.unwrap_or_default(),
                min_ts: meta.min_ts,
                max_ts: meta.max_ts,
            });
        }
        for group in &meta.groups {
            let files = || {
                let files = group.files.iter();
                files.filter(|file| !removed.is_file_removed(name, &group.path, file))
            };
            if files().next().is_none() {
                there.take(&group.path);
                continue;
            }
            let length = (group.length > 0).then_some(group.length);
            if let Some(problem) = there.problem(&group.path, length) {
                self.missing.push(MissingObject {
                    name: group.path.clone(),
                    named_by: name.to_owned(),
                    problem,
                    min_ts: group.min_ts,
                    max_ts: group.max_ts,
                });
            }
            self.objects += 1;
            self.object_bytes = self.object_bytes.saturating_add(group.length);
            for file in files() {
                self.files += 1;
                self.records = self.records.saturating_add(file.entries);
                self.record_bytes = self.record_bytes.saturating_add(file.length);
                let table = self.tables.entry(file.identity.table).or_default();
                table.records = table.records.saturating_add(file.entries);
                table.bytes = table.bytes.saturating_add(file.length);
            }
        }
    }
}

/// Sizes of objects. There may be millions of them, so that names are kept as hashes: a collision,
/// of 64 bits, would hide that an object is missing only if sizes agree as well.
#[derive(Default)]
struct Sizes {
    objects: HashMap<u64, Listed>,
}

struct Listed {
    size_bytes: u64,
    is_data: bool,
    is_named: bool,
}

impl Sizes {
    fn key(name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    }

    fn add(&mut self, name: &str, size_bytes: u64) {
        let listed = Listed {
            size_bytes,
            is_data: DataName::is_data(name),
            is_named: false,
        };
        self.objects.insert(Self::key(name), listed);
    }

    /// Notes that an object is named, and gives its size.
    fn take(&mut self, name: &str) -> Option<u64> {
        let listed = self.objects.get_mut(&Self::key(name))?;
        listed.is_named = true;
        Some(listed.size_bytes)
    }

    /// What is wrong with an object that should have `expected` bytes.
    fn problem(&mut self, name: &str, expected: Option<u64>) -> Option<String> {
        match (self.take(name), expected) {
            (None, _) => Some("it is not there".to_owned()),
            (Some(found), Some(expected)) if found != expected => {
                Some(format!("it has {found} bytes, and {expected} were written"))
            }
            (Some(_), _) => None,
        }
    }

    fn leftover(&self) -> (u64, u64) {
        let objects = self.objects.values();
        objects
            .filter(|object| object.is_data && !object.is_named)
            .fold((0, 0), |(count, bytes), object| {
                (count + 1, bytes + object.size_bytes)
            })
    }
}
