//! # What it does
//! Changes schemas while a workload runs, as the DDL owner of TiDB does: all meta keys of a
//! statement in one transaction.
//!
//! # Ordering and invariants
//! No transaction of the workload is under way while schemas change, as TiDB's metadata locks see
//! to. The entries of a new index are written in the transaction that makes it public, so that
//! there is no moment at which a reader sees half of them. What dropped tables held stays, as it
//! does in TiDB until GC has passed.

use br_cluster::{KvError, Transaction};
use br_tidb::{
    meta_key::{self, Counter},
    schema::SchemaDiff,
};
use br_types::{DbId, TableId, TimeStamp};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::{
    ddl_job::DdlJob,
    model::{Model, SchemaChange},
    run::{Workload, WorkloadError, lost_to_another},
    schema_generator,
    table::{Column, ColumnType, Index, PrimaryKey, Table},
};

/// Names that tables have; few, so that names are taken again.
const NAMES: usize = 7;
/// Indexes of a table that may be added to; more would only make rows slow.
const INDEXES_MAX: usize = 4;

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Statement {
    /// `CREATE TABLE`.
    Create,
    /// `DROP TABLE`.
    Drop,
    /// `TRUNCATE TABLE`.
    Truncate,
    /// `RENAME TABLE a TO b`.
    Rename,
    /// `RENAME TABLE a TO x, b TO a, x TO b`.
    Swap,
    /// `ADD COLUMN`, without a default.
    AddColumn,
    /// `ADD INDEX`, filled by transactions.
    AddIndex,
    /// `ADD INDEX`, of which the log does not tell how it was filled.
    AddIndexOfUnknownOrigin,
}

impl Statement {
    /// Every one.
    pub const EVERY: [Statement; 8] = [
        Statement::Create,
        Statement::Drop,
        Statement::Truncate,
        Statement::Rename,
        Statement::Swap,
        Statement::AddColumn,
        Statement::AddIndex,
        Statement::AddIndexOfUnknownOrigin,
    ];
}

/// What a statement writes.
struct Planned {
    changes: Vec<SchemaChange>,
    /// The index that is added, by its place in the only table that changes.
    new_index: Option<usize>,
    /// The last id that is given away afterwards.
    last_id: i64,
}

impl Workload {
    /// Runs a random statement while no transaction is under way. `None`: there is nothing that it
    /// could be applied to.
    ///
    /// # Errors
    /// [`WorkloadError`]; nothing has changed, or it is not known.
    pub async fn change_schemas(
        &self,
        rng: &mut StdRng,
    ) -> Result<Option<Statement>, WorkloadError> {
        let _alone = self.schemas.write().await;
        let Some(statement) = Statement::EVERY.choose(rng).copied() else {
            return Ok(None);
        };
        let model = self.model();
        loop {
            let mut txn = self.cluster.begin().await?;
            let last_id = br_catalog::last_id(txn.snapshot()).await?;
            let Some(planned) = plan(rng, statement, &model, self.db, last_id) else {
                return Ok(None);
            };
            self.write_plan(&mut txn, &model, statement, &planned)
                .await?;
            match txn.commit().await {
                Ok(commit_ts) => {
                    self.took_place(commit_ts, &planned.changes)?;
                    return Ok(Some(statement));
                }
                Err(error) if lost_to_another(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn write_plan(
        &self,
        txn: &mut Transaction,
        model: &Model,
        statement: Statement,
        planned: &Planned,
    ) -> Result<(), WorkloadError> {
        for (place, after) in &planned.changes {
            let before = model.table(*place);
            if let Some(after) = after {
                put_schema(txn, before, after)?;
            } else if let Some(before) = before {
                delete_schema(txn, before).await?;
            }
        }
        if let (Some(index), [(place, Some(table))]) =
            (planned.new_index, planned.changes.as_slice())
        {
            for (handle, row) in model.rows_at(*place, TimeStamp::MAX) {
                // The record comes first.
                for (key, value) in table.entries(&handle, &row).into_iter().skip(index + 1) {
                    txn.put(key, value)?;
                }
            }
        }
        put_number(txn, meta_key::NEXT_GLOBAL_ID, planned.last_id)?;
        let version = br_catalog::schema_version(txn.snapshot()).await? + 1;
        let job = DdlJob {
            id: planned.last_id,
            statement,
            database: self.database(),
            schema_version: version,
            finished_ts: txn.start_ts(),
        };
        // Nothing tells how such an index was filled.
        let has_job = statement != Statement::AddIndexOfUnknownOrigin;
        if let Some((key, value)) = job.entry(model, &planned.changes).filter(|_| has_job) {
            txn.put(key, value)?;
        }
        put_number(txn, meta_key::SCHEMA_VERSION, version)?;
        let diff = SchemaDiff::reload_all(version).to_text();
        txn.put(meta_key::schema_diff_key(version), diff.into_bytes())?;
        Ok(())
    }
}

fn put_number(txn: &mut Transaction, name: &[u8], number: i64) -> Result<(), KvError> {
    txn.put(meta_key::string_key(name), number.to_string().into_bytes())
}

fn put_schema(txn: &mut Transaction, before: Option<&Table>, after: &Table) -> Result<(), KvError> {
    let key = meta_key::table_key(after.db, after.id);
    txn.put(key, after.json().into_bytes())?;
    if before.is_none() {
        let key = meta_key::counter_key(after.db, after.id, Counter::RowId);
        txn.put(key, b"1000000".to_vec())?;
    }
    Ok(())
}

async fn delete_schema(txn: &mut Transaction, table: &Table) -> Result<(), KvError> {
    txn.delete(meta_key::table_key(table.db, table.id))?;
    for counter in Counter::EVERY {
        let key = meta_key::counter_key(table.db, table.id, counter);
        if txn.snapshot().get(&key).await?.is_some() {
            txn.delete(key)?;
        }
    }
    Ok(())
}

/// What a statement does to one or two tables picked at random.
fn plan(
    rng: &mut StdRng,
    statement: Statement,
    model: &Model,
    db: DbId,
    last_id: i64,
) -> Option<Planned> {
    let tables: Vec<(usize, &Table)> = model.tables().collect();
    let mut planned = Planned {
        changes: Vec::new(),
        new_index: None,
        last_id,
    };
    let free_name = |rng: &mut StdRng| {
        let names = (0..NAMES).map(|number| format!("t{number}"));
        let is_free = |name: &String| tables.iter().all(|(_, table)| table.name != *name);
        let free: Vec<_> = names.filter(is_free).collect();
        free.choose(rng).cloned()
    };
    if statement == Statement::Create {
        let name = free_name(rng)?;
        let (mut made, next) = schema_generator::tables(rng, db, TableId(last_id + 1), 1);
        // One for the job.
        planned.last_id = next.0;
        let table = Table {
            name,
            ..made.pop()?
        };
        planned.changes = vec![(model.next_place(), Some(table))];
        return Some(planned);
    }
    let (place, table) = tables.choose(rng).map(|(place, table)| (*place, *table))?;
    match statement {
        Statement::Create => {}
        // A workload without tables would have nothing to do.
        Statement::Drop if tables.len() < 2 => return None,
        Statement::Drop => planned.changes = vec![(place, None)],
        Statement::Truncate => {
            let mut new = table.clone();
            for id in std::iter::once(&mut new.id).chain(&mut new.partitions) {
                planned.last_id += 1;
                *id = TableId(planned.last_id);
            }
            planned.changes = vec![(place, None), (model.next_place(), Some(new))];
        }
        Statement::Rename => {
            let name = free_name(rng)?;
            let table = table.clone();
            planned.changes = vec![(place, Some(Table { name, ..table }))];
        }
        Statement::Swap => {
            let (other_place, other) = tables.choose(rng).filter(|(other, _)| *other != place)?;
            let (mut one, mut two) = (table.clone(), (*other).clone());
            std::mem::swap(&mut one.name, &mut two.name);
            planned.changes = vec![(place, Some(one)), (*other_place, Some(two))];
        }
        Statement::AddColumn => {
            let mut table = table.clone();
            table.columns.push(Column {
                name: format!("added{}", table.columns.len()),
                ty: ColumnType::BigInt,
                not_null: false,
            });
            planned.changes = vec![(place, Some(table))];
        }
        Statement::AddIndex | Statement::AddIndexOfUnknownOrigin => {
            let table = with_index(rng, table)?;
            planned.new_index = Some(table.indexes.len() - 1);
            planned.changes = vec![(place, Some(table))];
        }
    }
    // One for the job.
    planned.last_id += 1;
    Some(planned)
}

/// The table with one more index over a number.
fn with_index(rng: &mut StdRng, table: &Table) -> Option<Table> {
    if table.primary_key == PrimaryKey::CommonHandle || table.indexes.len() >= INDEXES_MAX {
        return None;
    }
    let numbers = table.columns.iter().enumerate().skip(1);
    let numbers = numbers
        .filter(|(_, column)| matches!(column.ty, ColumnType::BigInt | ColumnType::BigUint))
        .map(|(place, _)| place);
    let numbers: Vec<_> = numbers.collect();
    let column = *numbers.choose(rng)?;
    let mut table = table.clone();
    table.indexes.push(Index {
        name: format!("added{}_{}", table.indexes.len(), rng.random::<u16>()),
        columns: vec![column],
    });
    Some(table)
}
