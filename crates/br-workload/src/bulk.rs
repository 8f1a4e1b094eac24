//! Fills one table with many rows, for measurements.

use br_catalog::{NewDatabase, SchemaChange};
use br_cluster::Cluster;
use br_types::{DbId, TableId};
use futures::{StreamExt, TryStreamExt, stream};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    run::{WorkloadError, new_table},
    table::{Column, ColumnType, Handle, PrimaryKey, Table, Value},
    table_json,
};

/// Rows of one transaction.
const ROWS_PER_TXN: usize = 2000;
/// Transactions at a time.
const TXNS_IN_FLIGHT: usize = 4;
/// Bytes of a record besides the value: its key and row format.
const RECORD_OVERHEAD_BYTES: usize = 40;

/// Creates a database with one table and fills it with about `bytes` of keys and values, in rows
/// of `value_bytes` of which half can be compressed. Handles are spread evenly over 32 bits.
///
/// # Errors
/// [`WorkloadError`].
pub async fn fill(
    cluster: &Cluster,
    database: &str,
    bytes: usize,
    value_bytes: usize,
) -> Result<TableId, WorkloadError> {
    let snapshot = cluster.snapshot(cluster.pd().tso().await?);
    let last_used = br_catalog::last_id(&snapshot).await?;
    let (db, id) = (DbId(last_used + 1), TableId(last_used + 2));
    br_catalog::raise_last_id(cluster, last_used, id.0).await?;
    let column = |name: &str, ty| Column {
        name: name.to_owned(),
        ty,
        not_null: true,
    };
    let table = Table {
        db,
        id,
        name: "filled".to_owned(),
        columns: vec![
            column("id", ColumnType::BigInt),
            column("data", ColumnType::Blob),
        ],
        indexes: Vec::new(),
        primary_key: PrimaryKey::IntHandle,
        partitions: Vec::new(),
    };
    let change = SchemaChange {
        databases: vec![NewDatabase {
            id: db,
            name: database.to_owned(),
            json: table_json::db_json(db, database),
        }],
        tables: vec![new_table(&table)],
        ..SchemaChange::default()
    };
    br_catalog::apply(cluster, &change).await?;
    let rows = (bytes / (value_bytes + RECORD_OVERHEAD_BYTES)).max(1);
    stream::iter((0..rows).step_by(ROWS_PER_TXN))
        .map(|first| {
            fill_some(
                cluster,
                &table,
                first..rows.min(first + ROWS_PER_TXN),
                rows,
                value_bytes,
            )
        })
        .buffer_unordered(TXNS_IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(id)
}

async fn fill_some(
    cluster: &Cluster,
    table: &Table,
    places: std::ops::Range<usize>,
    rows: usize,
    value_bytes: usize,
) -> Result<(), WorkloadError> {
    let mut rng = StdRng::seed_from_u64(places.start as u64);
    let mut txn = cluster.begin().await?;
    for place in places {
        let mut data = vec![b'x'; value_bytes];
        let half = data.len() / 2;
        if let Some(random) = data.get_mut(..half) {
            rng.fill_bytes(random);
        }
        let id = i64::try_from((place as u128 * (1 << 32)) / rows as u128).unwrap_or(i64::MAX);
        let values = vec![Value::Int(id), Value::Bytes(data)];
        for (key, value) in table.entries(&Handle::Int(id), &values) {
            txn.put(key, value)?;
        }
    }
    txn.commit().await?;
    Ok(())
}
