//! Whether the cluster's strings sort by the new collations: a row of `mysql.tidb`, written when
//! TiDB bootstraps and never changed.

use br_cluster::Snapshot;
use br_tidb::{row::RowDecoder, table_key};

use crate::{CatalogError, read};

/// The row's key.
const NEW_COLLATION_ENABLED: &str = "new_collation_enabled";

/// Whether the new collations are enabled; `None` if no TiDB was ever bootstrapped on the cluster.
///
/// # Errors
/// [`CatalogError`].
pub async fn new_collations_enabled(snapshot: &Snapshot) -> Result<Option<bool>, CatalogError> {
    let databases = read::databases(snapshot).await?;
    let Some(mysql) = databases
        .into_iter()
        .find(|db| db.info.name.lower == "mysql")
    else {
        return Ok(None);
    };
    let mut variables = None;
    read::tables(snapshot, mysql.info.id(), |table| {
        if table.info.name.lower == "tidb" {
            variables = Some(table.info);
        }
        Ok(())
    })
    .await?;
    let Some(table) = variables else {
        return Ok(None);
    };
    let prefix = table_key::record_prefix(table.id());
    let decoder = RowDecoder::new(&table)
        .map_err(|error| CatalogError::damaged(&prefix, error.to_string()))?;
    let mut rows = snapshot.scan(&table_key::record_range(table.id()));
    let mut row = Vec::new();
    while let Some((key, value)) = rows.next().await? {
        let handle = key
            .as_bytes()
            .strip_prefix(prefix.as_bytes())
            .unwrap_or_default();
        decoder
            .decode(handle, &value, &mut row)
            .map_err(|error| CatalogError::damaged(&key, error.to_string()))?;
        if let [Some(name), Some(value), ..] = row.as_slice()
            && name == NEW_COLLATION_ENABLED
        {
            return Ok(Some(value.eq_ignore_ascii_case("true")));
        }
    }
    Ok(None)
}
