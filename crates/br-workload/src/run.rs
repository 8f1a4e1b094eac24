//! # What it does
//! Runs transactions against a cluster from several workers, and keeps the model of what was
//! committed.
//!
//! # Ordering and invariants
//! A transaction is in the model exactly if the cluster acknowledged it, at the timestamp that the
//! cluster gave. One whose outcome is not known ends the run with an error: the model could not
//! be right from then on.
//!
//! # Retries
//! A transaction that lost against another is begun anew with other rows; locks in the way are
//! resolved by the client.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use br_catalog::{CatalogError, NewDatabase, NewTable};
use br_cluster::{Cluster, KvError, PdError, Transaction};
use br_rt::CancellationToken;
use br_tidb::meta_key::Counter;
use br_types::{Classify, DbId, Kind, TableId, TimeStamp};
use futures::future;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::RwLock;

use crate::{
    bank::Bank,
    history::{HistoryError, HistoryWriter},
    model::{Model, RowChange, SchemaChange},
    schema_generator,
    table::{Handle, Row, Table},
    table_json,
};

/// Rows that one transaction of the wide workload changes at most.
const CHANGES_MAX: usize = 12;
/// One in so many transactions of the wide workload leaves its locks behind.
const LEAVES_LOCKS_ONE_IN: u32 = 50;
/// Others wait for these; short, so that there are many other transactions.
const LEFT_LOCK_TTL_MAX: Duration = Duration::from_secs(3);

/// A workload could not go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The schemas could not be made.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// PD did not help.
    #[error(transparent)]
    Pd(#[from] PdError),
    /// The stores did not help.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The history file.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A row of the cluster is not what the model says.
    #[error("{table}: {what}")]
    Differs {
        /// The table.
        table: String,
        /// How.
        what: String,
    },
}

impl Classify for WorkloadError {
    fn kind(&self) -> Kind {
        match self {
            WorkloadError::Catalog(error) => error.kind(),
            WorkloadError::Pd(error) => error.kind(),
            WorkloadError::Kv(error) => error.kind(),
            WorkloadError::History(_) => Kind::Invalid,
            WorkloadError::Differs { .. } => Kind::Data,
        }
    }
}

/// Which transactions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Transfers between accounts, whose sum never changes.
    Bank {
        /// How many accounts.
        accounts: usize,
    },
    /// Random changes in random tables of all kinds.
    Wide {
        /// How many tables.
        tables: usize,
    },
}

/// A workload, its tables made and filled.
pub struct Workload {
    pub(crate) cluster: Cluster,
    kinds: Kinds,
    seed: u64,
    database: String,
    pub(crate) db: DbId,
    /// Held by each transaction, and alone by a change of schemas.
    pub(crate) schemas: RwLock<()>,
    model: Arc<Mutex<Model>>,
    history: Option<HistoryWriter>,
}

impl Workload {
    /// Creates the database and its tables. `history`: where to note what is committed.
    ///
    /// # Errors
    /// [`WorkloadError`]; a database of that name exists.
    pub async fn create(
        cluster: &Cluster,
        kinds: Kinds,
        seed: u64,
        database: &str,
        history: Option<&Path>,
    ) -> Result<Workload, WorkloadError> {
        let snapshot = cluster.snapshot(cluster.pd().tso().await?);
        let last_used = br_catalog::last_id(&snapshot).await?;
        let db = DbId(last_used + 1);
        let mut rng = StdRng::seed_from_u64(seed);
        let (tables, next) = match kinds {
            Kinds::Bank { .. } => Bank::tables(db, TableId(db.0 + 1)),
            Kinds::Wide { tables } => {
                schema_generator::tables(&mut rng, db, TableId(db.0 + 1), tables)
            }
        };
        br_catalog::raise_last_id(cluster, last_used, next.0 - 1).await?;
        let new_db = NewDatabase {
            id: db,
            name: database.to_owned(),
            json: table_json::db_json(db, database),
        };
        let change = br_catalog::SchemaChange {
            databases: vec![new_db],
            tables: tables.iter().map(new_table).collect(),
            ..br_catalog::SchemaChange::default()
        };
        br_catalog::apply(cluster, &change).await?;
        let history = history
            .map(|path| HistoryWriter::create(path, database, &tables))
            .transpose()?;
        let workload = Workload {
            cluster: cluster.clone(),
            kinds,
            seed,
            database: database.to_owned(),
            db,
            schemas: RwLock::new(()),
            model: Arc::new(Mutex::new(Model::new(tables))),
            history,
        };
        if let Kinds::Bank { accounts } = kinds {
            for changes in Bank::first_rows(accounts) {
                workload
                    .commit(workload.cluster.begin().await?, changes)
                    .await?;
            }
        }
        Ok(workload)
    }

    /// The name of its database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What was committed so far.
    pub fn model(&self) -> Model {
        self.model
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs until `stop` is set, with so many workers. Gives the number of transactions that were
    /// committed.
    ///
    /// # Errors
    /// [`WorkloadError`] of the first worker that could not go on; the others stop.
    pub async fn run(
        &self,
        workers: usize,
        stop: &CancellationToken,
    ) -> Result<usize, WorkloadError> {
        let workers = (0..workers).map(|worker| self.work(worker as u64, stop));
        Ok(future::try_join_all(workers).await?.into_iter().sum())
    }

    async fn work(&self, worker: u64, stop: &CancellationToken) -> Result<usize, WorkloadError> {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (worker + 1).wrapping_mul(0x9E37_79B9));
        let mut committed = 0;
        while !stop.is_cancelled() {
            let _schemas = self.schemas.read().await;
            let outcome = match self.kinds {
                Kinds::Bank { accounts } => self.transfer(&mut rng, accounts).await,
                Kinds::Wide { .. } => self.change_at_random(&mut rng).await,
            };
            match outcome {
                Ok(done) => committed += usize::from(done),
                Err(WorkloadError::Kv(error)) if lost_to_another(&error) => {
                    // Its rows are somebody else's now; other ones next time.
                    self.cluster.rt().sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(committed)
    }

    async fn transfer(&self, rng: &mut StdRng, accounts: usize) -> Result<bool, WorkloadError> {
        let txn = self.cluster.begin().await?;
        let (from, to) = Bank::pick(rng, accounts);
        let mut balances = Vec::new();
        for account in [from, to] {
            let row = self
                .row(&txn, Bank::ACCOUNTS, &Handle::Int(account))
                .await?;
            let balance = row.as_ref().and_then(Bank::balance).ok_or_else(|| {
                let what = format!("account {account} is missing");
                WorkloadError::Differs {
                    table: "accounts".to_owned(),
                    what,
                }
            })?;
            balances.push((account, balance));
        }
        let changes = Bank::transfer(rng, txn.start_ts(), &balances);
        if changes.is_empty() {
            return Ok(false);
        }
        self.commit(txn, changes).await.map(|()| true)
    }

    async fn change_at_random(&self, rng: &mut StdRng) -> Result<bool, WorkloadError> {
        let mut txn = self.cluster.begin().await?;
        let tables: Vec<(usize, Table)> = {
            let model = self.lock_model();
            let tables = model.tables();
            tables
                .map(|(place, table)| (place, table.clone()))
                .collect()
        };
        let mut changes: Vec<RowChange> = Vec::new();
        for _ in 0..rng.random_range(1..=CHANGES_MAX) {
            let Some((place, table)) = tables.choose(rng) else {
                continue;
            };
            let place = *place;
            let handle = schema_generator::handle(rng, table);
            if changes
                .iter()
                .any(|change| change.table == place && change.handle == handle)
            {
                continue;
            }
            let row = rng
                .random_bool(0.75)
                .then(|| schema_generator::row(rng, table, &handle));
            changes.push(RowChange {
                table: place,
                handle,
                row,
            });
        }
        if rng.random_range(0..LEAVES_LOCKS_ONE_IN) == 0 {
            self.write(&mut txn, &changes).await?;
            let ttl = LEFT_LOCK_TTL_MAX.mul_f64(rng.random());
            txn.leave_locks(ttl).await?;
            return Ok(false);
        }
        self.commit(txn, changes).await.map(|()| true)
    }

    /// Writes the changes, with what they do to indexes, and commits.
    async fn commit(
        &self,
        mut txn: Transaction,
        changes: Vec<RowChange>,
    ) -> Result<(), WorkloadError> {
        self.write(&mut txn, &changes).await?;
        let commit_ts = txn.commit().await?;
        self.lock_model().commit(commit_ts, &changes);
        if let Some(history) = &self.history {
            history.commit(commit_ts, &changes)?;
        }
        Ok(())
    }

    /// Takes in a change of schemas that was committed.
    pub(crate) fn took_place(
        &self,
        commit_ts: TimeStamp,
        changes: &[SchemaChange],
    ) -> Result<(), WorkloadError> {
        self.lock_model().change_schemas(commit_ts, changes);
        if let Some(history) = &self.history {
            history.change_schemas(commit_ts, changes)?;
        }
        Ok(())
    }

    async fn write(
        &self,
        txn: &mut Transaction,
        changes: &[RowChange],
    ) -> Result<(), WorkloadError> {
        for change in changes {
            let Some(table) = self.lock_model().table(change.table).cloned() else {
                continue;
            };
            let before = self.row(txn, change.table, &change.handle).await?;
            let new = change
                .row
                .as_ref()
                .map(|row| table.entries(&change.handle, row));
            let new = new.unwrap_or_default();
            for (key, _) in before
                .iter()
                .flat_map(|row| table.entries(&change.handle, row))
            {
                if !new.iter().any(|(kept, _)| *kept == key) {
                    txn.delete(key)?;
                }
            }
            // Every change writes the row's record, so that two changes of a row conflict.
            if change.row.is_none() {
                txn.delete(table.record_key(&change.handle))?;
            }
            for (key, value) in new {
                txn.put(key, value)?;
            }
        }
        Ok(())
    }

    /// The row as the transaction sees it. The model says what it holds, once it has heard of all
    /// that was committed before the transaction began: a commit is known to the cluster for a
    /// moment before it is to the model.
    async fn row(
        &self,
        txn: &Transaction,
        table: usize,
        handle: &Handle,
    ) -> Result<Option<Row>, WorkloadError> {
        const WAITS_MAX: usize = 2000;
        let Some(name) = self.lock_model().table(table).cloned() else {
            return Ok(None);
        };
        let stored = txn.snapshot().get(&name.record_key(handle)).await?;
        for _ in 0..WAITS_MAX {
            let row = self.lock_model().row_at(table, handle, txn.start_ts());
            let expected = row
                .as_ref()
                .and_then(|row| name.entries(handle, row).into_iter().next());
            if expected.map(|(_, value)| value) == stored {
                return Ok(row);
            }
            self.cluster.rt().sleep(Duration::from_millis(1)).await;
        }
        let what = format!(
            "row {handle:?} at {} is not what was committed",
            txn.start_ts()
        );
        Err(WorkloadError::Differs {
            table: name.name,
            what,
        })
    }

    fn lock_model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn lost_to_another(error: &KvError) -> bool {
    matches!(
        error,
        KvError::WriteConflict { .. } | KvError::RolledBack { .. } | KvError::Locked { .. }
    )
}

pub(crate) fn new_table(table: &Table) -> NewTable {
    NewTable {
        db: table.db,
        id: table.id,
        name: table.name.clone(),
        json: table.json(),
        counters: vec![(Counter::RowId, 1_000_000)],
        replaces: None,
    }
}
