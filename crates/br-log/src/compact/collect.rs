use std::collections::BTreeMap;

use br_codec::Crc64;
use br_format::log::{
    file::{EventKind, FileIdentity, LogFile},
    metadata::LogMeta,
    names::{self, MetaName},
};
use br_types::{Cf, TimeStamp};
use futures::TryStreamExt;

use super::{CompactError, CompactOptions, SUBCOMPACTION_BYTES};
use crate::read::{LogStorage, Removed};

/// Files that become one SST.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) identity: FileIdentity,
    /// With the object of each, in the order of metadata.
    pub(super) files: Vec<(String, LogFile)>,
}

impl Group {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, file)| file.length).sum()
    }
}

/// What is compacted, and the metadata that it is taken out of.
pub(super) struct Collected {
    pub(super) groups: Vec<Group>,
    /// By name; as far as it may have anything of the groups.
    pub(super) metas: BTreeMap<String, LogMeta>,
    /// What earlier migrations took out.
    pub(super) removed: Removed,
}

impl Collected {
    /// Reads the metadata and chooses.
    pub(super) async fn read(
        log: &LogStorage,
        options: &CompactOptions,
        until_ts: TimeStamp,
    ) -> Result<Collected, CompactError> {
        let merged = log.migrations().await?.merged();
        let removed = Removed::new(&merged);
        let folder = format!("{}/", names::META_FOLDER);
        let listed = log.storage().list(&folder).map_ok(|entry| entry.name);
        let wanted: Vec<String> = listed
            .try_filter(|name| {
                let wanted = is_wanted(name, options, until_ts) && !removed.is_meta_removed(name);
                std::future::ready(wanted)
            })
            .try_collect()
            .await?;
        let metas: BTreeMap<String, LogMeta> = log.metas(wanted).try_collect().await?;
        let mut collected = Collected {
            groups: Vec::new(),
            metas,
            removed,
        };
        collected.groups = collected.choose(options, until_ts)?;
        Ok(collected)
    }

    /// Files that earlier migrations left, with the names of metadata and object.
    pub(super) fn live_files(&self) -> impl Iterator<Item = (&str, &str, &LogFile)> {
        self.metas.iter().flat_map(|(meta_name, meta)| {
            let of_group = meta.groups.iter().flat_map(move |group| {
                let files = group.files.iter();
                files.map(move |file| (meta_name.as_str(), group.path.as_str(), file))
            });
            of_group
                .filter(|(meta, object, file)| !self.removed.is_file_removed(meta, object, file))
        })
    }

    fn choose(
        &self,
        options: &CompactOptions,
        until_ts: TimeStamp,
    ) -> Result<Vec<Group>, CompactError> {
        let metas = self.metas.values();
        let shift_ts = metas
            .filter_map(|meta| meta.shift_ts(options.from_ts, until_ts))
            .fold(options.from_ts, TimeStamp::min);
        let mut open: BTreeMap<FileIdentity, Group> = BTreeMap::new();
        let mut full = Vec::new();
        for (_, object, file) in self.live_files() {
            let identity = file.identity;
            let from_ts = match identity.cf {
                Cf::Default if options.shifts => shift_ts,
                _ => options.from_ts,
            };
            let is_in = file.max_ts >= from_ts && file.min_ts <= until_ts;
            if identity.is_schema || identity.kind != EventKind::Put || !is_in {
                continue;
            }
            if file.encryption.is_some() {
                let object = object.to_owned();
                return Err(CompactError::Encrypted { object });
            }
            let group = open.entry(identity).or_insert_with(|| Group {
                identity,
                files: Vec::new(),
            });
            group.files.push((object.to_owned(), file.clone()));
            if group.bytes() >= SUBCOMPACTION_BYTES {
                full.extend(open.remove(&identity));
            }
        }
        let rest = open.into_values();
        full.extend(rest.filter(|group| group.bytes() >= options.minimal_bytes));
        Ok(full)
    }

    /// Files that are compacted.
    pub(super) fn files(&self) -> usize {
        self.groups.iter().map(|group| group.files.len()).sum()
    }

    /// A number for the folder: the same files give the same.
    pub(super) fn hash(&self) -> u64 {
        let files = self.groups.iter().flat_map(|group| &group.files);
        let of_file = |(object, file): &(String, LogFile)| {
            let mut crc = Crc64::new();
            crc.update(object.as_bytes());
            crc.update(&file.span.offset.to_le_bytes());
            crc.update(&file.span.length.to_le_bytes());
            crc.value()
        };
        files.fold(0, |hash, file| hash ^ of_file(file))
    }
}

fn is_wanted(name: &str, options: &CompactOptions, until_ts: TimeStamp) -> bool {
    if !names::is_meta(name) {
        return false;
    }
    let Some(parsed) = MetaName::parse(name) else {
        // Without its name nobody knows whose it is.
        return options.shard.is_none();
    };
    if let Some(shard) = options.shard
        && !parsed.store().is_some_and(|store| shard.has(store))
    {
        return false;
    }
    let from_ts = match options.shifts {
        true => TimeStamp::ZERO,
        false => options.from_ts,
    };
    parsed.may_hold(from_ts, until_ts)
}
