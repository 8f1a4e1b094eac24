//! The bank: accounts, and transfers between them that never change their sum.

use br_types::{DbId, TableId, TimeStamp};
use rand::{RngExt, rngs::StdRng};

use crate::{
    model::RowChange,
    table::{Column, ColumnType, Handle, Index, PrimaryKey, Row, Table, Value},
};

/// What every account has at the beginning.
pub const FIRST_BALANCE: i64 = 1000;

/// Accounts that one of the first transactions fills.
const ACCOUNTS_PER_TXN: usize = 500;

/// The bank's schema and transactions.
pub(crate) struct Bank;

impl Bank {
    /// The place of the table of accounts.
    pub(crate) const ACCOUNTS: usize = 0;
    /// The place of the table of transfers.
    const TRANSFERS: usize = 1;

    pub(crate) fn tables(db: DbId, first_id: TableId) -> (Vec<Table>, TableId) {
        let column = |name: &str, ty, not_null| Column {
            name: name.to_owned(),
            ty,
            not_null,
        };
        let index = |name: &str, columns: &[usize]| Index {
            name: name.to_owned(),
            columns: columns.to_vec(),
        };
        let accounts = Table {
            db,
            id: first_id,
            name: "accounts".to_owned(),
            columns: vec![
                column("id", ColumnType::BigInt, true),
                column("balance", ColumnType::BigInt, true),
                column("note", ColumnType::Varchar(64), false),
            ],
            indexes: vec![index("k_balance", &[1])],
            primary_key: PrimaryKey::IntHandle,
            partitions: Vec::new(),
        };
        let transfers = Table {
            db,
            id: TableId(first_id.0 + 1),
            name: "transfers".to_owned(),
            columns: vec![
                column("id", ColumnType::BigInt, true),
                column("source", ColumnType::BigInt, true),
                column("target", ColumnType::BigInt, true),
                column("amount", ColumnType::BigInt, true),
                column("receipt", ColumnType::Blob, false),
            ],
            indexes: vec![index("k_accounts", &[1, 2])],
            primary_key: PrimaryKey::IntHandle,
            partitions: Vec::new(),
        };
        (vec![accounts, transfers], TableId(first_id.0 + 2))
    }

    /// The accounts, by transaction.
    pub(crate) fn first_rows(accounts: usize) -> Vec<Vec<RowChange>> {
        let ids: Vec<i64> = (0..accounts)
            .map(|id| i64::try_from(id).unwrap_or(i64::MAX))
            .collect();
        ids.chunks(ACCOUNTS_PER_TXN)
            .map(|chunk| chunk.iter().map(|id| account(*id, FIRST_BALANCE)).collect())
            .collect()
    }

    /// Two different accounts.
    pub(crate) fn pick(rng: &mut StdRng, accounts: usize) -> (i64, i64) {
        let count = i64::try_from(accounts.max(2)).unwrap_or(i64::MAX);
        let from = rng.random_range(0..count);
        let to = (from + rng.random_range(1..count)) % count;
        (from, to)
    }

    /// The balance of a row of accounts.
    pub(crate) fn balance(row: &Row) -> Option<i64> {
        match row.get(1) {
            Some(Value::Int(balance)) => Some(*balance),
            _ => None,
        }
    }

    /// Moves something from the first account to the second, as far as it has it.
    pub(crate) fn transfer(
        rng: &mut StdRng,
        start_ts: TimeStamp,
        balances: &[(i64, i64)],
    ) -> Vec<RowChange> {
        let [(from, has), (to, target_has)] = *balances else {
            return Vec::new();
        };
        if has <= 0 {
            return Vec::new();
        }
        let amount = rng.random_range(1..=has.min(100));
        // Short receipts live in the record, long ones in the default column family.
        let mut receipt = vec![0; rng.random_range(0..600)];
        rand::Rng::fill_bytes(rng, &mut receipt);
        let id = i64::try_from(start_ts.0).unwrap_or(i64::MAX);
        let values = [id, from, to, amount].map(Value::Int);
        let row = values.into_iter().chain([Value::Bytes(receipt)]).collect();
        vec![
            account(from, has - amount),
            account(to, target_has + amount),
            RowChange {
                table: Self::TRANSFERS,
                handle: Handle::Int(id),
                row: Some(row),
            },
        ]
    }
}

fn account(id: i64, balance: i64) -> RowChange {
    RowChange {
        table: Bank::ACCOUNTS,
        handle: Handle::Int(id),
        row: Some(vec![
            Value::Int(id),
            Value::Int(balance),
            Value::Text(format!("account {id}")),
        ]),
    }
}
