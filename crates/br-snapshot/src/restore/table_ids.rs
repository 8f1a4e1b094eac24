//! Which ids the tables of a backup get in the cluster.
//!
//! An id stays as it is where that is possible: then the files are ingested as they are, without
//! rewriting a key. Ids that the cluster may have given away already are replaced by new ones.
//!
//! Source: TiDB br/pkg/restore/internal/prealloc_table_id.

use std::collections::BTreeMap;

use br_tidb::schema::TableIds;
use br_types::TableId;

/// Ids from here on belong to TiDB's own system tables, which lie far above those of users.
const RESERVED_FROM: i64 = (1 << 32) - 1;

/// The ids that tables and partitions of a backup get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableIdMap {
    /// Those below are the cluster's; the restore owns the ids from here on.
    first: i64,
    /// One beyond the last id that the restore owns; what the cluster's counter is raised to, less 1.
    end: i64,
    new_ids: BTreeMap<TableId, TableId>,
}

impl TableIdMap {
    /// Plans the ids, given the last one that the cluster has given away and those that are known
    /// already: of tables that an incremental backup goes on with.
    pub fn plan(
        old_ids: impl IntoIterator<Item = TableId>,
        last_used: i64,
        known: BTreeMap<TableId, TableId>,
    ) -> TableIdMap {
        let mut old_ids: Vec<_> = old_ids
            .into_iter()
            .filter(|id| !known.contains_key(id))
            .collect();
        old_ids.sort_unstable();
        old_ids.dedup();
        let first = last_used + 1;
        let kept = |id: TableId| first <= id.0 && id.0 < RESERVED_FROM;
        let greatest = old_ids
            .iter()
            .filter(|id| id.0 < RESERVED_FROM)
            .map(|id| id.0)
            .max();
        let mut end = first.max(greatest.unwrap_or(last_used) + 1);
        let mut new_ids = known;
        for old in old_ids {
            let new = if kept(old) {
                old
            } else {
                end += 1;
                TableId(end - 1)
            };
            new_ids.insert(old, new);
        }
        TableIdMap {
            first,
            end,
            new_ids,
        }
    }

    /// Ids of the backup with those that they get, to be kept over an interruption.
    pub(super) fn pairs(&self) -> Vec<(i64, i64)> {
        let pairs = self.new_ids.iter();
        pairs.map(|(old, new)| (old.0, new.0)).collect()
    }

    /// The ids that an earlier command planned and reserved.
    pub(super) fn from_pairs(owned: std::ops::Range<i64>, pairs: Vec<(i64, i64)>) -> TableIdMap {
        let pairs = pairs.into_iter();
        TableIdMap {
            first: owned.start,
            end: owned.end,
            new_ids: pairs
                .map(|(old, new)| (TableId(old), TableId(new)))
                .collect(),
        }
    }

    /// The last id that the restore owns: what the cluster's counter of ids is raised to.
    pub fn last(&self) -> i64 {
        self.end - 1
    }

    /// The ids that the restore owns, from the first to one beyond the last.
    pub fn owned(&self) -> std::ops::Range<i64> {
        self.first..self.end
    }

    /// The new id of a table or partition of the backup.
    pub fn get(&self, old: TableId) -> Option<TableId> {
        self.new_ids.get(&old).copied()
    }

    /// How many tables and partitions keep their id, and how many do not.
    pub fn kept_and_changed(&self) -> (usize, usize) {
        let kept = self.new_ids.iter().filter(|(old, new)| old == new).count();
        (kept, self.new_ids.len() - kept)
    }
}

impl TableIds for TableIdMap {
    fn new_id(&self, old: TableId) -> Option<TableId> {
        self.get(old)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(old: &[i64], last_used: i64) -> TableIdMap {
        TableIdMap::plan(old.iter().copied().map(TableId), last_used, BTreeMap::new())
    }

    #[test]
    fn an_empty_cluster_keeps_every_id() {
        let map = plan(&[205, 220, 222], 0);
        assert_eq!(map.kept_and_changed(), (3, 0));
        assert_eq!(map.last(), 222);
    }

    #[test]
    fn used_ids_and_system_ids_go_behind_the_last() {
        let map = plan(&[100, 205, RESERVED_FROM + 7], 150);
        assert_eq!(map.get(TableId(205)), Some(TableId(205)));
        assert_eq!(map.get(TableId(100)), Some(TableId(206)));
        assert_eq!(map.get(TableId(RESERVED_FROM + 7)), Some(TableId(207)));
        assert_eq!(map.last(), 207);
    }

    #[test]
    fn known_ids_stay_whatever_they_are() {
        let known = BTreeMap::from([(TableId(7), TableId(90))]);
        let map = TableIdMap::plan([7, 120].map(TableId), 100, known);
        assert_eq!(map.get(TableId(7)), Some(TableId(90)));
        assert_eq!(map.get(TableId(120)), Some(TableId(120)));
        assert_eq!(map.owned(), 101..121);
    }

    #[test]
    fn nothing_to_restore_takes_no_id() {
        assert_eq!(plan(&[], 41).last(), 41);
    }

    proptest! {
        #[test]
        fn new_ids_are_unique_and_owned(
            old in proptest::collection::vec(1..RESERVED_FROM * 2, 0..50),
            last_used in 0..RESERVED_FROM / 2,
        ) {
            let map = plan(&old, last_used);
            let new: std::collections::BTreeSet<_> = map.new_ids.values().map(|id| id.0).collect();
            prop_assert_eq!(new.len(), map.new_ids.len());
            prop_assert!(new.iter().all(|id| map.owned().contains(id)));
            prop_assert!(map.owned().start == last_used + 1 && map.last() >= last_used);
        }
    }
}
