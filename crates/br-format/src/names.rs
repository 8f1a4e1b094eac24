//! The names of all objects of a snapshot backup, below its prefix.
//!
//! Everything is written once, except for what [`is_overwritable`] names.

use std::fmt;

use br_types::{Cf, RawKey, RegionId, StoreId, TableId, TimeStamp};
use sha2::{Digest, Sha256};

/// The first object of a backup; see [`crate::backup_lock`].
pub const BACKUP_LOCK: &str = "backup.lock";
/// The last object of a backup: a backup is complete exactly when it exists.
pub const BACKUPMETA: &str = "backupmeta";
/// The SHA-256 of [`BACKUPMETA`]; written before it.
pub const BACKUPMETA_SUM: &str = "backupmeta.sha256";
/// Where the files lie from which an interrupted backup goes on.
pub const RESUME_FOLDER: &str = "checkpoints/backup";
/// What the interrupted backup was: its timestamp and options.
pub const RESUME_META: &str = "checkpoints/backup/checkpoint.meta";
/// Who is at work; written anew by its owner.
pub const RESUME_LOCK: &str = "checkpoints/backup/checkpoint.lock";
/// Ranges that are done.
pub const RESUME_DATA_FOLDER: &str = "checkpoints/backup/data";
/// Checksums of tables that are done.
pub const RESUME_CHECKSUM_FOLDER: &str = "checkpoints/backup/checksum";
/// The end of the names in the two folders above.
pub const RESUME_SUFFIX: &str = ".cpt";

/// Kinds of items in a `backupmeta`, each with meta files of its own in the second layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaKind {
    /// Data files.
    DataFile,
    /// Databases and tables.
    Schema,
    /// Finished DDL jobs of an incremental backup.
    Ddl,
}

impl MetaKind {
    /// As it stands in names.
    pub const fn name(self) -> &'static str {
        match self {
            MetaKind::DataFile => "datafile",
            MetaKind::Schema => "schema",
            MetaKind::Ddl => "ddl",
        }
    }
}

impl fmt::Display for MetaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a meta file. `sequence` starts at 1 and is one for all kinds of a backup.
pub fn metafile(kind: MetaKind, sequence: u32) -> String {
    format!("{BACKUPMETA}.{kind}.{sequence:09}")
}

/// The name of a file of statistics; the id is that of the first (or only) table or partition in it.
pub fn stats_file(physical_id: TableId) -> String {
    format!("{BACKUPMETA}.schema.stats.{:09}", physical_id.0)
}

/// The name of a file of finished ranges of a backup as of a timestamp. `uuid` is a hyphenated UUID;
/// the name has its *text* in hexadecimal, as the official tool has it, and the timestamp before it: of
/// two commands that took over from a dead one at once, each with a timestamp of its own, only one is
/// believed.
pub fn resume_data(backup_ts: TimeStamp, uuid: impl fmt::Display) -> String {
    resume_file(RESUME_DATA_FOLDER, backup_ts, uuid)
}

/// The name of a file of finished checksums; as [`resume_data`].
pub fn resume_checksum(backup_ts: TimeStamp, uuid: impl fmt::Display) -> String {
    resume_file(RESUME_CHECKSUM_FOLDER, backup_ts, uuid)
}

fn resume_file(folder: &str, backup_ts: TimeStamp, uuid: impl fmt::Display) -> String {
    let (ts, uuid) = (backup_ts.0, hex::encode(uuid.to_string()));
    format!("{folder}/{ts:016X}-{uuid}{RESUME_SUFFIX}")
}

/// Whether a file of one of these folders may be of the backup as of that timestamp; those of the
/// official tool do not say.
pub fn is_resume_file_of(name: &str, folder: &str, backup_ts: TimeStamp) -> bool {
    let rest = name
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'));
    match rest.and_then(|rest| rest.strip_suffix(RESUME_SUFFIX)) {
        None => false,
        Some(stem) => match stem.split_once('-') {
            None => true,
            Some((ts, _)) => ts == format!("{:016X}", backup_ts.0),
        },
    }
}

/// Whether an object of this name may be written again with other content.
///
/// - `backup.lock`, by each run (always the same content);
/// - `checkpoint.lock`, by its owner, to keep it;
/// - meta and statistics files, by a run that goes on after an earlier one died between them and
///   `backupmeta`: nobody reads them before that exists.
pub fn is_overwritable(name: &str) -> bool {
    name == BACKUP_LOCK
        || name == RESUME_LOCK
        || name
            .strip_prefix(BACKUPMETA)
            .is_some_and(|rest| rest.starts_with('.'))
}

/// Whether the name is that of a data file, of any tool and layout.
pub fn is_sst(name: &str) -> bool {
    name.ends_with(".sst")
}

/// How data files of different stores are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SstLayout {
    /// A folder for each store: local storage and S3.
    StoreFolder,
    /// All in one folder: GCS, Azure, HDFS.
    Flat,
}

/// What makes the name of a data file unique. Readers take nothing back out of it but the column
/// family.
#[derive(Clone, Debug)]
pub struct SstStem<'a> {
    /// The store that writes it.
    pub store: StoreId,
    /// The region that it is of.
    pub region: RegionId,
    /// The version of that region's epoch.
    pub epoch_version: u64,
    /// The first raw key of the file, and when the file was begun; `None` for a raw backup of a
    /// region without bounds.
    pub start: Option<SstStart<'a>>,
}

/// See [`SstStem::start`].
#[derive(Clone, Copy, Debug)]
pub struct SstStart<'a> {
    /// The first raw key.
    pub key: &'a RawKey,
    /// Unix milliseconds.
    pub unix_ms: u64,
}

impl SstStem<'_> {
    /// The stem: what the files of both column families share.
    pub fn name(&self, layout: SstLayout) -> String {
        let separator = match layout {
            SstLayout::StoreFolder => '/',
            SstLayout::Flat => '_',
        };
        let SstStem {
            store,
            region,
            epoch_version,
            start,
        } = self;
        let stem = format!("{store}{separator}{region}_{epoch_version}");
        match start {
            None => stem,
            Some(SstStart { key, unix_ms }) => {
                let hash = hex::encode(Sha256::digest(key.as_bytes()));
                format!("{stem}_{hash}_{unix_ms}")
            }
        }
    }
}

/// The name of the data file of that column family.
pub fn sst(stem: &str, cf: Cf) -> String {
    format!("{stem}_{cf}.sst")
}

/// The stem and column family of a data file's name; `None` if it is not one.
pub fn parse_sst(name: &str) -> Option<(&str, Cf)> {
    let stem_and_cf = name.strip_suffix(".sst")?;
    [Cf::Default, Cf::Write].into_iter().find_map(|cf| {
        let stem = stem_and_cf.strip_suffix(cf.name())?.strip_suffix('_')?;
        Some((stem, cf))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backupmeta::tests::golden_data_files;

    #[test]
    fn names_of_golden_data_files_are_made_the_same_way() {
        for file in golden_data_files("full") {
            let (stem, cf) = parse_sst(&file.name).unwrap();
            let parts: Vec<&str> = stem.split(['/', '_']).collect();
            let stem = SstStem {
                store: StoreId(parts[0].parse().unwrap()),
                region: RegionId(parts[1].parse().unwrap()),
                epoch_version: parts[2].parse().unwrap(),
                start: Some(SstStart {
                    key: &file.range.start,
                    unix_ms: parts[4].parse().unwrap(),
                }),
            };
            assert_eq!(sst(&stem.name(SstLayout::StoreFolder), cf), file.name);
            assert_eq!(cf, file.cf);
            let flat = sst(&stem.name(SstLayout::Flat), cf);
            assert_eq!(flat, file.name.replacen('/', "_", 1));
        }
    }

    #[test]
    fn a_region_without_bounds_has_a_short_name() {
        let stem = SstStem {
            store: StoreId(1),
            region: RegionId(2),
            epoch_version: 3,
            start: None,
        };
        let name = sst(&stem.name(SstLayout::StoreFolder), Cf::Default);
        assert_eq!(name, "1/2_3_default.sst");
        assert_eq!(parse_sst(&name), Some(("1/2_3", Cf::Default)));
        assert_eq!(parse_sst("backupmeta"), None);
        assert_eq!(parse_sst("default.sst"), None);
    }

    #[test]
    fn numbered_names() {
        assert_eq!(metafile(MetaKind::Schema, 2), "backupmeta.schema.000000002");
        assert_eq!(
            stats_file(TableId(107)),
            "backupmeta.schema.stats.000000107"
        );
        let name = resume_data(TimeStamp(0x1a), "5aa45ed9");
        let stem = "000000000000001A-3561613435656439";
        assert_eq!(name, format!("{RESUME_DATA_FOLDER}/{stem}.cpt"));
        let is_of = |name: &str, ts| is_resume_file_of(name, RESUME_DATA_FOLDER, TimeStamp(ts));
        assert!(is_of(&name, 0x1a) && !is_of(&name, 0x1b));
        let official = format!("{RESUME_DATA_FOLDER}/3561613435656439.cpt");
        assert!(is_of(&official, 0x1a) && !is_of("1/a_write.sst", 0x1a));
        assert!(!is_of(&format!("{RESUME_CHECKSUM_FOLDER}/35.cpt"), 0x1a));
        assert!(is_overwritable("backupmeta.schema.000000002"));
        assert!(!is_overwritable(BACKUPMETA));
    }
}
