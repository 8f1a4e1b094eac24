//! # What it does
//! Tells tables whose rows are all in the backup or in the log from those that the backup left out:
//! a backup of one database and a log know of other tables only what was written to them last.
//!
//! # Ordering and invariants
//! A table that the backup does not have is covered if it was made in the window. Ids come from one
//! counter for the whole cluster: one above the counter's first value in the window was given away in
//! it. Of those that came with the first value the history of DDL jobs knows; a job enters it a
//! moment after it took effect, so that for a table of which no job is known the ids of the backup
//! decide. A table that was dropped before the backup and recovered after it is not covered.
//!
//! # Source
//! TiDB pkg/meta/model/job.go (types of jobs, `HistoryInfo`).

use std::collections::HashSet;

use br_format::schema::SchemaEntry;
use br_tidb::schema::{DbInfo, TableInfo, is_system_db, strip_temporary_prefix};
use br_types::{DbId, TableId};
use serde::Deserialize;

use super::schema_changes::SchemaChanges;

/// Jobs that make tables: CREATE TABLE, TRUNCATE, CREATE VIEW, CREATE SEQUENCE, several CREATE TABLE
/// at once, ALTER TABLE … PARTITION BY, REMOVE PARTITIONING.
const MAKING_JOBS: [i64; 7] = [3, 11, 21, 34, 60, 71, 72];

#[derive(Deserialize)]
struct Job {
    #[serde(rename = "type")]
    kind: i64,
    #[serde(default)]
    table_id: i64,
    binlog: Option<History>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct History {
    table_info: Option<Table>,
    multiple_table_infos: Option<Vec<Table>>,
}

#[derive(Deserialize)]
struct Table {
    id: i64,
    partition: Option<Partitions>,
}

#[derive(Deserialize)]
struct Partitions {
    definitions: Option<Vec<Partition>>,
}

#[derive(Deserialize)]
struct Partition {
    id: i64,
}

/// What the backup and the log know of tables.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    in_backup: HashSet<TableId>,
    dbs: HashSet<DbId>,
    /// The greatest id that users' tables have in the backup.
    id_max: i64,
    /// Ids above this one were given away in the window.
    new_above: Option<i64>,
    made: HashSet<TableId>,
    mentioned: HashSet<TableId>,
}

impl Coverage {
    /// What the log says.
    pub(super) fn new(changes: &SchemaChanges) -> Coverage {
        let mut coverage = Coverage {
            new_above: changes.first_last_id,
            ..Coverage::default()
        };
        let visible = changes.databases.iter().filter(|(_, json)| json.is_some());
        coverage.dbs.extend(visible.map(|(db, _)| *db));
        // A job in another form says nothing.
        let jobs = changes.jobs.values();
        for job in jobs.filter_map(|json| serde_json::from_slice::<Job>(json).ok()) {
            coverage.add_job(job);
        }
        coverage
    }

    fn add_job(&mut self, job: Job) {
        self.mentioned.insert(TableId(job.table_id));
        let Some(history) = job.binlog else { return };
        let more = history.multiple_table_infos.unwrap_or_default();
        for table in history.table_info.into_iter().chain(more) {
            if MAKING_JOBS.contains(&job.kind) {
                self.made.insert(TableId(table.id));
            }
            let partitions = table.partition.and_then(|info| info.definitions);
            let partitions = partitions.unwrap_or_default().into_iter();
            // A partition that was added may become a table in an exchange.
            self.made
                .extend(partitions.map(|partition| TableId(partition.id)));
        }
    }

    /// Notes what the backup has.
    pub(super) fn add_backup(&mut self, entry: &SchemaEntry) {
        let Ok(db) = DbInfo::parse(&entry.db_json) else {
            return;
        };
        self.dbs.insert(db.id());
        let table = entry.table_json.as_deref().map(TableInfo::parse);
        let Some(Ok(table)) = table else { return };
        let ids = table.all_ids();
        // Those of the system are from a range of their own.
        let name = strip_temporary_prefix(&db.name.original).to_lowercase();
        if !is_system_db(&name) {
            let greatest = ids.iter().map(|id| id.0).max();
            self.id_max = self.id_max.max(greatest.unwrap_or_default());
        }
        self.in_backup.extend(ids);
    }

    /// Whether all rows of a table are in the backup or in the log.
    pub(super) fn covers(&self, entry: &SchemaEntry) -> bool {
        let Some(Ok(table)) = entry.table_json.as_deref().map(TableInfo::parse) else {
            return true;
        };
        let id = table.id();
        let is_new = self.new_above.is_some_and(|last| id.0 > last);
        if is_new || self.in_backup.contains(&id) || self.made.contains(&id) {
            return true;
        }
        let db = DbInfo::parse(&entry.db_json).map(|db| db.id());
        let is_known_db = db.is_ok_and(|db| self.dbs.contains(&db));
        !self.mentioned.contains(&id) && is_known_db && id.0 > self.id_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(db: i64, table: i64, partitions: &[i64]) -> SchemaEntry {
        let name = r#"{"O":"x","L":"x"}"#;
        let definitions: Vec<_> = partitions
            .iter()
            .map(|id| format!(r#"{{"id":{id},"name":{name},"less_than":[]}}"#))
            .collect();
        let partition = match partitions {
            [] => "null".to_owned(),
            _ => format!(
                r#"{{"type":1,"expr":"","columns":null,"enable":true,"definitions":[{}]}}"#,
                definitions.join(",")
            ),
        };
        let table = format!(
            r#"{{"id":{table},"name":{name},"cols":[],"state":5,"partition":{partition}}}"#
        );
        SchemaEntry {
            db_json: format!(r#"{{"id":{db},"db_name":{name},"state":5}}"#).into_bytes(),
            table_json: Some(table.into_bytes()),
            ..SchemaEntry::default()
        }
    }

    fn coverage(jobs: &[&str]) -> Coverage {
        let jobs = jobs.iter().map(|json| json.as_bytes().to_vec());
        let changes = SchemaChanges {
            jobs: (1..).zip(jobs).collect(),
            ..SchemaChanges::default()
        };
        let mut coverage = Coverage::new(&changes);
        coverage.add_backup(&entry(2, 100, &[101, 102]));
        coverage
    }

    #[test]
    fn tables_of_the_backup_and_made_ones_are_covered() {
        let coverage = coverage(&[
            r#"{"id":1,"type":3,"table_id":90,"binlog":{"TableInfo":{"id":90}}}"#,
            r#"{"id":2,"type":11,"table_id":100,"binlog":{"TableInfo":{"id":120}}}"#,
            r#"{"id":3,"type":19,"table_id":50,"binlog":{"TableInfo":{"id":50,"partition":{"definitions":[{"id":51}]}}}}"#,
            r#"{"id":4,"type":5,"table_id":130,"binlog":{"TableInfo":{"id":130}}}"#,
            r#"{"id":5,"type":25,"table_id":140,"binlog":{"TableInfo":{"id":140}}}"#,
            "not a job",
        ]);
        // Of the backup; exchanged for a partition of it; created; truncated; exchanged for a
        // partition that was added.
        for id in [100, 101, 90, 120, 51] {
            assert!(coverage.covers(&entry(2, id, &[])), "{id}");
        }
        // Changed but never made, changed by a table with partitions, recovered.
        for id in [130, 50, 140] {
            assert!(!coverage.covers(&entry(2, id, &[])), "{id}");
        }
    }

    #[test]
    fn ids_of_the_window_are_new_whatever_jobs_say() {
        let job = br#"{"id":1,"type":7,"table_id":130,"binlog":{"TableInfo":{"id":130}}}"#;
        let changes = SchemaChanges {
            first_last_id: Some(129),
            jobs: [(1, job.to_vec())].into(),
            ..SchemaChanges::default()
        };
        let coverage = Coverage::new(&changes);
        assert!(coverage.covers(&entry(2, 130, &[])));
        assert!(!coverage.covers(&entry(2, 129, &[])));
    }

    #[test]
    fn without_a_job_the_id_decides() {
        let coverage = coverage(&[]);
        assert!(coverage.covers(&entry(2, 103, &[])));
        assert!(!coverage.covers(&entry(2, 99, &[])));
        // Of a database that the backup does not have.
        assert!(!coverage.covers(&entry(3, 103, &[])));
    }
}
