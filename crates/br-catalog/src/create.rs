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

use std::{collections::HashMap, time::Duration};

use br_cluster::{Cluster, KvError, Snapshot, Transaction};
use br_rt::RetryPolicy;
use br_tidb::{
    meta_key::{self, Counter},
    schema::SchemaDiff,
};
use br_types::{DbId, TableId};

use crate::{
    CatalogError,
    read::{self, decimal},
};

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
}

/// What a creation led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The schema version from which on it is there.
    pub schema_version: i64,
}

/// Creates databases and tables, all or none.
///
/// # Errors
/// [`CatalogError::Exists`] if one of them is there already.
pub async fn create(
    cluster: &Cluster,
    databases: &[NewDatabase],
    tables: &[NewTable],
) -> Result<Created, CatalogError> {
    let version = commit_with_retry(cluster, async |txn| {
        check_absent(txn.snapshot(), databases, tables).await?;
        for db in databases {
            txn.put(meta_key::db_key(db.id), db.json.clone().into_bytes())?;
        }
        for table in tables {
            txn.put(
                meta_key::table_key(table.db, table.id),
                table.json.clone().into_bytes(),
            )?;
            for (counter, last) in table.counters.iter().filter(|(_, last)| *last != 0) {
                let key = meta_key::counter_key(table.db, table.id, *counter);
                txn.put(key, last.to_string().into_bytes())?;
            }
        }
        raise_version(txn).await
    })
    .await?;
    announce(cluster, version).await;
    Ok(Created {
        schema_version: version,
    })
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
async fn commit_with_retry<T>(
    cluster: &Cluster,
    fill: impl AsyncFn(&mut Transaction) -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    let mut backoff = br_rt::Backoff::new(CONFLICT_RETRY, cluster.rt());
    loop {
        let mut txn = cluster.begin().await?;
        let filled = fill(&mut txn).await?;
        match txn.commit().await {
            Ok(_) => return Ok(filled),
            Err(error @ KvError::WriteConflict { .. })
            | Err(error @ KvError::RolledBack { .. }) => {
                if !backoff.pause(cluster.rt(), cluster.cancel()).await {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn check_absent(
    snapshot: &Snapshot,
    databases: &[NewDatabase],
    tables: &[NewTable],
) -> Result<(), CatalogError> {
    let exists = |name: &str| {
        Err(CatalogError::Exists {
            name: name.to_owned(),
        })
    };
    let known = read::databases(snapshot).await?;
    for db in databases {
        let lower = db.name.to_lowercase();
        if known
            .iter()
            .any(|known| known.info.name.lower == lower || known.info.id() == db.id)
        {
            return exists(&format!("database {}", db.name));
        }
    }
    let mut wanted: HashMap<DbId, HashMap<String, TableId>> = HashMap::new();
    for table in tables {
        wanted
            .entry(table.db)
            .or_default()
            .insert(table.name.to_lowercase(), table.id);
    }
    for (db, mut wanted) in wanted {
        let ids: Vec<_> = wanted.values().copied().collect();
        let mut found = None;
        read::tables(snapshot, db, |table| {
            if wanted.remove(&table.info.name.lower).is_some() || ids.contains(&table.info.id()) {
                found = Some(table.info.name.original);
            }
            Ok(())
        })
        .await?;
        if let Some(name) = found {
            return exists(&format!("table {name}"));
        }
    }
    Ok(())
}

/// Raises the schema version, with the diff that makes servers load everything.
async fn raise_version(txn: &mut Transaction) -> Result<i64, CatalogError> {
    let key = meta_key::string_key(meta_key::SCHEMA_VERSION);
    let version = match txn.snapshot().get(&key).await? {
        Some(value) => decimal(&key, &value)?,
        None => 0,
    } + 1;
    txn.put(key, version.to_string().into_bytes())?;
    let diff = SchemaDiff::reload_all(version).to_text();
    txn.put(meta_key::schema_diff_key(version), diff.into_bytes())?;
    Ok(version)
}

/// Tells TiDB servers, so that they need not wait for their lease.
async fn announce(cluster: &Cluster, version: i64) {
    let value = version.to_string();
    if let Err(error) = cluster
        .etcd()
        .put(SCHEMA_VERSION_KEY, value.as_bytes(), None)
        .await
    {
        tracing::warn!(%error, version, "TiDB servers hear of the new schema by their lease only");
    }
}
