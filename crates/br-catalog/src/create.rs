//! # What it does
//! Creates databases and tables with ids that were reserved before, in one transaction.
//!
//! # Objects it reads and writes
//! The meta keys of the databases and tables and their counters, the schema version and its diff;
//! in etcd the key through which TiDB servers hear of a new version at once.
//!
//! # Ordering and invariants
//! All or nothing. A database or table of the same name or id in the cluster is a conflict, also
//! one that came in the meantime: the transaction reads what it relies on and writes the schema
//! version, as every DDL does. The schema version rises by one with a diff that names no table but
//! makes servers load everything, because no DDL owner took part.
//!
//! # Retries
//! A transaction that lost against a DDL is done again with fresh reads, a few times.
//!
//! # After a crash
//! Either everything is there or nothing. Without the key in etcd, servers see it within half of
//! their schema lease.

use std::{collections::BTreeMap, time::Duration};

use br_cluster::{Cluster, KvError, Transaction};
use br_rt::RetryPolicy;
use br_tidb::{
    meta_key::{self, Counter},
    schema::SchemaDiff,
};
use br_types::{DbId, TableId};

use crate::{CatalogError, known::Known, read};

/// How often a transaction is done again that lost against another DDL. DDLs of one cluster come
/// one after the other, each within seconds.
const CONFLICT_RETRY: RetryPolicy = RetryPolicy {
    pause_min: Duration::from_millis(50),
    pause_max: Duration::from_secs(2),
    attempts_max: 10,
    elapsed_max: Duration::from_secs(60),
};

/// Where TiDB servers watch for a new schema version.
const SCHEMA_VERSION_KEY: &[u8] = b"/tidb/ddl/global_schema_version";

/// A database to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDatabase {
    /// Its id, reserved before.
    pub id: DbId,
    /// Its name.
    pub name: String,
    /// DBInfo with that id and name.
    pub json: String,
}

/// A table, view or sequence to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTable {
    /// Its database, which exists or is created with it.
    pub db: DbId,
    /// Its id, reserved before.
    pub id: TableId,
    /// Its name.
    pub name: String,
    /// TableInfo with that id and name.
    pub json: String,
    /// What was given out last of each counter; those at 0 are left out.
    pub counters: Vec<(Counter, i64)>,
    /// The table, by database and id, whose place it takes: its schema and counters are replaced.
    pub replaces: Option<(DbId, TableId)>,
}

/// A table, view or sequence to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTable {
    /// Its database.
    pub db: DbId,
    /// Its id.
    pub id: TableId,
    /// Every id that it uses, its own and those of its partitions. Their rows stay.
    pub ids: Vec<TableId>,
}

/// Changes of schemas that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaChange {
    /// Databases to create.
    pub databases: Vec<NewDatabase>,
    /// Tables to create or to replace.
    pub tables: Vec<NewTable>,
    /// Tables to drop.
    pub dropped: Vec<DroppedTable>,
    /// Databases to drop, without the tables in them.
    pub dropped_databases: Vec<DbId>,
}

/// What a creation led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The schema version from which on it is there.
    pub schema_version: i64,
}

/// Changes schemas, all or nothing.
///
/// # Errors
/// [`CatalogError::Exists`] if something that is to be created is there already.
pub async fn apply(cluster: &Cluster, change: &SchemaChange) -> Result<Created, CatalogError> {
    SchemaWriter::new(cluster).apply(change).await
}

/// Whether that change was made already: everything that it creates is there as it says, and nothing
/// is there that it drops. A change that others have changed since does not count.
///
/// # Errors
/// The cluster is out of reach.
pub async fn is_applied(cluster: &Cluster, change: &SchemaChange) -> Result<bool, CatalogError> {
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    for db in &change.databases {
        if snapshot.get(&meta_key::db_key(db.id)).await?.as_deref() != Some(db.json.as_bytes()) {
            return Ok(false);
        }
    }
    for table in &change.tables {
        let key = meta_key::table_key(table.db, table.id);
        if snapshot.get(&key).await?.as_deref() != Some(table.json.as_bytes()) {
            return Ok(false);
        }
    }
    for table in &change.dropped {
        let key = meta_key::table_key(table.db, table.id);
        if snapshot.get(&key).await?.is_some() {
            return Ok(false);
        }
    }
    for db in &change.dropped_databases {
        if snapshot.get(&meta_key::db_key(*db)).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Changes schemas in many transactions. What it has read of them it reads again only if somebody
/// else has changed something.
pub struct SchemaWriter<'a> {
    cluster: &'a Cluster,
    known: Option<Known>,
}

impl<'a> SchemaWriter<'a> {
    /// Knows nothing yet.
    pub fn new(cluster: &'a Cluster) -> SchemaWriter<'a> {
        SchemaWriter {
            cluster,
            known: None,
        }
    }

    /// Changes schemas, all or nothing.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] if something that is to be created is there already.
    pub async fn apply(&mut self, change: &SchemaChange) -> Result<Created, CatalogError> {
        let mut known = self.known.take();
        let version = write(self.cluster, change, &mut known).await?;
        if let Some(known) = &mut known {
            known.take_in(change, version);
        }
        self.known = known;
        announce(self.cluster, version).await;
        Ok(Created {
            schema_version: version,
        })
    }
}

async fn write(
    cluster: &Cluster,
    change: &SchemaChange,
    known: &mut Option<Known>,
) -> Result<i64, CatalogError> {
    commit_with_retry(cluster, async |txn| {
        let known = Known::of(txn.snapshot(), known).await?;
        known.check_absent(txn.snapshot(), change).await?;
        for db in &change.databases {
            txn.put(meta_key::db_key(db.id), db.json.clone().into_bytes())?;
        }
        for table in &change.tables {
            put_table(txn, table).await?;
        }
        for table in &change.dropped {
            delete_table(txn, table.db, table.id).await?;
        }
        for db in &change.dropped_databases {
            txn.delete(meta_key::db_key(*db))?;
        }
        raise_version(txn).await
    })
    .await
}

/// Writes a table. Counters of one that it replaces never go back.
async fn put_table(txn: &mut Transaction, table: &NewTable) -> Result<(), CatalogError> {
    let mut counters: BTreeMap<Counter, i64> = table.counters.iter().copied().collect();
    if let Some((db, id)) = table.replaces {
        for counter in Counter::EVERY {
            if let Some(last) = read::counter(txn.snapshot(), db, id, counter).await? {
                let wanted = counters.entry(counter).or_insert(last);
                // A sequence may count downwards; its newest value is the backup's.
                if counter != Counter::Sequence {
                    *wanted = last.max(*wanted);
                }
            }
        }
        delete_table(txn, db, id).await?;
    }
    txn.put(
        meta_key::table_key(table.db, table.id),
        table.json.clone().into_bytes(),
    )?;
    for (counter, last) in counters.into_iter().filter(|(_, last)| *last != 0) {
        let key = meta_key::counter_key(table.db, table.id, counter);
        txn.put(key, last.to_string().into_bytes())?;
    }
    Ok(())
}

/// Deletes a table's schema and counters.
async fn delete_table(txn: &mut Transaction, db: DbId, id: TableId) -> Result<(), CatalogError> {
    txn.delete(meta_key::table_key(db, id))?;
    for counter in Counter::EVERY {
        let key = meta_key::counter_key(db, id, counter);
        if txn.snapshot().get(&key).await?.is_some() {
            txn.delete(key)?;
        }
    }
    Ok(())
}

/// Raises the last id that the cluster has given away to `last`, if it is lower; ids up to it are
/// the caller's then. Gives the last id before.
///
/// # Errors
/// [`CatalogError`]; [`CatalogError::Exists`] if the last id is not `expected` any more.
pub async fn raise_last_id(
    cluster: &Cluster,
    expected: i64,
    last: i64,
) -> Result<(), CatalogError> {
    let key = meta_key::string_key(meta_key::NEXT_GLOBAL_ID);
    commit_with_retry(cluster, async |txn| {
        let now = read::number(txn.snapshot(), &key).await?;
        if now != expected {
            return Err(CatalogError::Exists {
                name: format!("another table, of id {now},"),
            });
        }
        txn.put(key.clone(), last.to_string().into_bytes())?;
        Ok(())
    })
    .await
}

/// Fills a transaction with `fill` and commits it, again if it lost against another.
pub(crate) async fn commit_with_retry<T>(
    cluster: &Cluster,
    mut fill: impl AsyncFnMut(&mut Transaction) -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    let mut backoff = br_rt::Backoff::new(CONFLICT_RETRY, cluster.rt());
    loop {
        let mut txn = cluster.begin().await?;
        let filled = fill(&mut txn).await?;
        match txn.commit().await {
            Ok(_) => return Ok(filled),
            Err(
                error @ (KvError::WriteConflict { .. }
                | KvError::RolledBack { .. }
                | KvError::Locked { .. }),
            ) => {
                if !backoff.pause(cluster.rt(), cluster.cancel()).await {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Raises the schema version, with the diff that makes servers load everything.
pub(crate) async fn raise_version(txn: &mut Transaction) -> Result<i64, CatalogError> {
    let key = meta_key::string_key(meta_key::SCHEMA_VERSION);
    let version = read::schema_version(txn.snapshot()).await? + 1;
    txn.put(key, version.to_string().into_bytes())?;
    let diff = SchemaDiff::reload_all(version).to_text();
    txn.put(meta_key::schema_diff_key(version), diff.into_bytes())?;
    Ok(version)
}

/// Tells TiDB servers, so that they need not wait for their lease.
pub(crate) async fn announce(cluster: &Cluster, version: i64) {
    let value = version.to_string();
    if let Err(error) = cluster
        .etcd()
        .put(SCHEMA_VERSION_KEY, value.as_bytes(), None)
        .await
    {
        tracing::warn!(%error, version, "TiDB servers hear of the new schema by their lease only");
    }
}
