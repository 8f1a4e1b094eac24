use br_cluster::Snapshot;
use br_tidb::{
    meta_key::{self, Counter, MetaKey},
    schema::{DbInfo, TableInfo},
};
use br_types::{DbId, RawKey, TableId};

use crate::CatalogError;

/// A database of the cluster.
#[derive(Clone, Debug)]
pub struct Database {
    /// What we read of it.
    pub info: DbInfo,
    /// TiDB's own text.
    pub json: String,
}

/// A table, view or sequence of the cluster.
#[derive(Clone, Debug)]
pub struct CatalogTable {
    /// What we read of it.
    pub info: TableInfo,
    /// TiDB's own text.
    pub json: String,
}

/// Every database, in the order of their keys.
///
/// # Errors
/// [`CatalogError`].
pub async fn databases(snapshot: &Snapshot) -> Result<Vec<Database>, CatalogError> {
    let mut scan = snapshot.scan(&meta_key::hash_range(meta_key::DATABASES));
    let mut databases = Vec::new();
    while let Some((key, value)) = scan.next().await? {
        let Some(field) = hash_field(&key)? else {
            continue;
        };
        if meta_key::parse_db_field(&field).is_none() {
            continue;
        }
        let (json, info) = parse(&key, value, DbInfo::parse)?;
        databases.push(Database { info, json });
    }
    Ok(databases)
}

/// Every table of a database, one at a time to `visit`, so that memory does not grow with them.
///
/// # Errors
/// [`CatalogError`], also from `visit`.
pub async fn tables(
    snapshot: &Snapshot,
    db: DbId,
    mut visit: impl FnMut(CatalogTable) -> Result<(), CatalogError>,
) -> Result<(), CatalogError> {
    let mut scan = snapshot.scan(&meta_key::hash_range(&meta_key::db_field(db)));
    while let Some((key, value)) = scan.next().await? {
        let Some(field) = hash_field(&key)? else {
            continue;
        };
        if let Some(meta_key::DbField::Table(_)) = meta_key::parse_table_field(&field) {
            let (json, info) = parse(&key, value, TableInfo::parse)?;
            visit(CatalogTable { info, json })?;
        }
    }
    Ok(())
}

/// The last id that the cluster has given to a database, table or partition; 0 in a cluster that
/// never had one.
///
/// # Errors
/// [`CatalogError`].
pub async fn last_id(snapshot: &Snapshot) -> Result<i64, CatalogError> {
    number(snapshot, &meta_key::string_key(meta_key::NEXT_GLOBAL_ID)).await
}

/// The version of the schemas; 0 in a cluster that never had any.
///
/// # Errors
/// [`CatalogError`].
pub async fn schema_version(snapshot: &Snapshot) -> Result<i64, CatalogError> {
    number(snapshot, &meta_key::string_key(meta_key::SCHEMA_VERSION)).await
}

/// A decimal number; 0 if there is none.
pub(crate) async fn number(snapshot: &Snapshot, key: &RawKey) -> Result<i64, CatalogError> {
    let Some(value) = snapshot.get(key).await? else {
        return Ok(0);
    };
    decimal(key, &value)
}

pub(crate) fn decimal(key: &RawKey, value: &[u8]) -> Result<i64, CatalogError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| CatalogError::damaged(key, "its value is no decimal number"))
}

/// A counter of a table; `None` if it was never used.
///
/// # Errors
/// [`CatalogError`].
pub async fn counter(
    snapshot: &Snapshot,
    db: DbId,
    table: TableId,
    counter: Counter,
) -> Result<Option<i64>, CatalogError> {
    let key = meta_key::counter_key(db, table, counter);
    match snapshot.get(&key).await? {
        Some(value) => decimal(&key, &value).map(Some),
        None => Ok(None),
    }
}

fn hash_field(key: &RawKey) -> Result<Option<Vec<u8>>, CatalogError> {
    match MetaKey::parse(key.as_bytes()) {
        Ok(MetaKey::HashField { field, .. }) => Ok(Some(field)),
        Ok(_) => Ok(None),
        Err(error) => Err(CatalogError::bad_key(key, error)),
    }
}

fn parse<T>(
    key: &RawKey,
    value: Vec<u8>,
    parse: impl FnOnce(&[u8]) -> Result<T, br_tidb::schema::SchemaError>,
) -> Result<(String, T), CatalogError> {
    let info = parse(&value).map_err(|source| CatalogError::Schema {
        name: format!("key {key}"),
        source,
    })?;
    let json = String::from_utf8(value)
        .map_err(|_| CatalogError::damaged(key, "its value is not UTF-8"))?;
    Ok((json, info))
}
