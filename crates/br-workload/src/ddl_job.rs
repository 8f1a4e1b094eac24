//! The job that a statement leaves in the history, as TiDB has it.
//!
//! Source: TiDB `pkg/meta/model/job.go`.

use br_tidb::meta_key;
use br_types::{RawKey, TimeStamp};
use serde_json::{Value, json};

use crate::{ddl::Statement, model::Model, model::SchemaChange, table::Table};

/// `JobStateSynced`.
const STATE: i64 = 6;
/// `ReorgTypeTxn`.
const REORG: i64 = 1;

/// A statement that is about to be committed.
pub(crate) struct DdlJob<'a> {
    pub(crate) id: i64,
    pub(crate) statement: Statement,
    /// The name of the database.
    pub(crate) database: &'a str,
    pub(crate) schema_version: i64,
    /// When its transaction began.
    pub(crate) finished_ts: TimeStamp,
}

impl DdlJob<'_> {
    /// Its key and value. `changes` are not in the model yet.
    pub(crate) fn entry(
        &self,
        model: &Model,
        changes: &[SchemaChange],
    ) -> Option<(RawKey, Vec<u8>)> {
        let before = |change: &SchemaChange| model.table(change.0).cloned();
        let olds: Vec<Table> = changes.iter().filter_map(before).collect();
        let news: Vec<&Table> = changes.iter().filter_map(|(_, new)| new.as_ref()).collect();
        // A table that is there no more is told as it was.
        let new = news.first().copied().or(olds.first())?;
        let table = olds.first().unwrap_or(new);
        let mut binlog = json!({
            "SchemaVersion": self.schema_version,
            "FinishedTS": self.finished_ts.0,
            "TableInfo": info(new),
        });
        let mut involved = Vec::new();
        let mut involve = |name: &str| {
            involved.push(json!({ "database": self.database, "table": name }));
        };
        let kind = match self.statement {
            Statement::Create => 3,
            Statement::Drop => 4,
            Statement::AddColumn => 5,
            Statement::AddIndex | Statement::AddIndexOfUnknownOrigin => 7,
            Statement::Truncate => 11,
            Statement::Rename => {
                involve(&table.name);
                involve(&new.name);
                14
            }
            Statement::Swap => {
                // a TO x, b TO a, x TO b.
                let (one, other) = (news.first()?, news.get(1)?);
                for name in [
                    &other.name,
                    "swap",
                    &one.name,
                    &other.name,
                    "swap",
                    &one.name,
                ] {
                    involve(name);
                }
                binlog["TableInfo"] = Value::Null;
                binlog["MultipleTableInfos"] = json!([info(one), info(other), info(one)]);
                47
            }
        };
        let job = json!({
            "id": self.id,
            "type": kind,
            "schema_id": table.db.0,
            "schema_name": self.database,
            "table_id": table.id.0,
            "table_name": table.name,
            "state": STATE,
            "binlog": binlog,
            "involving_schema_info": involved,
            "reorg_meta": { "reorg_tp": REORG },
        });
        let field = meta_key::job_field(self.id);
        let key = meta_key::hash_key(meta_key::DDL_JOB_HISTORY, &field);
        Some((key, job.to_string().into_bytes()))
    }
}

fn info(table: &Table) -> Option<Value> {
    serde_json::from_str(&table.json()).ok()
}
