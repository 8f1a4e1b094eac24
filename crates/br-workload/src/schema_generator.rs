//! Random tables and rows, from a seed.

use br_types::{DbId, TableId};
use rand::{Rng, RngExt, rngs::StdRng};

use crate::table::{Column, ColumnType, Handle, Index, PrimaryKey, Row, Table, Value};

/// Rows that a workload touches in each table; few enough that they are written again and again.
const HANDLES: i64 = 200;

/// Longest value of a `LONGBLOB` here; beyond 255 bytes a value lives in the default column family.
const BLOB_BYTES_MAX: usize = 2000;

/// `count` tables of all kinds in one database, with ids from `first_id` on. Gives the first id
/// that is left.
pub fn tables(
    rng: &mut StdRng,
    db: DbId,
    first_id: TableId,
    count: usize,
) -> (Vec<Table>, TableId) {
    let mut next = first_id.0;
    let mut id = || {
        next += 1;
        TableId(next - 1)
    };
    let mut tables = Vec::new();
    for place in 0..count {
        let primary_key = match rng.random_range(0..4) {
            0 => PrimaryKey::CommonHandle,
            1 => PrimaryKey::None,
            _ => PrimaryKey::IntHandle,
        };
        let own_id = id();
        let partitioned = primary_key == PrimaryKey::IntHandle && rng.random_bool(0.3);
        let partitions = if partitioned {
            (0..rng.random_range(2..5)).map(|_| id()).collect()
        } else {
            vec![]
        };
        let columns = columns(rng, primary_key);
        let indexes = indexes(rng, &columns, primary_key);
        tables.push(Table {
            db,
            id: own_id,
            name: format!("t{place}"),
            columns,
            indexes,
            primary_key,
            partitions,
        });
    }
    (tables, TableId(next))
}

fn columns(rng: &mut StdRng, primary_key: PrimaryKey) -> Vec<Column> {
    let key = match primary_key {
        PrimaryKey::CommonHandle => ColumnType::Varchar(64),
        PrimaryKey::IntHandle | PrimaryKey::None => ColumnType::BigInt,
    };
    let mut columns = vec![Column {
        name: "k".into(),
        ty: key,
        not_null: true,
    }];
    for place in 0..rng.random_range(1..8) {
        let ty = match rng.random_range(0..5) {
            0 => ColumnType::BigInt,
            1 => ColumnType::BigUint,
            2 => ColumnType::Blob,
            _ => ColumnType::Varchar(rng.random_range(8..400)),
        };
        columns.push(Column {
            name: format!("c{place}"),
            ty,
            not_null: rng.random_bool(0.3),
        });
    }
    columns
}

/// Indexes over numbers only: those over texts hold more than their key.
fn indexes(rng: &mut StdRng, columns: &[Column], primary_key: PrimaryKey) -> Vec<Index> {
    if primary_key == PrimaryKey::CommonHandle {
        return Vec::new();
    }
    let numbers = columns
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, column)| matches!(column.ty, ColumnType::BigInt | ColumnType::BigUint));
    let places: Vec<_> = numbers.map(|(place, _)| place).collect();
    let mut indexes: Vec<_> = places
        .iter()
        .filter(|_| rng.random_bool(0.7))
        .map(|place| Index {
            name: format!("i{place}"),
            columns: vec![*place],
        })
        .collect();
    if places.len() > 1 && rng.random_bool(0.5) {
        indexes.push(Index {
            name: "wide".into(),
            columns: places,
        });
    }
    indexes
}

/// A row that may or may not exist.
pub fn handle(rng: &mut StdRng, table: &Table) -> Handle {
    let number = rng.random_range(0..HANDLES);
    match table.primary_key {
        PrimaryKey::CommonHandle => Handle::Text(format!("key-{:x}", number * 7919)),
        // Negative handles and far ones, so that keys of all shapes occur.
        _ => Handle::Int(if number % 10 == 0 {
            -number - 1
        } else {
            number * 31
        }),
    }
}

/// Values for a row.
pub fn row(rng: &mut StdRng, table: &Table, handle: &Handle) -> Row {
    let values = table.columns.iter().enumerate().map(|(place, column)| {
        if place == 0 && table.primary_key != PrimaryKey::None {
            return match handle {
                Handle::Int(handle) => Value::Int(*handle),
                Handle::Text(text) => Value::Text(text.clone()),
            };
        }
        if !column.not_null && rng.random_bool(0.15) {
            return Value::Null;
        }
        match column.ty {
            ColumnType::BigInt => Value::Int(rng.random::<i64>() >> rng.random_range(0..63)),
            ColumnType::BigUint => Value::Uint(rng.random::<u64>() >> rng.random_range(0..63)),
            ColumnType::Varchar(length) => {
                let length = rng.random_range(0..=length.min(80));
                Value::Text(
                    (0..length)
                        .map(|_| char::from(rng.random_range(b'a'..=b'z')))
                        .collect(),
                )
            }
            ColumnType::Blob => {
                let mut bytes = vec![0; rng.random_range(0..BLOB_BYTES_MAX)];
                rng.fill_bytes(&mut bytes);
                Value::Bytes(bytes)
            }
        }
    });
    values.collect()
}
