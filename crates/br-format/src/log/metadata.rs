//! Metadata: the index of what one store flushed at once.
//!
//! # Layouts
//! V1 (`files`) has an object for each file; V2 (`file_groups`) has several files in an object. Both
//! become [`LogGroup`]s here, those of V1 with one file each.
//!
//! # Ordering and invariants
//! Objects are written before the metadata that names them, and metadata before progress is
//! published. So what no metadata names is no part of the log, and what one names is there.

use br_proto::backup::{DataFileGroup, MetaVersion, Metadata};
use br_types::{Cf, StoreId, TimeStamp};
use bytes::Bytes;
use prost::Message;

use super::LogFormatError;
use super::file::{LogFile, Window};
use super::names::{MetaFlags, MetaName, Stats};
use super::seal::{self, FlushMark, Seal};
use crate::Object;
use crate::wire;

/// Metadata greater than this is refused before it is read: that of a flush of a million files.
pub const META_SIZE_BYTES_MAX: u64 = 512 << 20;

/// One object with the files in it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogGroup {
    /// Its name; see [`crate::log::names::DataName`].
    pub path: String,
    /// The files, by position.
    pub files: Vec<LogFile>,
    /// The least timestamp of a record.
    pub min_ts: TimeStamp,
    /// The greatest timestamp of a record.
    pub max_ts: TimeStamp,
    /// The least resolved timestamp of the files.
    pub min_resolved_ts: TimeStamp,
    /// Bytes of the object; 0 in metadata of the first layout, which does not say it.
    pub length: u64,
}

impl LogGroup {
    /// The group of these files; the ranges are computed.
    pub fn new(path: String, files: Vec<LogFile>, length: u64) -> LogGroup {
        let least = |of: fn(&LogFile) -> TimeStamp| files.iter().map(of).min().unwrap_or_default();
        LogGroup {
            min_ts: least(|file| file.min_ts),
            max_ts: files
                .iter()
                .map(|file| file.max_ts)
                .max()
                .unwrap_or_default(),
            min_resolved_ts: least(|file| file.resolved_ts),
            path,
            files,
            length,
        }
    }
}

/// Which layout metadata has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLayout {
    /// An object for each file.
    V1,
    /// Several files in an object.
    #[default]
    V2,
}

/// The index of what one store flushed at once.
///
/// # Source
/// `backup.Metadata`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMeta {
    /// Who flushed it.
    pub store: StoreId,
    /// How far the store had come; a hint.
    pub resolved_ts: TimeStamp,
    /// The least timestamp of a record; zero without files.
    pub min_ts: TimeStamp,
    /// The greatest timestamp of a record; zero without files.
    pub max_ts: TimeStamp,
    /// The layout that it has, and will have when it is written anew.
    pub layout: LogLayout,
    /// The objects.
    pub groups: Vec<LogGroup>,
    /// Where it stands among the flushes of its store; other tools do not say it.
    pub seal: Option<Seal>,
}

impl LogMeta {
    /// The metadata of a flush.
    pub fn new(store: StoreId, groups: Vec<LogGroup>, store_resolved_ts: TimeStamp) -> LogMeta {
        let resolved_ts = groups.iter().map(|group| group.min_resolved_ts).min();
        let mut meta = LogMeta {
            store,
            resolved_ts: resolved_ts.unwrap_or_default().max(store_resolved_ts),
            min_ts: TimeStamp::ZERO,
            max_ts: TimeStamp::ZERO,
            layout: LogLayout::V2,
            groups,
            seal: None,
        };
        meta.recompute_range();
        meta
    }

    /// Sets [`LogMeta::min_ts`] and [`LogMeta::max_ts`] to those of the groups, after some were
    /// removed.
    pub fn recompute_range(&mut self) {
        let groups = &self.groups;
        self.min_ts = groups
            .iter()
            .map(|group| group.min_ts)
            .min()
            .unwrap_or_default();
        self.max_ts = groups
            .iter()
            .map(|group| group.max_ts)
            .max()
            .unwrap_or_default();
    }

    /// Reads it, to use it. Fields that are not known are passed over: versions say what must not
    /// be.
    ///
    /// # Errors
    /// [`LogFormatError::Malformed`], [`LogFormatError::NewerVersion`],
    /// [`LogFormatError::Unsupported`].
    pub fn decode(object: &str, bytes: &[u8]) -> Result<LogMeta, LogFormatError> {
        let meta = Metadata::decode(bytes)
            .map_err(|error| LogFormatError::malformed(object, error.to_string()))?;
        let seal = match (meta.previous_flush_ts, meta.checksum) {
            (None, None) => None,
            (flush_ts, _) => {
                seal::check(object, bytes)?;
                let previous = FlushMark {
                    flush_ts: TimeStamp(flush_ts.unwrap_or_default()),
                    number: meta.previous_number,
                    min_ts: TimeStamp(meta.previous_min_ts),
                    max_ts: TimeStamp(meta.previous_max_ts),
                };
                Some(Seal { previous })
            }
        };
        let layout = match MetaVersion::try_from(meta.meta_version) {
            Ok(MetaVersion::V1) => LogLayout::V1,
            Ok(MetaVersion::V2) => LogLayout::V2,
            Err(_) => {
                return Err(LogFormatError::NewerVersion {
                    object: object.to_owned(),
                    field: "metadata version",
                    found: i64::from(meta.meta_version),
                    supported: MetaVersion::V2 as i64,
                });
            }
        };
        let has_other = match layout {
            LogLayout::V1 => !meta.file_groups.is_empty(),
            LogLayout::V2 => !meta.files.is_empty(),
        };
        if has_other {
            let reason = "it has files in the layout of another version";
            return Err(LogFormatError::malformed(object, reason));
        }
        let mut groups = Vec::new();
        for info in meta.files {
            let (file, path) = LogFile::from_proto(object, info)?;
            let length = file.span.end().unwrap_or_default();
            groups.push(LogGroup::new(path, vec![file], length));
        }
        for group in meta.file_groups {
            groups.push(decode_group(object, group)?);
        }
        if groups.iter().any(|group| group.path.is_empty()) {
            let reason = "an object in it has no name";
            return Err(LogFormatError::malformed(object, reason));
        }
        let store = u64::try_from(meta.store_id)
            .map_err(|_| LogFormatError::malformed(object, "the id of the store is negative"))?;
        Ok(LogMeta {
            store: StoreId(store),
            resolved_ts: TimeStamp(meta.resolved_ts),
            min_ts: TimeStamp(meta.min_ts),
            max_ts: TimeStamp(meta.max_ts),
            layout,
            groups,
            seal,
        })
    }

    /// Reads it, to write it anew with parts removed.
    ///
    /// # Errors
    /// As [`LogMeta::decode`], and [`LogFormatError::UnknownField`], for that field would be lost.
    pub fn decode_to_rewrite(object: &str, bytes: &[u8]) -> Result<LogMeta, LogFormatError> {
        let meta = Self::decode(object, bytes)?;
        wire::refuse_unknown("backup.Metadata", object, bytes)?;
        Ok(meta)
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Bytes {
        let mut meta = Metadata {
            store_id: i64::try_from(self.store.0).unwrap_or(i64::MAX),
            resolved_ts: self.resolved_ts.0,
            min_ts: self.min_ts.0,
            max_ts: self.max_ts.0,
            previous_flush_ts: self.seal.map(|seal| seal.previous.flush_ts.0),
            previous_number: self.seal.map_or(0, |seal| seal.previous.number),
            previous_min_ts: self.seal.map_or(0, |seal| seal.previous.min_ts.0),
            previous_max_ts: self.seal.map_or(0, |seal| seal.previous.max_ts.0),
            ..Metadata::default()
        };
        match self.layout {
            LogLayout::V1 => {
                meta.meta_version = MetaVersion::V1 as i32;
                for group in &self.groups {
                    let files = group.files.iter();
                    meta.files
                        .extend(files.map(|file| file.to_proto(&group.path)));
                }
            }
            LogLayout::V2 => {
                meta.meta_version = MetaVersion::V2 as i32;
                meta.file_groups = self.groups.iter().map(encode_group).collect();
            }
        }
        let mut bytes = meta.encode_to_vec();
        if self.seal.is_some() {
            seal::add_checksum(&mut bytes);
        }
        bytes.into()
    }

    /// The name for a flush at `flush_ts`, which a store must not use twice.
    pub fn name(&self, flush_ts: TimeStamp) -> MetaName {
        let files = || self.groups.iter().flat_map(|group| &group.files);
        let min_begin_ts = files().map(|file| file.min_begin_ts).min();
        MetaName::Tagged {
            flush_ts,
            store: self.store,
            stats: Stats {
                min_begin_ts: min_begin_ts.unwrap_or_default(),
                min_ts: self.min_ts,
                max_ts: self.max_ts,
            },
            flags: Some(MetaFlags {
                no_schemas: !files().any(|file| file.identity.is_schema),
                empty: files().next().is_none(),
            }),
        }
    }

    /// Name and bytes.
    pub fn to_object(&self, flush_ts: TimeStamp) -> Object {
        Object {
            name: self.name(flush_ts).to_name(),
            bytes: self.encode(),
        }
    }

    /// Whether records of it may be in `[from, until]`.
    pub fn overlaps(&self, from: TimeStamp, until: TimeStamp) -> bool {
        self.min_ts <= until && self.max_ts >= from
    }

    /// From where on default values may be needed by commits in `[start_ts, restored_ts]`; none if
    /// it has no such commits.
    ///
    /// A transaction that commits after `start_ts` may have written its values before, at its
    /// `start_ts`, and an earlier flush may have them.
    pub fn shift_ts(&self, start_ts: TimeStamp, restored_ts: TimeStamp) -> Option<TimeStamp> {
        self.groups
            .iter()
            .flat_map(|group| &group.files)
            .filter(|file| file.identity.cf == Cf::Write)
            .filter(|file| file.min_ts <= restored_ts && file.max_ts >= start_ts)
            .map(|file| file.min_begin_ts.min(file.min_ts))
            .min()
    }

    /// The files that a restore needs, with the group and their index in it.
    pub fn needed(&self, window: Window) -> impl Iterator<Item = (&LogGroup, &LogFile)> {
        self.groups.iter().flat_map(move |group| {
            let needed = group
                .files
                .iter()
                .filter(move |file| file.is_needed(window));
            needed.map(move |file| (group, file))
        })
    }
}

fn decode_group(object: &str, group: DataFileGroup) -> Result<LogGroup, LogFormatError> {
    let mut files = Vec::with_capacity(group.data_files_info.len());
    for info in group.data_files_info {
        let (file, _) = LogFile::from_proto(object, info)?;
        if file.span.end().is_none_or(|end| end > group.length) {
            let reason = format!("a file lies beyond the end of {:?}", group.path);
            return Err(LogFormatError::malformed(object, reason));
        }
        files.push(file);
    }
    Ok(LogGroup {
        path: group.path,
        files,
        min_ts: TimeStamp(group.min_ts),
        max_ts: TimeStamp(group.max_ts),
        min_resolved_ts: TimeStamp(group.min_resolved_ts),
        length: group.length,
    })
}

fn encode_group(group: &LogGroup) -> DataFileGroup {
    DataFileGroup {
        path: group.path.clone(),
        data_files_info: group.files.iter().map(|file| file.to_proto("")).collect(),
        min_ts: group.min_ts.0,
        max_ts: group.max_ts.0,
        min_resolved_ts: group.min_resolved_ts.0,
        length: group.length,
    }
}
