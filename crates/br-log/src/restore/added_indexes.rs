//! # What it does
//! Finds the indexes whose entries the log does not have: those that were added while it was
//! written, by a job that ingested files, which the stores' log backup does not see.
//!
//! # Ordering and invariants
//! An index is trusted only if it is known that its entries came as transactions; in doubt its entries
//! are made again from rows. An index without its entries would give wrong answers: where they
//! cannot be made, it is left out of the schema, and the statement that adds it is told.
//!
//! # Source
//! TiDB br/pkg/restore/ingestrec; pkg/meta/model (job types and `ReorgType`).

use std::{collections::HashSet, fmt::Write as _};

use br_tidb::schema::{IndexInfo, TableInfo, patch::TablePatch};
use br_types::{IndexId, TableId};
use serde::Deserialize;

use super::{error::PointError, schema_changes::SchemaChanges, schema_state::FinalTable};

/// Kinds of jobs that make indexes: ADD INDEX, MODIFY COLUMN, ADD PRIMARY KEY.
const INDEX_JOBS: [i64; 3] = [7, 12, 32];
/// Of a job that took effect: done, and done with all servers informed.
const EFFECTIVE_STATES: [i64; 2] = [4, 6];
/// How a job filled an index: with transactions, with files, with files and transactions merged.
const REORG_TXN: i64 = 1;
const REORG_TXN_MERGE: i64 = 3;

/// An index that was left out, with the statement that adds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutIndex {
    /// Its table, with the database.
    pub table: String,
    /// Its name.
    pub index: String,
    /// The statement.
    pub sql: String,
}

#[derive(Deserialize)]
struct Job {
    #[serde(rename = "type")]
    kind: i64,
    #[serde(default)]
    table_id: i64,
    #[serde(default)]
    state: i64,
    reorg_meta: Option<ReorgMeta>,
}

#[derive(Deserialize)]
struct ReorgMeta {
    #[serde(default)]
    reorg_tp: i64,
}

/// Tables of which all indexes that were added are known to be in the log: how many indexes jobs
/// with transactions made, if no other job made one.
pub(super) fn indexes_in_log(changes: &SchemaChanges, table: TableId) -> usize {
    let mut made = 0;
    for json in changes.jobs.values() {
        // A job that cannot be read proves nothing.
        let Ok(job) = serde_json::from_slice::<Job>(json) else {
            continue;
        };
        let is_of_table = job.table_id == table.0 && EFFECTIVE_STATES.contains(&job.state);
        if !is_of_table || !INDEX_JOBS.contains(&job.kind) {
            continue;
        }
        match job.reorg_meta.map_or(0, |meta| meta.reorg_tp) {
            REORG_TXN | REORG_TXN_MERGE => made += 1,
            // MODIFY COLUMN that touched no row.
            0 => {}
            _ => return 0,
        }
    }
    made
}

/// The indexes of a table that the log does not have.
pub(super) fn missing(changes: &SchemaChanges, table: &FinalTable) -> HashSet<IndexId> {
    let added = &table.added_indexes;
    if added.is_empty() || indexes_in_log(changes, table.info.id()) >= added.len() {
        return HashSet::new();
    }
    added.clone()
}

/// Takes indexes out of the schema of a table; gives the statements that add them again.
///
/// # Errors
/// The schema makes no sense.
pub(super) fn leave_out(
    db: &str,
    table: &mut FinalTable,
    indexes: &HashSet<IndexId>,
) -> Result<Vec<LeftOutIndex>, PointError> {
    let name = format!("{db}.{}", table.info.name.original);
    let failed = |error: br_tidb::schema::SchemaError| PointError::Schema {
        name: name.clone(),
        problem: error.to_string(),
    };
    let left_out = table.info.indexes.iter();
    let left_out = left_out.filter(|index| indexes.contains(&IndexId(index.id)));
    let left_out = left_out
        .map(|index| LeftOutIndex {
            table: name.clone(),
            index: index.name.original.clone(),
            sql: statement(db, &table.info, index),
        })
        .collect();
    let json = table.entry.table_json.take().unwrap_or_default();
    let mut patch = TablePatch::new(&String::from_utf8_lossy(&json)).map_err(failed)?;
    patch
        .remove_indexes(|index| indexes.contains(&index))
        .map_err(failed)?;
    let json = patch.into_text();
    table.info = TableInfo::parse(json.as_bytes()).map_err(failed)?;
    table.entry.table_json = Some(json.into_bytes());
    Ok(left_out)
}

fn statement(db: &str, table: &TableInfo, index: &IndexInfo) -> String {
    let mut sql = format!(
        "ALTER TABLE {}.{} ADD ",
        quoted(db),
        quoted(&table.name.original)
    );
    match (index.is_primary, index.is_unique) {
        (true, _) => sql.push_str("PRIMARY KEY"),
        (false, true) => {
            let _ = write!(sql, "UNIQUE INDEX {}", quoted(&index.name.original));
        }
        (false, false) => {
            let _ = write!(sql, "INDEX {}", quoted(&index.name.original));
        }
    }
    let parts = index.columns.iter().map(|part| {
        let column = table.columns.get(part.offset);
        match column {
            Some(column) if column.hidden => format!("({})", column.generated_expr_string),
            _ if part.length > 0 => format!("{}({})", quoted(&part.name.original), part.length),
            _ => quoted(&part.name.original),
        }
    });
    let _ = write!(sql, " ({})", parts.collect::<Vec<_>>().join(", "));
    if index.is_primary {
        sql.push_str(" NONCLUSTERED");
    }
    if index.is_global {
        sql.push_str(" GLOBAL");
    }
    sql.push(';');
    sql
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(texts: &[&str]) -> SchemaChanges {
        let jobs = texts.iter().enumerate();
        let jobs = jobs.map(|(id, text)| (id as i64, text.as_bytes().to_vec()));
        let mut changes = SchemaChanges::default();
        changes.jobs.extend(jobs);
        changes
    }

    #[test]
    fn only_jobs_with_transactions_are_trusted() {
        let txn = r#"{"type":7,"table_id":5,"state":6,"reorg_meta":{"reorg_tp":1}}"#;
        let ingest = r#"{"type":7,"table_id":5,"state":6,"reorg_meta":{"reorg_tp":2}}"#;
        let other = r#"{"type":7,"table_id":6,"state":6,"reorg_meta":{"reorg_tp":2}}"#;
        let cancelled = r#"{"type":7,"table_id":5,"state":3,"reorg_meta":{"reorg_tp":1}}"#;
        let known = |texts: &[&str]| indexes_in_log(&jobs(texts), TableId(5));
        assert_eq!(known(&[txn, other, "?"]), 1);
        assert_eq!(known(&[txn, ingest]), 0);
        assert_eq!(known(&[cancelled]), 0);
    }

    #[test]
    fn statements_name_everything_in_backticks() {
        let json = r#"{"id":1,"name":{"O":"a`b","L":"a`b"},"cols":[
            {"id":1,"name":{"O":"x","L":"x"},"offset":0,"type":{"Tp":3}},
            {"id":2,"name":{"O":"_V$_e_0","L":"_v$_e_0"},"offset":1,"hidden":true,
             "generated_expr_string":"lower(`x`)","type":{"Tp":253}}],
            "index_info":[{"id":7,"idx_name":{"O":"e","L":"e"},"is_unique":true,"state":5,"idx_cols":[
              {"name":{"O":"x","L":"x"},"offset":0,"length":10},
              {"name":{"O":"_V$_e_0","L":"_v$_e_0"},"offset":1,"length":-1}]}]}"#;
        let table = TableInfo::parse(json.as_bytes()).unwrap();
        assert_eq!(
            statement("d", &table, &table.indexes[0]),
            "ALTER TABLE `d`.`a``b` ADD UNIQUE INDEX `e` (`x`(10), (lower(`x`)));"
        );
    }
}
