//! Migrations: edits of a log whose objects never change.
//!
//! # What it does
//! A compaction, a truncation or a restore appends a migration; readers load all of them and heed
//! what they say. Now and then they are merged into [`MigrationName::Base`], and what they ask for
//! is carried out.
//!
//! # Ordering and invariants
//! Migrations apply in the order of their numbers; the base comes first. What they take out of the
//! log is taken out for every range of timestamps: a compaction's SSTs stand for what it took out,
//! so that a reader of any range needs both.

mod edit;
mod name;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use br_proto::backup::{Migration as Proto, MigrationVersion as VersionProto};
use br_types::TimeStamp;
use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;

use super::LogFormatError;
use crate::wire;
pub use edit::{Compaction, DeletedSpans, MetaEdit};
pub use name::MigrationName;

/// What a migration may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MigrationVersion {
    /// The first one.
    M0,
    /// Names its creator.
    #[default]
    M1,
    /// May name ingested SSTs.
    M2,
}

/// An edit of a log.
///
/// # Source
/// `backup.Migration`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migration {
    /// Edits of metadata.
    pub edits: Vec<MetaEdit>,
    /// The log is cut off before this.
    pub truncated_to: TimeStamp,
    /// Compactions, whose SSTs stand for what was taken out.
    pub compactions: Vec<Compaction>,
    /// Folders to remove when the migration is carried out.
    pub destruct_prefixes: Vec<String>,
    /// The names of [`super::ingested::IngestedSsts`].
    pub ingested_paths: Vec<String>,
    /// Who made it.
    pub creator: String,
    /// What it may hold.
    pub version: MigrationVersion,
}

impl Migration {
    /// Reads it.
    ///
    /// # Errors
    /// [`LogFormatError::Malformed`], [`LogFormatError::NewerVersion`],
    /// [`LogFormatError::UnknownField`]: what an edit says beyond what is known must not be passed
    /// over.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Migration, LogFormatError> {
        let proto = Proto::decode(bytes)
            .map_err(|error| LogFormatError::malformed(object, error.to_string()))?;
        let version = match VersionProto::try_from(proto.version) {
            Ok(VersionProto::M0) => MigrationVersion::M0,
            Ok(VersionProto::M1) => MigrationVersion::M1,
            Ok(VersionProto::M2) => MigrationVersion::M2,
            Err(_) => {
                return Err(LogFormatError::NewerVersion {
                    object: object.to_owned(),
                    field: "migration version",
                    found: i64::from(proto.version),
                    supported: VersionProto::M2 as i64,
                });
            }
        };
        wire::refuse_unknown("backup.Migration", object, bytes)?;
        Ok(Migration {
            edits: proto
                .edit_meta
                .into_iter()
                .map(MetaEdit::from_proto)
                .collect(),
            truncated_to: TimeStamp(proto.truncated_to),
            compactions: proto
                .compactions
                .into_iter()
                .map(Compaction::from_proto)
                .collect(),
            destruct_prefixes: proto.destruct_prefix,
            ingested_paths: proto.ingested_sst_paths,
            creator: proto.creator,
            version,
        })
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let version = match self.version {
            MigrationVersion::M0 => VersionProto::M0,
            MigrationVersion::M1 => VersionProto::M1,
            MigrationVersion::M2 => VersionProto::M2,
        };
        Proto {
            creator: self.creator.clone(),
            version: version as i32,
            edit_meta: self.edits.iter().map(MetaEdit::to_proto).collect(),
            truncated_to: self.truncated_to.0,
            compactions: self.compactions.iter().map(Compaction::to_proto).collect(),
            destruct_prefix: self.destruct_prefixes.clone(),
            ingested_sst_paths: self.ingested_paths.clone(),
        }
        .encode_to_vec()
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
            && self.truncated_to.is_zero()
            && self.compactions.is_empty()
            && self.destruct_prefixes.is_empty()
            && self.ingested_paths.is_empty()
    }

    /// A number for its name, by which a repeated append shows. Tools compute it differently; it
    /// proves nothing.
    pub fn hash(&self) -> u64 {
        let iso = |bytes: &[u8]| checksum(CrcAlgorithm::Crc64GoIso, bytes);
        let compactions = self.compactions.iter().map(|item| item.artifacts_hash);
        let edits = self.edits.iter().map(MetaEdit::hash);
        let ingested = self.ingested_paths.iter().map(|path| iso(path.as_bytes()));
        compactions
            .chain(edits)
            .chain(ingested)
            .fold(self.truncated_to.0, |hash, item| hash ^ item)
    }

    /// Takes over what a later migration says.
    ///
    /// Edits of one object are joined: lists come together, each item once, and what either asks
    /// for stays asked for.
    pub fn merge(&mut self, later: Migration) {
        self.truncated_to = self.truncated_to.max(later.truncated_to);
        self.version = self.version.max(later.version);
        if !later.creator.is_empty() {
            self.creator = later.creator;
        }
        extend_new(&mut self.destruct_prefixes, later.destruct_prefixes);
        extend_new(&mut self.ingested_paths, later.ingested_paths);
        for compaction in later.compactions {
            if !self.compactions.contains(&compaction) {
                self.compactions.push(compaction);
            }
        }
        self.edits.extend(later.edits);
        self.join_edits();
    }

    fn join_edits(&mut self) {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut joined: Vec<MetaEdit> = Vec::new();
        for edit in std::mem::take(&mut self.edits) {
            match places.get(&edit.path).and_then(|at| joined.get_mut(*at)) {
                Some(known) => known.merge(edit),
                None => {
                    places.insert(edit.path.clone(), joined.len());
                    joined.push(edit);
                }
            }
        }
        self.edits = joined;
    }
}

/// All migrations of a storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migrations {
    /// The base, with [`super::names::TRUNCATE_SAFE_POINT`] taken over; empty if there is none.
    pub base: Migration,
    /// The others, by number.
    pub layers: Vec<(u32, Migration)>,
}

impl Migrations {
    /// Puts them in order. `truncate_safe_point` is zero if the storage has none.
    pub fn new(
        base: Option<Migration>,
        mut layers: Vec<(u32, Migration)>,
        truncate_safe_point: TimeStamp,
    ) -> Migrations {
        layers.sort_by_key(|(number, _)| *number);
        let mut base = base.unwrap_or_default();
        base.truncated_to = base.truncated_to.max(truncate_safe_point);
        Migrations { base, layers }
    }

    /// The number of the next one.
    pub fn next_number(&self) -> u32 {
        self.layers
            .last()
            .map_or(1, |(number, _)| number.saturating_add(1))
    }

    /// All of them as one.
    pub fn merged(&self) -> Migration {
        let mut all = self.base.clone();
        all.join_edits();
        for (_, layer) in &self.layers {
            all.merge(layer.clone());
        }
        all
    }
}

fn extend_new<T: PartialEq>(known: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !known.contains(&item) {
            known.push(item);
        }
    }
}
