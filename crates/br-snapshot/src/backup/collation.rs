//! Whether a cluster has the new collations: its restore into a cluster that has not is wrong.

use br_tidb::{meta_key, row::RowDecoder, table_key};
use br_types::TableId;

use super::BackupError;
use crate::schema::{MetaRead, MetaScan, SchemaReadError, Schemas};

/// Rows of `mysql.tidb` that are looked at; it has a dozen.
const ROWS_MAX: usize = 10_000;
const VARIABLE: &str = "new_collation_enabled";

/// What `mysql.tidb` says; `None` if the cluster has no such table or row, as one without TiDB.
pub(super) async fn new_collations_enabled<R: MetaRead>(
    schemas: &Schemas<R>,
) -> Result<Option<bool>, BackupError> {
    let Some(table) = schemas.table_named("mysql", "tidb").await? else {
        return Ok(None);
    };
    let damaged = |what| {
        let key = meta_key::string_key(b"mysql.tidb");
        BackupError::SchemaRead(SchemaReadError::Damaged { key, what })
    };
    let decoder = RowDecoder::new(&table.info).map_err(|_| damaged("its columns are unknown"))?;
    let place = |name: &str| {
        decoder
            .columns()
            .position(|column| column.name.lower == name)
    };
    let (Some(name), Some(value)) = (place("variable_name"), place("variable_value")) else {
        return Err(damaged("it has other columns than usual"));
    };
    let id: TableId = table.info.id();
    let mut rows = schemas.read().scan(&table_key::record_range(id));
    let mut row = Vec::new();
    for _ in 0..ROWS_MAX {
        let Some((key, bytes)) = rows.next().await.map_err(SchemaReadError::from)? else {
            break;
        };
        let handle = key
            .as_bytes()
            .get(table_key::RECORD_PREFIX_LEN..)
            .unwrap_or_default();
        decoder
            .decode(handle, &bytes, &mut row)
            .map_err(|_| damaged("a row is damaged"))?;
        if row.get(name).and_then(Option::as_deref) == Some(VARIABLE) {
            let text = row
                .get(value)
                .and_then(Option::as_deref)
                .unwrap_or_default();
            return Ok(Some(text.eq_ignore_ascii_case("true")));
        }
    }
    Ok(None)
}
