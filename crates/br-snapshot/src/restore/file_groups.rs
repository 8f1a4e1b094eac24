//! How the files of a backup are grouped into ranges that become regions.
//!
//! The files of one range (its `default` and `write` file) stay together; neighbouring ranges of
//! one table are merged up to the size of a region. Where a group ends, a region is split.
//!
//! Source: TiDB br/pkg/restore/utils/merge.go.

use std::cmp::Ordering;

use br_format::backupmeta::DataFile;
use br_tidb::table_key;
use br_types::{KeyRange, RawKey, TableId};

/// Files of one group; a request for more would grow without bound when ranges are tiny.
const GROUP_FILES_MAX: usize = 1536;

/// How much becomes one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupLimit {
    /// Bytes of keys and values.
    pub(super) size_bytes_max: u64,
    /// Keys.
    pub(super) keys_max: u64,
}

/// How a key of the backup becomes a key of the cluster: the table's prefix is exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixRule {
    /// The table's prefix in the backup.
    pub old_prefix: RawKey,
    /// The table's prefix in the cluster.
    pub new_prefix: RawKey,
}

impl PrefixRule {
    /// The rule of a table or partition that changes its id; one that keeps it has none.
    pub fn of_table(old: TableId, new: TableId) -> PrefixRule {
        PrefixRule {
            old_prefix: table_key::table_prefix(old),
            new_prefix: table_key::table_prefix(new),
        }
    }

    /// A key of the backup as a key of the cluster. The end of a range may be the prefix's own end.
    pub fn apply(&self, key: &RawKey) -> Option<RawKey> {
        if let Some(rest) = key.as_bytes().strip_prefix(self.old_prefix.as_bytes()) {
            return Some(RawKey::new([self.new_prefix.as_bytes(), rest].concat()));
        }
        (*key == self.old_prefix.prefix_end()).then(|| self.new_prefix.prefix_end())
    }
}

/// The files of one range of the backup: at most one of each column family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileUnit {
    /// The keys that they hold, as keys of the cluster.
    pub(super) range: KeyRange<RawKey>,
    /// How their keys are rewritten; `None`: not at all.
    pub(super) rule: Option<PrefixRule>,
    /// The files.
    pub(super) files: Vec<DataFile>,
}

impl FileUnit {
    fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.stats.total_bytes).sum()
    }

    fn keys(&self) -> u64 {
        self.files.iter().map(|file| file.stats.total_kvs).sum()
    }
}

/// Neighbouring units that are restored into one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileGroup {
    /// From the start of the first unit to the end of the last.
    pub(super) range: KeyRange<RawKey>,
    /// In key order, without overlap.
    pub(super) units: Vec<FileUnit>,
}

impl FileGroup {
    /// Bytes of the files as they are stored.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.files().map(|file| file.size_bytes).sum()
    }

    /// The files of all units.
    pub(super) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.units.iter().flat_map(|unit| &unit.files)
    }
}

/// Files whose ranges contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A file belongs to no table that is restored with a rule that fits it.
    #[error("data file {file} holds keys outside the table that it belongs to")]
    NoRule {
        /// The file.
        file: String,
    },
    /// Two files of one column family hold keys of one range.
    #[error("data files {first} and {second} overlap")]
    Overlap {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
}

/// Units of `files`, each with the rule that `rule_of` has for it (`None`: keys stay), in order of
/// the cluster's keys.
///
/// # Errors
/// [`GroupError`].
pub(super) fn units(
    files: Vec<DataFile>,
    rule_of: impl Fn(&DataFile) -> Option<PrefixRule>,
) -> Result<Vec<FileUnit>, GroupError> {
    let mut singles = Vec::with_capacity(files.len());
    for file in files {
        let rule = rule_of(&file);
        let range = match &rule {
            None => file.range.clone(),
            Some(rule) => match (rule.apply(&file.range.start), rule.apply(&file.range.end)) {
                (Some(start), Some(end)) => KeyRange { start, end },
                _ => return Err(GroupError::NoRule { file: file.name }),
            },
        };
        singles.push(FileUnit {
            range,
            rule,
            files: vec![file],
        });
    }
    singles.sort_by(|a, b| {
        a.range
            .start
            .cmp(&b.range.start)
            .then_with(|| compare_ends(&a.range.end, &b.range.end))
    });
    let mut units: Vec<FileUnit> = Vec::new();
    for mut single in singles {
        match units.last_mut() {
            Some(last) if last.range == single.range => {
                let cf = single.files[0].cf;
                if let Some(same) = last.files.iter().find(|file| file.cf == cf) {
                    return Err(overlap(same, &single.files[0]));
                }
                last.files.append(&mut single.files);
            }
            Some(last) if last.range.overlaps(&single.range) => {
                return Err(overlap(&last.files[0], &single.files[0]));
            }
            _ => units.push(single),
        }
    }
    Ok(units)
}

fn overlap(first: &DataFile, second: &DataFile) -> GroupError {
    GroupError::Overlap {
        first: first.name.clone(),
        second: second.name.clone(),
    }
}

fn compare_ends(a: &RawKey, b: &RawKey) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.cmp(b),
    }
}

/// Groups of neighbouring units, each within `limit` unless one unit alone is larger.
///
/// Units of different records or indexes may share a group, so that a thousand small tables do
/// not become a thousand regions.
pub(super) fn groups(units: Vec<FileUnit>, limit: GroupLimit) -> Vec<FileGroup> {
    let mut groups: Vec<FileGroup> = Vec::new();
    let (mut bytes, mut keys, mut files) = (0u64, 0u64, 0usize);
    for unit in units {
        let more = (unit.size_bytes(), unit.keys(), unit.files.len());
        let fits = bytes.saturating_add(more.0) <= limit.size_bytes_max
            && keys.saturating_add(more.1) <= limit.keys_max
            && files + more.2 <= GROUP_FILES_MAX;
        match groups.last_mut() {
            Some(group) if fits => {
                group.range.end = unit.range.end.clone();
                group.units.push(unit);
                bytes += more.0;
                keys += more.1;
                files += more.2;
            }
            _ => {
                groups.push(FileGroup {
                    range: unit.range.clone(),
                    units: vec![unit],
                });
                (bytes, keys, files) = more;
            }
        }
    }
    groups
}

/// The keys at which regions are split: where groups end.
pub(super) fn split_keys<'a>(groups: impl IntoIterator<Item = &'a FileGroup>) -> Vec<RawKey> {
    let ends = groups.into_iter().map(|group| &group.range.end);
    ends.filter(|end| !end.is_empty()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use br_format::kv_stats::KvStats;
    use br_types::{Cf, TimeStamp};

    use super::*;

    const LIMIT: GroupLimit = GroupLimit {
        size_bytes_max: 100,
        keys_max: 10,
    };

    fn file(cf: Cf, start: &str, end: &str, bytes: u64) -> DataFile {
        DataFile {
            name: format!("{start}_{cf}.sst"),
            sha256: [0; 32],
            range: KeyRange::new(start.as_bytes(), end.as_bytes()),
            cf,
            start_ts: TimeStamp::ZERO,
            end_ts: TimeStamp(1),
            stats: KvStats {
                crc64_xor: 0,
                total_kvs: 1,
                total_bytes: bytes,
            },
            size_bytes: bytes,
            cipher_iv: None,
        }
    }

    fn key(text: &str) -> RawKey {
        RawKey::from(text.as_bytes())
    }

    #[test]
    fn files_of_one_range_are_one_unit_in_any_order() {
        let files = vec![
            file(Cf::Write, "m", "p", 1),
            file(Cf::Default, "a", "f", 1),
            file(Cf::Write, "a", "f", 1),
        ];
        let units = units(files, |_| None).unwrap();
        let shape: Vec<_> = units
            .iter()
            .map(|unit| (&unit.range.start, unit.files.len()))
            .collect();
        assert_eq!(shape, [(&key("a"), 2), (&key("m"), 1)]);
    }

    #[test]
    fn overlapping_files_are_refused() {
        let twice = vec![file(Cf::Write, "a", "f", 1), file(Cf::Write, "a", "f", 1)];
        assert!(matches!(
            units(twice, |_| None),
            Err(GroupError::Overlap { .. })
        ));
        let partly = vec![file(Cf::Write, "a", "f", 1), file(Cf::Write, "c", "", 1)];
        assert!(matches!(
            units(partly, |_| None),
            Err(GroupError::Overlap { .. })
        ));
    }

    #[test]
    fn groups_end_at_the_limit_and_regions_split_there() {
        let files = vec![
            file(Cf::Write, "a", "b", 60),
            file(Cf::Write, "b", "c", 40),
            file(Cf::Write, "d", "e", 1),
            file(Cf::Write, "f", "g", 500),
            file(Cf::Write, "g", "", 1),
        ];
        let groups = groups(units(files, |_| None).unwrap(), LIMIT);
        let ranges: Vec<_> = groups.iter().map(|group| group.range.to_string()).collect();
        assert_eq!(ranges, ["[61, 63)", "[64, 65)", "[66, 67)", "[67, )"]);
        assert_eq!(split_keys(&groups), ["c", "e", "g"].map(key));
    }

    #[test]
    fn a_rule_moves_ranges_and_refuses_strangers() {
        let rule = PrefixRule {
            old_prefix: key("t1"),
            new_prefix: key("t9"),
        };
        assert_eq!(rule.apply(&key("t1_r5")), Some(key("t9_r5")));
        assert_eq!(
            rule.apply(&key("t2")),
            Some(key("t:")),
            "the end of the table"
        );
        assert_eq!(rule.apply(&key("t3")), None);
        let strange = vec![file(Cf::Write, "t1_r", "t3", 1)];
        let refused = units(strange, |_| Some(rule.clone()));
        assert!(matches!(refused, Err(GroupError::NoRule { .. })));
    }

    #[test]
    fn changed_ids_are_sorted_by_the_new_keys() {
        let files = vec![
            file(Cf::Write, "t1a", "t1b", 1),
            file(Cf::Write, "t2a", "t2b", 1),
        ];
        let units = units(files, |file| {
            let new = if file.range.start.as_bytes().starts_with(b"t1") {
                "t9"
            } else {
                "t3"
            };
            let old = RawKey::from(&file.range.start.as_bytes()[..2]);
            Some(PrefixRule {
                old_prefix: old,
                new_prefix: key(new),
            })
        })
        .unwrap();
        let starts: Vec<_> = units.iter().map(|unit| unit.range.start.clone()).collect();
        assert_eq!(starts, ["t3a", "t9a"].map(key));
    }
}
