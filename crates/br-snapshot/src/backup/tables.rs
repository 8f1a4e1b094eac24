//! # What it does
//! Finds the tables of a backup and their ranges, and later writes their schemas, each with the
//! checksum that the cluster computed if that is wanted.
//!
//! # Ordering and invariants
//! Both passes read the same snapshot, so they see the same tables. Between them memory holds names
//! and ranges only, not the schemas: 100 000 tables with 3 ranges each take about 60 MB.

use std::collections::{BTreeMap, HashMap};

use br_cluster::{Cluster, KeyPrefix, LabelRule, Snapshot};
use br_format::{kv_stats::KvStats, schema::SchemaEntry};
use br_rt::{Phase, kill_point};
use br_tidb::{
    schema::{for_backup, is_system_db, patch::DbPatch, stored_db_name},
    table_key,
};
use br_types::{KeyRange, RawKey, TableId, TimeStamp};
use futures::{Stream, TryStreamExt, stream};

use super::{
    BackupError, BackupOptions, meta_sink::MetaSink, plan::PlannedDatabase, resume::Resume,
    selection::Selection,
};
use crate::{
    checksum::{self, ChecksumRange},
    schema::{Database, MetaRead, Schemas, Table, Tables},
};

#[cfg(test)]
mod tests;

/// What the first pass finds.
#[derive(Debug, Default)]
pub(super) struct FoundTables {
    pub(super) databases: Vec<PlannedDatabase>,
    /// In the keys of requests, sorted.
    pub(super) ranges: Vec<KeyRange<RawKey>>,
}

/// First pass: names and ranges.
pub(super) async fn find<R: MetaRead>(
    schemas: &Schemas<R>,
    selection: &Selection,
    prefix: KeyPrefix,
) -> Result<FoundTables, BackupError> {
    let mut found = FoundTables::default();
    let mut tables_count = 0;
    for database in schemas.databases().await? {
        let name = &database.info.name.original;
        if !selection.takes_db(name) {
            continue;
        }
        let mut planned = PlannedDatabase {
            name: name.clone(),
            tables: Vec::new(),
        };
        let mut tables = schemas.tables(database.info.id());
        while let Some(table) = tables.next().await? {
            if selection.takes_table(name, &table.info.name.original) {
                let ranges = table_key::backup_ranges(&table.info);
                found
                    .ranges
                    .extend(ranges.iter().map(|range| prefix.wire_range(range)));
                planned.tables.push(table.info.name.original);
            }
        }
        tables_count += planned.tables.len();
        found.databases.push(planned);
    }
    selection.check_found(found.databases.len(), tables_count)?;
    found.ranges.sort_by(|a, b| a.start.cmp(&b.start));
    Ok(found)
}

/// Second pass: schemas and checksums.
pub(super) struct SchemaPass<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) options: &'a BackupOptions,
    pub(super) selection: &'a Selection,
    pub(super) prefix: KeyPrefix,
    pub(super) backup_ts: TimeStamp,
    /// Whether the cluster computes checksums.
    pub(super) checksum: bool,
    pub(super) phase: &'a Phase,
    pub(super) merge_rules: MergeRules,
    /// Where checksums are written down.
    pub(super) resume: Option<&'a Resume>,
}

impl SchemaPass<'_> {
    /// Writes all schemas.
    pub(super) async fn run(
        &self,
        schemas: &Schemas<Snapshot>,
        sink: &mut MetaSink,
    ) -> Result<(), BackupError> {
        let tables_max = if self.checksum {
            self.options.table_concurrency.max(1)
        } else {
            1
        };
        let mut entries = std::pin::pin!(
            selected(schemas, self.selection)
                .map_ok(|item| self.checksummed(item))
                .try_buffered(tables_max)
        );
        while let Some((item, cluster_sum)) = entries.try_next().await? {
            if let (Some(table), Some(cluster_sum)) = (&item.table, cluster_sum) {
                let files: KvStats = physical_ids(table)
                    .map(|physical| sink.table_sum(physical))
                    .sum();
                if files != cluster_sum {
                    let db = &item.database.info.name.original;
                    let table = format!("{db}.{}", table.info.name.original);
                    return Err(BackupError::ChecksumMismatch {
                        table,
                        files,
                        cluster: cluster_sum,
                    });
                }
            }
            sink.accept_schema(self.entry(&item, cluster_sum)?).await?;
            self.phase.advance(1, 0);
            kill_point("backup.schema");
        }
        Ok(())
    }

    async fn checksummed(
        &self,
        item: SelectedTable,
    ) -> Result<(SelectedTable, Option<KvStats>), BackupError> {
        let Some(table) = item.table.as_ref().filter(|_| self.checksum) else {
            return Ok((item, None));
        };
        let id = table.info.id();
        if let Some(sum) = self.resume.and_then(|resume| resume.checksum_of(id)) {
            return Ok((item, Some(sum)));
        }
        let ranges: Vec<ChecksumRange> = table_key::backup_ranges(&table.info)
            .iter()
            .map(|range| ChecksumRange {
                range: self.prefix.wire_range(range),
                rewrite: None,
            })
            .collect();
        let requests_max = self.options.checksum_concurrency;
        let sum = checksum::checksum(self.cluster, &ranges, self.backup_ts, requests_max).await?;
        if let Some(resume) = self.resume {
            resume.add_checksum(id, sum).await;
        }
        Ok((item, Some(sum)))
    }

    fn entry(
        &self,
        item: &SelectedTable,
        sum: Option<KvStats>,
    ) -> Result<SchemaEntry, BackupError> {
        let is_full = self.selection.is_full();
        let db_json = stored_db_json(&item.database, is_full)?;
        let Some(table) = &item.table else {
            return Ok(SchemaEntry {
                db_json,
                ..SchemaEntry::default()
            });
        };
        let db = &item.database.info.name;
        let table_json = for_backup(&table.json, &table.counters, is_full).map_err(|source| {
            let name = format!("{}.{}", db.original, table.info.name.original);
            BackupError::Schema { name, source }
        })?;
        let partitions = table
            .info
            .partition
            .iter()
            .flat_map(|partition| &partition.definitions);
        Ok(SchemaEntry {
            db_json,
            table_json: Some(table_json.into_bytes()),
            checksum: sum.unwrap_or_default(),
            is_merge_option_allowed: self.merge_rules.allow(&[&db.lower, &table.info.name.lower]),
            partition_merge_option_allowed: partitions
                .filter(|partition| {
                    let table = &table.info.name.lower;
                    self.merge_rules
                        .allow(&[&db.lower, table, &partition.name.lower])
                })
                .map(|partition| (partition.name.original.clone(), true))
                .collect::<BTreeMap<_, _>>(),
            ..SchemaEntry::default()
        })
    }
}

/// The DBInfo as a backup stores it: system databases under a temporary name, placement policies
/// only if the whole cluster is backed up.
fn stored_db_json(database: &Database, is_full: bool) -> Result<Vec<u8>, BackupError> {
    let failed = |source| BackupError::Schema {
        name: database.info.name.original.clone(),
        source,
    };
    let mut patch = DbPatch::new(&database.json).map_err(failed)?;
    if is_system_db(&database.info.name.lower) {
        patch
            .set_name(&stored_db_name(&database.info.name.original))
            .map_err(failed)?;
    }
    if !is_full {
        patch.clear_placement().map_err(failed)?;
    }
    Ok(patch.finish().into_bytes())
}

/// The ids under which data of the table lies: its own, for global indexes too, and its partitions'.
fn physical_ids(table: &Table) -> impl Iterator<Item = TableId> + '_ {
    let partitions = table
        .info
        .partition
        .iter()
        .flat_map(|partition| &partition.definitions);
    std::iter::once(table.info.id()).chain(partitions.map(|definition| TableId(definition.id)))
}

/// A table with its database, or a database without tables.
#[derive(Debug)]
struct SelectedTable {
    database: Database,
    table: Option<Table>,
}

/// The databases that are still to come, and the tables of the current one.
struct Walk<'a, R: MetaRead> {
    schemas: &'a Schemas<R>,
    selection: &'a Selection,
    databases: Option<std::vec::IntoIter<Database>>,
    current: Option<(Database, Tables<R>, bool)>,
}

/// The selected tables, and the databases that have none of them.
fn selected<'a, R: MetaRead>(
    schemas: &'a Schemas<R>,
    selection: &'a Selection,
) -> impl Stream<Item = Result<SelectedTable, BackupError>> + 'a {
    let walk = Walk {
        schemas,
        selection,
        databases: None,
        current: None,
    };
    stream::try_unfold(walk, |mut walk| async move {
        Ok(walk.next().await?.map(|item| (item, walk)))
    })
}

impl<R: MetaRead> Walk<'_, R> {
    async fn next(&mut self) -> Result<Option<SelectedTable>, BackupError> {
        loop {
            let databases = match &mut self.databases {
                Some(databases) => databases,
                None => self
                    .databases
                    .insert(self.schemas.databases().await?.into_iter()),
            };
            let (database, tables, has_table) = match &mut self.current {
                Some(current) => current,
                None => {
                    let selection = self.selection;
                    let mut taken =
                        databases.filter(|db| selection.takes_db(&db.info.name.original));
                    let Some(database) = taken.next() else {
                        return Ok(None);
                    };
                    let tables = self.schemas.tables(database.info.id());
                    self.current.insert((database, tables, false))
                }
            };
            match tables.next().await? {
                Some(table) => {
                    let (db, name) = (&database.info.name.original, &table.info.name.original);
                    if self.selection.takes_table(db, name) {
                        *has_table = true;
                        let database = database.clone();
                        return Ok(Some(SelectedTable {
                            database,
                            table: Some(table),
                        }));
                    }
                }
                None => {
                    let ended = self.current.take();
                    if let Some((database, _, false)) = ended {
                        return Ok(Some(SelectedTable {
                            database,
                            table: None,
                        }));
                    }
                }
            }
        }
    }
}

/// Which tables and partitions have the attribute `merge_option=allow`.
#[derive(Debug, Default)]
pub(super) struct MergeRules(HashMap<String, bool>);

impl MergeRules {
    /// Picks it out of PD's label rules.
    pub(super) fn of(rules: Vec<LabelRule>, prefix: KeyPrefix) -> MergeRules {
        // TiDB puts its keyspace before the names of its rules.
        let front = match prefix.keyspace_id() {
            None => "schema/".to_owned(),
            Some(id) => format!("keyspace/{}/schema/", id.get()),
        };
        let allowed = rules.into_iter().filter_map(|rule| {
            let name = rule.id.strip_prefix(&front)?.to_owned();
            let allows = |label: &br_cluster::RegionLabel| {
                label.key == "merge_option" && label.value == "allow"
            };
            rule.labels.iter().any(allows).then_some((name, true))
        });
        MergeRules(allowed.collect())
    }

    fn allow(&self, names: &[&str]) -> bool {
        self.0.contains_key(&names.join("/"))
    }
}
