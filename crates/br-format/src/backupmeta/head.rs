use br_proto::backup::{self, BackupMode, PlacementPolicy};
use br_proto::kvrpcpb::ApiVersion;
use br_types::{Cf, ClusterId, KeyRange, RawKey, TimeStamp};

use super::{Layout, MetaError};
use crate::names::BACKUPMETA;

/// `backup_schema_version` that is written, and the greatest that is read.
pub const SCHEMA_VERSION: u32 = 1;

/// What a backup is, apart from its files and schemas.
///
/// # Source
/// `backup.BackupMeta`.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupHead {
    /// The cluster that it is of.
    pub cluster_id: ClusterId,
    /// The version of that cluster, as PD says it: `9.0.0`.
    pub cluster_version: String,
    /// Free text of the tool that made it, often several lines.
    pub br_version: String,
    /// Kind of keys, and which.
    pub content: Content,
    /// Changes up to this, inclusive, are not in an incremental backup; zero in a full one.
    pub last_backup_ts: TimeStamp,
    /// The point in time that it shows; zero in a raw backup.
    pub backup_ts: TimeStamp,
    /// The encoding of keys and values.
    pub api_version: ApiVersion,
    /// Placement policies, each as TiDB's JSON; in full backups only.
    pub policies: Vec<Vec<u8>>,
    /// Whether the cluster had the new collations; `None` if it was not asked.
    pub new_collations_enabled: Option<bool>,
    /// A line about the outcome; mostly empty.
    pub backup_result: String,
}

/// What keys a backup holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Tables of TiDB, with their schemas.
    Tables,
    /// All transactional keys, without schemas.
    Txn,
    /// Raw keys: these ranges of these column families.
    Raw(Vec<RawRange>),
}

/// A range of raw keys of one column family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRange {
    /// The keys.
    pub range: KeyRange<RawKey>,
    /// The column family, `default` for all that there is today.
    pub cf: Cf,
}

impl BackupHead {
    /// Whether it holds changes only and goes on top of an earlier backup.
    pub fn is_incremental(&self) -> bool {
        !self.last_backup_ts.is_zero()
    }

    pub(super) fn from_proto(meta: backup::BackupMeta) -> Result<BackupHead, MetaError> {
        let unsupported = |feature| {
            Err(MetaError::Unsupported {
                object: BACKUPMETA.to_owned(),
                feature,
            })
        };
        let incomplete = |missing| {
            Err(MetaError::Incomplete {
                object: BACKUPMETA.to_owned(),
                missing,
            })
        };
        if meta.mode != BackupMode::Scan as i32 || !meta.ranges.is_empty() {
            return unsupported("files copied from engines");
        }
        if meta
            .raw_range_index
            .is_some_and(|index| index != backup::MetaFile::default())
        {
            return unsupported("ranges of a raw backup in files of their own");
        }
        if !meta.db_maps.is_empty() {
            return unsupported("id maps of a point-in-time restore instead of a backup");
        }
        let content = match (meta.is_raw_kv, meta.is_txn_kv) {
            (true, _) => Content::Raw(raw_ranges(meta.raw_ranges)?),
            (false, true) => Content::Txn,
            (false, false) => Content::Tables,
        };
        if meta.cluster_id == 0 {
            return incomplete("cluster id");
        }
        if meta.end_version == 0 && !meta.is_raw_kv {
            return incomplete("backup timestamp");
        }
        let new_collations_enabled = match meta.new_collations_enabled.as_str() {
            "" => None,
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            text => {
                let reason = format!("new collations are {text:?}, neither True nor False");
                return Err(MetaError::malformed(BACKUPMETA, reason));
            }
        };
        let Ok(api_version) = ApiVersion::try_from(meta.api_version) else {
            return unsupported("an API version newer than 2");
        };
        Ok(BackupHead {
            cluster_id: ClusterId(meta.cluster_id),
            // PD answers in JSON, and some versions of the tool stored the answer as it came.
            cluster_version: meta
                .cluster_version
                .trim_matches(['"', ' ', '\n', '\t'])
                .to_owned(),
            br_version: meta.br_version,
            content,
            last_backup_ts: TimeStamp(meta.start_version),
            backup_ts: TimeStamp(meta.end_version),
            api_version,
            policies: meta
                .policies
                .into_iter()
                .map(|policy| policy.info)
                .collect(),
            new_collations_enabled,
            backup_result: meta.backup_result,
        })
    }

    /// Everything but items, indexes and the total size.
    pub(super) fn into_proto(self, layout: Layout) -> backup::BackupMeta {
        let is_raw_kv = matches!(self.content, Content::Raw(_));
        let is_txn_kv = matches!(self.content, Content::Txn);
        let raw_ranges = match self.content {
            Content::Raw(ranges) => ranges,
            Content::Tables | Content::Txn => Vec::new(),
        };
        backup::BackupMeta {
            cluster_id: self.cluster_id.0,
            cluster_version: self.cluster_version,
            br_version: self.br_version,
            version: layout.number(),
            start_version: self.last_backup_ts.0,
            end_version: self.backup_ts.0,
            backup_schema_version: SCHEMA_VERSION,
            is_raw_kv,
            is_txn_kv,
            raw_ranges: raw_ranges
                .into_iter()
                .map(|RawRange { range, cf }| backup::RawRange {
                    start_key: range.start.into_bytes(),
                    end_key: range.end.into_bytes(),
                    cf: cf.name().to_owned(),
                })
                .collect(),
            // Readers of the first layout expect a JSON array in any case.
            ddls: b"[]".to_vec(),
            backup_result: self.backup_result,
            api_version: self.api_version as i32,
            policies: self
                .policies
                .into_iter()
                .map(|info| PlacementPolicy { info })
                .collect(),
            new_collations_enabled: match self.new_collations_enabled {
                None => "",
                Some(true) => "True",
                Some(false) => "False",
            }
            .to_owned(),
            mode: BackupMode::Scan as i32,
            ..Default::default()
        }
    }
}

fn raw_ranges(ranges: Vec<backup::RawRange>) -> Result<Vec<RawRange>, MetaError> {
    ranges
        .into_iter()
        .map(|range| {
            let cf = Cf::from_name(&range.cf).ok_or_else(|| {
                MetaError::malformed(BACKUPMETA, format!("column family {:?}", range.cf))
            })?;
            Ok(RawRange {
                range: KeyRange::new(range.start_key, range.end_key),
                cf,
            })
        })
        .collect()
}
